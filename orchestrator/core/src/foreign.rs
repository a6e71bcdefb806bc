//! Children of another tree: refused, listed, and taken only by an operator's word.
//!
//! Why apart: a root that has lost its disk looks to its children like a root that wants
//! nothing. It must not stop the world, and neither must one that was given the wrong address.
//!
//! Invariants: a child that belongs to another tree is told no desired state; the list is
//! bounded; an operator's word is kept over restarts until the child is part of this tree.

use crate::child::clip;
use crate::records::Key;
use crate::tier::Tier;
use crate::{Effect, Now};
use marram_protocol::id::ChildId;
use marram_protocol::v1::{ChildKind, Down, Generation, Hello};

/// Children of other trees that are remembered, and words of operators that wait for theirs:
/// all sites of a country that come back to a root without memory are adopted in turns.
pub const FOREIGN_MAX: usize = 1_024;

/// A child of another tree that wants to be one here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Foreign {
    /// Its id.
    pub id: ChildId,
    /// What it is.
    pub kind: ChildKind,
    /// As it calls itself.
    pub name: String,
    /// The tree that it is of.
    pub tree: u64,
    /// When it last asked.
    pub seen_unix_ms: u64,
    /// It is taken when it asks again.
    pub released: bool,
}

/// What a child is to this tier, by its greeting.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Standing {
    /// It follows this tier, or holds nothing that anybody would miss.
    Own,
    /// It follows this tier, and has not heard all that was decided since.
    Behind,
    /// It follows another parent of the same tree.
    Adopted,
    /// It follows another tree.
    Foreign,
    /// This tier does not know yet which tree it is of itself.
    Unsure,
}

impl Tier {
    pub(crate) fn standing(&self, id: ChildId, tree: u64, held: Generation) -> Standing {
        let follows_nobody = held.epoch == 0 || tree == 0;
        if held.epoch == self.epoch {
            let told = self.children.get(&id).map_or(0, |child| child.number);
            return if held.number < told { Standing::Behind } else { Standing::Own };
        }
        if follows_nobody || self.released.contains(&id) {
            return Standing::Own;
        }
        match self.tree() {
            0 => Standing::Unsure,
            own if own == tree => Standing::Adopted,
            _ => Standing::Foreign,
        }
    }

    /// A child of another tree is not taken.
    pub(crate) fn turn_away(&mut self, foreign: Foreign, now: Now) {
        let Foreign { id, tree, ref name, .. } = foreign;
        let reason = format!(
            "it belongs to another tree ({tree:016x}): what it runs goes on; `marram adopt {name}` \
             makes it part of this one and stops what is not desired here"
        );
        if self.foreign.len() >= FOREIGN_MAX && !self.foreign.contains_key(&id) {
            let oldest = self.foreign.values().min_by_key(|f| f.seen_unix_ms).map(|f| f.id);
            oldest.into_iter().for_each(|oldest| drop(self.foreign.remove(&oldest)));
        }
        self.foreign.insert(id, foreign);
        self.reject(id, reason, now);
    }

    /// Why a child that greets is not taken: it would be listed before it is a child.
    pub(crate) fn is_turned_away(&mut self, id: ChildId, hello: &Hello, now: Now) -> bool {
        let standing = self.standing(id, hello.tree, hello.generation);
        let foreign = standing == Standing::Foreign && self.is_established();
        if foreign {
            let (kind, name, tree) = (hello.kind, clip(&hello.name), hello.tree);
            self.turn_away(Foreign { id, kind, name, tree, ..Foreign::seen(now) }, now);
        }
        foreign
    }

    /// Children of other trees that want to be children here.
    pub fn foreign(&self) -> impl Iterator<Item = Foreign> {
        let released = |id: ChildId| self.released.contains(&id);
        self.foreign.values().map(move |f| Foreign { released: released(f.id), ..f.clone() })
    }

    /// An operator wants a child of another tree: it is taken when it asks again. Those beyond
    /// [`FOREIGN_MAX`] have to wait until some have come.
    pub(crate) fn adopt(&mut self, id: ChildId) {
        if self.released.len() < FOREIGN_MAX && self.released.insert(id) {
            self.notes.dirty.insert(Key::Tier);
        }
    }

    /// The child is part of this tree: no word of an operator is needed any more.
    pub(crate) fn note_own(&mut self, id: ChildId, tree: u64, held: Generation) {
        let is_own = held.epoch == self.epoch || tree == self.tree();
        if is_own && self.released.remove(&id) {
            self.notes.dirty.insert(Key::Tier);
        }
        self.foreign.remove(&id);
    }

    /// Answers greetings of children that follow somebody else. What one of this tree is to run
    /// it hears when its claims are settled.
    pub(crate) fn greet_others(&mut self, now: Now) {
        for (id, held) in self.notes.welcomes.clone() {
            let Some(child) = self.children.get(&id) else { continue };
            let Some(link) = &child.link else { continue };
            let (tree, greeted) = (link.tree, link.kin.is_some());
            match self.standing(id, tree, held) {
                Standing::Own => {
                    self.note_own(id, tree, held);
                    continue;
                }
                Standing::Adopted | Standing::Behind => {
                    if !greeted {
                        let welcome = Down::Welcome { epoch: self.epoch, unix_ms: now.unix_ms };
                        self.notes.sends.push(Effect::ToChild(id, welcome));
                        self.tell_kin(id);
                    }
                    self.note_own(id, tree, held);
                    self.begin_adoption(id);
                }
                Standing::Foreign => {
                    let (kind, name) = (child.kind, child.name.clone());
                    self.turn_away(Foreign { id, kind, name, tree, ..Foreign::seen(now) }, now);
                }
                Standing::Unsure => {}
            }
            self.notes.welcomes.remove(&id);
        }
    }
}

impl Foreign {
    /// One of which nothing is known but that it is there.
    fn seen(now: Now) -> Self {
        Self {
            id: ChildId::default(),
            kind: ChildKind::Node,
            name: String::new(),
            tree: 0,
            seen_unix_ms: now.unix_ms,
            released: false,
        }
    }
}
