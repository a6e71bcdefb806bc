//! A tier that was restarted decides as one that was not.

use super::*;
use marram_protocol::v1::{OperationId, Verb};
use proptest::prelude::*;

/// What happens to a tier before it is restarted.
#[derive(Debug, Clone, Copy)]
enum Step {
    Want(u32, u32),
    Unwant(u32),
    Come(u32),
    Go(u32),
    Say(u32, InstanceState),
    Operate(u32, Verb),
    Tick,
}

fn step() -> impl Strategy<Value = Step> {
    use InstanceState::{Completed, Creating, Dead, Failed, Refused, Running, Undeployed};
    let said = [Creating, Running, Running, Failed, Completed, Dead, Refused, Undeployed];
    let verbs = [Verb::Cordon, Verb::Uncordon, Verb::Drain, Verb::Drain, Verb::Forget];
    let state = prop::sample::select(said.to_vec());
    prop_oneof![
        3 => (0..8u32, 1..8u32).prop_map(|(number, size)| Step::Want(number, size * 100)),
        1 => (0..8u32).prop_map(Step::Unwant),
        2 => (0..3u32).prop_map(Step::Come),
        1 => (0..3u32).prop_map(Step::Go),
        1 => (0..3u32, prop::sample::select(verbs.to_vec()))
            .prop_map(|(by, verb)| Step::Operate(by, verb)),
        1 => Just(Step::Tick),
        4 => (0..8u32, state).prop_map(|(number, state)| Step::Say(number, state)),
    ]
}

/// A tier, its disk, and its parent's side.
struct Story {
    tier: Tier,
    disk: BTreeMap<Vec<u8>, Vec<u8>>,
    is_root: bool,
    number: u64,
}

impl Story {
    fn new(is_root: bool) -> Self {
        let mut tier = Tier::new(identity(), is_root, EPOCH);
        tier.handle(at(0), Input::ParentUp { preferred: None });
        tier.handle(at(0), Input::Parent(Down::Welcome { epoch: 3, unix_ms: 0 }));
        let mut story = Self { tier, disk: BTreeMap::new(), is_root, number: 0 };
        story.persist();
        story
    }

    fn persist(&mut self) {
        for effect in effects(&mut self.tier) {
            let Effect::Persist(records) = effect else { continue };
            for (key, value) in records {
                match value {
                    Some(value) => drop(self.disk.insert(key, value)),
                    None => drop(self.disk.remove(&key)),
                }
            }
        }
    }

    fn act(&mut self, step: Step) {
        match step {
            Step::Want(number, memory_mib) => self.wish(Some(workload(number, memory_mib)), number),
            Step::Unwant(number) => self.wish(None, number),
            Step::Come(by) => {
                let hello = Up::Hello(hello(by, summary(1000)));
                self.tier.handle(at(0), Input::Child(child(by), hello));
                let statuses = told(&self.tier, by);
                let number = self.tier.children[&child(by)].number;
                self.tier.handle(at(0), Input::Child(child(by), snapshot(number, statuses)));
            }
            Step::Go(by) => self.tier.handle(at(0), Input::ChildGone(child(by), None)),
            Step::Operate(by, verb) => {
                let child = Some(child(by).to_string());
                let (operation, cluster) = (OperationId(1), self.tier.identity.id);
                self.tier.handle(at(0), Input::Operate { operation, cluster, child, verb });
            }
            Step::Tick => self.tier.handle_timeout(at(0)),
            Step::Say(number, state) => {
                let placed = self.tier.instances.get(&instance(number)).and_then(|i| i.placed);
                if let Some(by) = placed {
                    let input = word(&self.tier, by, number, state);
                    self.tier.handle(at(0), input);
                }
            }
        }
        self.persist();
    }

    fn wish(&mut self, workload: Option<Workload>, number: u32) {
        if self.is_root {
            let input = workload.map_or(Input::Remove(instance(number)), Input::Deploy);
            return self.tier.handle(at(0), input);
        }
        let generation = |number| match number {
            0 => Generation::default(),
            number => Generation { epoch: 3, number },
        };
        let base = generation(self.number);
        self.number += 1;
        let generation = generation(self.number);
        let removes = if workload.is_none() { vec![instance(number)] } else { Vec::new() };
        let upserts = workload.into_iter().collect();
        let change = Down::Change { base, generation, upserts, removes };
        self.tier.handle(at(0), Input::Parent(change));
    }
}

/// How a child's instances are, as far as the tier knows.
fn told(tier: &Tier, by: u32) -> Vec<InstanceStatus> {
    let copy = |i: &Instance| {
        let leaving = i.leaving.as_ref().filter(|leaving| leaving.from == child(by));
        let placed = (i.placed == Some(child(by))).then(|| i.status.clone());
        leaving.map(|leaving| leaving.status.clone()).or(placed)
    };
    tier.instances.values().filter_map(copy).collect()
}

/// What of a tier its decisions depend on.
fn decided(tier: &Tier) -> impl PartialEq + std::fmt::Debug + use<> {
    let children = tier.children.values();
    let children: Vec<_> = children
        .map(|c| {
            let wishes = (c.cordoned, c.draining);
            let here = (c.placed.clone(), c.leaving.clone(), c.reserved());
            (c.id, c.name.clone(), c.kind, c.number, wishes, here)
        })
        .collect();
    let instances = tier.instances.values();
    let instances: Vec<_> = instances
        .map(|i| {
            let places = (i.placed, i.leaving(), i.stopping);
            (i.workload.clone(), places, i.removing, i.handed_back, i.status.state)
        })
        .collect();
    let desired = tier.desired.as_ref().map(|d| (d.generation(), d.workloads().clone()));
    (tier.epoch, tier.first_number, children, instances, desired)
}

/// All children come back and tell how things are; what waits is tried again.
fn settle(tier: &mut Tier, statuses: &BTreeMap<u32, Vec<InstanceStatus>>) {
    tier.handle(at(1), Input::ParentGone);
    for (by, statuses) in statuses {
        let hello = Up::Hello(Hello { incarnation: 2, ..hello(*by, summary(1000)) });
        tier.handle(at(1), Input::Child(child(*by), hello));
        let number = tier.children[&child(*by)].number;
        tier.handle(at(1), Input::Child(child(*by), snapshot(number, statuses.clone())));
    }
    tier.handle_timeout(at(10_000_000));
    effects(tier);
}

proptest! {
    #[test]
    fn a_restart_changes_no_decision(
        is_root in any::<bool>(),
        steps in prop::collection::vec(step(), 1..60),
    ) {
        let mut story = Story::new(is_root);
        steps.into_iter().for_each(|step| story.act(step));
        let records: Vec<_> = story.disk.into_iter().collect();
        let mut tier = story.tier;
        let mut restored = Tier::restore(identity(), is_root, 99, records, at(1)).unwrap();
        let statuses: BTreeMap<u32, Vec<InstanceStatus>> = (0..3).map(|by| (by, told(&tier, by))).collect();
        settle(&mut tier, &statuses);
        settle(&mut restored, &statuses);
        prop_assert_eq!(decided(&tier), decided(&restored));
        let next = Input::Deploy(workload(100, 100));
        prop_assert_eq!(give(&mut tier, next.clone()), give(&mut restored, next));
    }
}
