//! Some hundreds of worlds of all kinds; a failure names its seed, and the same seed fails
//! again. `SIM_FACTOR=20 cargo nextest run -p marram-sim` tries twenty times as many.

use marram_sim::{PRESETS, Params, World, story};

/// Worlds of all kinds together, with a factor of 1.
const WORLDS: u64 = 500;

/// Lines of the log that a failure shows; `marram-sim` shows all.
const LINES_MAX: usize = 60;

fn run_all(name: &str) {
    let factor: u64 = std::env::var("SIM_FACTOR").map_or(1, |f| f.parse().expect("a number"));
    let preset = PRESETS.iter().find(|preset| preset.name == name).expect("it is listed");
    for seed in 0..(WORLDS * factor * preset.permille).div_ceil(1000) {
        if story(seed, preset.params, 0).is_err() {
            let why = story(seed, preset.params, LINES_MAX).expect_err("it fails again");
            panic!("{why}");
        }
    }
}

#[test]
fn good_days() {
    run_all("good days");
}

#[test]
fn one_cluster() {
    run_all("one cluster");
}

#[test]
fn bad_days() {
    run_all("bad days");
}

#[test]
fn terrible_days() {
    run_all("terrible days");
}

#[test]
fn deep_trees() {
    run_all("deep trees");
}

#[test]
fn copied_machines() {
    run_all("copied machines");
}

#[test]
fn other_parents() {
    run_all("other parents");
}

#[test]
fn wide_trees() {
    run_all("wide trees");
}

#[test]
fn a_seed_always_tells_the_same_story() {
    let params = Params { clusters: 3, depth: 2, clones: 1, ..Params::default() };
    let tell = || {
        let mut world = World::recorded(7, params);
        world.run_for(600_000);
        world.log().to_vec()
    };
    let first = tell();
    assert!(first.len() > 100 && first == tell());
}
