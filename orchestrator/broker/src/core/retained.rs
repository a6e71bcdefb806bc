//! The last retained message of each topic.
//!
//! A sorted map, so that the messages of a filter are found from its literal prefix on and can be
//! handed out one by one: a subscriber of everything costs a cursor, not a copy of the store.
//!
//! Invariant: `bytes` is the sum of what the entries are charged with.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::Arc;

use super::message::Message;
use super::topic;

/// The store.
#[derive(Debug, Default)]
pub(crate) struct Retained {
    messages: BTreeMap<Arc<str>, Arc<Message>>,
    bytes: usize,
}

impl Retained {
    /// Topics with a message.
    pub(crate) fn len(&self) -> usize {
        self.messages.len()
    }

    /// Bytes held.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Whether a message fits into the given bounds, that of its own topic being replaced.
    pub(crate) fn has_room(&self, message: &Message, count_max: usize, bytes_max: usize) -> bool {
        let old = self.messages.get(&message.topic);
        let count = self.messages.len() + usize::from(old.is_none());
        let bytes = self.bytes + message.bytes() - old.map_or(0, |m| m.bytes());
        count <= count_max && bytes <= bytes_max
    }

    /// Keeps a message; gives back the one it replaces.
    pub(crate) fn put(&mut self, message: Arc<Message>) -> Option<Arc<Message>> {
        self.bytes += message.bytes();
        let old = self.messages.insert(Arc::clone(&message.topic), message);
        self.bytes -= old.as_ref().map_or(0, |m| m.bytes());
        old
    }

    /// Forgets the message of a topic.
    pub(crate) fn remove(&mut self, topic: &str) -> Option<Arc<Message>> {
        let old = self.messages.remove(topic);
        self.bytes -= old.as_ref().map_or(0, |m| m.bytes());
        old
    }

    /// The first message that matches the filter and comes after the given topic.
    ///
    /// Looks at every topic from there on that shares the filter's literal prefix: at the bound of
    /// the store's size about a millisecond in the worst case.
    pub(crate) fn next(&self, filter: &str, after: Option<&Arc<str>>) -> Option<&Arc<Message>> {
        let prefix = topic::literal_prefix(filter);
        let from: Bound<&str> = match after {
            Some(last) => Bound::Excluded(&**last),
            None => Bound::Included(prefix),
        };
        self.messages
            .range::<str, _>((from, Bound::Unbounded))
            .take_while(|(name, _)| name.starts_with(prefix))
            .find(|(name, _)| topic::matches(filter, name))
            .map(|(_, message)| message)
    }
}

#[cfg(test)]
impl Retained {
    /// Messages with an end; each has a timer.
    pub(crate) fn expiring(&self) -> usize {
        self.messages.values().filter(|m| m.expires_at.is_some()).count()
    }
}
