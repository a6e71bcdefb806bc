//! A message on its way, shared by all who get it.

use std::sync::Arc;

use bytes::Bytes;

use super::Millis;
use crate::codec::Qos;
use crate::config::MESSAGE_OVERHEAD_BYTES;

/// An application message. Never changed after it was made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Message {
    pub(crate) topic: Arc<str>,
    pub(crate) payload: Bytes,
    pub(crate) qos: Qos,
    pub(crate) expires_at: Option<Millis>,
    /// MQTT 5 properties of the message, encoded; passed on unchanged.
    pub(crate) properties: Box<[u8]>,
}

impl Message {
    /// What the message is charged with in every bound by bytes. Charged in full to each queue
    /// that holds it, although they share it: who shares may change.
    pub(crate) fn bytes(&self) -> usize {
        MESSAGE_OVERHEAD_BYTES + self.topic.len() + self.payload.len() + self.properties.len()
    }

    /// Whether its time is over.
    pub(crate) fn is_expired(&self, now: Millis) -> bool {
        self.expires_at.is_some_and(|at| at <= now)
    }

    /// Seconds left to live, rounded up so that a message that is sent is never dead on arrival.
    pub(crate) fn expiry_left_s(&self, now: Millis) -> Option<u32> {
        let left = self.expires_at?.saturating_sub(now).div_ceil(1000);
        Some(u32::try_from(left).unwrap_or(u32::MAX))
    }
}
