//! Who a client is and what it may do: asked of the embedder, never decided here.
//!
//! The broker asks once per connection, per publish and per filter, always outside its own lock.
//! An answer must come at once (from memory): it is awaited by nobody but the client that asked.

use std::net::SocketAddr;
use std::sync::Arc;

use crate::config::Quota;
use crate::reason::Reason;

/// What the transport knows of its other end.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum PeerIdentity {
    /// Nothing: plain TCP, or TLS without a client certificate.
    #[default]
    Anonymous,
    /// The client's leaf certificate in DER, as the transport accepted it.
    Certificate(Vec<u8>),
}

/// What is known of a client that wants to connect.
#[derive(Debug)]
pub struct ConnectRequest<'a> {
    /// The id it asks for; one that the broker made up if it sent none.
    pub client_id: &'a str,
    /// User name, if sent.
    pub username: Option<&'a str>,
    /// Password, if sent.
    pub password: Option<&'a [u8]>,
    /// What the transport knows.
    pub peer: &'a PeerIdentity,
    /// Where it comes from; none for streams that are no sockets.
    pub address: Option<SocketAddr>,
}

/// A client that was let in. The name is what the embedder knows it by.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    name: Arc<str>,
    quota: Option<Quota>,
}

impl Identity {
    /// An identity with the quota of the configuration.
    pub fn new(name: impl Into<Arc<str>>) -> Self {
        Self { name: name.into(), quota: None }
    }

    /// The same identity with a quota of its own.
    #[must_use]
    pub fn with_quota(mut self, quota: Quota) -> Self {
        self.quota = Some(quota);
        self
    }

    /// The name it was given. A session can be resumed and taken over by the same name only.
    pub fn name(&self) -> &str {
        &self.name
    }

    pub(crate) fn shared_name(&self) -> Arc<str> {
        Arc::clone(&self.name)
    }

    pub(crate) fn quota(&self) -> Option<Quota> {
        self.quota
    }
}

/// Why a client was not let in. `reason` is told to the client, `why` is logged here only.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{reason}: {why}")]
pub struct Refused {
    /// The code for the client: [`Reason::Credentials`], [`Reason::NotAuthorized`],
    /// [`Reason::Banned`] or [`Reason::ClientId`].
    pub reason: Reason,
    /// The cause in words.
    pub why: String,
}

/// Decides who may connect and which topics each client may use.
///
/// MUST answer without blocking and MUST NOT call back into the broker from within an answer.
pub trait Authorizer: Send + Sync + 'static {
    /// Lets a client in under a name, or refuses it. MUST bind client ids to identities where
    /// clients do not trust each other.
    fn connect(&self, request: &ConnectRequest<'_>) -> Result<Identity, Refused>;

    /// Whether the client may publish to this topic. Asked for its will too, when it connects.
    fn publish(&self, identity: &Identity, topic: &str) -> bool;

    /// Whether the client may subscribe to this filter (without its `$share/group/` prefix).
    /// MUST judge the filter as a whole: what a wildcard lets through is not asked again.
    fn subscribe(&self, identity: &Identity, filter: &str) -> bool;
}

/// Lets everybody do everything, each client under its own id as name.
///
/// For tests and for listeners that only the same machine can reach.
#[derive(Debug, Clone, Copy, Default)]
pub struct AllowAll;

impl Authorizer for AllowAll {
    fn connect(&self, request: &ConnectRequest<'_>) -> Result<Identity, Refused> {
        Ok(Identity::new(request.client_id))
    }

    fn publish(&self, _: &Identity, _: &str) -> bool {
        true
    }

    fn subscribe(&self, _: &Identity, _: &str) -> bool {
        true
    }
}
