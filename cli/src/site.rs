//! A site: one root, one cluster and one node on this machine, for a first try and for one-board
//! sites.
//!
//! Rooms:
//! - [`layout`]: the folder, the generated configuration files, what is remembered;
//! - [`process`]: programs in the background that are found again by pid and start time;
//! - [`start`]: `marram up`;
//! - [`stop`]: `marram down`.
//!
//! Why here and not in a fourth program: it needs nothing but the programs and the root's
//! interface, and is what somebody types first.

mod layout;
mod process;
mod start;
mod stop;

pub(crate) use start::up;
pub(crate) use stop::down;
