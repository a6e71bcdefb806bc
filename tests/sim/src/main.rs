//! Replays one world and shows what happens in it, or tries many.
//!
//! `marram-sim SEED [NAME=NUMBER…]` shows one world; the names are those of `Params`.
//! `marram-sim soak FIRST COUNT` tries so many worlds of all kinds and names those that fail;
//! `hunt` stops at the first of them.
//! `marram-sim pace [NAME=NUMBER…]` tells how fast a world goes.

use marram_sim::{PRESETS, Params, Preset, World, story};
use std::io::Write;
use std::process::ExitCode;

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let outcome = match words.as_slice() {
        [how @ ("soak" | "hunt"), first, count] => match (first.parse(), count.parse()) {
            (Ok(first), Ok(count)) => soak(first, count, *how == "hunt"),
            _ => Err(format!("{how} takes two numbers")),
        },
        ["pace", rest @ ..] => Params::read(rest.iter().copied()).and_then(pace),
        [seed, rest @ ..] => match (seed.parse(), Params::read(rest.iter().copied())) {
            (Ok(seed), Ok(params)) => story(seed, params, usize::MAX)
                .and_then(|world| world.log().iter().try_for_each(|line| say(line))),
            (Err(_), _) => Err(format!("{seed:?} is no seed")),
            (_, Err(why)) => Err(why),
        },
        [] => Err(
            "usage: marram-sim SEED [NAME=NUMBER…] | soak FIRST COUNT | hunt FIRST COUNT | pace"
                .into(),
        ),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            // Nobody is left to tell if this fails.
            drop(writeln!(std::io::stderr(), "{why}"));
            ExitCode::FAILURE
        }
    }
}

fn say(line: &str) -> Result<(), String> {
    writeln!(std::io::stdout().lock(), "{line}").map_err(|error| error.to_string())
}

/// Worlds of all kinds, each as often as its share; all failures are told, or the first.
fn soak(first: u64, count: u64, only_first: bool) -> Result<(), String> {
    // Each failure is told once, by its command.
    std::panic::set_hook(Box::new(|_| {}));
    let (mut tried, mut failures) = (0, Vec::new());
    let share = |preset: &Preset| (count * preset.permille).div_ceil(1000);
    // In turns, so that what only one kind finds is found early.
    for seed in first..first + count {
        for preset in PRESETS.iter().filter(|preset| seed - first < share(preset)) {
            tried += 1;
            if let Err(why) = story(seed, preset.params, 0) {
                say(why.trim_start())?;
                failures.push(why);
                if only_first {
                    return Err("one ended badly".into());
                }
            }
        }
    }
    say(&format!("{tried} worlds, {} ended badly", failures.len()))?;
    if failures.is_empty() { Ok(()) } else { Err("not all went well".into()) }
}

#[allow(clippy::disallowed_methods, reason = "it measures time and prints it")]
fn pace(params: Params) -> Result<(), String> {
    let began = std::time::Instant::now();
    let mut world = World::new(1, params);
    world.run();
    let seconds = began.elapsed().as_secs_f64();
    let [up, down] = world.traffic();
    say(&format!(
        "{} steps in {seconds:.1} s, {:.0} a second; {} s of virtual time; {} messages up with \
         {} bytes, {} down with {}",
        world.steps(),
        world.steps() as f64 / seconds,
        world.now_ms() / 1000,
        up.0,
        up.1,
        down.0,
        down.1,
    ))
}
