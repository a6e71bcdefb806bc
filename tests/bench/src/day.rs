//! A day of a whole tree in this process: ten thousand nodes in a hundred clusters under a
//! root, all of them the production cores, in virtual time.
//!
//! What is simulated beside them is a day as sites have it: load that changes, links that go
//! and come back, boards that start anew, an operator who deploys and removes. What is counted
//! is what the cores say to each other and what they keep. Messages arrive at once; what a
//! slow or lossy net does to the cores is for the simulator in `tests/sim` to show.

mod tree;

use crate::gauges::own_anonymous_mib;
use crate::progress;
use crate::table::Table;
use anyhow::ensure;
use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::time::{Duration, Instant};
use tree::{Counted, Tree};

const CLUSTERS: u32 = 100;
const NODES_EACH: u32 = 100;
const NODES: u32 = CLUSTERS * NODES_EACH;

/// At the beginning; a tier takes ten thousand.
const INSTANCES: u32 = 8_000;

const SECOND_MS: u64 = 1_000;
const MINUTE_MS: u64 = 60 * SECOND_MS;
const DAY_MS: u64 = 24 * 60 * MINUTE_MS;

/// By then everything has been told once.
const WARM_MS: u64 = 60 * MINUTE_MS;

/// A slow machine stops here and tells how far it has come.
const TIME_MAX: Duration = Duration::from_secs(120);

/// Nodes tell everything this often, and what changed in between.
const HEARTBEAT_MS: u64 = MINUTE_MS;

/// A new connection's first sample: the node measures every five seconds.
const SAMPLE_MS: u64 = 5 * SECOND_MS;

/// Mean times between what happens to one node, one cluster, and by the operator.
const LOAD_EVERY_MS: u64 = 10 * MINUTE_MS;
const CUT_EVERY_MS: u64 = 12 * 60 * MINUTE_MS;
const CUT_FOR_MS: u64 = 3 * MINUTE_MS;
const REBOOT_EVERY_MS: u64 = 5 * DAY_MS;
const REBOOT_FOR_MS: u64 = MINUTE_MS;
const ORDER_EVERY_MS: u64 = 20 * SECOND_MS;

/// Timers are not so exact here as programs are: what is due waits for the next look.
const TIMERS_EVERY_MS: u64 = 5 * SECOND_MS;

/// Engines have few: each of their looks is one of so many.
const ENGINES_EVERY: u64 = 6;

/// What comes next in the day.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Event {
    /// Telemetry of a node, unless its connection is another by then.
    Beat(u32, u32),
    /// Its load changes.
    Load(u32),
    Cut(u32),
    Back(u32),
    Reboot(u32),
    Up(u32),
    CutCluster(u32),
    BackCluster(u32),
    Deploy,
    Remove,
    /// Timers of all cores are looked at.
    Timers,
}

pub(crate) fn measure(table: &mut Table) -> anyhow::Result<()> {
    progress("a day of 10 000 nodes in 100 clusters");
    let before = own_anonymous_mib()?;
    let mut day = Day::new()?;
    let with_nodes = own_anonymous_mib()?;
    day.tree.connect_all()?;
    let with_tiers = own_anonymous_mib()?;
    for number in 0..INSTANCES {
        day.tree.deploy(number)?;
    }
    let with_instances = own_anonymous_mib()?;
    ensure!(day.tree.running() == count(INSTANCES), "{} run", day.tree.running());
    day.tree.counted = Counted::default();
    let began = Instant::now();
    day.run(began, WARM_MS)?;
    let warm = own_anonymous_mib()?;
    day.run(began, DAY_MS)?;
    let wall = began.elapsed().as_secs_f64();
    let at_the_end = own_anonymous_mib()?;
    let each_kib = |mib: f64, count: u32| mib * 1024.0 / f64::from(count);
    table.noted(
        "day of 10 000 nodes in 100 clusters, simulated: memory of the cores",
        format!(
            "engine {:.1} KiB; {:.1} KiB for each node at its cluster; {:.1} KiB for each \
             instance in its engine, its cluster and the root; {:.1} KiB for each node by what \
             the first hour tells; {:+.1} MiB in all after that",
            each_kib(with_nodes - before, NODES),
            each_kib(with_tiers - with_nodes, NODES),
            each_kib(with_instances - with_tiers, INSTANCES),
            each_kib(warm - with_instances, NODES),
            at_the_end - warm,
        ),
    );
    day.told(table, wall);
    Ok(())
}

