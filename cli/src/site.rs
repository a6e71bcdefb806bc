//! A site: a root, clusters and nodes on this machine, one of each or a tree of them, for a first
//! try and for one-board sites.
//!
//! Rooms:
//! - [`tree`]: which programs, and who is whose parent;
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
mod tree;

pub(crate) use layout::usual_folder;
pub(crate) use start::up;
pub(crate) use stop::down;
pub(crate) use tree::Shape;
