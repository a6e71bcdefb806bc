//! The contract between the node engine and whatever runs workloads.
//!
//! Why apart: a backend depends on this crate and on nothing of the engine, and the
//! engine depends on this crate and, by feature, on a table of backends. Everything
//! here is plain data or a trait; no runtime, no I/O, no clock.
//!
//! Who does what:
//! - the **engine** owns time, retries, restart policy and durable storage;
//! - a **backend** owns what exists on the host, can list it, and decides nothing.
//!
//! ```text
//!            prepare            start               stop
//!  absent ───────────► prepared ───────► running ───────────► exited
//!    ▲                    │                 │    (or by itself)  │
//!    └────────────────────┴── destroy ──────┴────────────────────┘
//! ```
//!
//! Every verb is idempotent: done again after a crash at any point it ends in the same
//! place. The `conformance` feature holds the suite that proves it for a backend.

mod error;
mod observed;
mod spec;
mod verbs;

#[cfg(feature = "conformance")]
pub mod conformance;

pub use error::{Error, ErrorKind, Result};
pub use observed::{
    Capabilities, Event, Exit, ExitReason, Fingerprint, Health, Limit, Observed, Runtime, Usage,
};
pub use spec::{
    Credentials, Handle, ID_BYTES_MAX, Limits, Mount, Resources, Spec, WorkloadId, WorkloadIdError,
};
pub use verbs::{
    Backend, BoxFuture, Cursor, Events, Exec, ExecEvent, ExecInput, ExecOutput, ExecRequest,
    ExecSession, LogChunk, Logs, Pause, Stream,
};