struct Day {
    tree: Tree,
    dice: Dice,
    events: BinaryHeap<Reverse<(u64, Event)>>,
    /// Which connection of each node beats.
    beats: Vec<u32>,
    next_instance: u32,
    oldest_instance: u32,
    looks: u64,
}

impl Day {
    fn new() -> anyhow::Result<Self> {
        let mut day = Self {
            tree: Tree::new(CLUSTERS, NODES_EACH)?,
            dice: Dice(1),
            events: BinaryHeap::new(),
            beats: vec![0; count(NODES)],
            next_instance: INSTANCES,
            oldest_instance: 0,
            looks: 0,
        };
        for node in 0..NODES {
            day.at(HEARTBEAT_MS * u64::from(node) / u64::from(NODES), Event::Beat(node, 0));
            day.later(LOAD_EVERY_MS, Event::Load(node));
            day.later(CUT_EVERY_MS, Event::Cut(node));
            day.later(REBOOT_EVERY_MS, Event::Reboot(node));
        }
        for cluster in 0..CLUSTERS {
            day.later(CUT_EVERY_MS, Event::CutCluster(cluster));
        }
        day.later(ORDER_EVERY_MS, Event::Deploy);
        day.later(ORDER_EVERY_MS, Event::Remove);
        day.at(TIMERS_EVERY_MS, Event::Timers);
        Ok(day)
    }

    fn at(&mut self, at_ms: u64, event: Event) {
        self.events.push(Reverse((at_ms, event)));
    }

    /// After a time of chance with this mean.
    fn later(&mut self, mean_ms: u64, event: Event) {
        let wait = self.dice.around(mean_ms);
        self.at(self.tree.now_ms() + wait, event);
    }

    fn run(&mut self, began: Instant, until_ms: u64) -> anyhow::Result<()> {
        let mut handled = 0_u32;
        while let Some(Reverse((at_ms, event))) = self.events.pop() {
            handled = handled.wrapping_add(1);
            let too_long = handled.is_multiple_of(4096) && began.elapsed() > TIME_MAX;
            if at_ms > until_ms || too_long {
                self.at(at_ms, event);
                return Ok(());
            }
            self.tree.pass_to(at_ms);
            self.happens(event)?;
        }
        Ok(())
    }

    fn happens(&mut self, event: Event) -> anyhow::Result<()> {
        match event {
            Event::Beat(node, beat) if self.beats[index(node)] == beat => {
                self.tree.sample(node)?;
                self.at(self.tree.now_ms() + HEARTBEAT_MS, event);
            }
            Event::Beat(..) => {}
            Event::Load(node) => {
                self.tree.load(node, self.dice.below(800), self.dice.below(1500));
                self.tree.sample(node)?;
                self.later(LOAD_EVERY_MS, event);
            }
            Event::Cut(node) => {
                self.tree.cut(node)?;
                self.later(CUT_FOR_MS, Event::Back(node));
            }
            Event::Back(node) => {
                self.back(node)?;
                self.later(CUT_EVERY_MS, Event::Cut(node));
            }
            Event::Reboot(node) => {
                self.tree.cut(node)?;
                self.later(REBOOT_FOR_MS, Event::Up(node));
            }
            Event::Up(node) => {
                self.tree.reboot(node)?;
                self.back(node)?;
                self.later(REBOOT_EVERY_MS, Event::Reboot(node));
            }
            Event::CutCluster(cluster) => {
                self.tree.cut_cluster(cluster)?;
                self.later(CUT_FOR_MS, Event::BackCluster(cluster));
            }
            Event::BackCluster(cluster) => {
                self.tree.connect_cluster(cluster)?;
                self.later(CUT_EVERY_MS, Event::CutCluster(cluster));
            }
            Event::Deploy => {
                self.tree.deploy(self.next_instance)?;
                self.next_instance += 1;
                self.later(ORDER_EVERY_MS, event);
            }
            Event::Remove => {
                self.tree.remove(self.oldest_instance)?;
                self.oldest_instance += 1;
                self.later(ORDER_EVERY_MS, event);
            }
            Event::Timers => {
                self.looks += 1;
                self.tree.wake(self.looks.is_multiple_of(ENGINES_EVERY))?;
                self.at(self.tree.now_ms() + TIMERS_EVERY_MS, event);
            }
        }
        Ok(())
    }

