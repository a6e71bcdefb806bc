//! How many moves there are at once, how long they take at most, and what a crash leaves.

use super::*;
use crate::tier::tests::{
    at, child, effects, give, hello, identity, instance, root, say, snapshot,
};
use crate::tier::tests::{summary, word, workload};
use crate::{Effect, Input};
use marram_protocol::v1::{OperationId, Up, Verb, Workload};
use std::collections::BTreeMap as Map;

const A: u32 = 1;
const B: u32 = 2;

fn operate(tier: &mut Tier, by: u32, verb: Verb) -> Vec<Effect> {
    let (operation, cluster) = (OperationId(1), tier.identity.id);
    let child = Some(child(by).to_string());
    give(tier, Input::Operate { operation, cluster, child, verb })
}

fn come(tier: &mut Tier, by: u32) {
    give(tier, Input::Child(child(by), Up::Hello(hello(by, summary(10_000)))));
    give(tier, Input::Child(child(by), snapshot(0, Vec::new())));
}

/// A root with so many instances that run on A, while B is empty and A is to be emptied.
fn draining(count: u32, movement: MovePolicy) -> Tier {
    let mut tier = root();
    come(&mut tier, A);
    let wanted = |number| {
        let mut workload: Workload = workload(number, 10);
        workload.spec.movement = movement;
        workload
    };
    let upserts = (0..count).map(wanted).collect();
    give(&mut tier, Input::Apply { upserts, removes: Vec::new() });
    (0..count).for_each(|number| drop(say(&mut tier, child(A), number, InstanceState::Running)));
    come(&mut tier, B);
    operate(&mut tier, A, Verb::Drain);
    tier.handle_timeout(at(0));
    effects(&mut tier);
    tier
}

fn moving(tier: &Tier) -> Vec<u32> {
    let moves = tier.instances.values().filter(|i| i.leaving.is_some() || i.stopping);
    moves.map(|i| i.workload.instance.number).collect()
}

#[test]
fn a_child_is_emptied_few_at_a_time() {
    let mut tier = draining(100, MovePolicy::StartFirst);
    let mut turns = 0;
    while tier.children[&child(A)].instances() > 0 || !moving(&tier).is_empty() {
        let moves = moving(&tier);
        assert!(moves.len() <= MOVES_MAX, "{} moves at once", moves.len());
        assert!(!moves.is_empty(), "nobody goes on");
        say(&mut tier, child(B), moves[0], InstanceState::Running);
        tier.handle_timeout(at(0));
        effects(&mut tier);
        turns += 1;
    }
    assert_eq!(turns, 100);
    assert_eq!(tier.children[&child(A)].reserved().memory_mib, 0);
    assert_eq!(tier.children[&child(B)].reserved().memory_mib, 1_000);
}

#[test]
fn a_move_that_takes_too_long_is_given_up() {
    for movement in [MovePolicy::StartFirst, MovePolicy::StopFirst] {
        let mut tier = draining(1, movement);
        assert_eq!(moving(&tier), [0]);
        tier.handle_timeout(at(MOVE_MS - 1));
        assert_eq!(moving(&tier), [0]);
        operate(&mut tier, B, Verb::Cordon);
        tier.handle_timeout(at(MOVE_MS));
        assert!(moving(&tier).is_empty());
        let known = &tier.instances[&instance(0)];
        assert_eq!(known.placed, Some(child(A)));
        assert!(known.is_desired_on(child(A)) && !known.is_desired_on(child(B)));
    }
}

#[test]
fn what_is_stopped_first_goes_back_if_nobody_else_takes_it_any_more() {
    let mut tier = draining(1, MovePolicy::StopFirst);
    operate(&mut tier, B, Verb::Cordon);
    say(&mut tier, child(A), 0, InstanceState::Undeployed);
    let known = &tier.instances[&instance(0)];
    assert_eq!((known.placed, known.stopping), (Some(child(A)), false));
    assert_eq!(known.stays.as_deref(), Some("node: cordoned; node-2: cordoned"));
}

#[test]
fn nothing_is_moved_from_a_child_that_is_silent() {
    let mut tier = draining(20, MovePolicy::StartFirst);
    let begun = moving(&tier);
    give(&mut tier, Input::ChildGone(child(A), None));
    for number in &begun {
        say(&mut tier, child(B), *number, InstanceState::Running);
    }
    tier.handle_timeout(at(0));
    assert!(moving(&tier).is_empty());
    assert_eq!(tier.children[&child(A)].instances(), 20 - MOVES_MAX);
}

#[test]
fn one_that_ends_by_itself_while_it_is_moved_is_not_run_again() {
    let mut tier = draining(1, MovePolicy::StartFirst);
    let completed = word(&tier, child(A), 0, InstanceState::Completed);
    give(&mut tier, completed);
    let known = &tier.instances[&instance(0)];
    assert_eq!((known.placed, known.leaving()), (Some(child(A)), None));
    assert_eq!(tier.children[&child(B)].instances(), 0);
}

#[test]
fn a_crash_at_any_effect_of_a_move_leaves_one_copy() {
    for movement in [MovePolicy::StartFirst, MovePolicy::StopFirst] {
        let mut crash = 0;
        while replay(movement, crash) {
            crash += 1;
        }
        assert!(crash > 8, "only {crash} effects");
    }
}

