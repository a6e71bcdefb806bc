//! A node without a machine: the production engine, and a backend that does at once whatever
//! it is asked for.
//!
//! Why: what is measured with it is the price of deciding and of telling, and thousands fit
//! one process.

use marram_backend_api::{Exit, ExitReason, Observed};
use marram_engine_core::{
    BackendFacts, Effect, Engine, HandleBytes, Identity, Input, Now, Outcome,
};
use marram_protocol::id::{ChildId, InstanceId};
use marram_protocol::v1::{Resources, Summary, Up};
use std::collections::BTreeSet;

const BACKEND: &str = "puppet";

/// A node as it says of itself.
#[derive(Debug, Clone)]
pub(crate) struct Puppet {
    engine: Engine,
    /// What the last write to its disk holds.
    ledger: Option<Vec<u8>>,
    written: u64,
    runs: BTreeSet<InstanceId>,
    id: ChildId,
    name: String,
    incarnation: u64,
}

impl Puppet {
    /// A new board of this number, that has seen what it has.
    pub(crate) fn new(number: u32, now: Now) -> anyhow::Result<Self> {
        let (id, name) = (id(number), format!("board-{number}"));
        let identity = identity(id, &name, 1);
        let engine = Engine::restore(identity, None, now)?;
        let mut puppet = Self {
            engine,
            ledger: None,
            written: 0,
            runs: BTreeSet::new(),
            id,
            name,
            incarnation: 1,
        };
        puppet.look(now);
        Ok(puppet)
    }

    pub(crate) fn id(&self) -> ChildId {
        self.id
    }

    /// The program starts anew from its ledger.
    fn restart(&mut self, now: Now) -> anyhow::Result<()> {
        self.incarnation += 1;
        let identity = identity(self.id, &self.name, self.incarnation);
        self.engine = Engine::restore(identity, self.ledger.as_deref(), now)?;
        self.look(now);
        Ok(())
    }

    /// The machine starts anew: nothing runs on it any more.
    pub(crate) fn reboot(&mut self, now: Now) -> anyhow::Result<()> {
        self.runs.clear();
        self.restart(now)
    }

    /// Bytes written to its disk since this was asked last.
    pub(crate) fn take_written(&mut self) -> u64 {
        std::mem::take(&mut self.written)
    }

    /// What runs here.
    pub(crate) fn runs(&self) -> impl Iterator<Item = InstanceId> {
        self.runs.iter().copied()
    }

    /// Tells the engine what this machine is and has.
    fn look(&mut self, now: Now) {
        let facts = facts().map(|(key, value)| (key.to_owned(), value.to_owned())).to_vec();
        let host = Input::Host { summary: summary(), facts };
        let serves = ["container", "native", "runc"].map(str::to_owned).to_vec();
        let running = Observed::Running { pid: 1, started_unix_ms: 0, paused: false };
        let found = self.runs.iter().map(|id| (*id, running.clone())).collect();
        let facts = BackendFacts { name: BACKEND.to_owned(), serves, trouble: None };
        for input in [host, Input::Backend { facts, found: Some(found) }] {
            // Without a link there is nobody to tell.
            drop(self.handle(now, input));
        }
    }

    /// Takes an input and does all that follows from it; what is left is for the cluster.
    pub(crate) fn handle(&mut self, now: Now, input: Input) -> Vec<Up> {
        self.engine.handle(now, input);
        self.perform(now)
    }

    /// Does what is due by now.
    pub(crate) fn wake(&mut self, now: Now) -> Vec<Up> {
        self.engine.handle_timeout(now);
        self.perform(now)
    }

    /// When [`Puppet::wake`] has something to do.
    pub(crate) fn due_ms(&self) -> Option<u64> {
        self.engine.poll_timeout()
    }

    fn perform(&mut self, now: Now) -> Vec<Up> {
        let mut said = Vec::new();
        while let Some(effect) = self.engine.poll_effect() {
            let (id, outcome) = match effect {
                Effect::Send(message) => {
                    said.push(message);
                    continue;
                }
                Effect::Persist { bytes, .. } => {
                    self.written += u64::try_from(bytes.len()).unwrap_or(0);
                    self.ledger = Some(bytes);
                    continue;
                }
                Effect::Drained => continue,
                effect => self.succeed(effect, now),
            };
            self.engine.handle(now, Input::Done(id, outcome));
        }
        said
    }

    fn succeed(&mut self, effect: Effect, now: Now) -> (InstanceId, Outcome) {
        let handle = || HandleBytes { version: 1, state: vec![7; 16] };
        let exit = || Exit { reason: ExitReason::Signal(15), at_unix_ms: now.unix_ms };
        match effect {
            Effect::Prepare { workload, .. } => (workload.instance, Outcome::Prepared(handle())),
            Effect::Start { instance, .. } => {
                self.runs.insert(instance);
                (instance, Outcome::Started(handle()))
            }
            Effect::Recover { instance, .. } => {
                let observed = match self.runs.contains(&instance) {
                    true => Observed::Running { pid: 1, started_unix_ms: 0, paused: false },
                    false => Observed::Absent,
                };
                (instance, Outcome::Recovered(observed))
            }
            Effect::Stop { instance, .. } => {
                self.runs.remove(&instance);
                (instance, Outcome::Stopped(exit()))
            }
            Effect::Destroy { instance, .. } => (instance, Outcome::Destroyed),
            Effect::Persist { .. } | Effect::Send(_) | Effect::Drained => {
                unreachable!("handled before")
            }
        }
    }
}

fn identity(id: ChildId, name: &str, incarnation: u64) -> Identity {
    let version = env!("CARGO_PKG_VERSION").to_owned();
    Identity { id, name: name.to_owned(), version, incarnation }
}

fn id(number: u32) -> ChildId {
    let mut bytes = [9; 12];
    bytes[..4].copy_from_slice(&number.to_be_bytes());
    ChildId(bytes)
}

/// What a small board has.
fn summary() -> Summary {
    let capacity = Resources {
        memory_mib: 3800,
        cpu_millicores: 4000,
        storage_mib: 29_000,
        bandwidth_in_kbps: 1_000_000,
        bandwidth_out_kbps: 1_000_000,
        ..Resources::default()
    };
    Summary {
        nodes: 1,
        capacity,
        largest_free: capacity,
        architectures: vec!["arm64".to_owned()],
        virtualizations: ["container", "native", "runc"].map(str::to_owned).to_vec(),
        location: "48.2620,11.6680".to_owned(),
        labels: vec!["site=garching".to_owned()],
        ..Summary::default()
    }
}

/// What `marram-node` tells of such a board.
fn facts() -> [(&'static str, &'static str); 14] {
    [
        ("hostname", "board"),
        ("architecture", "arm64"),
        ("kernel", "6.6.31+rpt-rpi-v8"),
        ("os", "Debian GNU/Linux 12 (bookworm)"),
        ("board", "Raspberry Pi 4 Model B Rev 1.4"),
        ("cpu", "Cortex-A72"),
        ("cpus", "4"),
        ("memory_mib", "3800"),
        ("disk_mib", "29000"),
        ("cgroups", "v2"),
        ("kvm", "accessible"),
        ("address", "127.0.0.1"),
        ("backend_native", "0.1.0, healthy"),
        ("backend_containerd", "1.6.20, healthy"),
    ]
}
