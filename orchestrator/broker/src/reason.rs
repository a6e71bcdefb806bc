//! The reason codes of MQTT 5 that this broker sends, and what 3.1.1 has in their place.
//!
//! One enum for all packet types: the standard gives a number one meaning wherever it stands.

/// Why a connection ended or a packet was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[repr(u8)]
pub enum Reason {
    /// The client said goodbye, or the request was done.
    #[error("normal")]
    Normal = 0x00,
    /// The client said goodbye and asked for its will.
    #[error("disconnected with will message")]
    WithWill = 0x04,
    /// The message reached nobody.
    #[error("no matching subscribers")]
    NoMatchingSubscribers = 0x10,
    /// There was no such subscription.
    #[error("no subscription existed")]
    NoSubscriptionExisted = 0x11,
    /// The transport broke, or no better code fits.
    #[error("connection lost")]
    Lost = 0x80,
    /// The packet breaks the standard's encoding.
    #[error("malformed packet")]
    Malformed = 0x81,
    /// The packet is not allowed here.
    #[error("protocol error")]
    Protocol = 0x82,
    /// Neither MQTT 5 nor 3.1.1.
    #[error("unsupported protocol version")]
    UnsupportedVersion = 0x84,
    /// The client id is empty where it must not be, too long, or another identity's.
    #[error("client identifier not valid")]
    ClientId = 0x85,
    /// User name or password is wrong.
    #[error("bad user name or password")]
    Credentials = 0x86,
    /// The identity may not do this.
    #[error("not authorized")]
    NotAuthorized = 0x87,
    /// The broker has no room for the connection now.
    #[error("server busy")]
    Busy = 0x89,
    /// The identity is revoked.
    #[error("banned")]
    Banned = 0x8A,
    /// The broker stops.
    #[error("server shutting down")]
    ShuttingDown = 0x8B,
    /// Enhanced authentication is not offered.
    #[error("bad authentication method")]
    AuthMethod = 0x8C,
    /// Nothing was heard for one and a half keep-alive intervals.
    #[error("keep alive timeout")]
    KeepAlive = 0x8D,
    /// The same client connected again.
    #[error("session taken over")]
    TakenOver = 0x8E,
    /// The filter breaks the standard or a limit.
    #[error("topic filter invalid")]
    Filter = 0x8F,
    /// The topic breaks the standard or a limit.
    #[error("topic name invalid")]
    Topic = 0x90,
    /// No such packet id is open.
    #[error("packet identifier not found")]
    PacketId = 0x92,
    /// The topic alias is 0, above the limit, or was never set.
    #[error("topic alias invalid")]
    TopicAlias = 0x94,
    /// The packet is larger than allowed.
    #[error("packet too large")]
    PacketTooLarge = 0x95,
    /// A limit of the broker is reached.
    #[error("quota exceeded")]
    Quota = 0x97,
    /// The embedder cut the connection.
    #[error("administrative action")]
    Administrative = 0x98,
    /// QoS 2 from an MQTT 5 client, who was told that it is not offered.
    #[error("qos not supported")]
    Qos = 0x9B,
}

impl Reason {
    /// The number on the wire.
    pub fn code(self) -> u8 {
        self as u8
    }

    /// The return code of a 3.1.1 CONNACK that comes nearest.
    pub(crate) fn connect_return_code(self) -> u8 {
        match self {
            Self::Normal => 0,
            Self::UnsupportedVersion => 1,
            Self::ClientId => 2,
            Self::Credentials => 4,
            Self::NotAuthorized | Self::Banned | Self::AuthMethod => 5,
            _ => 3,
        }
    }
}
