//! Worlds that have once ended badly, each with what was wrong then.

use marram_sim::{Params, story};

/// Lines of the log that a failure shows; `marram-sim` shows all.
const LINES_MAX: usize = 60;

/// Seed, parameters, what was wrong.
const FOUND: &[(u64, &str, &str)] = &[
    (8, "faults=0 telemetry=1", "what must never run twice was moved by starting it first"),
    (
        76,
        "clusters=4 depth=3 nodes=8 fates=90",
        "what was granted to a child that never heard of it, and removed, stayed in the books",
    ),
    (
        154,
        "clusters=4 depth=2 nodes=8 fates=80 failover=1",
        "a guest was given what waits for its child for ever, and went home",
    ),
    (
        201,
        "clusters=4 depth=2 nodes=8 fates=80 failover=1",
        "a node that had been a guest elsewhere came home to a cluster that was behind",
    ),
    (
        533,
        "clusters=6 depth=3 nodes=10 fates=80 faults=70 failover=1",
        "what a child below one that was behind ran was disowned, and nobody above was asked",
    ),
    (10350, "clusters=3 fates=120 faults=80", "a parent heard a snapshot before the hello"),
];

#[test]
fn what_was_mended_stays_mended() {
    for (seed, words, what) in FOUND {
        let params = Params::read(words.split(' ')).expect("it was printed by the simulator");
        if let Err(why) = story(*seed, params, LINES_MAX) {
            panic!("{what}: {why}");
        }
    }
}
