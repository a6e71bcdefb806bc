//! A simulated machine: an engine, its ledger, and a backend that outlives the engine.

use crate::Random;
use marram_backend_api::{ErrorKind, Exit, ExitReason, Observed};
use marram_engine_core::{
    BackendFacts, Effect, Engine, HandleBytes, Identity, Input, Now, Outcome,
};
use marram_protocol::id::{ChildId, InstanceId};
use marram_protocol::v1::{Resources, Summary};
use std::collections::BTreeMap;

/// What the backend has of an instance.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Run {
    Prepared,
    Running,
    Exited(Exit),
}

#[derive(Debug)]
pub(crate) struct Machine {
    pub(crate) id: ChildId,
    pub(crate) engine: Option<Engine>,
    pub(crate) ledger: Option<Vec<u8>>,
    pub(crate) runs: BTreeMap<InstanceId, Run>,
    pub(crate) memory_of: BTreeMap<InstanceId, u32>,
    pub(crate) incarnation: u64,
    pub(crate) memory_mib: u32,
}

const BACKEND: &str = "sim";

impl Machine {
    pub(crate) fn new(id: ChildId, memory_mib: u32) -> Self {
        Self {
            id,
            engine: None,
            ledger: None,
            runs: BTreeMap::new(),
            memory_of: BTreeMap::new(),
            incarnation: 0,
            memory_mib,
        }
    }

    /// Starts the engine from its ledger; the backend is as it was left.
    pub(crate) fn boot(&mut self, now: Now) {
        self.incarnation += 1;
        let identity = Identity {
            id: self.id,
            name: format!("node-{}", self.id.0[0]),
            version: "sim".into(),
            incarnation: self.incarnation,
        };
        let mut engine = Engine::restore(identity, self.ledger.as_deref(), now)
            .expect("a ledger that an engine wrote");
        let capacity = Resources {
            memory_mib: self.memory_mib,
            cpu_millicores: 4000,
            gpus: 0,
            storage_mib: 1000,
        };
        let summary = Summary {
            nodes: 1,
            capacity,
            largest_free: capacity,
            architectures: vec!["amd64".into()],
            virtualizations: vec!["container".into()],
            ..Summary::default()
        };
        engine.handle(now, Input::Host { summary, facts: Vec::new() });
        engine.handle(now, self.listing());
        self.engine = Some(engine);
    }

    fn listing(&self) -> Input {
        let observed = |run: &Run| match run {
            Run::Prepared => Observed::Prepared,
            Run::Running => Observed::Running { pid: 1, started_unix_ms: 0, paused: false },
            Run::Exited(exit) => Observed::Exited(exit.clone()),
        };
        let found = self.runs.iter().map(|(id, run)| (*id, observed(run))).collect();
        let facts =
            BackendFacts { name: BACKEND.into(), serves: vec!["container".into()], trouble: None };
        Input::Backend { facts, found: Some(found) }
    }

    /// Does to the host what an effect says; the result is handed back later.
    pub(crate) fn perform(
        &mut self,
        effect: Effect,
        random: &mut Random,
        faults: bool,
    ) -> Option<(InstanceId, Outcome)> {
        let handle = || HandleBytes { version: 1, state: vec![7] };
        let lost = || Exit { reason: ExitReason::Lost, at_unix_ms: 0 };
        match effect {
            Effect::Prepare { workload, .. } => {
                let id = workload.instance;
                if faults && random.chance(10) {
                    let why = "the registry did not answer".to_owned();
                    return Some((id, Outcome::Failed(ErrorKind::Transient, why)));
                }
                self.runs.entry(id).or_insert(Run::Prepared);
                self.memory_of.insert(id, workload.spec.resources.memory_mib);
                Some((id, Outcome::Prepared(handle())))
            }
            Effect::Start { instance, .. } => {
                let outcome = match self.runs.get_mut(&instance) {
                    Some(run @ (Run::Prepared | Run::Running)) => {
                        *run = Run::Running;
                        Outcome::Started(handle())
                    }
                    _ => Outcome::Failed(ErrorKind::NotFound, "not prepared".into()),
                };
                Some((instance, outcome))
            }
            Effect::Recover { instance, .. } => {
                let observed = match self.runs.get(&instance) {
                    None => Observed::Absent,
                    Some(Run::Prepared) => Observed::Prepared,
                    Some(Run::Running) => {
                        Observed::Running { pid: 1, started_unix_ms: 0, paused: false }
                    }
                    Some(Run::Exited(exit)) => Observed::Exited(exit.clone()),
                };
                Some((instance, Outcome::Recovered(observed)))
            }
            Effect::Stop { instance, .. } => {
                let exit = match self.runs.get_mut(&instance) {
                    Some(run @ Run::Running) => {
                        let exit = Exit { reason: ExitReason::Signal(15), at_unix_ms: 0 };
                        *run = Run::Exited(exit.clone());
                        exit
                    }
                    Some(Run::Exited(exit)) => exit.clone(),
                    Some(Run::Prepared) | None => lost(),
                };
                Some((instance, Outcome::Stopped(exit)))
            }
            Effect::Destroy { instance, .. } => {
                self.runs.remove(&instance);
                self.memory_of.remove(&instance);
                Some((instance, Outcome::Destroyed))
            }
            Effect::Persist { .. } | Effect::Send(_) | Effect::Drained => None,
        }
    }

    pub(crate) fn running(&self) -> impl Iterator<Item = InstanceId> {
        self.runs.iter().filter(|(_, run)| **run == Run::Running).map(|(id, _)| *id)
    }
}
