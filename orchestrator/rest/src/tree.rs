//! The clusters below a tier, as a tree with names and paths.
//!
//! Why apart from the core: the core keeps a card of each cluster; how people name them, and
//! what they see of them, is decided here.

use crate::lines;
use marram_orchestrator_core::{Child, Now, Tier};
use marram_protocol::id::ChildId;
use marram_protocol::v1::{ChildKind, ClusterCard, DEPTH_MAX};
use serde_json::{Value, json};
use std::collections::BTreeMap;

/// A cluster in the tree.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Branch {
    /// What is known of it all over the tree.
    pub card: ClusterCard,
    /// Names from below the tier that is asked down to the cluster's own.
    pub path: Vec<String>,
    /// The child of the tier that is asked on the way there, or the cluster itself.
    pub via: ChildId,
}

impl Branch {
    /// `berlin/mitte`.
    pub fn path(&self) -> String {
        self.path.join("/")
    }
}

/// All clusters below a tier.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tree {
    /// The tier.
    pub own: ChildId,
    /// Its name.
    pub name: String,
    /// In the order of their paths.
    pub branches: Vec<Branch>,
}

impl Tree {
    /// As the tier knows it now.
    pub fn of(tier: &Tier) -> Self {
        let identity = tier.identity();
        let cards: BTreeMap<ChildId, ClusterCard> =
            tier.cards().into_iter().map(|card| (card.id, card)).collect();
        Self::new(identity.id, identity.name.clone(), cards)
    }

    fn new(own: ChildId, name: String, cards: BTreeMap<ChildId, ClusterCard>) -> Self {
        let branch = |card: &ClusterCard| {
            let (path, via) = path(&cards, own, card);
            Branch { card: card.clone(), path, via }
        };
        let mut branches: Vec<Branch> = cards.values().map(branch).collect();
        branches.sort_by(|one, other| one.path.cmp(&other.path));
        Self { own, name, branches }
    }

    /// A cluster by its id.
    pub fn get(&self, id: ChildId) -> Option<&Branch> {
        self.branches.iter().find(|branch| branch.card.id == id)
    }

    /// The clusters that a text names: by id, by path, or by a name that may be of several.
    pub fn named(&self, text: &str) -> Vec<&Branch> {
        let by = |fits: &dyn Fn(&Branch) -> bool| -> Vec<&Branch> {
            self.branches.iter().filter(|branch| fits(branch)).collect()
        };
        if let Ok(id) = text.parse::<ChildId>() {
            return by(&|branch| branch.card.id == id);
        }
        // A path from here counts before the same name further below.
        let found = by(&|branch| branch.path() == text);
        if !found.is_empty() {
            return found;
        }
        let end: Vec<&str> = text.split('/').collect();
        by(&|branch| {
            branch.path.len() >= end.len()
                && branch.path[branch.path.len() - end.len()..].iter().eq(end.iter())
        })
    }

    /// The name of the tier or of a cluster below it; the id of what is not known.
    pub fn name_of(&self, id: ChildId) -> String {
        match self.get(id) {
            _ if id == self.own => self.name.clone(),
            Some(branch) => branch.card.name.clone(),
            None => id.to_string(),
        }
    }
}

/// Names from below `own` to a card, and the topmost; what is above a gap is left out.
fn path(
    cards: &BTreeMap<ChildId, ClusterCard>,
    own: ChildId,
    card: &ClusterCard,
) -> (Vec<String>, ChildId) {
    let mut names = vec![card.name.clone()];
    let (mut via, mut above) = (card.id, card.parent);
    while above != own
        && names.len() < DEPTH_MAX
        && let Some(card) = cards.get(&above)
    {
        names.push(card.name.clone());
        (via, above) = (card.id, card.parent);
    }
    names.reverse();
    (names, via)
}

/// A cluster as clients see it: of children of the tier that is asked, all that they told.
pub fn cluster(tier: &Tier, tree: &Tree, branch: &Branch, now: Now) -> Value {
    let card = &branch.card;
    let mut object = match tier.children().get(&card.id) {
        Some(child) => own_cluster(child, now),
        None => json!({}),
    };
    let common = json!({
        "cluster_id": card.id,
        "name": card.name,
        "path": branch.path(),
        "parent": {"id": card.parent, "name": tree.name_of(card.parent)},
        "depth": branch.path.len(),
        "location": card.location,
        "connected": card.connected,
        "cordoned": card.cordoned,
        "labels": card.labels,
        "own_nodes": card.nodes,
    });
    if let (Value::Object(object), Value::Object(common)) = (&mut object, common) {
        object.extend(common);
        object.entry("nodes").or_insert(card.nodes.into());
    }
    object
}

