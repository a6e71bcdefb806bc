//! The limits of the broker, each with its reason.
//!
//! Apart from the code that enforces them so that an operator finds all of them in one place.
//! Invariant: nothing that a peer can make the broker hold is without a limit here.

/// Longest topic or filter in bytes. Marram's own topics stay below 128; the rest is room for
/// operators' tools and for the `$share/group/` prefix.
pub(crate) const TOPIC_BYTES_MAX: usize = 256;

/// Most levels of a topic or filter: bounds the depth of the subscription tree's recursion.
pub(crate) const TOPIC_LEVELS_MAX: usize = 32;

/// Longest client id in bytes. Node ids are far shorter; this leaves room for tools that put host
/// name and process id into theirs.
pub(crate) const CLIENT_ID_BYTES_MAX: usize = 128;

/// Largest first packet. A peer that is not known yet may make the broker hold no more than this;
/// it fits the longest id, a will and a token as password.
pub(crate) const CONNECT_BYTES_MAX: usize = 16 * 1024;

/// Bytes read from a connection at once, into a buffer that all connections of a thread share.
pub(crate) const READ_CHUNK_BYTES: usize = 16 * 1024;

/// Encoded bytes waiting in a connection above which no further packet is taken from its session
/// and none is read from its client. One message may go over it.
pub(crate) const OUTGOING_BYTES_HIGH: usize = 32 * 1024;

/// A client that takes not one byte for this long while bytes wait for it is cut off. It is the
/// only thing that ends a stuck connection whose keep-alive is 0.
pub(crate) const WRITE_STALL_MS_MAX: u64 = 60_000;

/// How long a closing connection may take to accept its last packet.
pub(crate) const CLOSE_MS_MAX: u64 = 1_000;

/// How long a shutdown waits for the connections' last packets.
pub(crate) const SHUTDOWN_MS_MAX: u64 = 2_000;

/// Bookkeeping that one queued or retained message costs beside its own bytes; counted in, so
/// that a flood of empty messages is bounded as well.
pub(crate) const MESSAGE_OVERHEAD_BYTES: usize = 128;

/// How often the `$SYS` values are brought up to date while somebody is subscribed to them.
pub(crate) const SYS_INTERVAL_MS: u64 = 10_000;

/// Connection events that in-process clients may leave unread before new connections are refused.
/// Events are never dropped: a lost "disconnected" would leave a node alive for ever.
pub(crate) const LOCAL_EVENTS_MAX: usize = 65_536;

/// QoS 2 publishes of a 3.1.1 client between their first packet and their release.
pub(crate) const INCOMING_QOS2_MAX: usize = 64;

/// What one client may send.
///
/// A client that goes over is not cut off: the broker stops reading from it until it is within
/// its quota again, so that TCP slows it down and no message is lost. Its keep-alive does not run
/// meanwhile.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Quota {
    /// Published messages per second, averaged over [`Quota::burst_s`].
    pub messages_per_s: u32,
    /// Bytes of published packets per second, averaged over [`Quota::burst_s`].
    pub bytes_per_s: u32,
    /// How many seconds' worth may come at once.
    pub burst_s: u32,
}

impl Default for Quota {
    /// A node is budgeted at 100 bytes/s; this is generous by a factor of thousands and still
    /// lets no single client fill the orchestrator's core.
    fn default() -> Self {
        Self { messages_per_s: 1_000, bytes_per_s: 1024 * 1024, burst_s: 2 }
    }
}

/// The limits that an embedder can set.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// Connections at once, those in their handshake included. A further one is closed at once.
    pub connections_max: usize,
    /// Sessions at once, connected or waiting for their client. A further client is refused.
    pub sessions_max: usize,
    /// Longest time a session waits for its client; longer wishes are cut down to it. It is also
    /// what a 3.1.1 client with clean session 0 gets.
    pub session_expiry_s_max: u32,
    /// Largest packet that a client may send. The default is the protocol's largest message,
    /// 256 KiB, with room for topic and properties.
    pub packet_bytes_max: usize,
    /// Messages that one session may hold, sent but unacknowledged ones included.
    pub queue_messages_max: usize,
    /// Bytes that one session may hold, sent but unacknowledged ones included.
    pub queue_bytes_max: usize,
    /// Bytes that all sessions together may hold: 10 000 clients that are away must not take the
    /// orchestrator's memory just because each is within its own limit.
    pub queues_bytes_max: usize,
    /// QoS 1 messages sent to a client and not acknowledged yet; the client may ask for fewer.
    pub inflight_max: u16,
    /// Retained messages of all topics.
    pub retained_max: usize,
    /// Bytes of all retained messages.
    pub retained_bytes_max: usize,
    /// Subscriptions of one session.
    pub subscriptions_max: usize,
    /// Topic aliases that a client may set.
    pub topic_aliases_max: u16,
    /// Time for TLS and CONNECT together.
    pub handshake_ms_max: u64,
    /// Messages that wait for one in-process client before publishers are made to wait.
    pub local_messages_max: usize,
    /// Bytes that wait for one in-process client before publishers are made to wait.
    pub local_bytes_max: usize,
    /// What a client may send whose identity has no quota of its own.
    pub quota: Quota,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            connections_max: 12_000,
            sessions_max: 16_000,
            session_expiry_s_max: 24 * 3600,
            packet_bytes_max: 264 * 1024,
            queue_messages_max: 1_000,
            queue_bytes_max: 1024 * 1024,
            queues_bytes_max: 64 * 1024 * 1024,
            inflight_max: 64,
            retained_max: 32_768,
            retained_bytes_max: 32 * 1024 * 1024,
            subscriptions_max: 256,
            topic_aliases_max: 16,
            handshake_ms_max: 10_000,
            local_messages_max: 4_096,
            local_bytes_max: 16 * 1024 * 1024,
            quota: Quota::default(),
        }
    }
}
