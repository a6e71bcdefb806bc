//! A backend without a host: workloads are scripts in memory, time is given.
//!
//! Why: the engine's tests and the simulator need workloads that fail, hang, die and come
//! back exactly when they say so. It passes the conformance suite, which also proves the
//! suite's cases.
//!
//! ```
//! use marram_backend_mock::{MockBackend, MockHost, Script};
//! use std::time::Duration;
//!
//! let host = MockHost::new();                       // outlives the engine
//! let backend = MockBackend::new(host.clone());     // one engine's view of it
//! let script = Script { run_for: Some(Duration::from_secs(3)), ..Script::default() };
//! assert_eq!(Script::from_arguments(&script.to_arguments()), Ok(script));
//! host.advance(Duration::from_secs(4));             // nothing happens between two calls
//! # drop(backend);
//! ```
//!
//! What a workload does is, in this order: what [`MockHost::script`] says for its id, or
//! what its arguments say (see [`Script::to_arguments`]), or running until it is stopped.
//!
//! Invariants:
//! - no thread, no clock, no runtime: the same calls give the same results;
//! - a dropped [`MockBackend`] changes nothing on its [`MockHost`].

mod backend;
mod host;
mod output;
mod script;
mod workload;

pub use backend::MockBackend;
pub use host::{Call, MockHost, Verb};
pub use script::{OnTerm, Script, ScriptError};
