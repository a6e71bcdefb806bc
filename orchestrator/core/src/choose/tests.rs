//! What is chosen and what is said about it agree.

use super::*;
use crate::child::{Abilities, Link};
use crate::instance::Instance;
use marram_protocol::id::ServiceId;
use marram_protocol::port::{PortMapping, Transport};
use marram_protocol::v1::{Generation, Hello, Summary, Workload};
use proptest::prelude::*;

fn words() -> impl Strategy<Value = Vec<String>> {
    prop::collection::vec(prop::sample::select(vec!["a".to_owned(), "b".into()]), 0..3)
}

fn spec() -> impl Strategy<Value = ServiceSpec> {
    let runtime = prop::option::of(prop::sample::select(vec!["a".to_owned(), "c".into()]));
    (0..4u32, words(), runtime, words(), prop::option::of(79..81u16), 0..20u8).prop_map(
        |(memory_mib, architectures, runtime, nodes, port, rare)| {
            let mut spec = ServiceSpec {
                virtualization: "a".into(),
                runtime,
                resources: Resources { memory_mib, ..Resources::default() },
                architectures,
                ..ServiceSpec::default()
            };
            spec.placement.nodes = nodes;
            let mapping = |host| PortMapping { host, workload: 80, transport: Transport::Tcp };
            spec.ports = port.into_iter().map(mapping).collect();
            if rare == 0 {
                spec.placement.unsupported = vec!["latency".into()];
            }
            spec
        },
    )
}

fn instance(number: u32, spec: ServiceSpec) -> Instance {
    let instance = InstanceId { service: ServiceId([9; 12]), number };
    let workload = Workload { instance, revision: 1, name: "a.b.c.d".into(), spec };
    Instance::new(workload, Now::default())
}

fn child(abilities: &mut Abilities, has: &[Vec<String>; 2], told: u8, held: ServiceSpec) -> Child {
    let id = ChildId([1; 12]);
    let capacity = Resources { memory_mib: 3, ..Resources::default() };
    let [architectures, virtualizations] = has.clone();
    let hello = Hello {
        child: id,
        kind: ChildKind::Node,
        name: "a".into(),
        version: String::new(),
        incarnation: 0,
        generation: Generation::default(),
        summary: Summary { capacity, architectures, virtualizations, ..Summary::default() },
        facts: Vec::new(),
        tree: 0,
        preferred: None,
        address: String::new(),
        node_address: String::new(),
        labels: Vec::new(),
    };
    let mut child = Child::new(id, "a".into(), ChildKind::Node);
    if told > 0 {
        child.link = Some(Link { complete: told > 1, ..Link::new(hello) });
    }
    child.note_offer(abilities);
    let mut held = instance(0, held);
    held.placed = Some(id);
    child.hold(&held);
    child
}

proptest! {
    #[test]
    fn the_sieve_passes_what_there_is_nothing_to_say_against(
        wanted in spec(),
        children in prop::collection::vec((words(), words(), 0..8u8, spec()), 1..30),
        refused in any::<bool>(),
    ) {
        let mut abilities = Abilities::default();
        let mut make = |(architectures, virtualizations, told, held): (_, _, _, ServiceSpec)| {
            child(&mut abilities, &[architectures, virtualizations], told, held)
        };
        let children: Vec<Child> = children.into_iter().map(&mut make).collect();
        let demand = amounts(wanted.resources);
        let mut wanted = instance(1, wanted);
        if refused {
            wanted.note_refusal(ChildId([1; 12]), "no");
        }
        let mut sieve = Sieve::new(&wanted);
        for child in &children {
            let passes = sieve.pass(child, &demand).is_some();
            prop_assert_eq!(passes, misfit(child, &wanted).is_none(), "{:?}", child);
        }
    }
}

#[test]
fn many_kinds_of_children_are_judged_each_for_itself() {
    let mut abilities = Abilities::default();
    let wanted = instance(1, ServiceSpec { virtualization: "v7".into(), ..ServiceSpec::default() });
    let children: Vec<Child> = (0..3 * JUDGED_MAX)
        .map(|kind| {
            let has = [Vec::new(), vec![format!("v{}", kind % 40)]];
            child(&mut abilities, &has, 2, ServiceSpec::default())
        })
        .collect();
    let mut sieve = Sieve::new(&wanted);
    let passed: Vec<usize> = (0..children.len())
        .filter(|index| sieve.pass(&children[*index], &[0; 7]).is_some())
        .collect();
    assert_eq!(passed, [7, 47]);
}
