//! Real sites for end-to-end tests: the real programs, started, killed and asked.
//!
//! Why apart from the tests: the benches start the same sites.
//!
//! Programs are those beside the test's own (`cargo build --workspace --bins`). A [`Site`] is one
//! of each on loopback; a [`Tree`] has many, on machines that are network namespaces. Both live
//! below one temporary folder, and everything ends with them.

mod api;
mod net;
mod site;
mod stack;
mod tree;

pub use api::Api;
pub use net::Net;
pub use site::{Site, Tier};
pub use stack::Stack;
pub use tree::{FAILBACK_S, FAILOVER_S, Place, Process, Tree};

use anyhow::bail;
use std::path::PathBuf;
use std::time::{Duration, Instant};

/// The longest that anything may take which should take milliseconds; the machine is slow
/// and does other things.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// Asks until there is an answer, or says what was waited for.
///
/// # Errors
/// No answer within [`PATIENCE`].
pub fn wait_for<T>(what: &str, ask: impl FnMut() -> Option<T>) -> anyhow::Result<T> {
    wait_up_to(PATIENCE, what, ask)
}

/// The same for what takes long by its nature, as noticing that nobody answers.
///
/// # Errors
/// No answer within this time.
pub fn wait_up_to<T>(
    patience: Duration,
    what: &str,
    mut ask: impl FnMut() -> Option<T>,
) -> anyhow::Result<T> {
    let deadline = Instant::now() + patience;
    loop {
        if let Some(answer) = ask() {
            return Ok(answer);
        }
        if Instant::now() > deadline {
            bail!("waited {patience:?} in vain for: {what}");
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// The folder of the programs that were built with this one.
///
/// # Errors
/// This program's own path is not known.
pub fn programs() -> anyhow::Result<PathBuf> {
    let own = std::env::current_exe()?;
    let mut folder = own.as_path();
    // Tests are in `deps`, programs above.
    while let Some(parent) = folder.parent() {
        folder = parent;
        if folder.join("marram-node").is_file() {
            return Ok(folder.to_owned());
        }
        if folder.ends_with("target") {
            break;
        }
    }
    bail!("no programs beside {}; build them with `cargo build --workspace --bins`", own.display())
}
