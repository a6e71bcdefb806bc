//! Whatever comes, goes, waits and is asked for: the books stay whole and nobody spins.

use super::*;
use crate::tier::tests::{at, child, effects, hello, instance, root, snapshot, summary, workload};
use crate::{Effect, Input};
use marram_protocol::v1::{MovePolicy, OperationId, Scope, Up, Verb, Workload};
use proptest::prelude::*;

#[derive(Debug, Clone, Copy)]
enum Step {
    Want(u32, u32, Option<u32>, MovePolicy),
    Unwant(u32),
    Come(u32, bool),
    Go(u32),
    Say(u32, InstanceState),
    /// Of the copy that it leaves behind.
    SayOld(u32, InstanceState),
    Operate(u32, Verb),
    Wait(u64),
}

fn step() -> impl Strategy<Value = Step> {
    use InstanceState::{Completed, Created, Creating, Dead, Failed, Lost, Refused, Running};
    let said = [
        Creating,
        Created,
        Running,
        Running,
        Running,
        Failed,
        Completed,
        Dead,
        Refused,
        Lost,
        InstanceState::Undeployed,
        InstanceState::Unknown,
    ];
    let movements = [MovePolicy::Never, MovePolicy::StopFirst, MovePolicy::StartFirst];
    let verbs = [Verb::Cordon, Verb::Uncordon, Verb::Drain, Verb::Drain, Verb::Forget];
    let waits = vec![0, 1_000, 30_000, 61_000, 100_000, 300_000, 900_000];
    prop_oneof![
        3 => (0..8u32, 1..5u32, prop::option::weighted(0.8, 0..400u32), 0..6usize)
            .prop_map(move |(number, size, patience, movement)| {
                let movement = movements[movement.min(2)];
                Step::Want(number, size * 100, patience, movement)
            }),
        2 => (0..8u32).prop_map(Step::Unwant),
        3 => (0..4u32, any::<bool>()).prop_map(|(by, tells)| Step::Come(by, tells)),
        2 => (0..4u32).prop_map(Step::Go),
        5 => (0..8u32, prop::sample::select(said.to_vec()))
            .prop_map(|(number, state)| Step::Say(number, state)),
        1 => (0..8u32, prop::sample::select(said.to_vec()))
            .prop_map(|(number, state)| Step::SayOld(number, state)),
        2 => (0..4u32, prop::sample::select(verbs.to_vec()))
            .prop_map(|(by, verb)| Step::Operate(by, verb)),
        3 => prop::sample::select(waits).prop_map(Step::Wait),
    ]
}

fn wanted(number: u32, memory_mib: u32, patience: Option<u32>, movement: MovePolicy) -> Workload {
    let mut workload = workload(number, memory_mib);
    workload.spec.patience.node_s = patience;
    workload.spec.movement = movement;
    workload
}

struct Story {
    tier: Tier,
    now_ms: u64,
}

impl Story {
    fn act(&mut self, step: Step) {
        let now = at(self.now_ms);
        match step {
            Step::Want(number, size, patience, movement) => {
                let upserts = vec![wanted(number, size, patience, movement)];
                self.tier.handle(now, Input::Apply { upserts, removes: Vec::new() });
            }
            Step::Unwant(number) => self.tier.handle(now, Input::Remove(instance(number))),
            Step::Come(by, tells) => {
                let known = self.tier.children.get(&child(by)).map_or(0, |c| c.number);
                // What it ran when it was last heard of, and what was taken over from it.
                let there = self.tier.children.get(&child(by));
                let there = there.map(|c| {
                    let placed = c.placed.union(&c.surplus).copied();
                    placed.chain(c.leaving.iter().copied()).collect::<Vec<_>>()
                });
                let greeting = Up::Hello(hello(by, summary(1000)));
                self.tier.handle(now, Input::Child(child(by), greeting));
                let status = |id: InstanceId| {
                    let mut status = InstanceStatus::bare(id, InstanceState::Running, 0);
                    status.revision = 1;
                    status
                };
                let statuses = there.unwrap_or_default().into_iter().map(status).collect();
                if tells {
                    self.tier.handle(now, Input::Child(child(by), snapshot(known, statuses)));
                }
            }
            Step::Go(by) => self.tier.handle(now, Input::ChildGone(child(by), None)),
            Step::Say(number, state) => {
                let placed = self.tier.instances.get(&instance(number)).and_then(|i| i.placed);
                self.say(placed, number, state);
            }
            Step::SayOld(number, state) => {
                let left = self.tier.instances.get(&instance(number)).and_then(|i| i.leaving());
                self.say(left, number, state);
            }
            Step::Operate(by, verb) => {
                let name = child(by).to_string();
                let (cluster, operation) = (self.tier.identity.id, OperationId(1));
                let input = Input::Operate { operation, cluster, child: Some(name), verb };
                self.tier.handle(now, input);
            }
            Step::Wait(ms) => self.wait(ms),
        }
        effects(&mut self.tier);
    }

