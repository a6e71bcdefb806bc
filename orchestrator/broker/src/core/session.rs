//! One client's session: what it is subscribed to, what waits for it, what it has not acknowledged.
//!
//! Also the form that in-process clients take: they have a queue and subscriptions like others,
//! but no packet ids, and taking a message acknowledges it.
//!
//! Invariants:
//! - `bytes` is the sum over `outbox` and `inflight`;
//! - `inflight[..sent]` went out on the present connection, the rest has to be sent again;
//! - packet ids in `inflight` differ from each other and are never 0.

use std::collections::VecDeque;
use std::sync::Arc;

use super::message::Message;
use super::{ConnectionEvent, Millis};
use crate::codec::encode::{Outgoing, publish_len};
use crate::codec::{Qos, Version};
use crate::config::Config;

/// The place of a session in the core's table. Reused after the session ended; [`Link`] tells
/// uses apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Key(pub(crate) u32);

/// One connection to a session. Worthless as soon as the session has another connection or none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Link {
    pub(crate) key: Key,
    pub(crate) epoch: u64,
}

/// What is at the other end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// A client on a connection.
    Remote(Version),
    /// An in-process client.
    Local,
}

/// A message in a queue, with what this receiver's subscription makes of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Pending {
    pub(crate) message: Arc<Message>,
    pub(crate) qos: Qos,
    pub(crate) retain: bool,
    pub(crate) subscription_ids: Box<[u32]>,
}

impl Pending {
    /// The packet that it becomes.
    pub(crate) fn outgoing(&self, packet_id: u16, dup: bool, now: Millis) -> Outgoing<'_> {
        Outgoing {
            topic: &self.message.topic,
            payload: &self.message.payload,
            qos: self.qos,
            retain: self.retain,
            dup,
            packet_id,
            expiry_s: self.message.expiry_left_s(now),
            subscription_ids: &self.subscription_ids,
            properties: &self.message.properties,
        }
    }
}

/// What waits in a queue. Only in-process clients get events.
#[derive(Debug)]
pub(crate) enum Item {
    Message(Pending),
    Event(ConnectionEvent),
}

/// Sent and not acknowledged.
#[derive(Debug)]
pub(crate) struct Inflight {
    pub(crate) packet_id: u16,
    pub(crate) pending: Pending,
}

/// Retained messages that a subscription still has to bring. They are read from the store when the
/// client has room for them, so a slow subscriber of everything costs no memory; one that changes
/// meanwhile is delivered in its newest form.
#[derive(Debug)]
pub(crate) struct Cursor {
    pub(crate) filter: Arc<str>,
    pub(crate) after: Option<Arc<str>>,
    pub(crate) qos: Qos,
    pub(crate) id: u32,
}

/// The will of the present or last connection.
#[derive(Debug)]
pub(crate) struct Will {
    pub(crate) topic: Arc<str>,
    pub(crate) payload: bytes::Bytes,
    pub(crate) qos: Qos,
    pub(crate) retain: bool,
    pub(crate) delay_s: u32,
    pub(crate) expiry_s: Option<u32>,
    pub(crate) properties: Box<[u8]>,
}

/// A session.
#[derive(Debug)]
pub(crate) struct Session {
    pub(crate) client_id: Arc<str>,
    /// The identity that opened it.
    pub(crate) owner: Arc<str>,
    pub(crate) kind: Kind,
    pub(crate) epoch: u64,
    pub(crate) connected: bool,
    pub(crate) expiry_s: u32,
    pub(crate) packet_bytes_max: u32,
    pub(crate) window: u16,
    pub(crate) will: Option<Box<Will>>,
    /// When the will is due and when the session ends; set while the client is away only.
    pub(crate) will_at: Option<Millis>,
    pub(crate) ends_at: Option<Millis>,
    /// Every filter with its share prefix.
    pub(crate) filters: Vec<Arc<str>>,
    pub(crate) outbox: VecDeque<Item>,
    pub(crate) inflight: VecDeque<Inflight>,
    pub(crate) sent: usize,
    pub(crate) cursors: Vec<Cursor>,
    pub(crate) bytes: usize,
    /// Packet ids of QoS 2 publishes that were taken and are not released yet.
    pub(crate) incoming_qos2: Vec<u16>,
    /// Events among the outbox's items.
    pub(crate) events: usize,
    packet_id: u16,
    /// No message in the outbox expires before.
    first_expiry: Option<Millis>,
}

/// What [`Session::next`] found.
#[derive(Debug)]
pub(crate) enum Next {
    /// Send this. The packet id is 0 for QoS 0 and for in-process clients.
    Send {
        pending: Pending,
        packet_id: u16,
        dup: bool,
    },
    Event(ConnectionEvent),
    /// This one must not be sent: too old, or larger than the client takes.
    Dropped {
        expired: bool,
    },
    Empty,
}

impl Session {
    pub(crate) fn new(client_id: Arc<str>, owner: Arc<str>, kind: Kind) -> Self {
        Self {
            client_id,
            owner,
            kind,
            epoch: 0,
            connected: false,
            expiry_s: 0,
            packet_bytes_max: u32::MAX,
            window: 0,
            will: None,
            will_at: None,
            ends_at: None,
            filters: Vec::new(),
            outbox: VecDeque::new(),
            inflight: VecDeque::new(),
            sent: 0,
            cursors: Vec::new(),
            bytes: 0,
            incoming_qos2: Vec::new(),
            events: 0,
            packet_id: 0,
            first_expiry: None,
        }
    }

