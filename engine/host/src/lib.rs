//! What this machine is and how it is doing, read from /proc, /sys and the cgroup file system.
//!
//! Why apart: it is the only code that reads those files, and none of it decides anything.
//! It answers two questions. [`Fingerprint::read`]: what is this machine (once at start, and
//! when something was plugged in). [`Sampler::sample`]: what does it use now (every few
//! seconds, so it reads few files, into one buffer).
//!
//! How it is laid out: [`parse`] turns text into values and touches nothing; everything else
//! is a thin reader below a [`Root`], which is `/`, or for tests a directory that holds the
//! files of some board.
//!
//! Invariants:
//! - what cannot be read is `None` or absent, never a guess and never an error: a board
//!   without thermal zones is a board, not a failure;
//! - no text, however strange, makes a parser panic;
//! - only integers, with the unit in the name.

mod cgroups;
mod disk;
mod fingerprint;
mod gpu;
mod network;
#[cfg(feature = "nvml")]
mod nvml;
pub mod parse;
mod root;
mod telemetry;

pub use cgroups::{CgroupMode, Cgroups, Controller};
pub use disk::Disk;
pub use fingerprint::{Architecture, Cpu, Fingerprint, KvmDevice, ThermalZone};
pub use gpu::{GPUS_MAX, Gpu, GpuVendor};
pub use network::{INTERFACES_MAX, Interface};
pub use root::{FILE_BYTES_MAX, Root};
pub use telemetry::{GpuSample, Pressures, Sample, Sampler, THERMAL_ZONES_MAX};
