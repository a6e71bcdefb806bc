//! Who is above this tier and beside it, and what its children are told of that.
//!
//! ```text
//!   parent's Kin ─► path, tree, rooted, alternates ─► persisted (all but rooted)
//!                                  │
//!            own name behind ──────┴──► each child's Kin, again whenever it changes
//! ```
//!
//! Why apart: nothing here decides about instances; it decides who may be whose parent.
//!
//! Invariants:
//! - a child is never told of a path with its own id in it without being able to see that: the
//!   path is told as it is, and who finds itself in it leaves ([`Effect::LeaveParent`]);
//! - a tier is rooted only while the parent of the present connection has said so, so that a
//!   break anywhere above is known below before anybody new is taken there;
//! - a tier without a way to the root takes no guests: two tiers that have both lost the root
//!   would become each other's parents otherwise;
//! - once a tree is known it is never forgotten, only replaced by another parent's.

use crate::child::{Child, WORD_BYTES_MAX, clip};
use crate::instance::Instance;
use crate::records::Key;
use crate::tier::Tier;
use crate::{Effect, Identity, Now};
use marram_protocol::assurance::Assurance;
use marram_protocol::desired::Desired;
use marram_protocol::id::ChildId;
use marram_protocol::v1::{
    ALTERNATES_MAX, Alternate, Ancestor, CLUSTERS_MAX, ChildKind, DEPTH_MAX, Down, Hello, Kin,
    SUMMARY_LIST_MAX, Summary, Up,
};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::Arc;

/// Bytes of an address: a URL with a host name of the longest kind.
const ADDRESS_BYTES_MAX: usize = 300;

/// Of the alternates told to a child, so many are kept for tiers above: siblings share what
/// breaks a parent more often than the tiers above do.
const ALTERNATES_ABOVE: usize = 2;

/// What is known of the tiers above.
#[derive(Debug, Default)]
pub(crate) struct Above {
    /// The last that a parent has told, of this connection or an earlier one.
    pub(crate) kin: Kin,
    /// Whether what is held is what the root desires, once the parent has told that its own
    /// way up is whole.
    pub(crate) assurance: Assurance,
    /// The parent that this tier would rather have than the present one.
    pub(crate) preferred: Option<ChildId>,
}

/// What a cluster says of its place, kept over restarts: its siblings are told where to find
/// it while it is away too.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub(crate) struct Site {
    pub(crate) labels: Vec<String>,
    pub(crate) location: String,
    pub(crate) address: String,
    pub(crate) node_address: String,
}

impl Site {
    /// Of a cluster's greeting; a node has none.
    pub(crate) fn of(hello: &Hello) -> Self {
        match hello.kind {
            ChildKind::Node => Self::default(),
            ChildKind::Cluster => Self {
                labels: bounded_labels(hello.labels.clone()),
                location: clip(&hello.summary.location),
                address: bounded_address(hello.address.clone()),
                node_address: bounded_address(hello.node_address.clone()),
            },
        }
    }
}

impl Tier {
    /// The tree that this tier is part of; 0 if no parent has ever told.
    pub fn tree(&self) -> u64 {
        if self.is_root() { self.epoch } else { self.above.kin.tree }
    }

    /// The way up to the root is whole now, and what was decided there while it was not is
    /// known: who below may only run with the root's word relies on it.
    pub fn is_rooted(&self) -> bool {
        self.is_root() || (self.reporting.is_up() && self.above.assurance.is_sure())
    }

    /// All tiers above as they were last told, the root first; none at the root.
    pub fn path(&self) -> &[Ancestor] {
        &self.above.kin.path
    }

    pub(crate) fn is_root(&self) -> bool {
        self.desired.is_none()
    }

    /// The connection to the parent is new, or gone: what it said of the way up counts no more.
    pub(crate) fn doubt_kin(&mut self, preferred: Option<ChildId>) {
        self.above.assurance.lose();
        self.above.preferred = preferred;
        self.notes.kin_stale = true;
    }

