//! Who is subscribed to what: a tree with one level of the topic per level of nodes.
//!
//! Why a tree: a message must find its subscribers among tens of thousands of filters in the time
//! it takes to walk its own levels. Children are sorted vectors, because most nodes have one to
//! three of them and a map's first allocation would cost a kilobyte for each.
//!
//! Invariants: a node without subscription and children is removed; a session has at most one
//! entry per filter and group.

use super::session::Key;
use crate::codec::Qos;

/// How a subscription wants its messages.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Options {
    pub(crate) qos: Qos,
    pub(crate) no_local: bool,
    pub(crate) retain_as_published: bool,
    /// 0 if the client gave none.
    pub(crate) id: u32,
}

/// A subscription that a topic matched.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Match {
    pub(crate) key: Key,
    pub(crate) options: Options,
}

/// The subscriptions of one filter.
#[derive(Debug, Default)]
struct Subscribers {
    direct: Vec<Match>,
    groups: Vec<Group>,
}

/// A shared subscription: each message goes to one member.
#[derive(Debug)]
struct Group {
    name: Box<str>,
    /// Where the search for the next receiver starts.
    turn: usize,
    members: Vec<Match>,
}

#[derive(Debug, Default)]
struct Node {
    children: Vec<(Box<str>, Box<Node>)>,
    /// The level `+`.
    any: Option<Box<Node>>,
    /// Filters that end here.
    here: Option<Box<Subscribers>>,
    /// Filters that end here with `#`.
    below: Option<Box<Subscribers>>,
}

/// All subscriptions.
#[derive(Debug, Default)]
pub(crate) struct Tree {
    root: Node,
    len: usize,
}

/// How fit a member of a group is to get the next message; the fittest in turn gets it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Fitness {
    /// Has no room, or must not get this message.
    None,
    /// Away; it would get the message when it returns.
    Away,
    /// There and able to take it.
    Ready,
}

impl Tree {
    /// Subscriptions in all.
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// Enters a subscription or replaces its options; true if it is new.
    pub(crate) fn insert(&mut self, group: Option<&str>, filter: &str, entry: Match) -> bool {
        let place = self.root.place(filter);
        let list = match group {
            None => &mut place.direct,
            Some(name) => {
                let at = place.groups.iter().position(|g| *g.name == *name);
                let at = at.unwrap_or_else(|| {
                    let members = Vec::with_capacity(1);
                    place.groups.push(Group { name: name.into(), turn: 0, members });
                    place.groups.len() - 1
                });
                &mut place.groups[at].members
            }
        };
        if let Some(old) = list.iter_mut().find(|m| m.key == entry.key) {
            *old = entry;
            return false;
        }
        // Most filters have one subscriber; a vector's usual first step would take four places.
        if list.is_empty() {
            list.reserve_exact(1);
        }
        list.push(entry);
        self.len += 1;
        true
    }

    /// Removes a subscription; false if there was none.
    pub(crate) fn remove(&mut self, group: Option<&str>, filter: &str, key: Key) -> bool {
        let mut levels = filter.split('/');
        let removed = self.root.remove(&mut levels, group, key);
        self.len -= usize::from(removed);
        removed
    }

    /// Finds everybody who is to get a message on this topic. `fitness` judges the members of
    /// groups, of which one each is chosen in turn.
    pub(crate) fn find(
        &mut self,
        topic: &str,
        fitness: &dyn Fn(&Match) -> Fitness,
        found: &mut Vec<Match>,
    ) {
        let mut levels = topic.split('/');
        if topic.starts_with('$') {
            // The standard keeps such topics away from wildcards in the first level.
            let first = levels.next().unwrap_or_default();
            if let Some(node) = self.root.child_mut(first) {
                node.find(levels, fitness, found);
            }
            return;
        }
        self.root.find(levels, fitness, found);
    }
}

impl Node {
    fn is_empty(&self) -> bool {
        self.children.is_empty()
            && self.any.is_none()
            && self.here.is_none()
            && self.below.is_none()
    }

    fn child_mut(&mut self, level: &str) -> Option<&mut Node> {
        let at = self.children.binary_search_by(|(name, _)| (**name).cmp(level)).ok()?;
        self.children.get_mut(at).map(|(_, node)| &mut **node)
    }

