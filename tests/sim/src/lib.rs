//! A whole tree in one process, one seed and virtual time, on the production cores.
//!
//! Why: the cores decide everything and do nothing, so a world that does things to them, at
//! the worst moments, finds what no hand-written test would. The same seed gives the same
//! world, step by step.
//!
//! Faults drawn from the seed: links cut and healed with what was on its way lost, messages
//! delivered twice, crash and restart of any tier from what it had persisted, reboots, effects
//! that fail before or after they were done or whose result is lost, workloads that exit.
//!
//! Safety is checked after every step by [`World::check`], liveness by [`World::heal`].
//! `cargo run -p marram-sim -- SEED` shows what happens in one world.

mod machine;
mod tier;
mod world;

pub use world::{Params, World};

/// A small deterministic generator: splitmix64.
#[derive(Debug, Clone)]
pub struct Random(u64);

impl Random {
    /// The same seed gives the same sequence.
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// Any number.
    pub fn draw(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A number below `end`, which is not 0.
    pub fn below(&mut self, end: u64) -> u64 {
        self.draw() % end.max(1)
    }

    /// True `percent` times out of a hundred.
    pub fn chance(&mut self, percent: u64) -> bool {
        self.below(100) < percent
    }

    /// An index into a list that is not empty.
    pub fn index(&mut self, len: usize) -> usize {
        usize::try_from(self.below(len as u64)).unwrap_or(0)
    }
}
