//! The words of the stories, and the words for what the engine does.
//!
//! Instances are numbers; the cluster's side (its desired state and generation) is kept here
//! so that a story only names what changes.

mod show;

use marram_backend_api::{ErrorKind, Exit, ExitReason, Observed};
use marram_engine_core::{
    BackendFacts, Effect, Engine, HandleBytes, Identity, Input, Now, Outcome,
};
use marram_protocol::id::{ChildId, InstanceId, ServiceId};
use marram_protocol::port::{PortMapping, Transport};
use marram_protocol::v1::{
    Down, Generation, Kin, ManifestEntry, Resources, RestartPolicy, ServiceSpec, Summary,
    Telemetry, Workload, WorkloadUsage,
};
use std::collections::BTreeMap;

const EPOCH: u64 = 7;

/// A story as far as it has been told.
#[derive(Default)]
pub(crate) struct Script {
    engine: Option<Engine>,
    mono_ms: u64,
    ledger: Option<Vec<u8>>,
    flying: Vec<Effect>,
    number: u64,
    desired: BTreeMap<u32, Workload>,
}

impl Script {
    /// Does what a line says; the effects in words.
    pub(crate) fn run(&mut self, line: &str) -> Vec<String> {
        let (word, rest) = line.split_once(' ').unwrap_or((line, ""));
        let words: Vec<&str> = rest.split_whitespace().collect();
        let input = match word {
            "start" => {
                self.restore();
                return self.drain();
            }
            "wait" => return self.wait(rest.parse().unwrap()),
            "ok" => return self.all_ok(),
            "missed" => {
                self.edit(&words);
                return Vec::new();
            }
            "host" => host(&words),
            "backend" => backend(&words),
            "up" => Input::LinkUp { preferred: None },
            "down" => Input::LinkDown,
            "drain" => Input::Drain,
            "welcome" => Input::Parent(Down::Welcome { epoch: EPOCH, unix_ms: 0 }),
            "kin" => {
                let rooted = words[0] == "rooted";
                Input::Parent(Down::Kin(Kin { tree: 9, rooted, ..Kin::default() }))
            }
            "change" => Input::Parent(self.change(&words)),
            "manifest" => Input::Parent(self.manifest()),
            "specs" => Input::Parent(self.specs(&words)),
            "exit" => Input::Exited(instance(words[0]), exit(words[1])),
            "progress" => {
                let mib = |word: &str| word.parse::<u64>().unwrap() << 20;
                Input::Progress(instance(words[0]), mib(words[1]), mib(words[2]))
            }
            "telemetry" => Input::Telemetry(telemetry(&words)),
            "done" => {
                let id = instance(words[0]);
                self.flying.retain(|effect| instance_of(effect) != Some(id));
                Input::Done(id, outcome(&words[1..]))
            }
            other => panic!("no such word: {other}"),
        };
        self.give(input);
        self.drain()
    }

    fn now(&self) -> Now {
        Now { mono_ms: self.mono_ms, unix_ms: 1_800_000_000_000 + self.mono_ms }
    }

    fn engine(&mut self) -> &mut Engine {
        self.engine.as_mut().expect("the story begins with start")
    }

    fn give(&mut self, input: Input) {
        let now = self.now();
        self.engine().handle(now, input);
    }

    fn restore(&mut self) {
        let identity = Identity {
            id: ChildId([1; 12]),
            name: "board".into(),
            version: "0".into(),
            incarnation: 1,
        };
        self.flying.clear();
        self.engine = Some(Engine::restore(identity, self.ledger.as_deref(), self.now()).unwrap());
    }

    /// Takes all effects; those that want an answer are kept until it comes.
    fn drain(&mut self) -> Vec<String> {
        let mut lines = Vec::new();
        while let Some(effect) = self.engine().poll_effect() {
            lines.push(show::effect(&effect));
            match effect {
                Effect::Persist { bytes, .. } => self.ledger = Some(bytes),
                Effect::Send(_) | Effect::Drained => {}
                effect => self.flying.push(effect),
            }
        }
        lines
    }