    /// Whether a message of this size is within the session's own bounds.
    pub(crate) fn has_room(&self, bytes: usize, limits: &Config) -> bool {
        let (count_max, bytes_max) = match self.kind {
            Kind::Remote(_) => (limits.queue_messages_max, limits.queue_bytes_max),
            Kind::Local => (limits.local_messages_max, limits.local_bytes_max),
        };
        self.outbox.len() - self.events + self.inflight.len() < count_max
            && self.bytes.saturating_add(bytes) <= bytes_max
    }

    /// Queues a message; bounds were checked.
    pub(crate) fn push(&mut self, pending: Pending) {
        self.bytes += pending.message.bytes();
        if let Some(at) = pending.message.expires_at {
            self.first_expiry = Some(self.first_expiry.map_or(at, |first| first.min(at)));
        }
        self.outbox.push_back(Item::Message(pending));
    }

    /// Throws out what is too old; tells how many. Cheap when nothing can be.
    pub(crate) fn drop_expired(&mut self, now: Millis) -> u64 {
        if self.first_expiry.is_none_or(|at| at > now) {
            return 0;
        }
        self.first_expiry = None;
        self.retain_messages(|m| !m.message.is_expired(now))
    }

    /// Throws out what is not kept for a client that is away.
    pub(crate) fn drop_unreliable(&mut self) {
        self.retain_messages(|m| m.qos == Qos::AtLeastOnce);
        self.outbox.shrink_to_fit();
    }

    fn retain_messages(&mut self, keep: impl Fn(&Pending) -> bool) -> u64 {
        let mut dropped = 0;
        let (bytes, first) = (&mut self.bytes, &mut self.first_expiry);
        self.outbox.retain(|item| match item {
            Item::Message(pending) if !keep(pending) => {
                *bytes -= pending.message.bytes();
                dropped += 1;
                false
            }
            Item::Message(pending) => {
                *first = match (*first, pending.message.expires_at) {
                    (Some(a), Some(b)) => Some(a.min(b)),
                    (a, b) => a.or(b),
                };
                true
            }
            Item::Event(_) => true,
        });
        dropped
    }

    /// A client acknowledged a packet; false if it was not waited for.
    pub(crate) fn acknowledge(&mut self, packet_id: u16) -> bool {
        let at = self.inflight.iter().position(|i| i.packet_id == packet_id);
        let Some(done) = at.and_then(|at| {
            self.sent -= usize::from(at < self.sent);
            self.inflight.remove(at)
        }) else {
            return false;
        };
        self.bytes -= done.pending.message.bytes();
        if self.inflight.is_empty() {
            self.inflight.shrink_to_fit();
        }
        true
    }

    /// What goes out next: first what an earlier connection left unacknowledged, then retained
    /// messages, then the queue.
    pub(crate) fn next(&mut self, now: Millis, retained: &super::retained::Retained) -> Next {
        if let Some(again) = self.inflight.get(self.sent) {
            let packet_id = again.packet_id;
            let pending = again.pending.clone();
            self.sent += 1;
            return Next::Send { pending, packet_id, dup: true };
        }
        let window_open = self.inflight.len() < usize::from(self.window);
        while let Some(cursor) = self.cursors.first_mut() {
            let Some(message) = retained.next(&cursor.filter, cursor.after.as_ref()) else {
                self.cursors.remove(0);
                continue;
            };
            let qos = message.qos.min(cursor.qos);
            if qos == Qos::AtLeastOnce && !window_open {
                return Next::Empty;
            }
            let message = Arc::clone(message);
            cursor.after = Some(Arc::clone(&message.topic));
            let subscription_ids = if cursor.id == 0 { Box::default() } else { [cursor.id].into() };
            let pending = Pending { message, qos, retain: true, subscription_ids };
            self.bytes += pending.message.bytes();
            return self.send(now, pending);
        }
        match self.outbox.front() {
            None => {
                self.outbox = VecDeque::new();
                return Next::Empty;
            }
            Some(Item::Message(m)) if m.qos == Qos::AtLeastOnce && !window_open => {
                return Next::Empty;
            }
            Some(_) => {}
        }
        match self.outbox.pop_front() {
            Some(Item::Message(pending)) => self.send(now, pending),
            Some(Item::Event(event)) => {
                self.events -= 1;
                Next::Event(event)
            }
            None => Next::Empty,
        }
    }

    /// Sends a message that is charged already.
    fn send(&mut self, now: Millis, pending: Pending) -> Next {
        let bytes = pending.message.bytes();
        if pending.message.is_expired(now) {
            self.bytes -= bytes;
            return Next::Dropped { expired: true };
        }
        let Kind::Remote(version) = self.kind else {
            self.bytes -= bytes;
            return Next::Send { pending, packet_id: 0, dup: false };
        };
        let len = publish_len(version, &pending.outgoing(1, false, now));
        if u32::try_from(len).unwrap_or(u32::MAX) > self.packet_bytes_max {
            self.bytes -= bytes;
            return Next::Dropped { expired: false };
        }
        if pending.qos == Qos::AtMostOnce {
            self.bytes -= bytes;
            return Next::Send { pending, packet_id: 0, dup: false };
        }
        let packet_id = self.free_packet_id();
        self.inflight.push_back(Inflight { packet_id, pending: pending.clone() });
        self.sent = self.inflight.len();
        Next::Send { pending, packet_id, dup: false }
    }

    /// The next id that is not in use; there is one, since the window is smaller than the ids.
    fn free_packet_id(&mut self) -> u16 {
        loop {
            self.packet_id = self.packet_id.checked_add(1).unwrap_or(1);
            let id = self.packet_id;
            if self.inflight.iter().all(|i| i.packet_id != id) {
                return id;
            }
        }
    }
}