    fn back(&mut self, node: u32) -> anyhow::Result<()> {
        self.tree.connect(node)?;
        self.beats[index(node)] += 1;
        let beat = Event::Beat(node, self.beats[index(node)]);
        self.at(self.tree.now_ms() + SAMPLE_MS, beat);
        Ok(())
    }

    fn told(&self, table: &mut Table, wall: f64) {
        let counted = &self.tree.counted;
        let hours = self.tree.now_ms() / (60 * MINUTE_MS);
        let seconds = self.tree.now_ms() / SECOND_MS;
        let rate = |bytes: u64, among: u32| per(bytes, seconds.max(1)) / f64::from(among);
        table.noted(
            "the same: bytes up, without headers, from each node / each cluster",
            format!(
                "{:.1} / {:.0} bytes/s; {:.1} / {:.1} messages a minute",
                rate(counted.from_nodes.bytes, NODES),
                rate(counted.from_clusters.bytes, CLUSTERS),
                rate(counted.from_nodes.messages * 60, NODES),
                rate(counted.from_clusters.messages * 60, CLUSTERS),
            ),
        );
        table.noted(
            "the same: bytes down, to each cluster / each node",
            format!(
                "{:.2} / {:.2} bytes/s",
                rate(counted.to_clusters.bytes, CLUSTERS),
                rate(counted.to_nodes.bytes, NODES),
            ),
        );
        table.noted(
            "the same: written to disk, by each node / each cluster / the root",
            format!(
                "{:.1} / {:.1} / {:.0} KiB",
                per(counted.node_writes, 1024) / f64::from(NODES),
                per(counted.cluster_writes, 1024) / f64::from(CLUSTERS),
                per(counted.root_writes, 1024),
            ),
        );
        table.noted(
            "the same: time that it took",
            format!(
                "{wall:.0} s for {hours} h; {} inputs of cores; {} of {} instances run at the end",
                counted.inputs,
                self.tree.running(),
                self.next_instance - self.oldest_instance,
            ),
        );
    }
}

/// A generator, so that every run of the bench has the same day.
struct Dice(u64);

impl Dice {
    fn draw(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, bound: u32) -> u32 {
        u32::try_from(self.draw() % u64::from(bound)).unwrap_or(0)
    }

    /// From nothing to twice the mean, so that it is the mean.
    fn around(&mut self, mean_ms: u64) -> u64 {
        1 + self.draw() % (2 * mean_ms)
    }
}

fn index(number: u32) -> usize {
    usize::try_from(number).unwrap_or(usize::MAX)
}

fn count(number: u32) -> usize {
    index(number)
}

fn per(amount: u64, unit: u64) -> f64 {
    // Amounts of a day are far below what a double counts exactly.
    u32::try_from(amount / unit).map_or(f64::INFINITY, f64::from)
        + u32::try_from(amount % unit).map_or(0.0, f64::from)
            / u32::try_from(unit).map_or(1.0, f64::from)
}
