//! Kinds of worlds that are tried over and over, and how one is tried.

use crate::{Params, World};
use std::panic::{AssertUnwindSafe, catch_unwind};

/// A kind of world.
#[derive(Debug, Clone, Copy)]
pub struct Preset {
    /// What its days are like.
    pub name: &'static str,
    /// Of a thousand worlds in all, so many are of this kind.
    pub permille: u64,
    /// What they are.
    pub params: Params,
}

const USUAL: Params = Params {
    clusters: 2,
    depth: 1,
    nodes: 6,
    fates: 60,
    faults: 50,
    instances: 0,
    telemetry: 0,
    clones: 0,
    failover: 0,
    operations: 1,
};

/// All kinds.
pub const PRESETS: &[Preset] = &[
    Preset { name: "good days", permille: 40, params: Params { faults: 0, telemetry: 1, ..USUAL } },
    Preset {
        name: "one cluster",
        permille: 110,
        params: Params { clusters: 1, nodes: 3, ..USUAL },
    },
    Preset { name: "bad days", permille: 150, params: USUAL },
    Preset {
        name: "terrible days",
        permille: 150,
        params: Params { clusters: 3, faults: 80, fates: 120, ..USUAL },
    },
    Preset {
        name: "deep trees",
        permille: 200,
        params: Params { clusters: 4, depth: 3, nodes: 8, fates: 90, ..USUAL },
    },
    Preset {
        name: "copied machines",
        permille: 100,
        params: Params { clones: 1, fates: 90, ..USUAL },
    },
    Preset {
        name: "other parents",
        permille: 200,
        params: Params { clusters: 4, depth: 2, nodes: 8, fates: 25, failover: 1, ..USUAL },
    },
    Preset {
        name: "wide trees",
        permille: 50,
        params: Params { clusters: 12, depth: 3, nodes: 60, fates: 150, telemetry: 1, ..USUAL },
    },
];

/// Lives through a world. If it does not end well: why, and the command that shows it.
///
/// # Errors
/// What was wrong, with the last lines of what happened if `lines` is not 0.
pub fn story(seed: u64, params: Params, lines: usize) -> Result<World, String> {
    let mut world =
        if lines > 0 { World::recorded(seed, params) } else { World::new(seed, params) };
    let Err(panic) = catch_unwind(AssertUnwindSafe(|| world.run())) else { return Ok(world) };
    let text = panic.downcast_ref::<String>().map(String::as_str);
    let text = text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("it panicked");
    let tail = world.log()[world.log().len().saturating_sub(lines)..].join("\n");
    Err(format!("{tail}\n{text}\ncargo run -p marram-sim -- {seed} {params}"))
}
