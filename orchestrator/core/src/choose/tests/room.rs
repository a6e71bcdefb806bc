//! Who has to go for whom, in which order, and that nothing is reserved twice.

use super::*;
use crate::tier::tests::word;
use marram_protocol::state::InstanceState;
use marram_protocol::v1::{Generation, InstanceStatus, MovePolicy, Scope};

fn important(number: u32, memory_mib: u32, priority: i32) -> Workload {
    let mut workload = crate::tier::tests::workload(number, memory_mib);
    workload.spec.placement.priority = priority;
    // Who is never moved has to go all the same.
    workload.spec.movement = MovePolicy::Never;
    workload
}

fn deploy(tier: &mut Tier, number: u32, memory_mib: u32, priority: i32) {
    tier.handle(at(1), Input::Deploy(important(number, memory_mib, priority)));
    check(tier);
}

fn placed(tier: &Tier, number: u32) -> Option<ChildId> {
    tier.instances[&instance(number)].placed
}

/// What a node says when it has ended an instance.
fn ended(tier: &mut Tier, by: u32, number: u32) {
    let input = word(tier, child(by), number, InstanceState::Undeployed);
    tier.handle(at(2), input);
    check(tier);
}

fn check(tier: &Tier) {
    for child in tier.children.values() {
        let capacity = child.summary().unwrap().capacity;
        assert!(child.reserved().fits(capacity), "{} holds too much", child.name);
    }
}

fn last(tier: &Tier, number: u32) -> String {
    tier.explain(instance(number)).unwrap().back().unwrap().verdict.to_string()
}

#[test]
fn the_least_important_go_first_and_find_another_place_or_wait() {
    let mut tier = root();
    come(&mut tier, 1, summary(100));
    for (number, memory_mib, priority) in [(1, 40, 0), (2, 30, -5), (3, 30, 5)] {
        deploy(&mut tier, number, memory_mib, priority);
    }
    // Nobody goes for one of the same importance.
    deploy(&mut tier, 4, 30, -5);
    assert_eq!(placed(&tier, 4), None);
    deploy(&mut tier, 5, 30, 10);
    assert_eq!(placed(&tier, 5), None, "the other has to end first");
    assert!(last(&tier, 5).starts_with("waits for room on n1, which is taken from a.b.c.d"));
    assert!(tier.instances[&instance(2)].stopping);
    ended(&mut tier, 1, 2);
    assert_eq!((placed(&tier, 5), placed(&tier, 2)), (Some(child(1)), None));
    assert!(tier.instances[&instance(2)].waits());
    let told: Vec<String> =
        tier.explain(instance(2)).unwrap().iter().map(|d| d.verdict.to_string()).collect();
    assert!(told[1].starts_with("had to leave n1 for a.b.c.d"), "{told:?}");
    // The next one takes the room of the next above.
    deploy(&mut tier, 6, 30, 10);
    ended(&mut tier, 1, 1);
    assert_eq!((placed(&tier, 6), placed(&tier, 1)), (Some(child(1)), None));
    assert_eq!(placed(&tier, 3), Some(child(1)));
    come(&mut tier, 2, summary(100));
    assert_eq!((placed(&tier, 1), placed(&tier, 2)), (Some(child(2)), Some(child(2))));
    assert!(tier.promises.is_empty());
}

#[test]
fn room_that_is_made_is_kept() {
    let mut tier = root();
    come(&mut tier, 1, summary(100));
    deploy(&mut tier, 1, 50, 0);
    deploy(&mut tier, 2, 50, 0);
    deploy(&mut tier, 3, 100, 9);
    ended(&mut tier, 1, 1);
    // Half of it is free, and not for this one.
    deploy(&mut tier, 4, 20, 0);
    assert_eq!(placed(&tier, 4), None);
    assert_eq!(placed(&tier, 3), None);
    ended(&mut tier, 1, 2);
    assert_eq!(placed(&tier, 3), Some(child(1)));
}

#[test]
fn room_is_free_again_if_nobody_wants_it_any_more() {
    let mut tier = root();
    come(&mut tier, 1, summary(100));
    deploy(&mut tier, 1, 100, 0);
    deploy(&mut tier, 2, 100, 9);
    assert_eq!(tier.promises.get(&instance(2)), Some(&child(1)));
    tier.handle(at(3), Input::Remove(instance(2)));
    assert!(tier.promises.is_empty());
    ended(&mut tier, 1, 1);
    assert_eq!(placed(&tier, 1), Some(child(1)));
}

#[test]
fn where_it_costs_least_and_only_where_all_else_fits() {
    let mut tier = root();
    come(&mut tier, 1, summary(100));
    come(&mut tier, 2, summary(100));
    come(&mut tier, 3, Summary { virtualizations: Vec::new(), ..summary(1000) });
    deploy(&mut tier, 1, 60, 3);
    deploy(&mut tier, 2, 60, 2);
    deploy(&mut tier, 3, 90, 9);
    let on = placed(&tier, 2).unwrap();
    assert_eq!(tier.promises.get(&instance(3)), Some(&on));
    deploy(&mut tier, 4, 101, 99);
    assert_eq!(tier.promises.get(&instance(4)), None);
    assert!(last(&tier, 4).starts_with("no place: "), "{}", last(&tier, 4));
}

#[test]
fn a_tier_above_hands_it_to_a_cluster_that_can_make_room() {
    let mut tier = root();
    for (number, memory_mib) in [(1, 100), (2, 100), (3, 50)] {
        let mut hello = hello(number, summary(memory_mib));
        hello.kind = marram_protocol::v1::ChildKind::Cluster;
        tier.handle(at(0), Input::Child(child(number), Up::Hello(hello)));
        tier.handle(at(0), Input::Child(child(number), snapshot(0, Vec::new())));
    }
    for (number, memory_mib, priority) in [(1, 100, 3), (2, 100, 2), (3, 50, 0)] {
        tier.handle(at(1), Input::Deploy(important(number, memory_mib, priority)));
    }
    let second = placed(&tier, 2);
    tier.handle(at(1), Input::Deploy(important(4, 80, 9)));
    assert_eq!(placed(&tier, 4), second, "where the least important is that is large enough");
    assert!(last(&tier, 4).starts_with("handed to node"), "{}", last(&tier, 4));
    // It does not; so the next is asked, then nobody is left.
    for expected in [placed(&tier, 1), None] {
        let by = placed(&tier, 4).unwrap();
        let mut refused = InstanceStatus::bare(instance(4), InstanceState::Refused, 0);
        refused.revision = 1;
        let generation = Generation { epoch: tier.epoch, number: tier.children[&by].number };
        let scope = Scope::Change;
        let statuses = vec![refused];
        tier.handle(at(2), Input::Child(by, Up::Observed { generation, scope, statuses }));
        assert_eq!(placed(&tier, 4), expected);
    }
    tier.handle(at(1), Input::Deploy(important(5, 80, 0)));
    assert_eq!(placed(&tier, 5), None);
}
