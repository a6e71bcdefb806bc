//! Decides what the broker does: sessions, subscriptions, routing, retained messages, wills.
//!
//! Why apart from the shell: with the time handed in and no socket in sight, every rule of the
//! protocol's server side is a function of what was called before, and tests drive hours of
//! expiry in microseconds. No tokio, no clock, no I/O in here.
//!
//! Shape: connections call in ([`Core::connect`], [`Core::publish`], ...) and take what is theirs
//! with [`Core::pull`] when they have room for it. The core never pushes; it names the sessions
//! that have something new ([`Core::take_wakes`]). So there is one bounded queue per client and
//! none behind it.
//!
//! ```text
//!            connect                disconnect, expiry > 0
//!  (absent) ---------> connected --------------------------> away
//!      ^                 |   ^                                | |
//!      | disconnect,     |   +--------------------------------+ |
//!      | expiry = 0      |        connect, clean start = 0      |
//!      +-----------------+                                      |
//!      +--------------------------------------------------------+
//!                expiry over, or connect with clean start = 1
//! ```
//!
//! Invariants:
//! - `queued_bytes` is the sum of the sessions' bytes;
//! - a timer in `timers` is also named in its session, and goes when that does;
//! - the tree holds exactly the filters that the sessions list.

mod lifecycle;
mod message;
pub(crate) mod quota;
mod retained;
mod routing;
pub(crate) mod session;
mod sys;
pub(crate) mod topic;
mod tree;

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

pub(crate) use self::lifecycle::{ConnectInput, Ending};
pub(crate) use self::message::Message;
use self::retained::Retained;
pub(crate) use self::routing::{Refusal, SubscribeInput};
pub(crate) use self::session::{Key, Link, Pending, Will};
use self::session::{Kind, Next, Session};
use self::tree::Tree;
use crate::config::Config;
use crate::reason::Reason;

/// Milliseconds since the broker started.
pub(crate) type Millis = u64;

/// A client came or went.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ConnectionEvent {
    /// A client was let in.
    Connected {
        /// Its id.
        client_id: Arc<str>,
        /// The name of its identity.
        identity: Arc<str>,
        /// Rises with every connection to the broker; the same in the matching disconnection.
        connection: u64,
        /// Whether it found its session again.
        session_present: bool,
    },
    /// A connection ended.
    Disconnected {
        /// Its id.
        client_id: Arc<str>,
        /// The name of its identity.
        identity: Arc<str>,
        /// Which connection ended.
        connection: u64,
        /// Why.
        reason: Reason,
        /// Whether the session waits for the client's return.
        session_kept: bool,
    },
}

/// Counters and present sizes. Counters run from the broker's start.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Stats {
    /// Clients connected now, in-process ones not counted.
    pub connected: usize,
    /// Sessions now, connected or not.
    pub sessions: usize,
    /// Subscriptions now.
    pub subscriptions: usize,
    /// Retained messages now.
    pub retained: usize,
    /// Bytes of retained messages now.
    pub retained_bytes: usize,
    /// Bytes of messages that wait for clients now.
    pub queued_bytes: usize,
    /// Clients let in.
    pub connections_accepted: u64,
    /// Clients refused by the authorizer or by a limit.
    pub connections_refused: u64,
    /// Sessions that ended because their client stayed away.
    pub sessions_expired: u64,
    /// Messages published by clients and by the embedder.
    pub messages_received: u64,
    /// Messages sent to clients, repetitions included.
    pub messages_sent: u64,
    /// Messages dropped because a queue or a client's packet size was full.
    pub messages_dropped: u64,
    /// Messages dropped because their time was over.
    pub messages_expired: u64,
    /// Publishes refused: not allowed, or no room among the retained.
    pub publishes_refused: u64,
    /// Times that a client was slowed down for its quota.
    pub throttled: u64,
    /// Bytes read from clients.
    pub bytes_received: u64,
    /// Bytes written to clients.
    pub bytes_sent: u64,
}

/// Something due at a time.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Timer {
    Will(Key),
    SessionEnd(Key),
    Retained(Arc<str>),
    Sys,
}

/// What a connection gets when it asks for more.
#[derive(Debug)]
pub(crate) enum Pull {
    Send {
        pending: Pending,
        packet_id: u16,
        dup: bool,
    },
    Event(ConnectionEvent),
    Empty,
    /// The connection is over; say so and go.
    Closed(Reason),
}

/// The whole state of the broker.
#[derive(Debug)]
pub(crate) struct Core {
    limits: Config,
    slots: Vec<Option<Box<Session>>>,
    free: Vec<Key>,
    by_id: BTreeMap<Arc<str>, Key>,
    tree: Tree,
    retained: Retained,
    timers: BTreeSet<(Millis, Timer)>,
    /// In-process clients that want connection events.
    watchers: Vec<Key>,
    /// Connections that were ended here and have not noticed yet.
    ended: BTreeMap<u64, Reason>,
    /// Sessions whose publisher waits for room at an in-process client.
    stalled: BTreeSet<Key>,
    wakes: Vec<Key>,
    queued_bytes: usize,
    epoch: u64,
    shutting_down: bool,
    sys_subscriptions: usize,
    sys_at: Option<Millis>,
    /// A publisher was told to wait for an in-process client.
    blocked: bool,
    relieved: bool,
    pub(crate) stats: Stats,
}