/// Empties A with a crash before effect number `crash`; whether there was such an effect.
fn replay(movement: MovePolicy, crash: usize) -> bool {
    let mut world = World { tier: root(), disk: Map::new(), left: crash, crashed: false };
    world.give(Input::Remove(instance(9)));
    world.disk.insert(b"e".to_vec(), crate::records::encode(&7u64));
    world.come(A);
    let mut wanted = workload(0, 10);
    wanted.spec.movement = movement;
    world.give(Input::Apply { upserts: vec![wanted], removes: Vec::new() });
    if !world.tier.instances.contains_key(&instance(0)) {
        // It crashed before it was acknowledged.
        return true;
    }
    world.obey();
    world.come(B);
    let (operation, cluster) = (OperationId(1), identity().id);
    for _ in 0..2 {
        let child = Some(child(A).to_string());
        world.give(Input::Operate { operation, cluster, child, verb: Verb::Drain });
    }
    for turn in 0..40 {
        world.tick(turn * 20_000);
        world.obey();
    }
    let tier = &world.tier;
    let known = &tier.instances[&instance(0)];
    assert_eq!((known.placed, known.leaving(), known.stopping), (Some(child(B)), None, false));
    assert!(!known.is_desired_on(child(A)), "crash before effect {crash}");
    assert_eq!(tier.children[&child(A)].reserved().memory_mib, 0);
    world.crashed
}

/// A tier whose children do at once what their lists say.
struct World {
    tier: Tier,
    disk: Map<Vec<u8>, Vec<u8>>,
    left: usize,
    crashed: bool,
}

impl World {
    fn give(&mut self, input: Input) {
        self.tier.handle(at(0), input);
        self.perform(0);
    }

    fn tick(&mut self, now_ms: u64) {
        self.tier.handle_timeout(at(now_ms));
        self.perform(now_ms);
    }

    fn perform(&mut self, now_ms: u64) {
        while let Some(effect) = self.tier.poll_effect() {
            if self.left == 0 && !self.crashed {
                self.crashed = true;
                let records: Vec<_> = self.disk.clone().into_iter().collect();
                self.tier = Tier::restore(identity(), true, 7, records, at(now_ms)).unwrap();
                for by in [A, B] {
                    if self.tier.children.contains_key(&child(by)) {
                        self.come(by);
                    }
                }
                return;
            }
            self.left = self.left.saturating_sub(1);
            let Effect::Persist(records) = effect else { continue };
            for (key, value) in records {
                match value {
                    Some(value) => drop(self.disk.insert(key, value)),
                    None => drop(self.disk.remove(&key)),
                }
            }
        }
    }

    fn come(&mut self, by: u32) {
        self.give(Input::Child(child(by), Up::Hello(hello(by, summary(10_000)))));
        let number = self.tier.children.get(&child(by)).map_or(0, |c| c.number);
        self.give(Input::Child(child(by), snapshot(number, Vec::new())));
        // The tier may have crashed before it knew of it; then it comes again.
        if self.tier.children.get(&child(by)).is_none_or(|c| c.silent_since_ms.is_some()) {
            self.come(by);
        }
    }

    /// Each child says of the instance what its list makes of it.
    fn obey(&mut self) {
        for by in [A, B] {
            let Some(known) = self.tier.instances.get(&instance(0)) else { return };
            let state = match known.is_desired_on(child(by)) {
                true => InstanceState::Running,
                false if known.is_at(child(by)) => InstanceState::Undeployed,
                false => continue,
            };
            let input = word(&self.tier, child(by), 0, state);
            self.give(input);
        }
    }
}

#[test]
fn so_many_are_moved_for_one_wish_and_none_goes_back() {
    let mut tier = root();
    for by in 0..20 {
        come(&mut tier, by);
    }
    let size = |number| if number % 20 == 0 { 3_000 } else { 350 };
    let upserts = (0..200).map(|number| workload(number, size(number))).collect();
    give(&mut tier, Input::Apply { upserts, removes: Vec::new() });
    for number in 0..200 {
        let by = tier.instances[&instance(number)].placed.unwrap();
        say(&mut tier, by, number, InstanceState::Running);
    }
    // Best fit has filled ten of them; of each, all but the largest end.
    (0..200).filter(|n| n % 20 != 0).for_each(|n| {
        let by = tier.instances[&instance(n)].placed.unwrap();
        give(&mut tier, Input::Remove(instance(n)));
        say(&mut tier, by, n, InstanceState::Undeployed);
    });
    let mut moves = 0;
    for wish in 0..20 {
        let (operation, cluster) = (OperationId(1), tier.identity.id);
        let input = Input::Operate { operation, cluster, child: None, verb: Verb::Rebalance };
        give(&mut tier, input);
        while tier.poll_timeout().is_some_and(|due| due == 0) {
            tier.handle_timeout(at(0));
            effects(&mut tier);
        }
        let begun = moving(&tier);
        assert!(begun.len() <= REBALANCE_MAX);
        moves += begun.len();
        for number in &begun {
            let by = tier.instances[&instance(*number)].placed.unwrap();
            say(&mut tier, by, *number, InstanceState::Running);
        }
        if begun.is_empty() {
            let used = tier.children.values().filter(|c| c.instances() > 0).count();
            assert!(used <= 5 && wish > 0, "{used} are used after {moves} moves");
            return;
        }
    }
    panic!("they never settle");
}
