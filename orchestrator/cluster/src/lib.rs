//! The shell of a cluster: nodes by MQTT below, the parent by the tunnel above, decisions by
//! the orchestrator core in between.
//!
//! ```text
//!   parent ◄── tunnel ──► parent link ─┐
//!                                      ├─► shell: owns core and relay ──► store
//!   nodes ◄─── MQTT ────► bus ─────────┤
//!   clusters ◄─ tunnel ─► connections ─┤
//!   operators ◄─ socket ► local ───────┘
//! ```
//!
//! Why apart from the core: everything here is about connections, files and time. One task
//! owns all state; the others carry bytes and speak to it by bounded queues.
//!
//! Rooms: `config` (the file), `run` (puts the pieces together), `bus` (nodes' messages, from
//! the embedded endpoint or from a broker elsewhere), `parent` (the way up, and whose it is),
//! `relay` (logs, exec and questions), `asked` (who answers them), `local` (operators at this
//! machine), `shell` (the owner), `storage` (records on disk).
//!
//! Invariants:
//! - what is to be durable is committed before anybody hears of it;
//! - a node is believed only on topics under its own id, whatever let its message through;
//! - without a parent everything goes on but what only the parent can decide.

mod asked;
mod bus;
mod clock;
pub mod config;
mod local;
mod parent;
mod relay;
mod run;
mod shell;
mod storage;

pub use run::{Error, Ready, run};
pub use shell::NODE_UNKNOWN;