impl Core {
    pub(crate) fn new(limits: Config) -> Self {
        Self {
            limits,
            slots: Vec::new(),
            free: Vec::new(),
            by_id: BTreeMap::new(),
            tree: Tree::default(),
            retained: Retained::default(),
            timers: BTreeSet::new(),
            watchers: Vec::new(),
            ended: BTreeMap::new(),
            stalled: BTreeSet::new(),
            wakes: Vec::new(),
            queued_bytes: 0,
            epoch: 0,
            shutting_down: false,
            sys_subscriptions: 0,
            sys_at: None,
            blocked: false,
            relieved: false,
            stats: Stats::default(),
        }
    }

    /// Sessions that have something to pull since the last call, in any order, perhaps twice.
    pub(crate) fn take_wakes(&mut self) -> Vec<Key> {
        std::mem::take(&mut self.wakes)
    }

    /// Whether, since the last call, there is room again for the embedder's own publishes.
    pub(crate) fn take_relieved(&mut self) -> bool {
        std::mem::take(&mut self.relieved)
    }

    /// Lets all publishers try again that were told to wait.
    fn relieve(&mut self) {
        if std::mem::take(&mut self.blocked) {
            self.relieved = true;
            self.wakes.extend(std::mem::take(&mut self.stalled));
        }
    }

    /// Takes the next thing for a connection.
    pub(crate) fn pull(&mut self, now: Millis, link: Link) -> Pull {
        loop {
            let Some(session) = session_at(&mut self.slots, link) else {
                return Pull::Closed(self.ended.remove(&link.epoch).unwrap_or(Reason::Lost));
            };
            let before = session.bytes;
            let next = session.next(now, &self.retained);
            self.queued_bytes = self.queued_bytes + session.bytes - before;
            let local = session.kind == Kind::Local;
            // Half empty, so that publishers are not woken for a single place each time.
            let half_empty = session.outbox.len() * 2 <= self.limits.local_messages_max
                && session.bytes * 2 <= self.limits.local_bytes_max;
            if local && half_empty {
                self.relieve();
            }
            match next {
                Next::Send { pending, packet_id, dup } => {
                    self.stats.messages_sent += u64::from(!local);
                    return Pull::Send { pending, packet_id, dup };
                }
                Next::Event(event) => return Pull::Event(event),
                Next::Dropped { expired: true } => self.stats.messages_expired += 1,
                Next::Dropped { expired: false } => self.stats.messages_dropped += 1,
                Next::Empty => return Pull::Empty,
            }
        }
    }

    /// A client acknowledged a packet. Ids that nobody waits for are ignored: they may belong to
    /// a message that this broker forgot with an earlier session.
    pub(crate) fn acknowledge(&mut self, link: Link, packet_id: u16) {
        if let Some(session) = session_at(&mut self.slots, link) {
            let before = session.bytes;
            session.acknowledge(packet_id);
            self.queued_bytes = self.queued_bytes + session.bytes - before;
        }
    }

    /// When [`Core::handle_timeout`] has something to do next.
    pub(crate) fn poll_timeout(&self) -> Option<Millis> {
        self.timers.first().map(|(at, _)| *at)
    }

    /// Does what is due: delayed wills, ends of sessions, expired retained messages.
    pub(crate) fn handle_timeout(&mut self, now: Millis) {
        while self.timers.first().is_some_and(|(at, _)| *at <= now) {
            let Some((_, timer)) = self.timers.pop_first() else { return };
            match timer {
                Timer::Will(key) => self.publish_will(now, key),
                Timer::SessionEnd(key) => {
                    self.stats.sessions_expired += 1;
                    self.remove_session(now, key);
                }
                Timer::Retained(topic) => {
                    self.stats.messages_expired += 1;
                    self.retained.remove(&topic);
                }
                Timer::Sys => self.refresh_sys(now),
            }
        }
    }

    /// The counters with the present sizes filled in.
    pub(crate) fn snapshot(&self) -> Stats {
        Stats {
            sessions: self.by_id.len(),
            subscriptions: self.tree.len(),
            retained: self.retained.len(),
            retained_bytes: self.retained.bytes(),
            queued_bytes: self.queued_bytes,
            ..self.stats
        }
    }

    /// Whether a connection still has its session.
    pub(crate) fn is_current(&self, link: Link) -> bool {
        let session = self.slots.get(link.key.0 as usize).and_then(Option::as_deref);
        session.is_some_and(|s| s.connected && s.epoch == link.epoch)
    }

    fn session(&mut self, link: Link) -> Option<&mut Session> {
        session_at(&mut self.slots, link)
    }

    fn slot(&mut self, key: Key) -> Option<&mut Session> {
        self.slots.get_mut(key.0 as usize)?.as_deref_mut()
    }
}

/// The session that a connection still belongs to. A free function because callers hold other
/// parts of the core at the same time.
fn session_at(slots: &mut [Option<Box<Session>>], link: Link) -> Option<&mut Session> {
    let session = slots.get_mut(link.key.0 as usize)?.as_deref_mut()?;
    (session.connected && session.epoch == link.epoch).then_some(session)
}