    /// The parent tells of the tree above and around.
    pub(crate) fn hear_kin(&mut self, kin: Kin, now: Now) {
        if self.is_root() {
            return;
        }
        if let Some(reason) = unfit_path(&self.identity, &kin.path) {
            self.notes.sends.push(Effect::LeaveParent { reason });
            return;
        }
        let mut kin = bounded_kin(kin);
        if kin.tree == 0 {
            kin.tree = self.above.kin.tree;
        }
        let rooted = kin.rooted;
        let known = std::mem::replace(&mut self.above.kin, kin);
        if known.tree != self.above.kin.tree && self.is_established() {
            self.welcome_all();
        }
        if (Kin { rooted, ..known }) != self.above.kin {
            self.notes.dirty.insert(Key::Kin);
        }
        self.notes.kin_stale = true;
        let depends = |i: &Instance| i.workload.spec.patience.parent_s.is_some();
        let matters = self.instances.values().any(depends);
        if self.above.assurance.hear(rooted, matters, now.mono_ms) {
            self.ask_for_all();
        }
    }

    /// The list that the parent sends now is newer than all that it decided before.
    fn ask_for_all(&mut self) {
        let held = self.desired.as_ref().map(Desired::generation).unwrap_or_default();
        self.notes.sends.push(Effect::ToParent(Up::Resync(held)));
    }

    /// Asks again for what did not come.
    pub(crate) fn ask_again(&mut self, now: Now) {
        if self.above.assurance.ask_again(now.mono_ms) {
            self.ask_for_all();
        }
    }

    /// Why a child cannot be taken at all, by its place in the tree.
    pub(crate) fn unfit_child(&self, id: ChildId, hello: &Hello) -> Option<String> {
        let known = self.children.contains_key(&id);
        if hello.kind == ChildKind::Cluster {
            let above = self.path().iter().any(|ancestor| ancestor.id == id);
            if id == self.identity.id || above {
                return Some(format!("{} is above this tier: it would be a loop", hello.name));
            }
            // This tier and the child are two more.
            let depth = self.path().len() + 2;
            if depth > DEPTH_MAX {
                return Some(format!("a tree has at most {DEPTH_MAX} tiers, it would be {depth}"));
            }
            if !known && self.clusters().count() >= CLUSTERS_MAX {
                return Some(format!("{CLUSTERS_MAX} clusters are the most that a tree has"));
            }
        }
        let is_guest = hello.preferred.is_some_and(|preferred| preferred != self.identity.id);
        if is_guest && !known && !self.is_rooted() {
            return Some("there is no way to the root from here: no guests are taken".into());
        }
        None
    }

    /// Children that are clusters.
    pub(crate) fn clusters(&self) -> impl Iterator<Item = &Child> {
        self.children.values().filter(|child| child.kind == ChildKind::Cluster)
    }

    /// Tells a child of the tree above it, if that is other than what it was told.
    pub(crate) fn tell_kin(&mut self, id: ChildId) {
        let told = match self.children.get(&id) {
            Some(child) if child.kind == ChildKind::Cluster => Arc::new(self.kin_of_cluster(id)),
            _ => self.kin_of_nodes(),
        };
        self.tell_one(id, told);
    }

    /// Tells all children, if anything of it is other than before.
    pub(crate) fn retell_kin(&mut self) {
        if !std::mem::take(&mut self.notes.kin_stale) {
            return;
        }
        let greeted = |child: &&Child| child.link.as_ref().is_some_and(|link| link.kin.is_some());
        let greeted: Vec<(ChildId, ChildKind)> =
            self.children.values().filter(greeted).map(|child| (child.id, child.kind)).collect();
        let of_nodes = self.kin_of_nodes();
        for (id, kind) in greeted {
            match kind {
                ChildKind::Node => self.tell_one(id, Arc::clone(&of_nodes)),
                ChildKind::Cluster => self.tell_kin(id),
            }
        }
    }

    fn tell_one(&mut self, id: ChildId, kin: Arc<Kin>) {
        let Some(child) = self.children.get_mut(&id) else { return };
        let Some(link) = &mut child.link else { return };
        if link.kin.as_ref() != Some(&kin) {
            link.kin = Some(Arc::clone(&kin));
            self.notes.sends.push(Effect::ToChild(id, Down::Kin(Kin::clone(&kin))));
        }
    }

    /// What all children are told: the tree and the way up, this tier included.
    fn kin_below(&self) -> Kin {
        let Identity { id, name, labels, address, node_address, .. } = &self.identity;
        let own = Ancestor {
            id: *id,
            name: clip(name),
            labels: bounded_labels(labels.clone()),
            address: address.clone(),
            node_address: node_address.clone(),
        };
        let mut path = self.path().to_vec();
        path.push(own);
        Kin { tree: self.tree(), rooted: self.is_rooted(), path, ..Kin::default() }
    }

