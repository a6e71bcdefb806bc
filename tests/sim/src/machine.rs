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
    pub(crate) runs: BTreeMap<InstanceId, (Run, u32)>,
    pub(crate) incarnation: u64,
    pub(crate) memory_mib: u32,
}

const BACKEND: &str = "sim";

impl Machine {
    pub(crate) fn new(id: ChildId, memory_mib: u32) -> Self {
        Self { id, engine: None, ledger: None, runs: BTreeMap::new(), incarnation: 0, memory_mib }
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
        engine.handle(now, Input::Host { summary, facts: Vec::new() });
        engine.handle(now, self.listing());
        self.engine = Some(engine);
    }

    fn listing(&self) -> Input {
        let found = self.runs.iter().map(|(id, (run, _))| (*id, observed(Some(run)))).collect();
        let facts =
            BackendFacts { name: BACKEND.into(), serves: vec!["container".into()], trouble: None };
        Input::Backend { facts, found: Some(found) }
    }

    /// Does to the host what an effect says; the result is handed back later. With faults it
    /// may fail, before or after having been done.
    pub(crate) fn perform(
        &mut self,
        effect: Effect,
        random: &mut Random,
        faults: bool,
    ) -> Option<(InstanceId, Outcome)> {
        let instance = match &effect {
            Effect::Prepare { workload, .. } => workload.instance,
            Effect::Start { instance, .. }
            | Effect::Recover { instance, .. }
            | Effect::Stop { instance, .. }
            | Effect::Destroy { instance, .. } => *instance,
            Effect::Persist { .. } | Effect::Send(_) | Effect::Drained => return None,
        };
        let prepares = matches!(effect, Effect::Prepare { .. });
        let failed = |kind, why: &str| Some((instance, Outcome::Failed(kind, why.to_owned())));
        match random.below(100) {
            0..10 if faults => return failed(ErrorKind::Transient, "it did not answer"),
            10..13 if faults && prepares => {
                return failed(ErrorKind::Exhausted, "no space left on the disk");
            }
            13..15 if faults && prepares => {
                return failed(ErrorKind::Unsupported, "this kernel cannot do it");
            }
            15..18 if faults => {
                self.succeed(effect);
                return failed(ErrorKind::Transient, "it did not answer in time");
            }
            _ => {}
        }
        self.succeed(effect).map(|outcome| (instance, outcome))
    }

    fn succeed(&mut self, effect: Effect) -> Option<Outcome> {
        let handle = || HandleBytes { version: 1, state: vec![7] };
        let lost = || Exit { reason: ExitReason::Lost, at_unix_ms: 0 };
        Some(match effect {
            Effect::Prepare { workload, .. } => {
                let memory_mib = workload.spec.resources.memory_mib;
                self.runs.entry(workload.instance).or_insert((Run::Prepared, memory_mib));
                Outcome::Prepared(handle())
            }
            Effect::Start { instance, .. } => match self.runs.get_mut(&instance) {
                Some((run @ (Run::Prepared | Run::Running), _)) => {
                    *run = Run::Running;
                    Outcome::Started(handle())
                }
                Some(_) => Outcome::Failed(ErrorKind::Invalid, "has ended".into()),
                None => Outcome::Failed(ErrorKind::NotFound, "not prepared".into()),
            },
            Effect::Recover { instance, .. } => {
                Outcome::Recovered(observed(self.runs.get(&instance).map(|(run, _)| run)))
            }
            Effect::Stop { instance, .. } => Outcome::Stopped(match self.runs.get_mut(&instance) {
                Some((run @ Run::Running, _)) => {
                    let exit = Exit { reason: ExitReason::Signal(15), at_unix_ms: 0 };
                    *run = Run::Exited(exit.clone());
                    exit
                }
                Some((Run::Exited(exit), _)) => exit.clone(),
                Some((Run::Prepared, _)) | None => lost(),
            }),
            Effect::Destroy { instance, .. } => {
                self.runs.remove(&instance);
                Outcome::Destroyed
            }
            Effect::Persist { .. } | Effect::Send(_) | Effect::Drained => return None,
        })
    }

    /// The workload ends by itself.
    pub(crate) fn exit(&mut self, instance: InstanceId, ended: Run) {
        if let Some((run, _)) = self.runs.get_mut(&instance) {
            *run = ended;
        }
    }

    /// Memory of what runs.
    pub(crate) fn used_mib(&self) -> u32 {
        self.runs.values().filter(|(run, _)| *run == Run::Running).map(|(_, mib)| mib).sum()
    }

    pub(crate) fn running(&self) -> impl Iterator<Item = InstanceId> {
        self.runs.iter().filter(|(_, (run, _))| *run == Run::Running).map(|(id, _)| *id)
    }
}

fn observed(run: Option<&Run>) -> Observed {
    match run {
        None => Observed::Absent,
        Some(Run::Prepared) => Observed::Prepared,
        Some(Run::Running) => Observed::Running { pid: 1, started_unix_ms: 0, paused: false },
        Some(Run::Exited(exit)) => Observed::Exited(exit.clone()),
    }
}
