//! Rules of a tier that the stories in `tests/traces` do not show: what a hostile child can
//! do, and what happens at the limits.

mod cards;
mod kin;
mod restore;

use super::*;
use crate::instance::{REASONS_MAX, TRIED_MAX};
use crate::offer::Offer;
use crate::{CHILDREN_MAX, Effect};
use marram_protocol::desired::FETCH_MAX;
use marram_protocol::id::ServiceId;
use marram_protocol::port::{PortMapping, Transport};
use marram_protocol::v1::{
    DETAIL_BYTES_MAX, Down, Hello, Resources, SUMMARY_LIST_MAX, Scope, ServiceSpec, Summary,
    Telemetry, Up,
};

const EPOCH: u64 = 7;

pub(crate) fn root() -> Tier {
    let mut tier = Tier::new(identity(), true, EPOCH);
    effects(&mut tier);
    tier
}

pub(crate) fn identity() -> Identity {
    Identity {
        id: ChildId([255; 12]),
        name: "tier".into(),
        location: String::new(),
        version: "0".into(),
        incarnation: 1,
        labels: Vec::new(),
        address: String::new(),
        node_address: String::new(),
    }
}

pub(crate) fn at(mono_ms: u64) -> Now {
    Now { mono_ms, unix_ms: mono_ms }
}

pub(crate) fn effects(tier: &mut Tier) -> Vec<Effect> {
    std::iter::from_fn(|| tier.poll_effect()).collect()
}

pub(crate) fn give(tier: &mut Tier, input: Input) -> Vec<Effect> {
    tier.handle(at(0), input);
    effects(tier)
}

pub(crate) fn instance(number: u32) -> InstanceId {
    InstanceId { service: ServiceId([9; 12]), number }
}

pub(crate) fn child(number: u32) -> ChildId {
    let mut id = [0; 12];
    id[8..].copy_from_slice(&number.to_be_bytes());
    ChildId(id)
}

pub(crate) fn workload(number: u32, memory_mib: u32) -> Workload {
    let spec = ServiceSpec {
        virtualization: "container".into(),
        resources: Resources { memory_mib, ..Resources::default() },
        ..ServiceSpec::default()
    };
    Workload { instance: instance(number), revision: 1, name: "a.b.c.d".into(), spec }
}

pub(crate) fn summary(memory_mib: u32) -> Summary {
    let capacity = Resources { memory_mib, ..Resources::default() };
    Summary {
        nodes: 1,
        capacity,
        largest_free: capacity,
        virtualizations: vec!["container".into()],
        ..Summary::default()
    }
}

pub(crate) fn hello(number: u32, summary: Summary) -> Hello {
    Hello {
        child: child(number),
        kind: ChildKind::Node,
        name: "node".into(),
        version: "0".into(),
        incarnation: 1,
        generation: Generation::default(),
        summary,
        facts: Vec::new(),
        tree: 0,
        preferred: None,
        address: String::new(),
        node_address: String::new(),
        labels: Vec::new(),
    }
}

pub(crate) fn snapshot(generation: u64, statuses: Vec<InstanceStatus>) -> Up {
    let scope = Scope::Snapshot { first: true, last: true };
    Up::Observed { generation: Generation { epoch: EPOCH, number: generation }, scope, statuses }
}

fn come(tier: &mut Tier, number: u32, memory_mib: u32) -> Vec<Effect> {
    let mut all =
        give(tier, Input::Child(child(number), Up::Hello(hello(number, summary(memory_mib)))));
    all.extend(give(tier, Input::Child(child(number), snapshot(0, Vec::new()))));
    all
}

/// A word of a child that has seen all that it was told.
pub(crate) fn word(tier: &Tier, by: ChildId, number: u32, state: InstanceState) -> Input {
    let mut status = InstanceStatus::bare(instance(number), state, 0);
    status.revision = 1;
    status.detail = "so it says".into();
    let generation = Generation { epoch: EPOCH, number: tier.children[&by].number };
    let statuses = vec![status];
    Input::Child(by, Up::Observed { generation, scope: Scope::Change, statuses })
}

pub(crate) fn say(tier: &mut Tier, by: ChildId, number: u32, state: InstanceState) -> Vec<Effect> {
    let input = word(tier, by, number, state);
    give(tier, input)
}

