//! Rules of the engine that the stories in `tests/traces` do not show: how much, how often.

use super::*;
use crate::{FAILURES_MAX, HandleBytes, Outcome};
use marram_backend_api::{ErrorKind, Exit, ExitReason};
use marram_protocol::id::{ChildId, ServiceId};
use marram_protocol::v1::{Resources, ServiceSpec, Workload};

const BACKEND: &str = "containerd";

struct Node {
    engine: Engine,
    mono_ms: u64,
    number: u64,
}

impl Node {
    fn new() -> Self {
        let identity = Identity {
            id: ChildId([1; 12]),
            name: "n".into(),
            version: "0".into(),
            incarnation: 1,
        };
        let engine = Engine::restore(identity, None, Now::default()).unwrap();
        let mut node = Self { engine, mono_ms: 0, number: 0 };
        let capacity = Resources { memory_mib: 100_000, ..Resources::default() };
        let summary = Summary { nodes: 1, capacity, ..Summary::default() };
        node.give(Input::Host { summary, facts: Vec::new() });
        node.give(listed(Vec::new()));
        node.give(Input::LinkUp { preferred: None });
        node.give(Input::Parent(Down::Welcome { epoch: 7, unix_ms: 0 }));
        node
    }

    fn now(&self) -> Now {
        Now { mono_ms: self.mono_ms, unix_ms: self.mono_ms }
    }

    fn give(&mut self, input: Input) -> Vec<Effect> {
        let now = self.now();
        self.engine.handle(now, input);
        std::iter::from_fn(|| self.engine.poll_effect()).collect()
    }

    fn want(&mut self, workloads: Vec<Workload>) -> Vec<Effect> {
        let base = match self.number {
            0 => Generation::default(),
            number => Generation { epoch: 7, number },
        };
        self.number += 1;
        let generation = Generation { epoch: 7, number: self.number };
        let removes = Vec::new();
        self.give(Input::Parent(Down::Change { base, generation, upserts: workloads, removes }))
    }

    fn done(&mut self, outcome: Outcome) -> Vec<Effect> {
        self.give(Input::Done(instance(0), outcome))
    }

    /// Time passes until something is due; how long that took.
    fn wait(&mut self) -> u64 {
        let due_ms = self.engine.poll_timeout().expect("something is due");
        let waited_ms = due_ms - self.mono_ms;
        self.mono_ms = due_ms;
        let now = self.now();
        self.engine.handle_timeout(now);
        while self.engine.poll_effect().is_some() {}
        waited_ms
    }

    fn start(&mut self) {
        self.done(Outcome::Prepared(handle()));
        self.done(Outcome::Started(handle()));
        assert_eq!(self.state(), InstanceState::Running);
    }

    fn exit(&mut self, reason: ExitReason) {
        self.give(Input::Exited(instance(0), Exit { reason, at_unix_ms: 0 }));
    }

    fn state(&self) -> InstanceState {
        self.engine.slot(instance(0)).unwrap().status.state
    }
}

fn listed(found: Vec<(InstanceId, Observed)>) -> Input {
    let serves = vec!["container".into()];
    let facts = BackendFacts { name: BACKEND.into(), serves, trouble: None };
    Input::Backend { facts, found: Some(found) }
}

fn instance(number: u32) -> InstanceId {
    InstanceId { service: ServiceId([9; 12]), number }
}

fn handle() -> HandleBytes {
    HandleBytes { version: 1, state: Vec::new() }
}

fn workload(number: u32) -> Workload {
    let spec = ServiceSpec { virtualization: "container".into(), ..ServiceSpec::default() };
    Workload { instance: instance(number), revision: 1, name: "a.b.c.d".into(), spec }
}

fn failed() -> Outcome {
    Outcome::Failed(ErrorKind::Transient, "the registry does not answer".into())
}

#[test]
fn an_outage_of_a_registry_is_not_counted_against_the_workload() {
    let mut node = Node::new();
    node.want(vec![workload(0)]);
    node.start();
    node.exit(ExitReason::Code(1));
    for _ in 0..2 * FAILURES_MAX {
        node.wait();
        node.done(Outcome::Destroyed);
        node.done(failed());
    }
    node.wait();
    node.done(Outcome::Destroyed);
    node.start();
    node.exit(ExitReason::Code(1));
    assert_eq!(node.state(), InstanceState::Failed, "two short runs are no reason to give up");
    assert_eq!(node.wait(), 1_000);
}

#[test]
fn one_that_is_lost_at_once_every_time_does_not_spin() {
    let mut node = Node::new();
    node.want(vec![workload(0)]);
    let mut waits = Vec::new();
    for _ in 0..5 {
        node.start();
        node.exit(ExitReason::Lost);
        if node.engine.poll_timeout().is_some() {
            waits.push(node.wait());
        }
        node.done(Outcome::Destroyed);
    }
    assert_eq!(waits, [500, 1_000, 2_000, 4_000], "the first time at once");
}

#[test]
fn a_long_run_clears_the_record_though_the_backend_was_listed_in_between() {
    let mut node = Node::new();
    node.want(vec![workload(0)]);
    for _ in 0..3 * FAILURES_MAX {
        node.start();
        for _ in 0..3 {
            node.mono_ms += 30_000;
            let running = Observed::Running { pid: 1, started_unix_ms: 0, paused: false };
            node.give(listed(vec![(instance(0), running.clone())]));
            node.done(Outcome::Recovered(running));
        }
        node.exit(ExitReason::Code(1));
        assert_eq!(node.state(), InstanceState::Failed);
        assert_eq!(node.wait(), 500);
        node.done(Outcome::Destroyed);
    }
}

#[test]
fn a_node_takes_so_many_and_says_so() {
    let mut node = Node::new();
    let most = u32::try_from(marram_protocol::NODE_INSTANCES_MAX).unwrap();
    let effects = node.want((0..=most).map(workload).collect());
    let prepares = effects.iter().filter(|effect| matches!(effect, Effect::Prepare { .. }));
    assert_eq!(prepares.count(), marram_protocol::NODE_INSTANCES_MAX);
    let last = node.engine.slot(instance(most)).unwrap().status;
    assert_eq!(last.state, InstanceState::Refused);
    assert_eq!(last.detail, "512 instances are the most that a node takes");
    for effect in effects {
        if let Effect::Send(message) = effect {
            message.encode().expect("fits");
        }
    }
}

#[test]
fn what_changes_nothing_writes_nothing() {
    let mut node = Node::new();
    node.want(vec![workload(0)]);
    node.start();
    let entries = vec![marram_protocol::v1::ManifestEntry {
        instance: instance(0),
        digest: workload(0).digest(),
    }];
    let generation = Generation { epoch: 7, number: 1 };
    let mut effects = node.give(Input::Parent(Down::Manifest { generation, entries }));
    effects.extend(node.give(Input::LinkDown));
    effects.extend(node.give(Input::LinkUp { preferred: None }));
    let running = Observed::Running { pid: 1, started_unix_ms: 0, paused: false };
    effects.extend(node.give(listed(vec![(instance(0), running.clone())])));
    effects.extend(node.done(Outcome::Recovered(running)));
    let writes = effects.iter().filter(|effect| matches!(effect, Effect::Persist { .. }));
    assert_eq!(writes.count(), 0);
}
