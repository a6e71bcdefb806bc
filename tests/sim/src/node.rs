//! A simulated machine: an engine and what its shell keeps, a disk, and a backend.

use crate::backend::Backend;
use crate::clock::Clock;
use crate::disk::Ledger;
use crate::network::{Bytes, ConnectionId};
use crate::program::Program;
use marram_engine_core::{Effect, Engine, Identity, Input};
use marram_protocol::id::{ChildId, InstanceId};
use marram_protocol::state::InstanceState;
use marram_protocol::v1::{Resources, Summary};
use std::collections::{BTreeMap, BTreeSet};

#[derive(Debug)]
pub(crate) struct Node {
    pub(crate) id: ChildId,
    pub(crate) name: String,
    pub(crate) memory_mib: u32,
    /// The tier that it connects to, and the one it would rather have.
    pub(crate) parent: usize,
    pub(crate) preferred: usize,
    /// The machine whose disk it was copied from.
    pub(crate) copy_of: Option<usize>,
    /// It has been thrown away.
    pub(crate) scrapped: bool,
    pub(crate) program: Program,
    /// Counts boots of the machine, which the backend's tasks do not survive.
    pub(crate) boots: u64,
    pub(crate) engine: Option<Engine>,
    pub(crate) ledger: Ledger,
    pub(crate) backend: Backend,
    /// A write that waits for the disk; nothing else is done before it.
    pub(crate) stalled: Option<Effect>,
    pub(crate) connection: Option<ConnectionId>,
    /// The engine was told that the link is up.
    pub(crate) linked: bool,
    /// The broker knows nothing of this start yet.
    pub(crate) clean: bool,
    /// Its subscriptions are confirmed.
    pub(crate) subscribed: bool,
    /// What is sent again first.
    pub(crate) doubted: Vec<Bytes>,
    /// It is to say hello again.
    pub(crate) behind: bool,
    pub(crate) rejections: u32,
    pub(crate) ticking: bool,
    /// Since when nothing has kept the engine from doing its work.
    pub(crate) undisturbed_ms: u64,
    /// As the world has noted it.
    pub(crate) known_running: BTreeSet<InstanceId>,
    /// Last state that it told of each, in this life.
    pub(crate) told: BTreeMap<InstanceId, InstanceState>,
}

impl Node {
    pub(crate) fn new(id: ChildId, name: String, parent: usize, clock: Clock) -> Self {
        Self {
            id,
            name,
            memory_mib: 1000,
            parent,
            preferred: parent,
            copy_of: None,
            scrapped: false,
            program: Program::new(clock),
            boots: 0,
            engine: None,
            ledger: Ledger::default(),
            backend: Backend::new(),
            stalled: None,
            connection: None,
            linked: false,
            clean: true,
            subscribed: false,
            doubted: Vec::new(),
            behind: false,
            rejections: 0,
            ticking: false,
            undisturbed_ms: 0,
            known_running: BTreeSet::new(),
            told: BTreeMap::new(),
        }
    }

    /// Starts the engine from its ledger; the backend is as it was left.
    pub(crate) fn start(&mut self, now_ms: u64, boot: bool) {
        self.program.start(now_ms, boot);
        self.undisturbed_ms = now_ms;
        self.told.clear();
        let identity = Identity {
            id: self.id,
            name: self.name.clone(),
            version: "sim".into(),
            incarnation: self.incarnation(),
        };
        let now = self.program.node_now(now_ms);
        let engine = Engine::restore(identity, self.ledger.bytes.as_deref(), now);
        self.engine = Some(engine.expect("a ledger that an engine wrote"));
    }

    /// Drawn at each start, and not the same on a copy.
    pub(crate) fn incarnation(&self) -> u64 {
        self.program.life * 2 + u64::from(self.copy_of.is_some())
    }

    /// The program has ended, the workloads go on.
    pub(crate) fn stop(&mut self) {
        self.program.stop();
        self.engine = None;
        self.stalled = None;
        self.connection = None;
        self.linked = false;
        self.clean = true;
        self.subscribed = false;
        self.doubted.clear();
        self.behind = false;
        self.rejections = 0;
        self.ticking = false;
    }

    pub(crate) fn host(&self) -> Input {
        let capacity = Resources {
            memory_mib: self.memory_mib,
            cpu_millicores: 4000,
            storage_mib: 1000,
            ..Resources::default()
        };
        let summary = Summary {
            nodes: 1,
            capacity,
            largest_free: capacity,
            architectures: vec!["amd64".into()],
            virtualizations: vec!["container".into()],
            ..Summary::default()
        };
        Input::Host { summary, facts: Vec::new() }
    }
}
