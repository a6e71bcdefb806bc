//! How sessions begin, change hands and end, with their wills.
//!
//! Apart from routing because these rules are about time and identity, not about topics.

use std::sync::Arc;

use super::message::Message;
use super::session::{Item, Key, Kind, Link, Session, Will};
use super::{ConnectionEvent, Core, Millis, Timer, topic};
use crate::codec::Version;
use crate::config::LOCAL_EVENTS_MAX;
use crate::reason::Reason;

/// A client that was let in and wants its session.
#[derive(Debug)]
pub(crate) struct ConnectInput {
    pub(crate) client_id: Arc<str>,
    pub(crate) owner: Arc<str>,
    pub(crate) version: Version,
    pub(crate) clean_start: bool,
    pub(crate) expiry_s: u32,
    pub(crate) window: u16,
    pub(crate) packet_bytes_max: u32,
    pub(crate) will: Option<Will>,
}

/// What a client got.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Connected {
    pub(crate) link: Link,
    pub(crate) session_present: bool,
}

/// How a connection ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ending {
    /// With a DISCONNECT that takes the will back; it may change how long the session waits.
    Clean { expiry_s: Option<u32> },
    /// In any other way: the will is published.
    Will { expiry_s: Option<u32>, reason: Reason },
}

impl Core {
    /// Opens or resumes a session; a connection that it still has is ended.
    pub(crate) fn connect(
        &mut self,
        now: Millis,
        input: ConnectInput,
    ) -> Result<Connected, Reason> {
        let result = self.try_connect(now, input);
        match result {
            Ok(_) => self.stats.connections_accepted += 1,
            Err(_) => self.stats.connections_refused += 1,
        }
        result
    }

    fn try_connect(&mut self, now: Millis, input: ConnectInput) -> Result<Connected, Reason> {
        if self.shutting_down {
            return Err(Reason::ShuttingDown);
        }
        if self.events_are_full() {
            return Err(Reason::Busy);
        }
        if let Some(&key) = self.by_id.get(&input.client_id) {
            let Some(session) = self.slot(key) else { return Err(Reason::Lost) };
            if session.owner != input.owner {
                return Err(Reason::ClientId);
            }
            if session.connected {
                let ending = Ending::Will { expiry_s: None, reason: Reason::TakenOver };
                self.end_connection(now, key, ending, true);
            }
            if input.clean_start && self.by_id.contains_key(&input.client_id) {
                self.remove_session(now, key);
            }
        }
        let found = self.by_id.get(&input.client_id).copied();
        let key = match found {
            Some(key) => key,
            None if self.by_id.len() >= self.limits.sessions_max => return Err(Reason::Quota),
            None => {
                let (id, owner) = (Arc::clone(&input.client_id), Arc::clone(&input.owner));
                let kind = Kind::Remote(input.version);
                let key = self.add(Session::new(Arc::clone(&id), owner, kind));
                self.by_id.insert(id, key);
                key
            }
        };
        let link = self.attach(key, input);
        self.announce_connected(key, found.is_some());
        Ok(Connected { link, session_present: found.is_some() })
    }

    /// Puts a new connection in charge of a session.
    fn attach(&mut self, key: Key, input: ConnectInput) -> Link {
        self.cancel_timers(key);
        self.epoch += 1;
        let epoch = self.epoch;
        let expiry_s = input.expiry_s.min(self.limits.session_expiry_s_max);
        let window = input.window.min(self.limits.inflight_max).max(1);
        if let Some(session) = self.slot(key) {
            session.kind = Kind::Remote(input.version);
            session.epoch = epoch;
            session.connected = true;
            session.expiry_s = expiry_s;
            session.packet_bytes_max = input.packet_bytes_max;
            session.window = window;
            session.will = input.will.map(Box::new);
            session.sent = 0;
        }
        self.stats.connected += 1;
        Link { key, epoch }
    }