#[test]
fn a_child_cannot_name_instances_without_end() {
    let mut tier = root();
    come(&mut tier, 1, 1000);
    for part in 0..60u32 {
        let numbers = part * 200..(part + 1) * 200;
        let running = |number| InstanceStatus::bare(instance(number), InstanceState::Running, 0);
        let statuses: Vec<InstanceStatus> = numbers.map(running).collect();
        let scope = Scope::Snapshot { first: part == 0, last: false };
        let unknown = Up::Observed { generation: Generation::default(), scope, statuses };
        give(&mut tier, Input::Child(child(1), unknown));
    }
    let child = &tier.children[&child(1)];
    assert_eq!(child.strays.len(), CLUSTER_INSTANCES_MAX);
    assert_eq!(child.link.as_ref().unwrap().snapshot.len(), CLUSTER_INSTANCES_MAX);
}

#[test]
fn what_a_child_says_is_cut_to_size() {
    let mut tier = root();
    let long = "x".repeat(10_000);
    let words = vec!["w".into(); 1_000];
    let said = Hello {
        name: format!("\u{1b}[31m{long}"),
        version: long.clone(),
        facts: (0..100).map(|n| (format!("fact{n}"), "y".into())).collect(),
        summary: Summary {
            architectures: words.clone(),
            virtualizations: vec!["container".into(), long.clone()],
            location: long.clone(),
            ..summary(1000)
        },
        ..hello(1, Summary::default())
    };
    give(&mut tier, Input::Child(child(1), Up::Hello(said)));
    give(&mut tier, Input::Child(child(1), snapshot(0, Vec::new())));
    let known = &tier.children[&child(1)];
    assert!(known.name().len() <= 64 && known.version().len() <= 64, "{}", known.name());
    assert!(!known.name().contains('\u{1b}'));
    assert_eq!(known.facts().count(), 32);
    let summary = known.summary().unwrap();
    assert_eq!(summary.architectures.len(), SUMMARY_LIST_MAX);
    assert_eq!(summary.virtualizations, ["container"]);
    assert!(summary.location.len() <= 64);

    give(&mut tier, Input::Deploy(workload(1, 100)));
    let node = Some(NodeRef { id: child(1), name: long.clone(), address: long.clone() });
    let running = InstanceStatus::bare(instance(1), InstanceState::Running, 0);
    let status = InstanceStatus { detail: long.clone(), node, ..running };
    give(&mut tier, Input::Child(child(1), snapshot(1, vec![status])));
    let status = tier.instances[&instance(1)].last_status();
    assert_eq!(status.detail.len(), DETAIL_BYTES_MAX);
    assert!(status.node.as_ref().is_some_and(|n| n.name.len() <= 64 && n.address.len() <= 64));

    let usage =
        |number| WorkloadUsage { instance: instance(number), cpu_permille: 0, memory_mib: 1 };
    let workloads = (0..5_000).map(usage).collect();
    let telemetry = Telemetry { workloads, ..Telemetry::default() };
    give(&mut tier, Input::Child(child(1), Up::Telemetry(telemetry)));
    assert_eq!(tier.reporting.usage.len(), 1, "only of what is placed there");
    assert!(tier.children[&child(1)].telemetry().unwrap().workloads.is_empty());
}

#[test]
fn nothing_is_remembered_of_what_is_gone() {
    let mut tier = root();
    come(&mut tier, 1, 1000);
    for number in 0..50 {
        give(&mut tier, Input::Deploy(workload(number, 100)));
        let usage = WorkloadUsage { instance: instance(number), cpu_permille: 9, memory_mib: 9 };
        let telemetry = Telemetry { workloads: vec![usage], ..Telemetry::default() };
        give(&mut tier, Input::Child(child(1), Up::Telemetry(telemetry)));
        give(&mut tier, Input::Remove(instance(number)));
        say(&mut tier, child(1), number, InstanceState::Undeployed);
    }
    assert_eq!(tier.instances.len(), 0);
    assert_eq!(tier.reporting.remembered(), 0);
    assert_eq!(tier.children[&child(1)].reserved(), Resources::default());
}

