//! Runs workloads as containers, through containerd 1.6 and later.
//!
//! Why so: containerd is on every distribution, keeps containers running while nobody
//! watches, and starts any runtime by name: runc, crun, Kata's machines, gVisor.
//!
//! ```text
//!  Containerd (the contract's verbs)
//!    ├─ image/      names, registries, content store, snapshots, pull
//!    ├─ oci/        a specification becomes a runtime's description
//!    ├─ container   the record and root file system of a workload
//!    ├─ lifecycle   prepare, start, stop, destroy, list, recover
//!    ├─ task        what containerd says of a running program, in our words
//!    ├─ watch       one subscription to its events
//!    ├─ logs, exec  output by marram-shim, further programs by fifos
//!    └─ rpc         the connection, time limits, kinds of errors
//! ```
//!
//! Invariants:
//! - everything in the configured namespace of containerd is ours, and everything of a
//!   workload is found by its id: container, snapshot, task, cgroup and folder bear it;
//! - a verb that changes something of a workload runs to its end even if its future is
//!   dropped, and the next verb of that workload waits for it;
//! - no workload is touched because this object is made or dropped.
//!
//! The superuser inside a container is not the host's: it has few capabilities, a closed
//! list of system calls and devices and no way to gain more. So `Limits::allow_root` does not
//! apply here; images decide, and a request's `user` goes over them.

mod accounts;
mod backend;
mod cgroup;
mod config;
mod container;
mod exec;
mod image;
mod leaked;
mod lifecycle;
mod logs;
mod metrics;
mod oci;
mod pause;
mod rpc;
mod runtime;
mod task;
mod time;
mod validate;
mod watch;

pub use backend::Containerd;
pub use config::{Config, Mirror, Registry};
