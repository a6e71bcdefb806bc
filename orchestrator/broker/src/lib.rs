//! The MQTT endpoint that a cluster orchestrator embeds: MQTT 5 and 3.1.1 on one listener.
//!
//! Why an endpoint of our own: a cluster has to hold thousands of nodes' connections in little
//! memory, know each client by its key, allow it its own topics only and hand messages to the
//! orchestrator without a second process. The complete brokers that exist cost ten times the
//! memory or cannot judge a client by its certificate.
//!
//! How it is built: `core` decides (sessions, subscriptions, retained messages, wills, queues) and
//! is a function of its inputs and of a time that is handed in. `endpoint` speaks the protocol of
//! one connection over that core, bytes in and bytes out. Around them stands a thin tokio shell:
//! one task per connection, its handshake inside the task, and no buffer kept while a connection
//! is idle. Packets are taken apart by `mqtt-protocol-core`; nothing of its per-connection state
//! machine is used (docs/decisions/0003-decode-only-from-the-codec.md).
//!
//! What it promises:
//! - QoS 0 and 1 in both directions. QoS 2 is announced as unsupported to MQTT 5 clients; 3.1.1
//!   clients, who cannot be told, may publish with it and are delivered at QoS 1.
//! - **Sessions and retained messages live in memory.** A restart of the process loses them; every
//!   client then sees "session present = 0" and sends its whole state again. Nothing observed is
//!   ever written to a disk, so an idle or busy broker wears no flash.
//! - Every queue is bounded by count and by bytes ([`Config`]). What does not fit is dropped and
//!   counted ([`Stats`]), except for messages to in-process clients: those push back on the
//!   publishers instead (see [`LocalClient`]).
//! - A client id belongs to the identity that opened its session; another identity is refused.

mod auth;
mod broker;
mod codec;
mod config;
mod connection;
mod core;
mod endpoint;
mod local;
mod reason;
mod serve;
mod shared;

pub use crate::auth::{AllowAll, Authorizer, ConnectRequest, Identity, PeerIdentity, Refused};
pub use crate::broker::{Broker, PublishError};
pub use crate::codec::Qos;
pub use crate::config::{Config, Quota};
pub use crate::core::{ConnectionEvent, Stats};
pub use crate::local::{LocalClient, LocalItem, LocalMessage, SubscribeError};
pub use crate::reason::Reason;
pub use crate::serve::{Plain, Transport};