    /// Opens the session of an in-process client.
    pub(crate) fn connect_local(&mut self, watch: bool) -> Link {
        self.epoch += 1;
        let epoch = self.epoch;
        let name: Arc<str> = format!("$local/{epoch}").into();
        let mut session = Session::new(Arc::clone(&name), name, Kind::Local);
        session.epoch = epoch;
        session.connected = true;
        session.window = u16::MAX;
        let key = self.add(session);
        if watch {
            let keys: Vec<Key> = self.by_id.values().copied().collect();
            for connected in keys {
                if let Some(event) = self.connected_event(connected, false) {
                    self.push_event(key, event);
                }
            }
            self.watchers.push(key);
        }
        Link { key, epoch }
    }

    /// A connection is over, as it says itself.
    pub(crate) fn disconnect(&mut self, now: Millis, link: Link, ending: Ending) {
        self.ended.remove(&link.epoch);
        if self.session(link).is_some() {
            self.end_connection(now, link.key, ending, false);
        }
    }

    /// Ends a client's connection for a reason; false if it has none.
    pub(crate) fn kick(&mut self, now: Millis, client_id: &str, reason: Reason) -> bool {
        let key = self.by_id.get(client_id).copied();
        let connected = key.filter(|&key| self.slot(key).is_some_and(|s| s.connected));
        let Some(key) = connected else { return false };
        self.end_connection(now, key, Ending::Will { expiry_s: None, reason }, true);
        true
    }

    /// Ends every connection and lets no further one in. Wills are not published: the clients did
    /// not go, the broker does.
    pub(crate) fn shut_down(&mut self, now: Millis) {
        self.shutting_down = true;
        let keys: Vec<Key> = self.by_id.values().copied().collect();
        for key in keys {
            if let Some(session) = self.slot(key).filter(|s| s.connected) {
                session.will = None;
                let ending = Ending::Will { expiry_s: None, reason: Reason::ShuttingDown };
                self.end_connection(now, key, ending, true);
            }
        }
    }

    /// Takes a connection off its session. With `tell` the connection does not know yet.
    fn end_connection(&mut self, now: Millis, key: Key, ending: Ending, tell: bool) {
        let (new_expiry_s, reason) = match ending {
            Ending::Clean { expiry_s } => (expiry_s, Reason::Normal),
            Ending::Will { expiry_s, reason } => (expiry_s, reason),
        };
        let expiry_s_max = self.limits.session_expiry_s_max;
        let Some(session) = self.slot(key) else { return };
        session.connected = false;
        // The standard forbids to revive a session that was announced to end at once.
        if session.expiry_s > 0 {
            session.expiry_s = new_expiry_s.unwrap_or(session.expiry_s).min(expiry_s_max);
        }
        if matches!(ending, Ending::Clean { .. }) {
            session.will = None;
        }
        let before = session.bytes;
        session.drop_unreliable();
        let after = session.bytes;
        let (epoch, local) = (session.epoch, session.kind == Kind::Local);
        let (expiry_s, kept) = (session.expiry_s, session.expiry_s > 0);
        let will_delay_s = session.will.as_ref().map(|will| will.delay_s.min(expiry_s));
        let event = ConnectionEvent::Disconnected {
            client_id: Arc::clone(&session.client_id),
            identity: Arc::clone(&session.owner),
            connection: epoch,
            reason,
            session_kept: kept,
        };
        self.queued_bytes = self.queued_bytes + after - before;
        if tell {
            self.ended.insert(epoch, reason);
        }
        // Also when it knows: its waker is given up with it, and the task's memory with that.
        self.wakes.push(key);
        if !local {
            self.stats.connected -= 1;
            self.announce(&event);
        }
        if !kept {
            return self.remove_session(now, key);
        }
        match will_delay_s {
            Some(0) => self.publish_will(now, key),
            Some(delay_s) => {
                let at = now + u64::from(delay_s) * 1000;
                self.timers.insert((at, Timer::Will(key)));
                self.slot(key).into_iter().for_each(|s| s.will_at = Some(at));
            }
            None => {}
        }
        let at = now + u64::from(expiry_s) * 1000;
        self.timers.insert((at, Timer::SessionEnd(key)));
        self.slot(key).into_iter().for_each(|s| s.ends_at = Some(at));
    }

