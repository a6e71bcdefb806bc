//! How a message gets from its publisher into the queues of those who want it.
//!
//! Invariant: a message that is refused went to nobody.

use std::sync::Arc;

use super::message::Message;
use super::session::{Cursor, Key, Kind, Link, Pending};
use super::tree::{Fitness, Match, Options};
use super::{Core, Millis, Timer, topic};
use crate::codec::{Qos, RetainHandling};
use crate::reason::Reason;

/// Why a message was not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// An in-process client has no room for it. The publisher waits until it is woken.
    Busy,
    /// The publisher itself is the in-process client that has no room.
    OwnQueue,
    /// The retained messages are at their bound.
    Retained,
    /// The publisher's connection was ended; it will be told when it asks for more.
    Gone,
}

/// A subscription that somebody wants.
#[derive(Debug)]
pub(crate) struct SubscribeInput<'a> {
    pub(crate) filter: &'a str,
    pub(crate) qos: Qos,
    pub(crate) no_local: bool,
    pub(crate) retain_as_published: bool,
    pub(crate) retain_handling: RetainHandling,
    pub(crate) id: u32,
}

/// One receiver of a message, all its matching subscriptions together.
struct Target {
    key: Key,
    qos: Qos,
    retain: bool,
    ids: Vec<u32>,
}

impl Core {
    /// Routes a message; tells how many get it.
    pub(crate) fn publish(
        &mut self,
        now: Millis,
        from: Option<Link>,
        message: Message,
        retain: bool,
    ) -> Result<usize, Refusal> {
        if from.is_some_and(|link| self.session(link).is_none()) {
            return Err(Refusal::Gone);
        }
        let from = from.map(|link| link.key);
        let targets = self.targets(from, &message, retain);
        if let Some(full) = self.full_local(&targets, &message) {
            if from == Some(full) {
                return Err(Refusal::OwnQueue);
            }
            self.stalled.extend(from);
            self.blocked = true;
            return Err(Refusal::Busy);
        }
        let (count_max, bytes_max) = (self.limits.retained_max, self.limits.retained_bytes_max);
        let keep = retain && !message.payload.is_empty();
        if keep && !self.retained.has_room(&message, count_max, bytes_max) {
            self.stats.publishes_refused += 1;
            return Err(Refusal::Retained);
        }
        self.stats.messages_received += 1;
        Ok(self.deliver(now, message, retain, targets))
    }

    /// Routes a message that nobody can be asked to hold back: a will, a `$SYS` value. In-process
    /// clients get it beyond their bound; there are no more wills than sessions.
    pub(super) fn publish_unasked(&mut self, now: Millis, message: Message, retain: bool) {
        let (count_max, bytes_max) = (self.limits.retained_max, self.limits.retained_bytes_max);
        let fits = self.retained.has_room(&message, count_max, bytes_max);
        if retain && !fits {
            self.stats.messages_dropped += 1;
        }
        let targets = self.targets(None, &message, retain);
        self.deliver(now, message, retain && fits, targets);
    }

    fn deliver(
        &mut self,
        now: Millis,
        message: Message,
        retain: bool,
        targets: Vec<Target>,
    ) -> usize {
        let message = Arc::new(message);
        if retain {
            self.keep(now, &message);
        }
        let count = targets.len();
        for target in targets {
            self.push(now, target, &message);
        }
        count
    }

    /// Replaces or clears the retained message of a topic.
    fn keep(&mut self, now: Millis, message: &Arc<Message>) {
        let clear = message.payload.is_empty() || message.is_expired(now);
        let old = if clear {
            self.retained.remove(&message.topic)
        } else {
            if let Some(at) = message.expires_at {
                self.timers.insert((at, Timer::Retained(Arc::clone(&message.topic))));
            }
            self.retained.put(Arc::clone(message))
        };
        let old_at = old.and_then(|old| old.expires_at);
        if let Some(at) = old_at.filter(|&at| clear || message.expires_at != Some(at)) {
            self.timers.remove(&(at, Timer::Retained(Arc::clone(&message.topic))));
        }
    }

    /// Who gets the message.
    fn targets(&mut self, from: Option<Key>, message: &Message, retain: bool) -> Vec<Target> {
        let (slots, limits) = (&self.slots, &self.limits);
        let bytes = message.bytes();
        let fitness = |entry: &Match| match slots.get(entry.key.0 as usize) {
            Some(Some(session)) if session.has_room(bytes, limits) => {
                if session.connected {
                    Fitness::Ready
                } else {
                    Fitness::Away
                }
            }
            _ => Fitness::None,
        };
        let mut found = Vec::new();
        self.tree.find(&message.topic, &fitness, &mut found);
        found.retain(|m| !(m.options.no_local && from == Some(m.key)));
        found.sort_by_key(|m| m.key);
        let mut targets: Vec<Target> = Vec::with_capacity(found.len());
        for Match { key, options } in found {
            let qos = options.qos.min(message.qos);
            let retain = retain && options.retain_as_published;
            match targets.last_mut().filter(|t| t.key == key) {
                Some(target) => {
                    target.qos = target.qos.max(qos);
                    target.retain |= retain;
                    target.ids.extend((options.id != 0).then_some(options.id));
                }
                None => {
                    let ids = (options.id != 0).then_some(options.id).into_iter().collect();
                    targets.push(Target { key, qos, retain, ids });
                }
            }
        }
        targets
    }

