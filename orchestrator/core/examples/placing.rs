//! Times of a tier at its design limits: one placement among 10 000 nodes, all nodes coming
//! back at once, 10 000 instances without a place, a node with most of them silent.
//!
//! `cargo run --release -p marram-orchestrator-core --example placing` prints them. It is a
//! table to read, not a test: times on a shared machine prove nothing either way.

#![allow(
    clippy::disallowed_types,
    clippy::disallowed_methods,
    clippy::print_stdout,
    reason = "it measures time and prints it"
)]

use marram_orchestrator_core::{CHILDREN_MAX, Identity, Input, Now, Tier};
use marram_protocol::CLUSTER_INSTANCES_MAX;
use marram_protocol::id::{ChildId, InstanceId, ServiceId};
use marram_protocol::v1::{
    Anchor, ChildKind, Coordinate, Generation, Geo, Hello, Placement, Proximity, Resources, Scope,
    ServiceSpec, Summary, Up, Workload,
};
use std::time::{Duration, Instant};

/// Instances that find a place; all others that a tier takes do not.
const PLACEMENTS: usize = 1000;

/// Instances placed under each of the conditions.
const CONDITIONED: usize = 30;

struct Clock(u64);

impl Clock {
    fn tick(&mut self) -> Now {
        self.0 += 1;
        self.now()
    }

    fn now(&self) -> Now {
        Now { mono_ms: self.0, unix_ms: self.0 }
    }
}

fn tier() -> Tier {
    let identity = Identity {
        id: ChildId([255; 12]),
        name: "root".into(),
        location: String::new(),
        version: "0".into(),
        incarnation: 1,
        labels: Vec::new(),
        address: String::new(),
        node_address: String::new(),
    };
    Tier::new(identity, true, 1)
}

fn id(number: usize) -> [u8; 12] {
    let mut id = [0; 12];
    id[4..].copy_from_slice(&(number as u64).to_be_bytes());
    id
}

fn workload(number: usize, memory_mib: u32) -> Workload {
    let spec = ServiceSpec {
        virtualization: "container".into(),
        resources: Resources { memory_mib, ..Resources::default() },
        architectures: vec!["arm64".into()],
        ..ServiceSpec::default()
    };
    // Of one service each ten, so that spreading has something to do.
    let instance = InstanceId {
        service: ServiceId(id(number / 10)),
        number: u32::try_from(number % 10).unwrap_or_default(),
    };
    Workload { instance, revision: 1, name: "app.ns.service.ns".into(), spec }
}

/// Ten thousand nodes on a square of 50 ms.
fn coordinate(number: usize) -> Coordinate {
    let step = |n: usize| i32::try_from(n % 100).unwrap_or_default() * 500;
    Coordinate { x_us: step(number), y_us: step(number / 100), height_us: 700, error_permille: 90 }
}

/// What each plugin looks at, by name.
fn conditions() -> Vec<(&'static str, Placement)> {
    let text = |text: &str| text.to_owned();
    let near = |to, latency_us_max, distance_m_max| Placement {
        policy: text("ldp"),
        proximity: vec![Proximity { to, latency_us_max, distance_m_max, rigidness_permille: 900 }],
        ..Placement::default()
    };
    // Of the first service, all other instances have another name.
    let service = Anchor::Service(ServiceId(id(0)).to_string());
    let here = || Anchor::Place(Geo { latitude_udeg: 52_500_000, longitude_udeg: 13_000_000 });
    let usual = Placement::default;
    vec![
        ("best-fit, by labels", Placement { labels: text("site=berlin,rack!=7"), ..usual() }),
        ("spread over nodes", Placement { policy: text("spread"), ..usual() }),
        ("spread over 100 racks", Placement { spread: text("rack"), ..usual() }),
        ("apart from others", Placement { apart_from: vec![text("app.ns.other.ns")], ..usual() }),
        ("ldp, 20 ms from a service", near(service, Some(20_000), None)),
        ("ldp, 60 km from a place", near(here(), None, Some(60_000))),
        ("ldp, 20 ms from users at a place", near(here(), Some(20_000), None)),
    ]
}

/// Handles an input and everything that follows; the number of effects.
fn handle(tier: &mut Tier, clock: &mut Clock, input: Input) -> usize {
    tier.handle(clock.tick(), input);
    std::iter::from_fn(|| tier.poll_effect()).count()
}

