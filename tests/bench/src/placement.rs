//! Placement among as many nodes as one tier takes, in this process: no wire, no disk.

use crate::progress;
use crate::stats::Times;
use crate::table::{Promise, Table};
use anyhow::ensure;
use marram_orchestrator_core::{CHILDREN_MAX, Effect, Identity, Input, Now, Tier};
use marram_protocol::id::{ChildId, InstanceId, ServiceId};
use marram_protocol::v1::{
    ChildKind, Down, Generation, Hello, Resources, Scope, ServiceSpec, Summary, Up, Workload,
};
use std::time::Instant;

const PLACEMENTS: u32 = 300;

pub(crate) fn measure(table: &mut Table) -> anyhow::Result<()> {
    progress("placing among 10 000 nodes");
    let now = Now { mono_ms: 1, unix_ms: 1 };
    let identity = Identity {
        id: ChildId([255; 12]),
        name: "root".to_owned(),
        location: String::new(),
        version: "bench".to_owned(),
        incarnation: 1,
        labels: Vec::new(),
        address: String::new(),
        node_address: String::new(),
    };
    let mut tier = Tier::new(identity, true, 1);
    for number in 0..u32::try_from(CHILDREN_MAX)? {
        for message in arrival(number) {
            tier.handle(now, Input::Child(child(number), message));
        }
    }
    while tier.poll_effect().is_some() {}
    let mut times = Times::default();
    for number in 0..PLACEMENTS {
        let input = Input::Deploy(workload(number));
        let began = Instant::now();
        tier.handle(now, input);
        times.push(began.elapsed());
        ensure!(was_placed(&mut tier), "instance {number} was not placed");
    }
    let median = times.median_ms();
    table.promised(
        Promise {
            what: "placement of one instance among 10 000 nodes",
            budget: "≤ 1 ms",
            known: "Oakestra 140 ms among 500",
        },
        &[(median, 1.0)],
        format!("{median:.2} ms, at most {:.2} ({PLACEMENTS} times)", times.most_ms()),
    );
    Ok(())
}

/// Whether a child was told of the instance, which ends what was decided.
fn was_placed(tier: &mut Tier) -> bool {
    let mut told = false;
    while let Some(effect) = tier.poll_effect() {
        told |= matches!(effect, Effect::ToChild(_, Down::Change { .. }));
    }
    told
}

fn child(number: u32) -> ChildId {
    let mut bytes = [7; 12];
    bytes[..4].copy_from_slice(&number.to_be_bytes());
    ChildId(bytes)
}

/// What a node says first. No two nodes are alike, so that the choice is a real one.
fn arrival(number: u32) -> [Up; 2] {
    let capacity = Resources {
        memory_mib: 1024 + number % 7 * 512,
        cpu_millicores: 1000 + number % 4 * 1000,
        storage_mib: 16 * 1024,
        ..Resources::default()
    };
    let summary = Summary {
        nodes: 1,
        capacity,
        largest_free: capacity,
        architectures: vec![["amd64", "arm64"][usize::from(number % 2 == 1)].to_owned()],
        virtualizations: ["container", "native", "runc"].map(str::to_owned).to_vec(),
        ..Summary::default()
    };
    let generation = Generation::default();
    let hello = Hello {
        child: child(number),
        kind: ChildKind::Node,
        name: format!("board-{number}"),
        version: "bench".to_owned(),
        incarnation: 1,
        generation,
        summary,
        facts: Vec::new(),
        tree: 0,
        preferred: None,
        address: String::new(),
        node_address: String::new(),
        labels: Vec::new(),
    };
    let scope = Scope::Snapshot { first: true, last: true };
    [Up::Hello(hello), Up::Observed { generation, scope, statuses: Vec::new() }]
}

fn workload(number: u32) -> Workload {
    let resources =
        Resources { memory_mib: 100, cpu_millicores: 100, storage_mib: 10, ..Resources::default() };
    let spec = ServiceSpec {
        virtualization: "container".to_owned(),
        image: "docker.io/library/busybox:latest".to_owned(),
        resources,
        architectures: vec!["arm64".to_owned()],
        ..ServiceSpec::default()
    };
    let instance = InstanceId { service: ServiceId([1; 12]), number };
    Workload { instance, revision: 0, name: "app.bench.service.bench".to_owned(), spec }
}
