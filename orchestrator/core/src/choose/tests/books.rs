//! Random wishes against honest nodes: the books hold at each moment, it comes to rest, and
//! then nobody waits for whom there would be room.

use super::*;
use crate::Effect;
use marram_protocol::reference::refers_to;
use marram_protocol::state::InstanceState;
use marram_protocol::v1::{Down, Generation, InstanceStatus, MovePolicy, Scope};

const NODES: u32 = 4;
const CAPACITY_MIB: u32 = 100;

/// Answers of all nodes to one input: far more means that it never comes to rest.
const TURNS_MAX: usize = 200;

#[derive(Debug, Clone)]
enum Step {
    Deploy { service: u8, memory_mib: u32, priority: i32, apart_from: Option<u8>, stop_first: bool },
    Remove(prop::sample::Index),
}

fn step() -> impl Strategy<Value = Step> {
    let deploy = (0..4u8, 1..80u32, -2..3i32, prop::option::weighted(0.3, 0..4u8), any::<bool>());
    let deploy = deploy.prop_map(|(service, memory_mib, priority, apart_from, stop_first)| {
        Step::Deploy { service, memory_mib, priority, apart_from, stop_first }
    });
    prop_oneof![3 => deploy, 1 => any::<prop::sample::Index>().prop_map(Step::Remove)]
}

fn name(service: u8) -> String {
    format!("app.ns.s{service}.ns")
}

/// A tier with nodes that do what they are told.
struct World {
    tier: Tier,
    now: u64,
    next: u32,
}

impl World {
    fn new() -> Self {
        let mut tier = root();
        for number in 1..=NODES {
            come(&mut tier, number, summary(CAPACITY_MIB));
        }
        effects(&mut tier);
        Self { tier, now: 1, next: 0 }
    }

    fn give(&mut self, input: Input) {
        self.now += 1;
        self.tier.handle(at(self.now), input);
        self.check();
        let is_change = |effect: &Effect| matches!(effect, Effect::ToChild(_, Down::Change { .. }));
        for _ in 0..TURNS_MAX {
            if !effects(&mut self.tier).iter().any(is_change) {
                return;
            }
            self.answer();
        }
        panic!("it never comes to rest");
    }

    /// All nodes say what they run: what is desired of them, and that the rest is gone.
    fn answer(&mut self) {
        for number in 1..=NODES {
            let by = child(number);
            let number = self.tier.children[&by].number;
            let generation = Generation { epoch: self.tier.epoch, number };
            let here = self.tier.instances.values().filter(|i| i.is_at(by));
            let statuses: Vec<InstanceStatus> = here
                .map(|instance| {
                    let desired = instance.is_desired_on(by);
                    let state =
                        if desired { InstanceState::Running } else { InstanceState::Undeployed };
                    let mut status = InstanceStatus::bare(instance.workload.instance, state, 0);
                    status.revision = instance.workload.revision;
                    status
                })
                .collect();
            let observed = Up::Observed { generation, scope: Scope::Change, statuses };
            self.now += 1;
            self.tier.handle(at(self.now), Input::Child(by, observed));
            self.check();
        }
    }

    fn step(&mut self, step: &Step) {
        match step {
            Step::Deploy { service, memory_mib, priority, apart_from, stop_first } => {
                let mut spec = ServiceSpec {
                    virtualization: "container".into(),
                    resources: Resources { memory_mib: *memory_mib, ..Resources::default() },
                    ..ServiceSpec::default()
                };
                spec.placement.priority = *priority;
                spec.placement.apart_from = apart_from.map(name).into_iter().collect();
                spec.movement =
                    if *stop_first { MovePolicy::StopFirst } else { MovePolicy::StartFirst };
                let instance = InstanceId { service: ServiceId([*service; 12]), number: self.next };
                let name = format!("{}.{}", name(*service), self.next);
                self.next += 1;
                self.give(Input::Deploy(Workload { instance, revision: 1, name, spec }));
            }
            Step::Remove(at) if !self.tier.instances.is_empty() => {
                let ids: Vec<InstanceId> = self.tier.instances.keys().copied().collect();
                self.give(Input::Remove(ids[at.index(ids.len())]));
            }
            Step::Remove(_) => {}
        }
    }

    fn check(&self) {
        for child in self.tier.children.values() {
            assert!(child.reserved().memory_mib <= CAPACITY_MIB, "{} holds too much", child.name);
            let here = || self.tier.instances.values().filter(|i| i.placed == Some(child.id));
            for (one, other) in here().flat_map(|a| here().map(move |b| (a, b))) {
                let mut apart_from = one.workload.spec.placement.apart_from.iter();
                let minds = apart_from.any(|whom| refers_to(whom, &other.workload));
                assert!(!minds || one.workload.instance == other.workload.instance);
            }
        }
        for (id, on) in &self.tier.promises {
            assert!(self.tier.instances[id].placed.is_none(), "{id} has a place and a promise");
            assert!(self.tier.children.contains_key(on));
        }
    }

    /// Retries until nothing changes: what waits then has no place, not even at the cost of
    /// what is less important.
    fn rest(&mut self) {
        for _ in 0..20 {
            self.now += 1_000_000;
            self.tier.handle_timeout(at(self.now));
            self.check();
            effects(&mut self.tier);
            self.answer();
            effects(&mut self.tier);
        }
        assert!(self.tier.promises.is_empty(), "{:?}", self.tier.promises);
        for instance in self.tier.instances.values().filter(|i| i.placed.is_none()) {
            let id = instance.workload.instance;
            assert!(self.tier.weigh(instance, self.tier.children.values()).is_none(), "{id} fits");
            assert!(self.tier.room_for(instance).is_none(), "{id} could have room");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig {
        failure_persistence: None, cases: 96, ..ProptestConfig::default()
    })]

    #[test]
    fn room_is_made_and_nothing_is_lost(steps in prop::collection::vec(step(), 1..40)) {
        let mut world = World::new();
        let mut deployed = 0;
        for step in &steps {
            world.step(step);
            deployed += usize::from(matches!(step, Step::Deploy { .. }));
            prop_assert!(world.tier.instances.len() <= deployed);
        }
        world.rest();
    }
}
