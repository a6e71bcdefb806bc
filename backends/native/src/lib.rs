//! Programs of the host as workloads.
//!
//! Why: most boards of the first years run programs, not images, and some never get a
//! container engine. A program is started under a user without rights, in a cgroup, a
//! session and a process group of its own, and watched by a small shim that outlives the
//! engine (crate `marram-shim`).
//!
//! What is on the host of a workload:
//!
//! ```text
//! STATE_DIR/ID/request.json     what the engine asked for
//! STATE_DIR/ID/…                the shim's files, see `marram_shim::files`
//! CGROUP/PARENT/w-ID            one directory per hierarchy; PARENT is `marram`, or on
//!                               version 2 under systemd the service's own cgroup
//! ```
//!
//! Invariants:
//! - a program runs as root only if its specification and the operator's limits say so;
//! - a limit that the kernel does not hold here is refused, or explicitly waived;
//! - the host's files say what is true; in memory there is only who waits for what.
//!
//! What is not kept from a program: it sees the host's files, its `/dev` too, as far as its
//! user may. Who needs more separation takes a container.

mod backend;
mod cgroups;
mod config;
mod exec;
mod host;
mod logs;
mod request;
mod sessions;
mod users;
mod watches;
mod workload;

pub use backend::NativeBackend;
pub use config::Config;
