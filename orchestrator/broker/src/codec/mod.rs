//! Packets as the broker sees them, the same for both versions of the protocol.
//!
//! Why a layer over the codec's own types: those come twice, once per version, and keep the
//! encoded form of every field. Decoding, which faces hostile bytes, is the codec's; encoding is a
//! few lines of our own, because a message goes out to many clients and must not be taken through
//! a builder and three buffers for each.

pub(crate) mod decode;
pub(crate) mod encode;
pub(crate) mod frame;

#[cfg(test)]
mod tests;

use bytes::Bytes;

/// How surely a message is delivered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Qos {
    /// At most once: sent if the client is there and keeps up.
    AtMostOnce = 0,
    /// At least once: kept until acknowledged, within the session's bounds.
    AtLeastOnce = 1,
}

/// The two protocol versions that are spoken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Version {
    V311,
    V5,
}

/// A packet that a client may send after its CONNECT.
#[derive(Debug)]
pub(crate) enum Packet {
    Publish(Publish),
    Puback(u16),
    Pubrel(u16),
    Subscribe(Subscribe),
    Unsubscribe { packet_id: u16, filters: Vec<String> },
    Pingreq,
    Disconnect { with_will: bool, session_expiry_s: Option<u32> },
}

/// CONNECT. What 3.1.1 has not is filled with what it means there.
#[derive(Debug)]
pub(crate) struct Connect {
    pub(crate) version: Version,
    pub(crate) client_id: String,
    pub(crate) clean_start: bool,
    pub(crate) keep_alive_s: u16,
    pub(crate) username: Option<String>,
    pub(crate) password: Option<Vec<u8>>,
    pub(crate) will: Option<Will>,
    /// None for a 3.1.1 client with clean session 0: as long as the broker allows.
    pub(crate) session_expiry_s: Option<u32>,
    pub(crate) receive_max: u16,
    pub(crate) packet_bytes_max: u32,
    pub(crate) auth_method: bool,
}

/// The will inside a CONNECT.
#[derive(Debug)]
pub(crate) struct Will {
    pub(crate) topic: String,
    pub(crate) payload: Bytes,
    pub(crate) qos: u8,
    pub(crate) retain: bool,
    pub(crate) delay_s: u32,
    pub(crate) expiry_s: Option<u32>,
    pub(crate) properties: Box<[u8]>,
}

/// PUBLISH from a client.
#[derive(Debug)]
pub(crate) struct Publish {
    /// Empty if only the alias is given.
    pub(crate) topic: String,
    pub(crate) alias: Option<u16>,
    /// 0, 1 or 2.
    pub(crate) qos: u8,
    /// 0 for QoS 0, never 0 otherwise.
    pub(crate) packet_id: u16,
    pub(crate) retain: bool,
    pub(crate) expiry_s: Option<u32>,
    pub(crate) payload: Bytes,
    /// The properties that are passed on unchanged, encoded as they came.
    pub(crate) properties: Box<[u8]>,
}

/// SUBSCRIBE.
#[derive(Debug)]
pub(crate) struct Subscribe {
    pub(crate) packet_id: u16,
    /// 0 if none was given.
    pub(crate) subscription_id: u32,
    pub(crate) filters: Vec<Filter>,
}

/// One filter of a SUBSCRIBE with its options.
#[derive(Debug)]
pub(crate) struct Filter {
    pub(crate) filter: String,
    pub(crate) qos: Qos,
    pub(crate) no_local: bool,
    pub(crate) retain_as_published: bool,
    pub(crate) retain_handling: RetainHandling,
}

/// When a subscription brings the retained messages along.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum RetainHandling {
    Always,
    IfNew,
    Never,
}