    /// An in-process client that must get the message and has no room.
    fn full_local(&self, targets: &[Target], message: &Message) -> Option<Key> {
        let bytes = message.bytes();
        let full = |target: &&Target| match self.slots.get(target.key.0 as usize) {
            Some(Some(session)) => {
                session.kind == Kind::Local
                    && target.qos == Qos::AtLeastOnce
                    && !session.has_room(bytes, &self.limits)
            }
            _ => false,
        };
        targets.iter().find(full).map(|target| target.key)
    }

    /// Queues a message for one receiver, or drops it for want of room.
    fn push(&mut self, now: Millis, target: Target, message: &Arc<Message>) {
        let Some(Some(session)) = self.slots.get_mut(target.key.0 as usize) else { return };
        let local = session.kind == Kind::Local;
        if !session.connected && target.qos == Qos::AtMostOnce {
            return;
        }
        let bytes = message.bytes();
        let before = session.bytes;
        let mut room = session.has_room(bytes, &self.limits);
        if !room {
            self.stats.messages_expired += session.drop_expired(now);
            room = session.has_room(bytes, &self.limits);
        }
        let total_room = self.queued_bytes + bytes <= self.limits.queues_bytes_max;
        let take = if local { room || target.qos == Qos::AtLeastOnce } else { room && total_room };
        if take {
            session.push(Pending {
                message: Arc::clone(message),
                qos: target.qos,
                retain: target.retain,
                subscription_ids: target.ids.into_boxed_slice(),
            });
            if session.connected {
                self.wakes.push(target.key);
            }
        } else {
            self.stats.messages_dropped += 1;
        }
        self.queued_bytes = self.queued_bytes + session.bytes - before;
    }

    /// Subscribes; tells the granted QoS or why not.
    pub(crate) fn subscribe(
        &mut self,
        now: Millis,
        link: Link,
        input: &SubscribeInput<'_>,
    ) -> Result<Qos, Reason> {
        let parsed = topic::parse_filter(input.filter).ok_or(Reason::Filter)?;
        let subscriptions_max = self.limits.subscriptions_max;
        let session = self.session(link).ok_or(Reason::Lost)?;
        let known = session.filters.iter().any(|f| **f == *input.filter);
        if !known && session.filters.len() >= subscriptions_max {
            return Err(Reason::Quota);
        }
        let filter: Arc<str> = parsed.filter.into();
        if !known {
            session.filters.push(input.filter.into());
        }
        let shared = parsed.group.is_some();
        let wanted = match input.retain_handling {
            RetainHandling::Always => !shared,
            RetainHandling::IfNew => !shared && !known,
            RetainHandling::Never => false,
        };
        session.cursors.retain(|c| c.filter != filter);
        if wanted {
            session.cursors.push(Cursor { filter, after: None, qos: input.qos, id: input.id });
        }
        let options = Options {
            qos: input.qos,
            no_local: input.no_local,
            retain_as_published: input.retain_as_published,
            id: input.id,
        };
        if parsed.filter.starts_with("$SYS") {
            // Before the subscription stands, so that the values come as retained only.
            self.sys_subscriptions += usize::from(!known);
            self.refresh_sys(now);
        }
        self.tree.insert(parsed.group, parsed.filter, Match { key: link.key, options });
        self.wakes.push(link.key);
        Ok(input.qos)
    }

    /// Ends a subscription.
    pub(crate) fn unsubscribe(&mut self, link: Link, filter: &str) -> Reason {
        let Some(parsed) = topic::parse_filter(filter) else { return Reason::Filter };
        let Some(session) = self.session(link) else { return Reason::Lost };
        let Some(at) = session.filters.iter().position(|f| **f == *filter) else {
            return Reason::NoSubscriptionExisted;
        };
        session.filters.swap_remove(at);
        session.cursors.retain(|c| parsed.group.is_some() || *c.filter != *parsed.filter);
        self.tree.remove(parsed.group, parsed.filter, link.key);
        self.sys_subscriptions -= usize::from(parsed.filter.starts_with("$SYS"));
        Reason::Normal
    }

    /// A 3.1.1 client published with QoS 2: true if the packet is new, false if it was taken
    /// before, an error if too many are open.
    pub(crate) fn begin_qos2(&mut self, link: Link, packet_id: u16) -> Result<bool, Reason> {
        let session = self.session(link).ok_or(Reason::Lost)?;
        if session.incoming_qos2.contains(&packet_id) {
            return Ok(false);
        }
        if session.incoming_qos2.len() >= crate::config::INCOMING_QOS2_MAX {
            return Err(Reason::Quota);
        }
        Ok(true)
    }

    /// The message of a QoS 2 publish was taken; the same packet id is no new message until it is
    /// released.
    pub(crate) fn hold_qos2(&mut self, link: Link, packet_id: u16) {
        if let Some(session) = self.session(link) {
            session.incoming_qos2.push(packet_id);
        }
    }

    /// A 3.1.1 client releases the packet id of a QoS 2 publish.
    pub(crate) fn release_qos2(&mut self, link: Link, packet_id: u16) {
        if let Some(session) = self.session(link) {
            session.incoming_qos2.retain(|&id| id != packet_id);
        }
    }
}
