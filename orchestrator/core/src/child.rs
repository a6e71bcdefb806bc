//! What a tier knows of one child.

use marram_protocol::id::{ChildId, InstanceId};
use marram_protocol::port::Transport;
use marram_protocol::v1::{ChildKind, Hello, Resources, Summary, Telemetry};
use std::collections::{BTreeMap, BTreeSet};

/// Facts kept of a child, and bytes of each: a page for people.
const FACTS_MAX: usize = 32;
const FACT_BYTES_MAX: usize = 256;

/// A child, connected or not.
#[derive(Debug, Clone, PartialEq)]
pub struct Child {
    pub(crate) id: ChildId,
    pub(crate) name: String,
    pub(crate) kind: ChildKind,
    /// Counts changes of its desired state, within the tier's epoch.
    pub(crate) number: u64,
    pub(crate) link: Option<Link>,
    /// When it was last connected, by the wall clock.
    pub(crate) seen_unix_ms: u64,
    pub(crate) reserved: Resources,
    /// All instances placed there, over or not.
    pub(crate) placed: BTreeSet<InstanceId>,
    /// Host ports held there.
    pub(crate) ports: BTreeSet<(Transport, u16)>,
    /// Alive there and not placed there by this tier: known from an earlier life.
    pub(crate) strays: BTreeSet<InstanceId>,
}

/// What is known of a child while it is connected.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Link {
    pub(crate) incarnation: u64,
    pub(crate) version: String,
    pub(crate) summary: Summary,
    pub(crate) facts: BTreeMap<String, String>,
    pub(crate) telemetry: Option<Telemetry>,
    /// Instances named by the snapshot that is coming in.
    pub(crate) snapshot: BTreeSet<InstanceId>,
    /// It was welcomed, and hears of changes as they are made.
    pub(crate) welcomed: bool,
    /// The whole of what runs there is known.
    pub(crate) complete: bool,
}

impl Link {
    pub(crate) fn new(hello: Hello) -> Self {
        let facts = hello
            .facts
            .into_iter()
            .filter(|(key, value)| key.len() <= FACT_BYTES_MAX && value.len() <= FACT_BYTES_MAX)
            .take(FACTS_MAX)
            .collect();
        Self {
            incarnation: hello.incarnation,
            version: hello.version,
            summary: hello.summary,
            facts,
            telemetry: None,
            snapshot: BTreeSet::new(),
            welcomed: false,
            complete: false,
        }
    }
}

impl Child {
    pub(crate) fn new(id: ChildId, name: String, kind: ChildKind) -> Self {
        Self {
            id,
            name,
            kind,
            number: 0,
            link: None,
            seen_unix_ms: 0,
            reserved: Resources::default(),
            placed: BTreeSet::new(),
            ports: BTreeSet::new(),
            strays: BTreeSet::new(),
        }
    }

    /// What is free in all, and at most in one place.
    pub(crate) fn free(&self) -> (Resources, Resources) {
        let Some(link) = &self.link else { return Default::default() };
        let free = link.summary.capacity.minus(self.reserved);
        match self.kind {
            ChildKind::Node => (free, free),
            // What was placed since the summary came is in `free` only, so a full cluster
            // may be asked once in vain; it refuses, and the next one is tried.
            ChildKind::Cluster => (free, link.summary.largest_free),
        }
    }

    /// Its id.
    pub fn id(&self) -> ChildId {
        self.id
    }

    /// Its name, unique among its siblings.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// What it is.
    pub fn kind(&self) -> ChildKind {
        self.kind
    }

    /// Connected now.
    pub fn is_connected(&self) -> bool {
        self.link.is_some()
    }

    /// When it was last heard of while connected; 0 if never in this life of the tier.
    pub fn seen_unix_ms(&self) -> u64 {
        self.seen_unix_ms
    }

    /// What it can do; `None` while it is not connected.
    pub fn summary(&self) -> Option<&Summary> {
        self.link.as_ref().map(|link| &link.summary)
    }

    /// What it uses, once it has told.
    pub fn telemetry(&self) -> Option<&Telemetry> {
        self.link.as_ref().and_then(|link| link.telemetry.as_ref())
    }

    /// Version of its program.
    pub fn version(&self) -> &str {
        self.link.as_ref().map_or("", |link| &link.version)
    }

    /// What it tells of itself.
    pub fn facts(&self) -> impl Iterator<Item = (&str, &str)> {
        let facts = self.link.iter().flat_map(|link| &link.facts);
        facts.map(|(key, value)| (key.as_str(), value.as_str()))
    }

    /// One of its facts.
    pub fn fact(&self, key: &str) -> Option<&str> {
        self.link.as_ref()?.facts.get(key).map(String::as_str)
    }

    /// Held there for what is placed there.
    pub fn reserved(&self) -> Resources {
        self.reserved
    }

    /// Number of instances placed there.
    pub fn instances(&self) -> usize {
        self.placed.len()
    }
}