#[test]
fn an_instance_is_offered_to_so_many_children_and_then_waits() {
    let mut tier = root();
    let children = u32::try_from(TRIED_MAX).unwrap() + 50;
    (0..children).for_each(|number| drop(come(&mut tier, number, 1000)));
    give(&mut tier, Input::Deploy(workload(1, 100)));
    let mut offers = 0;
    while let Some(by) = tier.instances[&instance(1)].placed {
        offers += 1;
        say(&mut tier, by, 1, InstanceState::Refused);
    }
    assert_eq!(offers, TRIED_MAX);
    let known = &tier.instances[&instance(1)];
    assert_eq!(known.last_status().detail, "256 children have refused it, the first: so it says");
    assert_eq!(known.tried().values().filter(|why| !why.is_empty()).count(), REASONS_MAX);
    assert!(tier.poll_timeout().is_some(), "it is tried again");
}

#[test]
fn a_fetch_brings_each_workload_once_and_not_all_there_are() {
    let mut tier = root();
    come(&mut tier, 1, 1_000_000);
    (0..400).for_each(|number| drop(give(&mut tier, Input::Deploy(workload(number, 100)))));
    let generation = Generation { epoch: EPOCH, number: 400 };
    let instances = (0..1_000).map(|n| instance(n % 300)).chain((0..9).map(|_| instance(399)));
    let fetch = Up::Fetch { generation, instances: instances.collect() };
    let brought: usize = give(&mut tier, Input::Child(child(1), fetch))
        .iter()
        .map(|effect| match effect {
            Effect::ToChild(_, Down::Specs { workloads, .. }) => workloads.len(),
            other => panic!("{other:?}"),
        })
        .sum();
    assert_eq!(brought, FETCH_MAX);
}

#[test]
fn every_message_fits_however_much_changes_at_once() {
    let mut tier = Tier::new(identity(), false, EPOCH);
    tier.handle(at(0), Input::ParentUp { preferred: None });
    come(&mut tier, 1, 4_000_000);
    let generation = |number| Generation { epoch: 3, number };
    let welcome = Down::Welcome { epoch: 3, unix_ms: 0 };
    give(&mut tier, Input::Parent(welcome));
    let total = u32::try_from(CLUSTER_INSTANCES_MAX).unwrap();
    let mut number = 0;
    let mut sent = Vec::new();
    for first in (0..total).step_by(500) {
        let upserts = (first..first + 500).map(|n| workload(n + u32::MAX / 2, 100)).collect();
        let base = if number == 0 { Generation::default() } else { generation(number) };
        number += 1;
        let change =
            Down::Change { base, generation: generation(number), upserts, removes: vec![] };
        sent.extend(give(&mut tier, Input::Parent(change)));
    }
    assert_eq!(tier.children[&child(1)].instances(), CLUSTER_INSTANCES_MAX);
    give(&mut tier, Input::ChildGone(child(1), None));
    sent.extend(come(&mut tier, 1, 4_000_000));
    let generation = generation(number + 1);
    sent.extend(give(&mut tier, Input::Parent(Down::Manifest { generation, entries: Vec::new() })));
    let mut removed = 0;
    for effect in sent {
        match effect {
            Effect::ToChild(_, message) => {
                message.encode().expect("fits");
                if let Down::Change { removes, .. } = message {
                    removed += removes.len();
                }
            }
            Effect::ToParent(message) => drop(message.encode().expect("fits")),
            Effect::Persist(_)
            | Effect::Changed(_)
            | Effect::Operated { .. }
            | Effect::LeaveParent { .. } => {}
        }
    }
    assert_eq!(removed, CLUSTER_INSTANCES_MAX);
}

#[test]
fn retries_are_made_in_turns() {
    let mut tier = root();
    come(&mut tier, 1, 10);
    (0..300).for_each(|number| drop(give(&mut tier, Input::Deploy(workload(number, 100)))));
    let now = at(5_000);
    let mut turns = 0;
    while tier.poll_timeout().is_some_and(|due| due <= now.mono_ms) {
        tier.handle_timeout(now);
        let changed = effects(&mut tier).len();
        assert!(changed <= 64, "{changed} in one turn");
        turns += 1;
    }
    assert_eq!(turns, 5);
}

#[test]
fn a_change_of_one_child_says_nothing_of_thousands_that_wait() {
    let mut tier = root();
    come(&mut tier, 1, 10);
    (0..5_000).for_each(|number| drop(give(&mut tier, Input::Deploy(workload(number, 100)))));
    let told = come(&mut tier, 2, 10);
    assert!(told.len() < 200, "{} effects of one hello", told.len());
}