    fn say(&mut self, by: Option<ChildId>, number: u32, state: InstanceState) {
        let Some(by) = by.filter(|by| self.tier.children[by].is_connected()) else { return };
        let input = crate::tier::tests::word(&self.tier, by, number, state);
        self.tier.handle(at(self.now_ms), input);
    }

    fn wait(&mut self, ms: u64) {
        let end_ms = self.now_ms + ms;
        let mut turns = 0;
        while let Some(due) = self.tier.poll_timeout().filter(|due| *due <= end_ms) {
            turns = if due > self.now_ms { 0 } else { turns + 1 };
            assert!(turns < 20, "it spins");
            self.now_ms = self.now_ms.max(due);
            self.tier.handle_timeout(at(self.now_ms));
            effects(&mut self.tier);
        }
        self.now_ms = end_ms;
    }

    fn check(&self) {
        let tier = &self.tier;
        for child in tier.children.values() {
            let here = || tier.instances.values().filter(|i| i.placed == Some(child.id));
            let left = || tier.instances.values().filter(|i| i.leaving() == Some(child.id));
            let holding = here().filter(|i| i.holds()).chain(left());
            let held: u32 = holding.map(|i| i.workload.spec.resources.memory_mib).sum();
            let leaving: BTreeSet<InstanceId> = left().map(|i| i.workload.instance).collect();
            assert_eq!(child.leaving, leaving);
            let moves = leaving.len() + here().filter(|i| i.stopping).count();
            assert!(moves <= crate::MOVES_MAX, "{moves} moves from {}", child.name);
            assert_eq!(child.reserved().memory_mib, held, "books of {}", child.name);
            let placed: BTreeSet<InstanceId> = here().map(|i| i.workload.instance).collect();
            assert_eq!(child.placed, placed);
            let complete = child.link.as_ref().is_some_and(|link| link.complete);
            assert_eq!(child.silent_since_ms.is_none(), complete);
            let watched = here().filter_map(|i| tier.losses.deadline_ms(child, i)).min();
            assert!(
                watched.is_none_or(|at| child.loss_due_ms.is_some_and(|due| due <= at)),
                "nobody waits for {}",
                child.name
            );
            for (set, due) in
                [(&tier.losses.due, child.loss_due_ms), (&tier.losses.forget, child.forget_due_ms)]
            {
                let listed: Vec<u64> =
                    set.iter().filter(|(_, id)| *id == child.id).map(|(at, _)| *at).collect();
                assert_eq!(listed, Vec::from_iter(due));
            }
            assert!(child.forget_due_ms.is_some() || !child.is_forgettable());
        }
        let known = tier.losses.due.iter().chain(&tier.losses.forget);
        assert!(known.into_iter().all(|(_, id)| tier.children.contains_key(id)));
        for instance in tier.instances.values() {
            let placed = instance.placed.is_some();
            assert!(placed || instance.retry_at_ms.is_some(), "it waits for nothing");
            assert!(instance.leaving.is_none() || placed && !instance.stopping);
            assert!(instance.leaving.is_none() || instance.leaving() != instance.placed);
            let moves = instance.leaving.is_some() || instance.stopping;
            assert_eq!(tier.movements.is_moving(instance.workload.instance), moves);
            assert!(instance.lost.is_none() || placed && !instance.removing);
            assert_eq!(placed && instance.retry_at_ms.is_some(), instance.lost.is_some());
        }
    }
}

