//! Some hundreds of worlds; a failure names its seed, and the same seed fails again.
//! `SIM_FACTOR=20 cargo nextest run -p marram-sim` tries twenty times as many.

use marram_sim::{Params, World};
use std::panic::{AssertUnwindSafe, catch_unwind};

/// Lines of the log that a failure shows; `marram-sim` shows all.
const LINES_MAX: usize = 120;

fn run_all(first: u64, count: u64, params: Params) {
    let factor = std::env::var("SIM_FACTOR").map_or(1, |factor| factor.parse().expect("a number"));
    (first..first + count * factor).for_each(|seed| run(seed, params));
}

fn run(seed: u64, params: Params) {
    let mut world = World::new(seed, params);
    if catch_unwind(AssertUnwindSafe(|| world.run())).is_ok() {
        return;
    }
    let mut world = World::recorded(seed, params);
    let outcome = catch_unwind(AssertUnwindSafe(|| world.run()));
    assert!(outcome.is_err(), "seed {seed} fails only once");
    let log = world.log();
    let tail = log[log.len().saturating_sub(LINES_MAX)..].join("\n");
    let Params { clusters, machines, steps, faults, nested } = params;
    let nested = u8::from(nested);
    panic!("{tail}\nmarram-sim {seed} {clusters} {machines} {steps} {faults} {nested}");
}

#[test]
fn a_good_day() {
    let params = Params { clusters: 1, nested: false, machines: 1, steps: 500, faults: 0 };
    run_all(0, 20, params);
}

#[test]
fn bad_days() {
    let params = Params { clusters: 2, nested: false, machines: 3, steps: 1500, faults: 6 };
    run_all(100_000, 300, params);
}

#[test]
fn terrible_days() {
    let params = Params { clusters: 3, nested: false, machines: 2, steps: 1500, faults: 30 };
    run_all(200_000, 300, params);
}

#[test]
fn bad_days_two_clusters_deep() {
    let params = Params { clusters: 3, nested: true, machines: 2, steps: 1500, faults: 10 };
    run_all(300_000, 300, params);
}

#[test]
fn a_seed_always_tells_the_same_story() {
    let params = Params { clusters: 2, nested: true, machines: 2, steps: 800, faults: 10 };
    let story = || {
        let mut world = World::recorded(7, params);
        world.run();
        world.log().to_vec()
    };
    let first = story();
    assert!(first.len() > 100 && first == story());
}
