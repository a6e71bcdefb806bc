//! Each condition by itself, and all of them against a plain restatement.

mod books;
mod conditions;
mod room;

use super::*;
use crate::Input;
use crate::tier::tests::{at, child, effects, hello, instance, root, snapshot, summary};
use marram_protocol::id::ServiceId;
use marram_protocol::port::{PortMapping, Transport};
use marram_protocol::v1::{Resources, ServiceSpec, Summary, Up, Workload};
use proptest::prelude::*;

fn words() -> impl Strategy<Value = Vec<String>> {
    prop::collection::vec(prop::sample::select(vec!["a".to_owned(), "b".into()]), 0..3)
}

fn spec() -> impl Strategy<Value = ServiceSpec> {
    let runtime = prop::option::of(prop::sample::select(vec!["a".to_owned(), "c".into()]));
    let labels = prop::sample::select(vec!["", "a", "!a", "a,!b", "b=*"]);
    let port = prop::option::of(79..81u16);
    let needs = (words(), labels, words(), 0..20u8);
    (0..4u32, words(), runtime, port, needs).prop_map(
        |(memory_mib, architectures, runtime, port, (nodes, labels, addons, rare))| {
            let mut spec = ServiceSpec {
                virtualization: "a".into(),
                runtime,
                resources: Resources { memory_mib, ..Resources::default() },
                architectures,
                ..ServiceSpec::default()
            };
            spec.placement.nodes = nodes;
            spec.placement.labels = labels.into();
            spec.placement.addons = addons;
            let mapping = |host| PortMapping { host, workload: 80, transport: Transport::Tcp };
            spec.ports = port.into_iter().map(mapping).collect();
            if rare == 0 {
                spec.placement.unsupported = vec!["volumes".into()];
            }
            spec
        },
    )
}

/// A node: architectures, virtualizations, labels, addons, and whether it has told everything.
type Has = ([Vec<String>; 4], bool, ServiceSpec);

fn workload(number: u32, spec: ServiceSpec) -> Workload {
    let instance = InstanceId { service: ServiceId([8; 12]), number };
    Workload { instance, revision: 1, name: format!("a.b.c.d.{number}"), spec }
}

fn come(tier: &mut Tier, number: u32, summary: Summary) {
    let mut hello = hello(number, summary);
    hello.name = if number == 0 { "a".into() } else { format!("n{number}") };
    tier.handle(at(0), Input::Child(child(number), Up::Hello(hello)));
    tier.handle(at(0), Input::Child(child(number), snapshot(0, Vec::new())));
}

/// The conditions once more, as one would say them.
fn takes(name: &str, has: &Has, wanted: &ServiceSpec) -> bool {
    let ([architectures, virtualizations, labels, addons], told, held) = has;
    let placement = &wanted.placement;
    let label = |key: &str| labels.iter().any(|label| label == key);
    let labelled = match placement.labels.as_str() {
        "a" => label("a"),
        "!a" => !label("a"),
        "a,!b" => label("a") && !label("b"),
        "b=*" => label("b"),
        _ => true,
    };
    let held_mib = held.resources.memory_mib;
    *told
        && labelled
        && placement.unsupported.is_empty()
        && (placement.nodes.is_empty() || placement.nodes.iter().any(|node| node == name))
        && placement.addons.iter().all(|addon| addons.contains(addon))
        && virtualizations.contains(&wanted.virtualization)
        && wanted.runtime.as_ref().is_none_or(|runtime| virtualizations.contains(runtime))
        && (wanted.architectures.is_empty()
            || wanted.architectures.iter().any(|one| architectures.contains(one)))
        && wanted.ports.iter().all(|port| !held.ports.contains(port))
        && wanted.resources.memory_mib + held_mib <= 3
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn who_can_take_it_is_found_and_nobody_else(
        wanted in spec(),
        children in prop::collection::vec(
            ([words(), words(), words(), words()], prop::bool::weighted(0.9), spec()), 1..12,
        ),
    ) {
        let mut tier = root();
        for (number, (lists, told, held)) in (0..).zip(&children) {
            let [architectures, virtualizations, labels, addons] = lists.clone();
            let summary =
                Summary { architectures, virtualizations, labels, addons, ..summary(3) };
            come(&mut tier, number, summary);
            let mut placed = Instance::new(workload(number, held.clone()), at(0));
            placed.placed = Some(child(number));
            let there = tier.children.get_mut(&child(number)).unwrap();
            there.hold(&placed);
            if !told {
                there.offer = None;
            }
        }
        let wanted = Instance::new(workload(99, wanted), at(0));
        let name = |number: usize| if number == 0 { "a".into() } else { format!("n{number}") };
        let expected: Vec<ChildId> = (0..children.len())
            .filter(|n| takes(&name(*n), &children[*n], &wanted.workload.spec))
            .map(|n| child(u32::try_from(n).unwrap()))
            .collect();
        match tier.weigh(&wanted, tier.children.values()) {
            Some(choice) => {
                prop_assert!(expected.contains(&choice.child));
                prop_assert_eq!((choice.candidates, choice.of), (expected.len(), children.len()));
            }
            None => prop_assert!(expected.is_empty()),
        }
    }
}

#[test]
fn many_kinds_of_children_are_judged_each_for_itself() {
    let mut tier = root();
    for number in 0..3 * 16 {
        let virtualizations = vec![format!("v{}", number % 40)];
        come(&mut tier, number, Summary { virtualizations, ..summary(1) });
    }
    let spec = ServiceSpec { virtualization: "v7".into(), ..ServiceSpec::default() };
    let wanted = Instance::new(workload(0, spec), at(0));
    let choice = tier.weigh(&wanted, tier.children.values()).unwrap();
    assert_eq!((choice.child, choice.candidates), (child(7), 2));
}

#[test]
fn decisions_are_kept_over_a_restart() {
    let mut tier = root();
    come(&mut tier, 1, summary(100));
    effects(&mut tier);
    tier.handle(at(5), Input::Deploy(crate::tier::tests::workload(1, 50)));
    let kept = tier.explain(instance(1)).unwrap().clone();
    assert_eq!(kept.len(), 1);
    assert_eq!(kept[0].verdict.to_string(), "placed on n1 by best-fit, one of 1 that fit among 1");
    let records = effects(&mut tier).into_iter().filter_map(|effect| match effect {
        crate::Effect::Persist(records) => Some(records),
        _ => None,
    });
    let records: Vec<_> = records.flatten().filter_map(|(k, v)| Some((k, v?))).collect();
    let tier = Tier::restore(tier.identity.clone(), true, 1, records, at(9)).unwrap();
    assert_eq!(tier.explain(instance(1)), Some(&kept));
}