    /// Lets time pass, and says when something was due.
    fn wait(&mut self, ms: u64) -> Vec<String> {
        let end_ms = self.mono_ms + ms;
        let mut lines = Vec::new();
        while let Some(due_ms) = self.engine().poll_timeout().filter(|due| *due <= end_ms) {
            let waited_ms = due_ms.saturating_sub(self.mono_ms);
            self.mono_ms = self.mono_ms.max(due_ms);
            let now = self.now();
            self.engine().handle_timeout(now);
            lines.push(format!("after {waited_ms} ms"));
            lines.extend(self.drain());
            assert!(
                self.engine().poll_timeout() > Some(due_ms)
                    || self.engine().poll_timeout().is_none()
            );
        }
        self.mono_ms = end_ms;
        lines
    }

    /// Answers everything that is in flight, and what follows from it, as a good backend.
    fn all_ok(&mut self) -> Vec<String> {
        let mut lines = Vec::new();
        while !self.flying.is_empty() {
            let effect = self.flying.remove(0);
            let handle = HandleBytes { version: 1, state: vec![1] };
            let outcome = match &effect {
                Effect::Prepare { .. } => Outcome::Prepared(handle),
                Effect::Start { .. } => Outcome::Started(HandleBytes { state: vec![2], ..handle }),
                Effect::Recover { .. } => Outcome::Recovered(observed("running")),
                Effect::Stop { .. } => Outcome::Stopped(exit("signal15")),
                _ => Outcome::Destroyed,
            };
            let id = instance_of(&effect).unwrap();
            lines.push(format!("ok {}", show::effect(&effect)));
            self.give(Input::Done(id, outcome));
            lines.extend(self.drain());
        }
        lines
    }

    /// Changes the cluster's desired state by words such as `+1 memory=50 +2 -3`.
    fn edit(&mut self, words: &[&str]) -> (Vec<u32>, Vec<u32>) {
        let (mut upserts, mut removes) = (Vec::new(), Vec::new());
        let mut at = 0;
        while at < words.len() {
            let end = words[at + 1..].iter().position(|w| w.starts_with(['+', '-']));
            let end = end.map_or(words.len(), |more| at + 1 + more);
            match words[at].split_at(1) {
                ("+", number) => {
                    let number = number.parse().unwrap();
                    self.desired.insert(number, workload(number, &words[at + 1..end]));
                    upserts.push(number);
                }
                ("-", number) => {
                    let number = number.parse().unwrap();
                    self.desired.remove(&number);
                    removes.push(number);
                }
                other => panic!("+N or -N, got {other:?}"),
            }
            at = end;
        }
        self.number += 1;
        (upserts, removes)
    }

    fn generation(&self) -> Generation {
        Generation { epoch: EPOCH, number: self.number }
    }

    fn change(&mut self, words: &[&str]) -> Down {
        let base = match self.number {
            0 => Generation::default(),
            _ => self.generation(),
        };
        let (upserts, removes) = self.edit(words);
        let upserts = upserts.iter().map(|number| self.desired[number].clone()).collect();
        let removes = removes.into_iter().map(|number| instance(&number.to_string())).collect();
        Down::Change { base, generation: self.generation(), upserts, removes }
    }

    fn manifest(&self) -> Down {
        let entry = |w: &Workload| ManifestEntry { instance: w.instance, digest: w.digest() };
        let entries = self.desired.values().map(entry).collect();
        Down::Manifest { generation: self.generation(), entries }
    }

    fn specs(&self, words: &[&str]) -> Down {
        let numbers = words.iter().map(|word| word.parse::<u32>().unwrap());
        let workloads = numbers.map(|number| self.desired[&number].clone()).collect();
        Down::Specs { generation: self.generation(), workloads }
    }
}

fn instance(number: &str) -> InstanceId {
    InstanceId { service: ServiceId([9; 12]), number: number.parse().unwrap() }
}

fn instance_of(effect: &Effect) -> Option<InstanceId> {
    match effect {
        Effect::Prepare { workload, .. } => Some(workload.instance),
        Effect::Start { instance, .. }
        | Effect::Recover { instance, .. }
        | Effect::Stop { instance, .. }
        | Effect::Destroy { instance, .. } => Some(*instance),
        Effect::Persist { .. } | Effect::Send(_) | Effect::Drained => None,
    }
}

