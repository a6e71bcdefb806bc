//! A simulated orchestrator: a core and what its shell keeps, a disk, and a broker.

use crate::broker::Broker;
use crate::clock::Clock;
use crate::disk::Store;
use crate::network::ConnectionId;
use crate::program::Program;
use marram_orchestrator_core::{Identity, Tier};
use marram_protocol::id::{ChildId, InstanceId};
use marram_protocol::state::InstanceState;
use std::collections::BTreeMap;

/// Sites that tiers are spread over, by their labels.
pub(crate) const SITES: usize = 3;

#[derive(Debug)]
pub(crate) struct Orchestrator {
    pub(crate) id: ChildId,
    pub(crate) name: String,
    /// The tier that it connects to, and the one it would rather have. The root has none.
    pub(crate) parent: Option<usize>,
    pub(crate) preferred: Option<usize>,
    /// Where it takes children, in worlds in which they may take another parent.
    pub(crate) address: String,
    /// Its place in the world's list.
    pub(crate) number: usize,
    /// Clusters on the way from the root, itself included; 0 is the root.
    pub(crate) depth: u32,
    pub(crate) program: Program,
    pub(crate) core: Option<Tier>,
    pub(crate) store: Store,
    pub(crate) broker: Broker,
    pub(crate) connection: Option<ConnectionId>,
    /// Present connections of children that are clusters.
    pub(crate) outlets: BTreeMap<ChildId, ConnectionId>,
    /// When a node was asked to say hello, for those that have not yet.
    pub(crate) asked: BTreeMap<ChildId, u64>,
    /// Steps since its books were looked at.
    pub(crate) unchecked: usize,
    /// Last state that watchers saw of each.
    pub(crate) told: BTreeMap<InstanceId, InstanceState>,
}

impl Orchestrator {
    pub(crate) fn new(id: ChildId, name: String, parent: Option<usize>, clock: Clock) -> Self {
        Self {
            id,
            name,
            parent,
            preferred: parent,
            address: String::new(),
            number: 0,
            depth: 0,
            program: Program::new(clock),
            core: None,
            store: Store::default(),
            broker: Broker::new(false, 0),
            connection: None,
            outlets: BTreeMap::new(),
            asked: BTreeMap::new(),
            unchecked: 0,
            told: BTreeMap::new(),
        }
    }

    pub(crate) fn is_root(&self) -> bool {
        self.parent.is_none()
    }

    /// Starts it from its disk.
    pub(crate) fn start(&mut self, now_ms: u64, boot: bool) {
        self.program.start(now_ms, boot);
        self.told.clear();
        let identity = Identity {
            id: self.id,
            name: self.name.clone(),
            location: String::new(),
            version: "sim".into(),
            incarnation: self.program.life,
            labels: vec![format!("site=s{}", self.number % SITES)],
            address: self.address.clone(),
            node_address: self.address.clone(),
        };
        let epoch = (self.number as u64 + 1) * 1000 + 1;
        let now = self.program.tier_now(now_ms);
        let core = Tier::restore(identity, self.is_root(), epoch, self.store.records(), now);
        self.core = Some(core.expect("records that a tier wrote"));
    }

    pub(crate) fn stop(&mut self) {
        self.program.stop();
        self.core = None;
        self.connection = None;
        self.outlets.clear();
        self.asked.clear();
    }
}
