//! Tiers over as many nodes as are wanted, which say who they are and then nothing more.

use anyhow::Context;
use marram_orchestrator_core::{Effect, Identity, Input, Now, Tier};
use marram_protocol::id::ChildId;
use marram_protocol::v1::{
    ChildKind, Coordinate, Down, Generation, Hello, Resources, Scope, Summary, Up, Workload,
};
use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// Around which all nodes are, in millionths of a degree.
pub(crate) const MIDDLE_UDEG: (i32, i32) = (48_000_000, 11_000_000);

/// How far they are from there at most, in millionths of a degree: some 300 km.
const REACH_UDEG: u32 = 2_700_000;

/// Nodes of one cluster are within a tenth of that.
const SITE_UDEG: u32 = 270_000;

/// A way of a thousandth of a degree, about a hundred metres, takes so long there and back
/// over the nets of real sites: ten times what light in glass takes.
const US_PER_MILLIDEGREE: i32 = 8;

/// How long tiers took to decide.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Took {
    pub(crate) root: Duration,
    /// Nothing, without clusters.
    pub(crate) cluster: Duration,
}

/// A root over nodes, or over clusters of nodes.
pub(crate) struct Forest {
    root: Tier,
    clusters: Vec<Tier>,
    now: Now,
}

impl Forest {
    /// A tier with so many nodes of its own.
    pub(crate) fn alone(nodes: u32) -> anyhow::Result<Self> {
        let mut forest = Self { root: tier(u32::MAX, true), clusters: Vec::new(), now: at(1) };
        for number in 0..nodes {
            let position = scattered(number, MIDDLE_UDEG, REACH_UDEG);
            for message in arrival(number, position) {
                forest.root.handle(forest.now, Input::Child(id(number), message));
            }
            while forest.root.poll_effect().is_some() {}
        }
        Ok(forest)
    }

    /// A root with clusters, each with nodes in one region.
    pub(crate) fn new(clusters: u32, nodes: u32) -> anyhow::Result<Self> {
        let all = (0..clusters).map(|number| tier(number, false)).collect();
        let mut forest = Self { root: tier(u32::MAX, true), clusters: all, now: at(1) };
        for number in 0..clusters {
            forest.cluster(number, Input::ParentUp { preferred: None })?;
            let site = scattered(number, MIDDLE_UDEG, REACH_UDEG);
            for node in (0..nodes).map(|node| number * nodes + node) {
                let position = scattered(node, site, SITE_UDEG);
                for message in arrival(node, position) {
                    forest.cluster(number, Input::Child(id(node), message))?;
                }
            }
        }
        // Summaries go up at most once a second.
        forest.now = at(10_000);
        for number in 0..clusters {
            let tier = forest.clusters.get_mut(usize::try_from(number)?).context("a cluster")?;
            tier.handle_timeout(forest.now);
            forest.settle(number)?;
        }
        Ok(forest)
    }

    /// Deploys, and tells how long that took, or `None` if no node was told of it.
    pub(crate) fn deploy(&mut self, workload: Workload) -> anyhow::Result<Option<Took>> {
        let mut took = Took { root: Duration::ZERO, cluster: Duration::ZERO };
        let input = Input::Deploy(workload);
        let began = Instant::now();
        self.root.handle(self.now, input);
        took.root = began.elapsed();
        let mut told = false;
        while let Some((number, down)) = self.next_down()? {
            let is_order = matches!(&down, Down::Change { upserts, .. } if !upserts.is_empty());
            let Some(tier) = self.clusters.get_mut(usize::try_from(number)?) else {
                told |= is_order;
                continue;
            };
            let began = Instant::now();
            tier.handle(self.now, Input::Parent(down));
            took.cluster += began.elapsed();
            told |= self.answers(number)?;
        }
        Ok(told.then_some(took))
    }

    /// The next word of the root; without clusters, to a node, with a number of no cluster.
    fn next_down(&mut self) -> anyhow::Result<Option<(u32, Down)>> {
        while let Some(effect) = self.root.poll_effect() {
            if let Effect::ToChild(child, down) = effect {
                let number = if self.clusters.is_empty() { u32::MAX } else { number_of(child)? };
                return Ok(Some((number, down)));
            }
        }
        Ok(None)
    }