fn own_cluster(child: &Child, now: Now) -> Value {
    let connected = child.is_connected();
    let summary = child.summary().cloned().unwrap_or_default();
    let telemetry = child.telemetry();
    json!({
        "version": child.version(),
        "address": child.fact("address").unwrap_or_default(),
        "draining": child.is_draining(),
        "nodes": summary.nodes,
        "instances": child.instances(),
        "capacity": lines::resources(summary.capacity),
        "reserved": lines::resources(child.reserved()),
        "largest_free": lines::resources(summary.largest_free),
        "architectures": summary.architectures,
        "virtualizations": summary.virtualizations,
        "addons": summary.addons,
        "gpu_models": summary.gpu_models,
        "seen_unix_ms": if connected { now.unix_ms } else { child.seen_unix_ms() },
        "cpu_permille": telemetry.map(|telemetry| telemetry.cpu_permille),
        "memory_used_mib": telemetry.map(|telemetry| telemetry.memory_used_mib),
    })
}

/// The nodes that are children of the tier itself.
pub fn own_nodes(tier: &Tier) -> Vec<Value> {
    let nodes = tier.children().values().filter(|child| child.kind() == ChildKind::Node);
    nodes.map(lines::child).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn card(id: u8, parent: u8, name: &str) -> ClusterCard {
        ClusterCard {
            id: ChildId([id; 12]),
            parent: ChildId([parent; 12]),
            name: name.into(),
            labels: vec![],
            location: String::new(),
            address: String::new(),
            node_address: String::new(),
            nodes: 1,
            connected: true,
            cordoned: false,
        }
    }

    fn tree(cards: &[ClusterCard]) -> Tree {
        let cards = cards.iter().map(|card| (card.id, card.clone())).collect();
        Tree::new(ChildId([9; 12]), "root".into(), cards)
    }

    #[test]
    fn clusters_have_paths_and_are_found_by_their_ends() {
        let tree = tree(&[
            card(1, 9, "berlin"),
            card(2, 1, "mitte"),
            card(3, 9, "hamburg"),
            card(4, 3, "mitte"),
            card(5, 4, "deep"),
        ]);
        let paths: Vec<String> = tree.branches.iter().map(Branch::path).collect();
        assert_eq!(
            paths,
            ["berlin", "berlin/mitte", "hamburg", "hamburg/mitte", "hamburg/mitte/deep"]
        );
        let named = |text: &str| -> Vec<u8> {
            tree.named(text).iter().map(|branch| branch.card.id.0[0]).collect()
        };
        assert_eq!(tree.branches[4].via, ChildId([3; 12]));
        assert_eq!(named("berlin"), [1]);
        assert_eq!(named("mitte"), [2, 4]);
        assert_eq!(named("hamburg/mitte"), [4]);
        assert_eq!(named("mitte/deep"), [5]);
        assert_eq!(named("050505050505050505050505"), [5]);
        assert!(named("erlin").is_empty() && named("").is_empty() && named("/").is_empty());
        assert_eq!(tree.name_of(ChildId([9; 12])), "root");
    }

    #[test]
    fn a_name_at_the_top_counts_before_the_same_one_below() {
        let tree = tree(&[card(1, 9, "a"), card(2, 9, "b"), card(3, 2, "a")]);
        assert_eq!(tree.named("a").len(), 1);
        assert_eq!(tree.named("b/a")[0].card.id, ChildId([3; 12]));
    }

    #[test]
    fn cards_in_a_circle_have_an_end() {
        let tree = tree(&[card(1, 2, "a"), card(2, 1, "b"), card(3, 7, "gap")]);
        assert!(tree.branches.iter().all(|branch| branch.path.len() <= DEPTH_MAX));
        assert_eq!(tree.get(ChildId([3; 12])).unwrap().path(), "gap");
    }
}
