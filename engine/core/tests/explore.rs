//! Every short story and many long ones of one instance, on a backend that keeps the contract
//! and fails wherever it may: no state without a way out, nothing touched that nobody
//! wants touched, no spinning.
//!
//! A world is an engine and a modelled backend. After each step the rules in `check` hold;
//! after each story peace breaks out, and what is desired must come true.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod model;

use model::{Action, World};

/// Where short stories begin.
const OPENINGS: &[&[Action]] = &[
    &[],
    &[Action::Desire(2), Action::Ok, Action::Ok],
    &[Action::Desire(1), Action::Ok, Action::Ok, Action::Exit(0)],
    &[Action::Desire(3), Action::Ok],
];

fn explore(world: &World, depth: usize, stories: &mut u64) {
    if depth == 0 {
        *stories += 1;
        return world.clone().peace();
    }
    for action in Action::ALL.into_iter().filter(|action| world.is_possible(*action)) {
        let mut world = world.clone();
        world.act(action);
        explore(&world, depth - 1, stories);
    }
}

#[test]
fn every_short_story_ends_well() {
    let mut stories = 0;
    for opening in OPENINGS {
        let mut world = World::new();
        opening.iter().for_each(|action| world.act(*action));
        explore(&world, 4, &mut stories);
    }
    assert!(stories > 10_000, "only {stories} stories");
}

#[test]
fn many_long_stories_end_well() {
    tell_many(World::new);
}

#[test]
fn nothing_runs_without_the_root_that_must_not() {
    tell_many(World::fenced);
}

fn tell_many(begin: impl Fn() -> World) {
    for seed in 0..3_000u64 {
        let mut draw = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
        let mut world = begin();
        for _ in 0..60 {
            let possible: Vec<Action> =
                Action::ALL.into_iter().filter(|action| world.is_possible(*action)).collect();
            draw ^= draw << 13;
            draw ^= draw >> 7;
            draw ^= draw << 17;
            let index = usize::try_from(draw % possible.len() as u64).unwrap();
            // Half of the time things go well, or no story would get far.
            match draw % 3 != 0 && world.is_possible(Action::Ok) {
                true => world.act(Action::Ok),
                false => world.act(possible[index]),
            }
        }
        world.peace();
    }
}