#[test]
fn sums_beyond_their_type_come_back_to_nothing() {
    let mut tier = root();
    come(&mut tier, 1, 1000);
    give(&mut tier, Input::Deploy(workload(1, 100)));
    // Found there, so it stays there, whatever it claims.
    for number in [2, 3] {
        let running = InstanceStatus::bare(instance(number), InstanceState::Running, 0);
        let observed = Up::Observed {
            generation: Generation::default(),
            scope: Scope::Change,
            statuses: vec![running],
        };
        give(&mut tier, Input::Child(child(1), observed));
        give(&mut tier, Input::Deploy(workload(number, u32::MAX)));
    }
    assert_eq!(tier.children[&child(1)].reserved().memory_mib, u32::MAX);
    for number in [2, 3] {
        give(&mut tier, Input::Remove(instance(number)));
        say(&mut tier, child(1), number, InstanceState::Undeployed);
    }
    assert_eq!(tier.children[&child(1)].reserved().memory_mib, 100);
}

#[test]
fn a_port_is_free_when_the_last_has_left_it() {
    let mut tier = root();
    come(&mut tier, 1, 1000);
    let mapping = PortMapping { host: 80, workload: 80, transport: Transport::Tcp };
    let with_port = |number| {
        let mut workload = workload(number, 10);
        workload.spec.ports = vec![mapping];
        workload
    };
    give(&mut tier, Input::Deploy(with_port(1)));
    say(&mut tier, child(1), 1, InstanceState::Completed);
    give(&mut tier, Input::Deploy(with_port(2)));
    // The first runs again, which only its node decides.
    say(&mut tier, child(1), 1, InstanceState::Running);
    say(&mut tier, child(1), 2, InstanceState::Completed);
    give(&mut tier, Input::Deploy(with_port(3)));
    assert_eq!(tier.instances[&instance(3)].placed, None);
    say(&mut tier, child(1), 1, InstanceState::Completed);
    assert_eq!(tier.instances[&instance(3)].placed, Some(child(1)));
}

#[test]
fn the_tier_is_full_and_says_so() {
    let mut tier = root();
    let most = u32::try_from(CHILDREN_MAX).unwrap();
    (0..most).for_each(|number| {
        tier.children
            .insert(child(number), Child::new(child(number), number.to_string(), ChildKind::Node));
    });
    let told = give(&mut tier, Input::Child(child(most), Up::Hello(hello(most, summary(1)))));
    let rejected =
        Down::Rejected { reason: "10000 children are the most that a tier takes".into() };
    assert_eq!(told, [Effect::ToChild(child(most), rejected)]);
    let mut large = workload(1, 1);
    large.spec.image = "x".repeat(WORKLOAD_BYTES_MAX);
    assert!(matches!(tier.check(&large), Err(TierError::TooLarge(_))));
    assert_eq!(tier.check(&workload(1, 1)), Ok(()));
    give(&mut tier, Input::Deploy(workload(1, 1)));
    assert_eq!(tier.check(&workload(1, 1)), Err(TierError::Exists(instance(1))));
}

#[test]
fn an_offer_is_there_exactly_while_work_can_be_given() {
    let mut tier = root();
    let offer = |tier: &Tier| -> Option<Offer> { tier.children[&child(1)].offer.clone() };
    give(&mut tier, Input::Child(child(1), Up::Hello(hello(1, summary(1000)))));
    assert_eq!(offer(&tier), None);
    give(&mut tier, Input::Child(child(1), snapshot(0, Vec::new())));
    assert_eq!(offer(&tier).unwrap().capacity.memory_mib, 1000);
    give(&mut tier, Input::Child(child(1), Up::Summary(summary(500))));
    assert_eq!(offer(&tier).unwrap().capacity.memory_mib, 500);
    give(&mut tier, Input::Child(child(1), Up::Hello(hello(1, summary(700)))));
    assert_eq!(offer(&tier), None, "a new connection has not told yet");
    give(&mut tier, Input::Child(child(1), snapshot(0, Vec::new())));
    give(&mut tier, Input::ChildGone(child(1), None));
    assert_eq!(offer(&tier), None);
}