    /// Nodes turn to siblings of this tier, then to tiers above it.
    fn kin_of_nodes(&self) -> Arc<Kin> {
        let mut kin = self.kin_below();
        let above = self.path().iter().rev();
        let above = above.filter(|tier| !tier.node_address.is_empty());
        let above = above.map(|tier| alternate(tier.id, &tier.name, &tier.node_address));
        kin.alternates = join(self.above.kin.node_alternates.clone(), above.collect());
        Arc::new(kin)
    }

    /// A cluster turns to its siblings, then to tiers above this one.
    fn kin_of_cluster(&self, id: ChildId) -> Kin {
        let mut kin = self.kin_below();
        let above = self.path().iter().rev().filter(|tier| !tier.address.is_empty());
        let above = above.map(|tier| alternate(tier.id, &tier.name, &tier.address));
        kin.alternates = join(siblings(&self.children, id, |site| &site.address), above.collect());
        kin.node_alternates = siblings(&self.children, id, |site| &site.node_address);
        kin
    }
}

/// Siblings of a cluster that have such an address, those behind its own id first: so not all
/// children of a lost parent turn to the same one.
fn siblings(
    children: &BTreeMap<ChildId, Child>,
    id: ChildId,
    address: impl Fn(&Site) -> &String,
) -> Vec<Alternate> {
    let behind = children.range((Bound::Excluded(id), Bound::Unbounded));
    let others = behind.chain(children.range(..id)).map(|(_, child)| child);
    let takes = others.filter(|child| !address(&child.site).is_empty());
    let named = takes.map(|child| alternate(child.id, &child.name, address(&child.site)));
    named.take(ALTERNATES_MAX).collect()
}

fn alternate(id: ChildId, name: &str, address: &str) -> Alternate {
    Alternate { id, name: name.to_owned(), address: address.to_owned() }
}

/// Siblings first, but some room is kept for tiers above.
fn join(mut beside: Vec<Alternate>, above: Vec<Alternate>) -> Vec<Alternate> {
    beside.truncate(ALTERNATES_MAX - above.len().min(ALTERNATES_ABOVE));
    beside.extend(above);
    beside.truncate(ALTERNATES_MAX);
    beside
}

/// Why a tier cannot stay below this path.
fn unfit_path(own: &Identity, path: &[Ancestor]) -> Option<String> {
    if path.iter().any(|ancestor| ancestor.id == own.id) {
        return Some("this tier is above its own parent: that is a loop".into());
    }
    let depth = path.len() + 1;
    (depth > DEPTH_MAX)
        .then(|| format!("a tree has at most {DEPTH_MAX} tiers, this one is number {depth}"))
}

/// A kin whose size does not depend on who sent it.
fn bounded_kin(mut kin: Kin) -> Kin {
    for ancestor in &mut kin.path {
        ancestor.name = clip(&ancestor.name);
        ancestor.labels = bounded_labels(std::mem::take(&mut ancestor.labels));
        ancestor.address = bounded_address(std::mem::take(&mut ancestor.address));
        ancestor.node_address = bounded_address(std::mem::take(&mut ancestor.node_address));
    }
    for alternates in [&mut kin.alternates, &mut kin.node_alternates] {
        alternates.retain(|alternate| (1..=ADDRESS_BYTES_MAX).contains(&alternate.address.len()));
        alternates.truncate(ALTERNATES_MAX);
        alternates.iter_mut().for_each(|alternate| alternate.name = clip(&alternate.name));
    }
    kin
}

pub(crate) fn bounded_labels(labels: Vec<String>) -> Vec<String> {
    let labels = labels.into_iter().filter(|label| label.len() <= WORD_BYTES_MAX);
    labels.take(SUMMARY_LIST_MAX).collect()
}

/// One that is longer than addresses are is none.
pub(crate) fn bounded_address(address: String) -> String {
    if address.len() > ADDRESS_BYTES_MAX { String::new() } else { address }
}

/// Where a cluster is: what it says now, or said when it last came.
pub(crate) fn location<'a>(summary: Option<&'a Summary>, site: &'a Site) -> &'a str {
    summary.map_or(&site.location, |summary| &summary.location)
}
