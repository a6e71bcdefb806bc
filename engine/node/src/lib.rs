//! The shell of a node: performs what `marram-engine-core` decides.
//!
//! Rooms:
//! - [`config`]: what the operator says;
//! - [`ledger`]: what must survive a cut of the power;
//! - `backends`, `convert`: the table of backends, and the way from a service to their words;
//! - `perform`: effects become calls of backends;
//! - `ports`: host ports;
//! - `link`: the connection to the cluster;
//! - `streams`, `explain`: logs, exec, and what the node says of an instance;
//! - `looks`: whether backends serve, and what they have;
//! - `measure`: fingerprint and telemetry;
//! - `echo`: where the node is in the net;
//! - `disk`: when the ledger is written;
//! - [`shell`]: the one task that owns the engine.
//!
//! Invariants: this process opens no port but that for echo, if the operator names one; its
//! end, however it comes, ends no workload unless a drain was asked for.

mod backends;
pub mod config;
mod convert;
mod disk;
mod echo;
mod explain;
pub mod ledger;
mod link;
mod looks;
mod measure;
#[cfg(test)]
mod moody;
mod perform;
mod ports;
pub mod shell;
mod streams;
mod way;