fn workload(number: u32, words: &[&str]) -> Workload {
    let mut spec = ServiceSpec {
        virtualization: "container".into(),
        resources: Resources { memory_mib: 100, ..Resources::default() },
        stop_grace_s: 10,
        ..ServiceSpec::default()
    };
    let mut revision = 1;
    for word in words {
        match word.split_once('=').unwrap_or((word, "")) {
            ("revision", value) => revision = value.parse().unwrap(),
            ("memory", value) => spec.resources.memory_mib = value.parse().unwrap(),
            ("parent", value) => spec.patience.parent_s = Some(value.parse().unwrap()),
            ("port", value) => {
                let host = value.parse().unwrap();
                spec.ports = vec![PortMapping { host, workload: 80, transport: Transport::Tcp }];
            }
            ("architecture", value) => spec.architectures = vec![value.into()],
            ("runtime", value) => spec.runtime = Some(value.into()),
            ("one-shot", _) => spec.one_shot = true,
            ("never", _) => spec.restart = RestartPolicy::Never,
            other => panic!("no such property: {other:?}"),
        }
    }
    let name = format!("app.ns.service{number}.ns");
    Workload { instance: instance(&number.to_string()), revision, name, spec }
}

fn host(words: &[&str]) -> Input {
    let mut capacity = Resources {
        memory_mib: 1000,
        cpu_millicores: 4000,
        storage_mib: 9000,
        ..Resources::default()
    };
    for word in words {
        capacity.memory_mib = word.strip_prefix("memory=").unwrap().parse().unwrap();
    }
    let summary = Summary {
        nodes: 1,
        capacity,
        architectures: vec!["amd64".into()],
        virtualizations: vec!["container".into()],
        ..Summary::default()
    };
    Input::Host { summary, facts: Vec::new() }
}

/// `NAME [broken] [found [1:running 2:code0 ...]]`
fn backend(words: &[&str]) -> Input {
    let broken = words.contains(&"broken");
    let serves = match broken {
        true => Vec::new(),
        false => vec!["container".into()],
    };
    let trouble = broken.then(|| "does not answer".to_owned());
    let found = words.iter().position(|word| *word == "found").map(|at| {
        let pair = |word: &&str| {
            let (id, state) = word.split_once(':').unwrap();
            (instance(id), observed(state))
        };
        words[at + 1..].iter().map(pair).collect()
    });
    Input::Backend { facts: BackendFacts { name: words[0].into(), serves, trouble }, found }
}

fn telemetry(words: &[&str]) -> Telemetry {
    let mut sample = Telemetry::default();
    for word in words {
        let (name, value) = word.split_once('=').unwrap();
        match name {
            "cpu" => sample.cpu_permille = value.parse().unwrap(),
            id => sample.workloads.push(WorkloadUsage {
                instance: instance(id),
                cpu_permille: 0,
                memory_mib: value.parse().unwrap(),
            }),
        }
    }
    sample
}

fn exit(word: &str) -> Exit {
    let number = |prefix| word.strip_prefix(prefix).and_then(|n: &str| n.parse().ok());
    let reason = match (number("code"), number("signal"), word) {
        (Some(code), _, _) => ExitReason::Code(code),
        (_, Some(signal), _) => ExitReason::Signal(signal),
        (_, _, "memory") => ExitReason::OutOfMemory,
        (_, _, "lost") => ExitReason::Lost,
        _ => panic!("no such end: {word}"),
    };
    Exit { reason, at_unix_ms: 0 }
}

fn observed(word: &str) -> Observed {
    match word {
        "running" => Observed::Running { pid: 1, started_unix_ms: 0, paused: false },
        "prepared" => Observed::Prepared,
        "absent" => Observed::Absent,
        "unknown" => Observed::Unknown("nobody knows".into()),
        end => Observed::Exited(exit(end)),
    }
}

fn outcome(words: &[&str]) -> Outcome {
    let handle = |byte| HandleBytes { version: 1, state: vec![byte] };
    match words[0] {
        "prepared" => Outcome::Prepared(handle(1)),
        "started" => Outcome::Started(handle(2)),
        "destroyed" => Outcome::Destroyed,
        "stopped" => Outcome::Stopped(exit(words[1])),
        "recovered" => Outcome::Recovered(observed(words[1])),
        "failed" => {
            let kind = match words[1] {
                "invalid" => ErrorKind::Invalid,
                "unsupported" => ErrorKind::Unsupported,
                "not-found" => ErrorKind::NotFound,
                "transient" => ErrorKind::Transient,
                "exhausted" => ErrorKind::Exhausted,
                other => panic!("no such kind: {other}"),
            };
            Outcome::Failed(kind, words[2..].join(" "))
        }
        other => panic!("no such outcome: {other}"),
    }
}
