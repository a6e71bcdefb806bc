//! What stands beside a workload while the engine comes and goes: it keeps the output,
//! sees the exit and writes both down.
//!
//! Why a program of its own: the engine may be restarted, upgraded or killed at any time,
//! and somebody has to be the parent of a process and the reader of its pipes meanwhile.
//! One such program runs per workload, so it holds no runtime and next to no memory.
//!
//! The program `marram-shim` has three modes:
//!
//! - `marram-shim run DIR INCARNATION` supervises one program of the host, see [`supervise`];
//! - `marram-shim child` is the stage between a fork and the program: it takes its orders
//!   from standard input, drops rights and becomes the program, see [`launch`];
//! - `marram-shim log DIR bytes_max N …`, in any order, keeps the output of a container and
//!   how it ended: it is containerd's binary logging driver, see [`driver`] for the URI to give
//!   to containerd.
//!
//! The library holds the formats that the backends share with it: [`log`] (output in
//! rotated files with cursors that stay true), [`files`] (what is on disk of a workload),
//! [`cgroup`] (killing and telling an out-of-memory death).
//!
//! Invariant: nothing here depends on the engine, on a runtime or on a clock other than the
//! wall's, and what a newer engine writes to disk an older shim that still runs never reads
//! again.

pub mod cgroup;
pub mod driver;
pub mod entry;
pub mod files;
pub mod launch;
pub mod log;
pub mod process;
pub mod supervise;
mod ttrpc;
pub mod witness;