/// A node comes, named as all others, and tells that nothing runs there.
fn come(tier: &mut Tier, clock: &mut Clock, number: usize, memory_mib: u32) -> usize {
    let capacity =
        Resources { memory_mib, cpu_millicores: 4000, storage_mib: 9000, ..Resources::default() };
    let hello = Hello {
        child: ChildId(id(number)),
        kind: ChildKind::Node,
        name: "raspberrypi".into(),
        version: "0".into(),
        incarnation: clock.0,
        generation: Generation::default(),
        summary: Summary {
            nodes: 1,
            capacity,
            largest_free: capacity,
            architectures: vec!["arm64".into()],
            virtualizations: vec!["container".into(), "native".into()],
            labels: vec![format!("rack={}", number % 100), "site=berlin".into()],
            location: format!("52.{:04},13.{:04}", number / 100, number % 100),
            coordinate: Some(coordinate(number)),
            ..Summary::default()
        },
        facts: Vec::new(),
        tree: 0,
        preferred: None,
        address: String::new(),
        node_address: String::new(),
        labels: Vec::new(),
    };
    let snapshot = Up::Observed {
        generation: Generation::default(),
        scope: Scope::Snapshot { first: true, last: true },
        statuses: Vec::new(),
    };
    let child = ChildId(id(number));
    handle(tier, clock, Input::Child(child, Up::Hello(hello)))
        + handle(tier, clock, Input::Child(child, snapshot))
}

/// Times of the same thing done again and again. On a machine that does other things as
/// well, the best of them tells most.
#[derive(Default)]
struct Times(Vec<Duration>);

impl Times {
    fn take<T>(&mut self, work: impl FnOnce() -> T) -> T {
        let start = Instant::now();
        let result = work();
        self.0.push(start.elapsed());
        result
    }

    fn print(mut self, what: &str) {
        self.0.sort();
        let ms = |time: Option<&Duration>| time.map_or(0.0, |time| time.as_secs_f64() * 1e3);
        let (best, median) = (ms(self.0.first()), ms(self.0.get(self.0.len() / 2)));
        println!(
            "{what:<48} {:>6} times, best {best:>8.3} ms, median {median:>8.3} ms",
            self.0.len()
        );
    }
}

fn main() {
    let (mut tier, mut clock) = (tier(), Clock(0));
    let mut times = Times::default();
    for number in 0..CHILDREN_MAX {
        times.take(|| come(&mut tier, &mut clock, number, 1000));
    }
    times.print("a new node comes, named as all others");

    let mut times = Times::default();
    for number in 0..PLACEMENTS {
        let workload = workload(number, 100);
        times.take(|| handle(&mut tier, &mut clock, Input::Deploy(workload)));
    }
    times.print("one placement among 10 000 nodes");

    let mut placed = PLACEMENTS;
    for (what, placement) in conditions() {
        let mut times = Times::default();
        for _ in 0..CONDITIONED {
            let mut workload = workload(placed, 10);
            workload.spec.placement = placement.clone();
            times.take(|| handle(&mut tier, &mut clock, Input::Deploy(workload)));
            placed += 1;
        }
        times.print(&format!("the same, {what}"));
    }

    let mut times = Times::default();
    let waiting = CLUSTER_INSTANCES_MAX - placed;
    for number in 0..waiting {
        let workload = workload(number + placed, 5000);
        times.take(|| handle(&mut tier, &mut clock, Input::Deploy(workload)));
    }
    times.print("an instance that fits nowhere");

    let mut times = Times::default();
    for number in 0..100 {
        times.take(|| come(&mut tier, &mut clock, number, 1000));
    }
    times.print("a node comes back while 8 790 wait");

    let mut times = Times::default();
    clock.0 += 1_000_000;
    let now = clock.tick();
    while tier.poll_timeout().is_some_and(|due| due <= now.mono_ms) {
        times.take(|| tier.handle_timeout(now));
        while tier.poll_effect().is_some() {}
    }
    times.print("a turn of retries, all 8 790 being due");

    let mut times = Times::default();
    times.take(|| come(&mut tier, &mut clock, 0, 60_000_000));
    times.print("a node comes that takes all of them");
    lose(&mut tier, &mut clock);
}

/// The node with most instances falls silent for good.
fn lose(tier: &mut Tier, clock: &mut Clock) {
    let mut times = Times::default();
    times.take(|| handle(tier, clock, Input::ChildGone(ChildId(id(0)), None)));
    times.print("the node with 8 790 instances falls silent");

    let mut times = Times::default();
    for _ in 0..100 {
        times.take(|| tier.poll_timeout());
    }
    times.print("the next moment is looked up");

    let (mut beats, mut turns) = (Times::default(), Times::default());
    let patience_over_ms = clock.0 + 300_000;
    while let Some(due_ms) = tier.poll_timeout().filter(|due| *due <= patience_over_ms) {
        clock.0 = clock.0.max(due_ms);
        let times = if due_ms < patience_over_ms { &mut beats } else { &mut turns };
        times.take(|| tier.handle_timeout(clock.now()));
        while tier.poll_effect().is_some() {}
    }
    beats.print("a beat while their patience lasts");
    turns.print("a turn of takeovers, nobody having room");
}