    /// Ends a session: its will is published if it still stands, everything of it goes.
    pub(super) fn remove_session(&mut self, now: Millis, key: Key) {
        self.publish_will(now, key);
        self.cancel_timers(key);
        let Some(session) = self.slots.get_mut(key.0 as usize).and_then(Option::take) else {
            return;
        };
        self.queued_bytes -= session.bytes;
        for filter in &session.filters {
            if let Some(parsed) = topic::parse_filter(filter) {
                self.tree.remove(parsed.group, parsed.filter, key);
                self.sys_subscriptions -= usize::from(parsed.filter.starts_with("$SYS"));
            }
        }
        if session.kind == Kind::Local {
            self.watchers.retain(|&watcher| watcher != key);
            // Who waited for room here need not wait any more.
            self.relieve();
        } else {
            self.by_id.remove(&session.client_id);
        }
        self.free.push(key);
    }

    /// Publishes a session's will, once.
    pub(super) fn publish_will(&mut self, now: Millis, key: Key) {
        let Some(session) = self.slot(key) else { return };
        let at = session.will_at.take();
        let Some(will) = session.will.take() else { return };
        if let Some(at) = at {
            self.timers.remove(&(at, Timer::Will(key)));
        }
        let message = Message {
            topic: will.topic,
            payload: will.payload,
            qos: will.qos,
            expires_at: will.expiry_s.map(|seconds| now + u64::from(seconds) * 1000),
            properties: will.properties,
        };
        self.publish_unasked(now, message, will.retain);
    }

    fn cancel_timers(&mut self, key: Key) {
        let Some(session) = self.slot(key) else { return };
        let will_at = session.will_at.take();
        let ends_at = session.ends_at.take();
        if let Some(at) = will_at {
            self.timers.remove(&(at, Timer::Will(key)));
        }
        if let Some(at) = ends_at {
            self.timers.remove(&(at, Timer::SessionEnd(key)));
        }
    }

    fn add(&mut self, session: Session) -> Key {
        if let Some(key) = self.free.pop() {
            self.slots[key.0 as usize] = Some(Box::new(session));
            return key;
        }
        let key = Key(u32::try_from(self.slots.len()).expect("sessions are bounded by a limit"));
        self.slots.push(Some(Box::new(session)));
        key
    }

    fn announce_connected(&mut self, key: Key, session_present: bool) {
        if let Some(event) = self.connected_event(key, session_present) {
            self.announce(&event);
        }
    }

    fn connected_event(&mut self, key: Key, session_present: bool) -> Option<ConnectionEvent> {
        let session = self.slot(key).filter(|s| s.connected)?;
        Some(ConnectionEvent::Connected {
            client_id: Arc::clone(&session.client_id),
            identity: Arc::clone(&session.owner),
            connection: session.epoch,
            session_present,
        })
    }

    fn announce(&mut self, event: &ConnectionEvent) {
        for at in 0..self.watchers.len() {
            self.push_event(self.watchers[at], event.clone());
        }
    }

    fn push_event(&mut self, key: Key, event: ConnectionEvent) {
        if let Some(session) = self.slot(key) {
            session.outbox.push_back(Item::Event(event));
            session.events += 1;
            self.wakes.push(key);
        }
    }

    fn events_are_full(&mut self) -> bool {
        (0..self.watchers.len()).any(|at| {
            let key = self.watchers[at];
            self.slot(key).is_some_and(|s| s.events >= LOCAL_EVENTS_MAX)
        })
    }
}
