//! Replays one world and shows what happens in it.
//!
//! `marram-sim SEED [CLUSTERS [MACHINES [STEPS [FAULTS [NESTED]]]]]`, numbers all; NESTED is 0
//! or 1. Without them it is a bad day of two clusters.

use marram_sim::{Params, World};
use std::io::Write;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::process::ExitCode;

fn main() -> ExitCode {
    let mut out = std::io::stdout().lock();
    let numbers: Result<Vec<u64>, _> = std::env::args().skip(1).map(|word| word.parse()).collect();
    let Some((seed, params)) = numbers.ok().as_deref().and_then(read) else {
        let usage = "usage: marram-sim SEED [CLUSTERS [MACHINES [STEPS [FAULTS [NESTED]]]]]";
        // Nobody is left to tell if this fails.
        drop(writeln!(std::io::stderr(), "{usage}"));
        return ExitCode::from(64);
    };
    let mut world = World::recorded(seed, params);
    let outcome = catch_unwind(AssertUnwindSafe(|| world.run()));
    for line in world.log() {
        if writeln!(out, "{line}").is_err() {
            return ExitCode::SUCCESS;
        }
    }
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(panic) => resume_unwind(panic),
    }
}

fn read(numbers: &[u64]) -> Option<(u64, Params)> {
    let seed = *numbers.first()?;
    let number = |index: usize, usual: u64| numbers.get(index).copied().unwrap_or(usual);
    let params = Params {
        clusters: u8::try_from(number(1, 2)).ok()?,
        machines: u8::try_from(number(2, 3)).ok()?,
        steps: u32::try_from(number(3, 1500)).ok()?,
        faults: number(4, 6),
        nested: number(5, 0) == 1,
    };
    Some((seed, params))
}