    /// The subscribers of a filter, made if need be.
    fn place(&mut self, filter: &str) -> &mut Subscribers {
        let mut node = self;
        for level in filter.split('/') {
            node = match level {
                "#" => return node.below.get_or_insert_default(),
                "+" => node.any.get_or_insert_default(),
                _ => {
                    let at = match node.children.binary_search_by(|(n, _)| (**n).cmp(level)) {
                        Ok(at) => at,
                        Err(at) => {
                            if node.children.is_empty() {
                                node.children.reserve_exact(1);
                            }
                            node.children.insert(at, (level.into(), Box::default()));
                            at
                        }
                    };
                    &mut node.children[at].1
                }
            };
        }
        node.here.get_or_insert_default()
    }

    fn remove(
        &mut self,
        levels: &mut std::str::Split<'_, char>,
        group: Option<&str>,
        key: Key,
    ) -> bool {
        match levels.next() {
            None => Subscribers::remove(&mut self.here, group, key),
            Some("#") => Subscribers::remove(&mut self.below, group, key),
            Some("+") => {
                let Some(node) = &mut self.any else { return false };
                let removed = node.remove(levels, group, key);
                if node.is_empty() {
                    self.any = None;
                }
                removed
            }
            Some(level) => {
                let found = self.children.binary_search_by(|(name, _)| (**name).cmp(level));
                let Ok(at) = found else { return false };
                let node = &mut self.children[at].1;
                let removed = node.remove(levels, group, key);
                if node.is_empty() {
                    self.children.remove(at);
                }
                removed
            }
        }
    }

    /// The recursion is as deep as the topic has levels, which is bounded.
    fn find(
        &mut self,
        mut levels: std::str::Split<'_, char>,
        fitness: &dyn Fn(&Match) -> Fitness,
        found: &mut Vec<Match>,
    ) {
        if let Some(subscribers) = &mut self.below {
            subscribers.find(fitness, found);
        }
        let Some(level) = levels.next() else {
            if let Some(subscribers) = &mut self.here {
                subscribers.find(fitness, found);
            }
            return;
        };
        if let Some(node) = &mut self.any {
            node.find(levels.clone(), fitness, found);
        }
        if let Some(node) = self.child_mut(level) {
            node.find(levels, fitness, found);
        }
    }
}

impl Subscribers {
    fn remove(place: &mut Option<Box<Self>>, group: Option<&str>, key: Key) -> bool {
        let Some(subscribers) = place else { return false };
        let removed = match group {
            None => take(&mut subscribers.direct, key),
            Some(name) => {
                let groups = &mut subscribers.groups;
                let Some(at) = groups.iter().position(|g| *g.name == *name) else { return false };
                let removed = take(&mut groups[at].members, key);
                if groups[at].members.is_empty() {
                    groups.remove(at);
                }
                removed
            }
        };
        if subscribers.direct.is_empty() && subscribers.groups.is_empty() {
            *place = None;
        }
        removed
    }

    fn find(&mut self, fitness: &dyn Fn(&Match) -> Fitness, found: &mut Vec<Match>) {
        found.extend_from_slice(&self.direct);
        for group in &mut self.groups {
            found.extend(group.choose(fitness));
        }
    }
}

impl Group {
    /// The fittest member, the first one from `turn` on among equals. If none has room the one
    /// whose turn it is still gets the message and drops it, so that the drop is counted.
    fn choose(&mut self, fitness: &dyn Fn(&Match) -> Fitness) -> Option<Match> {
        let count = self.members.len();
        let mut best: Option<(Fitness, usize)> = None;
        for step in 0..count {
            let at = (self.turn + step) % count;
            let fit = fitness(&self.members[at]);
            if best.is_none_or(|(found, _)| fit > found) {
                best = Some((fit, at));
            }
            if fit == Fitness::Ready {
                break;
            }
        }
        let (_, at) = best?;
        self.turn = (at + 1) % count;
        self.members.get(at).copied()
    }
}

fn take(list: &mut Vec<Match>, key: Key) -> bool {
    let at = list.iter().position(|m| m.key == key);
    at.map(|at| list.remove(at)).is_some()
}
