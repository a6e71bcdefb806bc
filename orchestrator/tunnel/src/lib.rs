//! The way between a cluster and its parent: one gRPC stream, opened by the cluster.
//!
//! Why apart: both shells speak it, one from each end, and neither needs anything else of the
//! other. The stream's messages are the bytes of the protocol's envelope, so that a message is
//! the same on every hop (docs/decisions/0002-postcard-inside-grpc.md); hence the codec and the
//! glue to tonic are written here and nothing is generated.
//!
//! ```text
//!  parent                                   child
//!  serve(listener) ─► Children ─► ChildConnection ◄══ HTTP/2 ══► ParentConnection ◄─ Dialer
//!                                   sender: Down                    sender: Up
//!                                   receiver: Up                    receiver: Down
//! ```
//!
//! [`serve_children`] is what both owners of children run behind it: a task for each connection.
//!
//! Invariants:
//! - dropping both halves of a connection ends it, and the other side's receiver ends then;
//! - a receiver that is not read from stops its sender: nothing on the way is without bound;
//! - bytes that are no message end the stream with a reason and are never acted on.

mod backoff;
mod children;
mod client;
mod codec;
mod connection;
mod halves;
mod server;

pub use backoff::{BACKOFF_MS_MAX, BACKOFF_MS_MIN, Backoff};
pub use children::{ChildEvent, CutOff, Outlet, Streams, serve_children};
pub use client::{DialError, Dialer, ParentConnection};
pub use halves::{Message, ReceiveError, Receiver, SendError, Sender};
pub use server::{ChildConnection, Children, ServeError, serve, serve_while};

use std::time::Duration;

/// The one method.
const PATH: &str = "/marram.v1.Tunnel/Open";

/// And one that opens nothing: whether a child would be served well here.
const PROBE_PATH: &str = "/marram.v1.Tunnel/Probe";

/// Messages that wait to be sent on one connection: enough that a burst of small ones is not
/// held up, and with the longest ones still only 4 MiB.
pub const QUEUE_MESSAGES_MAX: usize = 16;

/// Connections to one parent, open or being opened: many more clusters than a root has, and
/// at 64 KiB of windows each still little memory. Further ones wait in the listener's backlog.
pub const CONNECTIONS_MAX: usize = 1024;

/// From connecting to an open stream. A peer that takes longer is not there, or means harm.
pub const OPEN_TIME_MAX: Duration = Duration::from_secs(10);

/// Between two pings, and how long an answer may take: a broken way is noticed within 40 s, and
/// costs 34 bytes a ping.
const KEEPALIVE: Duration = Duration::from_secs(20);

/// What the other side may send before it is read: HTTP/2's own default. A larger one only
/// buys speed on long fat ways, and costs that much memory for every child that is not read.
const WINDOW_BYTES: u32 = 65_535;

#[cfg(test)]
mod tests;