    /// Hands a cluster's words to the root; `true` if it has told a node to run something.
    fn answers(&mut self, number: u32) -> anyhow::Result<bool> {
        let mut told = false;
        let tier = self.clusters.get_mut(usize::try_from(number)?).context("a cluster")?;
        while let Some(effect) = tier.poll_effect() {
            match effect {
                Effect::ToChild(_, Down::Change { upserts, .. }) => told |= !upserts.is_empty(),
                Effect::ToParent(up) => {
                    self.root.handle(self.now, Input::Child(id(number), up));
                }
                _ => {}
            }
        }
        Ok(told)
    }

    fn cluster(&mut self, number: u32, input: Input) -> anyhow::Result<()> {
        let tier = self.clusters.get_mut(usize::try_from(number)?).context("a cluster")?;
        tier.handle(self.now, input);
        self.settle(number)
    }

    /// Lets a cluster and the root say all that they have to say.
    fn settle(&mut self, number: u32) -> anyhow::Result<()> {
        let mut waiting = VecDeque::from([number]);
        while let Some(number) = waiting.pop_front() {
            self.answers(number)?;
            while let Some((number, down)) = self.next_down()? {
                let tier = self.clusters.get_mut(usize::try_from(number)?).context("a cluster")?;
                tier.handle(self.now, Input::Parent(down));
                waiting.push_back(number);
            }
        }
        Ok(())
    }
}

fn at(mono_ms: u64) -> Now {
    Now { mono_ms, unix_ms: mono_ms }
}

fn tier(number: u32, is_root: bool) -> Tier {
    let (latitude, longitude) = scattered(number, MIDDLE_UDEG, REACH_UDEG);
    let identity = Identity {
        id: id(number),
        name: format!("site-{number}"),
        location: if is_root { String::new() } else { location(latitude, longitude) },
        version: "bench".to_owned(),
        incarnation: 1,
        labels: Vec::new(),
        address: String::new(),
        node_address: String::new(),
    };
    Tier::new(identity, is_root, 1 + u64::from(number))
}

fn id(number: u32) -> ChildId {
    let mut bytes = [7; 12];
    bytes[..4].copy_from_slice(&number.to_be_bytes());
    ChildId(bytes)
}

fn number_of(id: ChildId) -> anyhow::Result<u32> {
    Ok(u32::from_be_bytes(*id.0.first_chunk::<4>().context("an id is longer")?))
}

/// A place of its own for each number, within a square around another.
fn scattered(number: u32, (latitude, longitude): (i32, i32), reach: u32) -> (i32, i32) {
    let mixed = number.wrapping_mul(0x9e37_79b9) ^ (number >> 3).wrapping_mul(0x85eb_ca6b);
    let off = |part: u32| i32::try_from(part % (2 * reach)).unwrap_or(0);
    let reach_signed = i32::try_from(reach).unwrap_or(0);
    let (north, east) = (off(mixed), off(mixed.rotate_left(16)));
    (latitude - reach_signed + north, longitude - reach_signed + east)
}

fn location(latitude_udeg: i32, longitude_udeg: i32) -> String {
    let degrees = |udeg: i32| f64::from(udeg) / 1e6;
    format!("{:.6},{:.6}", degrees(latitude_udeg), degrees(longitude_udeg))
}

/// What a node says first. No two nodes are alike, so that the choice is a real one.
fn arrival(number: u32, (latitude, longitude): (i32, i32)) -> [Up; 2] {
    let capacity = Resources {
        memory_mib: 8192 + number % 7 * 512,
        cpu_millicores: 32_000 + number % 4 * 1000,
        storage_mib: 16 * 1024,
        bandwidth_in_kbps: 1_000_000,
        bandwidth_out_kbps: 1_000_000,
        ..Resources::default()
    };
    let (middle_latitude, middle_longitude) = MIDDLE_UDEG;
    let way = |udeg: i32| udeg / 1000 * US_PER_MILLIDEGREE;
    let summary = Summary {
        nodes: 1,
        capacity,
        largest_free: capacity,
        architectures: vec![["amd64", "arm64"][usize::from(number % 2 == 1)].to_owned()],
        virtualizations: ["container", "native", "runc"].map(str::to_owned).to_vec(),
        location: location(latitude, longitude),
        labels: vec![format!("zone=z{}", number % 10)],
        coordinate: Some(Coordinate {
            x_us: way(latitude - middle_latitude),
            y_us: way(longitude - middle_longitude),
            height_us: 200 + number % 1000,
            error_permille: 100,
        }),
        ..Summary::default()
    };
    let generation = Generation::default();
    let hello = Hello {
        child: id(number),
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