proptest! {
    #[test]
    fn the_books_stay_whole(steps in prop::collection::vec(step(), 1..80)) {
        let mut story = Story { tier: root(), now_ms: 0 };
        for step in steps {
            story.act(step);
            story.check();
        }
    }
}

/// A root with a silent child that ten thousand instances are on, and another.
fn crowd() -> Tier {
    let mut tier = root();
    for (by, size) in [(1, 4_000_000), (2, 4_000_000)] {
        tier.handle(at(0), Input::Child(child(by), Up::Hello(hello(by, summary(size)))));
        tier.handle(at(0), Input::Child(child(by), snapshot(0, Vec::new())));
        if by == 1 {
            let upserts = (0..10_000).map(|number| workload(number, 10)).collect();
            tier.handle(at(0), Input::Apply { upserts, removes: Vec::new() });
        }
    }
    effects(&mut tier);
    tier
}

#[test]
fn thousands_are_taken_over_in_turns_and_each_once() {
    let mut tier = crowd();
    tier.handle(at(0), Input::ChildGone(child(1), None));
    effects(&mut tier);
    let mut now_ms = 0;
    let mut turns = 0;
    while tier.children[&child(1)].instances() > 0 {
        now_ms = tier.poll_timeout().expect("something is due").max(now_ms);
        assert!(now_ms <= 300_000);
        tier.handle_timeout(at(now_ms));
        let taken = effects(&mut tier).iter().filter(|e| matches!(e, Effect::Changed(_))).count();
        assert!(taken <= TAKEOVERS_MAX);
        turns += 1;
    }
    assert_eq!(now_ms, 300_000);
    assert!(turns < 200, "{turns} turns");
    assert_eq!(tier.children[&child(2)].instances(), 10_000);
}

#[test]
fn a_sleep_of_the_machine_is_no_silence() {
    let mut tier = crowd();
    tier.handle(at(0), Input::ChildGone(child(1), None));
    // The machine sleeps for an hour, and is called late.
    tier.handle_timeout(at(3_600_000));
    assert_eq!(tier.children[&child(1)].instances(), 10_000);
    let mut now_ms = 3_600_000;
    while tier.children[&child(1)].instances() == 10_000 {
        now_ms = tier.poll_timeout().expect("something is due");
        tier.handle_timeout(at(now_ms));
    }
    assert_eq!(now_ms, 3_600_000 + 300_000);
}

#[test]
fn a_child_that_does_not_tell_what_it_runs_is_silent() {
    let mut tier = root();
    for by in [1, 2] {
        tier.handle(at(0), Input::Child(child(by), Up::Hello(hello(by, summary(1000)))));
        tier.handle(at(0), Input::Child(child(by), snapshot(0, Vec::new())));
    }
    tier.handle(at(0), Input::Deploy(workload(1, 100)));
    let by = tier.instances[&instance(1)].placed.unwrap();
    let number = if by == child(1) { 1 } else { 2 };
    let mut now_ms = 0;
    // It comes back every minute and never gets to the end of its list.
    while tier.instances[&instance(1)].placed == Some(by) {
        now_ms += 20_000;
        tier.handle(at(now_ms), Input::Child(by, Up::Hello(hello(number, summary(1000)))));
        let scope = Scope::Snapshot { first: true, last: false };
        let generation = Generation { epoch: tier.epoch, number: 0 };
        let part = Up::Observed { generation, scope, statuses: Vec::new() };
        tier.handle(at(now_ms), Input::Child(by, part));
        tier.handle_timeout(at(now_ms));
        effects(&mut tier);
        assert!(now_ms <= 320_000);
    }
    assert!(now_ms >= 300_000);
}
