//! A whole tree in one process, one seed and virtual time, on the production cores.
//!
//! Why: the cores decide everything and do nothing, so a world that does things to them, at
//! the worst moments, finds what no hand-written test would. The same seed gives the same
//! world, step by step.
//!
//! ```text
//!   root ── tunnel ── cluster ── tunnel ── cluster ── broker ── node: engine ── backend
//!     │ store           │ store              │ store              │ ledger
//!     └── each with clocks of its own, a queue of what happens to it, and a life that may end
//! ```
//!
//! What is simulated is what the shells promise the cores, no more: a way keeps order while
//! its connection lasts, a write that was acknowledged is there, and so on; see each module.
//! Faults are drawn from the seed (`world::faults`); safety is checked after every step
//! (`world::rules`), liveness in the peace after them (`world::peace`).
//! `cargo run -p marram-sim -- SEED` shows what happens in one world.

mod backend;
mod broker;
mod clock;
mod disk;
mod network;
mod node;
mod params;
mod presets;
mod program;
mod queue;
mod random;
mod tier;
mod world;

pub use params::Params;
pub use presets::{PRESETS, Preset, story};
pub use random::Random;
pub use world::World;
