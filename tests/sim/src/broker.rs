//! A simulated MQTT broker of one cluster: sessions, retained presence, last wills.
//!
//! Embedded it lives and dies with the cluster and sees each connection end; outside it is a
//! program of its own, with a way to the cluster that breaks. Messages of one topic keep their
//! order; those of different topics need not. What a client cannot know to have arrived comes
//! again on its next connection, if the session is still there.

use crate::network::{Bytes, ConnectionId};
use marram_protocol::id::ChildId;
use std::collections::{BTreeMap, VecDeque};

/// Seconds for which a session waits, as nodes ask for.
const SESSION_MS: u64 = 3_600_000;

/// How long a command waits for its node.
const COMMAND_EXPIRY_MS: u64 = 60_000;

/// Messages that wait for one node: some hundred KiB.
const QUEUE_MAX: usize = 256;

/// Topics of a node that lead up, each in order for itself.
pub(crate) const LANES: usize = 3;

/// What is known of one client.
#[derive(Debug, Default)]
pub(crate) struct Session {
    pub(crate) connection: Option<ConnectionId>,
    queue: VecDeque<(u64, Bytes)>,
    ends_ms: u64,
    /// To be published for a client that is gone without a word.
    pub(crate) will: Option<Bytes>,
    /// When that is due.
    pub(crate) will_at_ms: Option<u64>,
}

/// The broker.
#[derive(Debug)]
pub(crate) struct Broker {
    /// A program of its own.
    pub(crate) external: bool,
    /// Its program runs; of an embedded one the cluster's state tells.
    pub(crate) is_on: bool,
    /// The cluster is connected to it.
    pub(crate) bus: bool,
    /// Counts connections of the cluster.
    pub(crate) bus_life: u64,
    /// Of wills: how long they wait for their client to come back.
    pub(crate) will_delay_ms: u64,
    pub(crate) sessions: BTreeMap<ChildId, Session>,
    pub(crate) retained: BTreeMap<ChildId, Bytes>,
    /// What the cluster has sent while it was not connected.
    pub(crate) pending: Vec<(ChildId, Bytes)>,
    pub(crate) last_ms: [u64; LANES],
}

impl Broker {
    pub(crate) fn new(external: bool, will_delay_ms: u64) -> Self {
        Self {
            external,
            is_on: external,
            bus: false,
            bus_life: 0,
            will_delay_ms,
            sessions: BTreeMap::new(),
            retained: BTreeMap::new(),
            pending: Vec::new(),
            last_ms: [0; LANES],
        }
    }

    /// The program ends, and with it all that it knew. Its clients.
    pub(crate) fn die(&mut self) -> Vec<ConnectionId> {
        self.retained.clear();
        self.pending.clear();
        let sessions = std::mem::take(&mut self.sessions);
        sessions.into_values().filter_map(|session| session.connection).collect()
    }

    /// A client connects. The connection whose place it takes, and what has waited for it.
    pub(crate) fn connect(
        &mut self,
        node: ChildId,
        connection: ConnectionId,
        clean: bool,
        will: Bytes,
        now_ms: u64,
    ) -> (Option<ConnectionId>, Option<Bytes>, Vec<Bytes>) {
        let session = self.sessions.entry(node).or_default();
        let former = session.connection.replace(connection);
        // The will of one whose place is taken is published, unless its session goes on and
        // the will was to wait.
        let spoken = match (former, session.will_at_ms.take()) {
            (Some(_), _) if clean || self.will_delay_ms == 0 => session.will.take(),
            (None, Some(_)) if clean => session.will.take(),
            _ => None,
        };
        if clean || session.ends_ms < now_ms && former.is_none() {
            session.queue.clear();
        }
        session.will = Some(will);
        let waiting = std::mem::take(&mut session.queue);
        let waiting = waiting.into_iter().filter(|(until, _)| *until >= now_ms);
        (former, spoken, waiting.map(|(_, bytes)| bytes).collect())
    }

    /// A client's connection has ended; `doubted` is sent again. True if it was the present
    /// one.
    pub(crate) fn disconnected(
        &mut self,
        node: ChildId,
        connection: ConnectionId,
        doubted: Vec<Bytes>,
        now_ms: u64,
    ) -> bool {
        let Some(session) = self.sessions.get_mut(&node) else { return false };
        if session.connection != Some(connection) {
            return false;
        }
        session.connection = None;
        session.ends_ms = now_ms + SESSION_MS;
        session.will_at_ms = session.will.is_some().then_some(now_ms + self.will_delay_ms);
        session.queue = doubted.into_iter().map(|b| (now_ms + COMMAND_EXPIRY_MS, b)).collect();
        true
    }

    /// The client took its will back.
    pub(crate) fn forget_will(&mut self, node: ChildId) {
        if let Some(session) = self.sessions.get_mut(&node) {
            session.will = None;
        }
    }

    /// The will that is due now.
    pub(crate) fn due_will(&mut self, node: ChildId, now_ms: u64) -> Option<Bytes> {
        let session = self.sessions.get_mut(&node)?;
        if session.will_at_ms.is_none_or(|at_ms| at_ms > now_ms) {
            return None;
        }
        session.will_at_ms = None;
        session.will.take()
    }

    /// A message for a client: the connection to send it on. It waits in the session if there
    /// is none; without a session it goes nowhere. An error: too many wait.
    pub(crate) fn publish(
        &mut self,
        node: ChildId,
        bytes: &Bytes,
        now_ms: u64,
    ) -> Result<Option<ConnectionId>, ()> {
        let Some(session) = self.sessions.get_mut(&node) else { return Ok(None) };
        if session.connection.is_some() {
            return Ok(session.connection);
        }
        if session.queue.len() >= QUEUE_MAX {
            return Err(());
        }
        if session.ends_ms >= now_ms {
            session.queue.push_back((now_ms + COMMAND_EXPIRY_MS, bytes.clone()));
        }
        Ok(None)
    }
}
