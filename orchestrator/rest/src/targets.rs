//! From what an operator writes to the tiers and nodes that are meant.
//!
//! ```text
//! cluster   ID | path from here (berlin/mitte) | a path's end, if it fits only one (mitte)
//! node      ID | cluster/node | name, if it fits only one in the whole tree
//! selector  over the names and labels of all clusters, or of all nodes
//! ```
//!
//! Invariants: a text that fits nothing, or more than one, is refused before anything is done;
//! each thing that is meant is there once, however many texts mean it.

use crate::front::Order;
use crate::refusal::Refusal;
use crate::tree::{Branch, Tree};
use marram_protocol::id::ChildId;
use marram_protocol::selector::Selector;
use marram_protocol::v1::{ClusterCard, Verb};
use serde_json::Value;

/// Texts in one request: an operator's line, or a script's.
pub const TARGETS_MAX: usize = 256;

/// How many are named when a text fits several.
const NAMED_MAX: usize = 8;

/// What an operator wants.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wish {
    /// What is to be done.
    pub verb: Verb,
    /// With these.
    pub targets: Vec<String>,
    /// And with all that this chooses.
    pub selector: Option<Selector>,
    /// The selector chooses nodes, not clusters.
    pub nodes: bool,
}

/// What is meant, and who has to do it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    /// `cluster` or `node`; `root` for the top of the tree itself.
    pub kind: &'static str,
    /// Its id, if it is known here.
    pub id: Option<ChildId>,
    /// Its path.
    pub path: String,
    /// What is to be sent.
    pub order: Order,
}

/// A node of the tree.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Node {
    /// Its id.
    pub id: ChildId,
    /// Its name.
    pub name: String,
    /// Its labels.
    pub labels: Vec<String>,
    /// Its cluster.
    pub cluster: ChildId,
    /// The cluster's path; empty for the tier that is asked.
    pub path: String,
}

impl Node {
    /// A node as the list of nodes shows it; `None` for what is none.
    pub fn read(value: &Value) -> Option<Self> {
        let labels = value["labels"].as_array().into_iter().flatten();
        Some(Self {
            id: value["node_id"].as_str()?.parse().ok()?,
            name: value["name"].as_str()?.to_owned(),
            labels: labels.filter_map(Value::as_str).map(str::to_owned).collect(),
            cluster: value["cluster"]["id"].as_str()?.parse().ok()?,
            path: value["cluster"]["path"].as_str().unwrap_or_default().to_owned(),
        })
    }

    fn path(&self) -> String {
        match self.path.as_str() {
            "" => self.name.clone(),
            path => format!("{path}/{}", self.name),
        }
    }
}

impl Wish {
    /// Whether nodes have to be asked for first: what clusters and own children settle does not
    /// need them.
    pub fn needs_nodes(&self, tree: &Tree) -> bool {
        let settled = |text: &String| is_own(tree, text) || !tree.named(text).is_empty();
        (self.nodes && self.selector.is_some()) || !self.targets.iter().all(settled)
    }

    /// All that is meant, each once, in the order it was asked for.
    ///
    /// # Errors
    /// A text fits nothing, or more than one.
    pub fn resolve(&self, tree: &Tree, nodes: &[Node]) -> Result<Vec<Target>, Refusal> {
        let mut found: Vec<Target> = Vec::new();
        for text in &self.targets {
            found.push(self.one(text, tree, nodes)?);
        }
        if let Some(selector) = &self.selector {
            match self.nodes {
                false => {
                    let chosen = |card: &ClusterCard| selector.matches(&card.name, &card.labels);
                    let chosen = tree.branches.iter().filter(|branch| chosen(&branch.card));
                    found.extend(chosen.map(|branch| self.cluster(branch)));
                }
                true => {
                    let chosen = nodes.iter().filter(|n| selector.matches(&n.name, &n.labels));
                    found.extend(chosen.map(|node| self.node(node)));
                }
            }
        }
        if self.verb == Verb::Rebalance && self.targets.is_empty() && self.selector.is_none() {
            found.push(self.whole(tree));
            let connected = tree.branches.iter().filter(|branch| branch.card.connected);
            found.extend(connected.map(|branch| self.cluster(branch)));
        }
        let mut once: Vec<Target> = Vec::with_capacity(found.len());
        for target in found {
            if !once.iter().any(|other| other.order == target.order) {
                once.push(target);
            }
        }
        Ok(once)
    }

    fn one(&self, text: &str, tree: &Tree, nodes: &[Node]) -> Result<Target, Refusal> {
        if is_own(tree, text) {
            return Ok(self.whole(tree));
        }
        let clusters = tree.named(text);
        let id = text.parse::<ChildId>().ok();
        let fits = |node: &&Node| id == Some(node.id) || node.path() == text || node.name == text;
        let nodes: Vec<&Node> = nodes.iter().filter(fits).collect();
        match (&clusters[..], &nodes[..]) {
            ([one], []) => Ok(self.cluster(one)),
            ([], [one]) => Ok(self.node(one)),
            ([], []) => Err(Refusal::not_found("cluster or node", text)),
            _ => {
                let paths = clusters.iter().map(|branch| branch.path());
                let mut paths: Vec<String> = paths.chain(nodes.iter().map(|n| n.path())).collect();
                let more = paths.len().saturating_sub(NAMED_MAX);
                paths.truncate(NAMED_MAX);
                if more > 0 {
                    paths.push(format!("{more} more"));
                }
                let text: String = text.chars().take(64).collect();
                Err(Refusal::Conflict(format!("{text:?} fits several: {}", paths.join(", "))))
            }
        }
    }

    /// What becomes of a cluster is decided by its parent, also while it is away; what happens
    /// inside is done by itself.
    fn cluster(&self, branch: &Branch) -> Target {
        let card = &branch.card;
        let (cluster, child) = match self.verb {
            Verb::Rebalance => (card.id, None),
            Verb::Cordon | Verb::Uncordon | Verb::Drain | Verb::Forget => {
                (card.parent, Some(card.id.to_string()))
            }
        };
        let order = Order { cluster, child, verb: self.verb };
        Target { kind: "cluster", id: Some(card.id), path: branch.path(), order }
    }

    fn node(&self, node: &Node) -> Target {
        let child = Some(node.id.to_string());
        let order = Order { cluster: node.cluster, child, verb: self.verb };
        Target { kind: "node", id: Some(node.id), path: node.path(), order }
    }

    /// The tier that is asked.
    fn whole(&self, tree: &Tree) -> Target {
        let order = Order { cluster: tree.own, child: None, verb: self.verb };
        Target { kind: "cluster", id: Some(tree.own), path: tree.name.clone(), order }
    }
}

/// Whether a text means the tier that is asked; a cluster below of the same name is meant
/// rather.
fn is_own(tree: &Tree, text: &str) -> bool {
    text.parse() == Ok(tree.own) || (text == tree.name && tree.named(text).is_empty())
}

#[cfg(test)]
mod tests;
