//! Some hundreds of worlds; a failure names its seed, and the same seed fails again.

use marram_sim::{Params, World};
use std::panic::{AssertUnwindSafe, catch_unwind};

fn run(seed: u64, params: Params) {
    let mut world = World::new(seed, params);
    let outcome = catch_unwind(AssertUnwindSafe(|| {
        for _ in 0..params.steps {
            world.step();
            world.check();
        }
        world.heal();
    }));
    if let Err(panic) = outcome {
        let tail = world.log.len().saturating_sub(120);
        for line in &world.log[tail..] {
            eprintln!("{line}");
        }
        eprintln!("seed {seed} {params:?}");
        std::panic::resume_unwind(panic);
    }
}

#[test]
fn a_good_day() {
    let params = Params { clusters: 1, machines: 1, steps: 500, faults: 0 };
    (0..20).for_each(|seed| run(seed, params));
}

#[test]
fn bad_days() {
    let params = Params { clusters: 2, machines: 3, steps: 1500, faults: 6 };
    (0..200).for_each(|seed| run(seed, params));
}

#[test]
fn terrible_days() {
    let params = Params { clusters: 3, machines: 2, steps: 1500, faults: 30 };
    (1000..1200).for_each(|seed| run(seed, params));
}
