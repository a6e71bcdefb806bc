//! Placement among as many nodes as a tree takes, in this process: no wire, no disk. Only the
//! tiers' own decisions are timed, everything between them is done beside the clock.

mod forest;

use crate::progress;
use crate::stats::Times;
use crate::table::{Promise, Table};
use anyhow::ensure;
use forest::Forest;
use marram_protocol::id::{InstanceId, ServiceId};
use marram_protocol::v1::{Anchor, Geo, Placement, Proximity, Resources, ServiceSpec, Workload};

/// Of each policy, in each forest.
const PLACEMENTS: u32 = 100;

/// Nodes of one tier.
const SIZES: [u32; 3] = [100, 1_000, 10_000];

/// Beyond what one tier takes: clusters, and nodes in each.
const LARGE: (u32, u32) = (100, 1_000);

/// Bounds of the paper's own measurement of LDP.
const LATENCY_US_MAX: u32 = 20_000;
const DISTANCE_M_MAX: u32 = 120_000;

/// A policy, and what is asked of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Wish {
    BestFit,
    /// Over the nodes' zones.
    Spread,
    /// Within 120 km of a place and 20 ms of another service.
    Ldp,
}

const WISHES: [Wish; 3] = [Wish::BestFit, Wish::Spread, Wish::Ldp];

pub(crate) fn measure(table: &mut Table) -> anyhow::Result<()> {
    let mut medians = [const { Vec::new() }; WISHES.len()];
    for size in SIZES {
        progress(&format!("placing among {size} nodes"));
        let mut forest = Forest::alone(size)?;
        anchor(&mut forest)?;
        for (wish, medians) in WISHES.into_iter().zip(&mut medians) {
            let (times, _) = place(&mut forest, wish)?;
            if size == SIZES[SIZES.len() - 1] {
                promise(table, wish, &times);
            }
            medians.push(format!("{:.3}", times.median_ms()));
        }
    }
    for (wish, medians) in WISHES.into_iter().zip(medians) {
        let known = match wish {
            Wish::BestFit => "Oakestra 0.145 to 2.4 at its root, 0.2 to 3.2 at clusters, 45 nodes",
            Wish::Spread => "no figure of Oakestra",
            Wish::Ldp => "Oakestra 16 / 26 / 42 / 140 among 10 / 50 / 100 / 500",
        };
        table.noted(
            &format!("placement among 100 / 1 000 / 10 000 nodes of one tier: {}", name(wish)),
            format!("{} ms ({known})", medians.join(" / ")),
        );
    }
    large(table)
}

fn large(table: &mut Table) -> anyhow::Result<()> {
    let (clusters, nodes) = LARGE;
    progress("placing among 100 000 nodes in 100 clusters");
    let mut forest = Forest::new(clusters, nodes)?;
    anchor(&mut forest)?;
    let mut texts = Vec::new();
    for wish in WISHES {
        let (root, cluster) = place(&mut forest, wish)?;
        let (root, cluster) = (root.median_ms(), cluster.median_ms());
        texts.push(format!("{} {root:.3} + {cluster:.3} ms", name(wish)));
    }
    table.noted(
        "placement among 100 000 nodes: at the root over 100 clusters + at one with 1 000 nodes",
        texts.join(", "),
    );
    Ok(())
}

fn promise(table: &mut Table, wish: Wish, times: &Times) {
    let what = match wish {
        Wish::BestFit => "placement of one instance among 10 000 nodes",
        Wish::Spread => "the same, spread over their zones",
        Wish::Ldp => "the same, near a place and a service (LDP)",
    };
    let known = if wish == Wish::Ldp { "Oakestra 140 ms among 500" } else { "" };
    let (median, most) = (times.median_ms(), times.most_ms());
    table.promised(
        Promise { what, budget: "≤ 1 ms", known },
        &[(median, 1.0)],
        format!("{median:.2} ms, at most {most:.2} ({} times)", times.count()),
    );
}

fn name(wish: Wish) -> &'static str {
    match wish {
        Wish::BestFit => "best-fit",
        Wish::Spread => "spread",
        Wish::Ldp => "ldp",
    }
}

/// Places the service that others want to be near to, in the middle of everything.
fn anchor(forest: &mut Forest) -> anyhow::Result<()> {
    let near = Placement { proximity: vec![around_the_middle()], ..Placement::default() };
    let placed = forest.deploy(workload("target", 0, near))?;
    ensure!(placed.is_some(), "the service to be near to was not placed");
    Ok(())
}

/// What the root took for each, and what a cluster took, if there is one.
fn place(forest: &mut Forest, wish: Wish) -> anyhow::Result<(Times, Times)> {
    let (mut root, mut cluster) = (Times::default(), Times::default());
    for number in 0..PLACEMENTS {
        let placed = forest.deploy(workload(name(wish), number, placement(wish)))?;
        let Some(took) = placed else {
            anyhow::bail!("{} {number} was not placed", name(wish));
        };
        root.push(took.root);
        cluster.push(took.cluster);
    }
    Ok((root, cluster))
}

fn placement(wish: Wish) -> Placement {
    let service = Proximity {
        to: Anchor::Service("app.bench.target.bench".to_owned()),
        latency_us_max: Some(LATENCY_US_MAX),
        distance_m_max: None,
        rigidness_permille: 0,
    };
    Placement {
        policy: name(wish).to_owned(),
        spread: if wish == Wish::Spread { "zone".to_owned() } else { String::new() },
        proximity: match wish {
            Wish::Ldp => vec![around_the_middle(), service],
            Wish::BestFit | Wish::Spread => Vec::new(),
        },
        ..Placement::default()
    }
}

fn around_the_middle() -> Proximity {
    let (latitude_udeg, longitude_udeg) = forest::MIDDLE_UDEG;
    Proximity {
        to: Anchor::Place(Geo { latitude_udeg, longitude_udeg }),
        latency_us_max: None,
        distance_m_max: Some(DISTANCE_M_MAX),
        rigidness_permille: 0,
    }
}

fn workload(service: &str, number: u32, placement: Placement) -> Workload {
    let mut id = [0; 12];
    for (to, from) in id.iter_mut().zip(service.bytes()) {
        *to = from;
    }
    // The paper's own demand.
    let resources = Resources { memory_mib: 100, cpu_millicores: 1000, ..Resources::default() };
    let spec = ServiceSpec {
        virtualization: "container".to_owned(),
        image: "docker.io/library/busybox:latest".to_owned(),
        resources,
        architectures: vec!["arm64".to_owned()],
        placement,
        ..ServiceSpec::default()
    };
    let instance = InstanceId { service: ServiceId(id), number };
    Workload { instance, revision: 0, name: format!("app.bench.{service}.bench"), spec }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_wish_finds_a_place_with_and_without_clusters() {
        let forests = [Forest::alone(60), Forest::new(4, 30)];
        for forest in forests {
            let mut forest = forest.expect("cores start");
            anchor(&mut forest).expect("there is room in the middle");
            for wish in WISHES {
                let spec = workload(name(wish), 0, placement(wish));
                assert!(forest.deploy(spec).expect("messages are right").is_some(), "{wish:?}");
            }
        }
    }
}
