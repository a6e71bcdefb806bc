//! The way to the nodes: messages by topic, whoever carries them.
//!
//! One trait with two sides: the endpoint inside this program, and a client of a broker
//! elsewhere. The shell does not know which it has.

mod access;
mod embedded;
mod external;

pub(crate) use embedded::Embedded;
pub(crate) use external::External;

use bytes::Bytes;
use marram_protocol::id::ChildId;
use marram_protocol::topic::{Direction, Leaf, Topic};
use std::time::Duration;

/// How long a command may wait for its node: a later one would be ignored as out of date.
const COMMAND_EXPIRY: Duration = Duration::from_secs(60);

/// What the shell hears of its nodes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum BusEvent {
    /// Messages can come and go from now on.
    Up,
    /// The broker is gone, and with it every node, until [`BusEvent::Up`].
    Down,
    /// A node speaks.
    Message {
        /// Whose and about what.
        topic: Topic,
        /// An envelope, or anything else.
        bytes: Bytes,
        /// Kept by the broker from before this subscription.
        retained: bool,
    },
    /// A node's connection ended, as the embedded endpoint sees it.
    Gone(ChildId),
}

/// A message did not fit a queue on the way to its node.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the queue to {0} is full")]
pub(crate) struct Lost(pub(crate) String);

/// Carries messages.
pub(crate) trait Bus: Send {
    /// The next event. Cancel-safe. After the end of the way there is none.
    fn next(&mut self) -> impl Future<Output = BusEvent> + Send;

    /// Sends to a node at least once, without waiting.
    fn publish(&mut self, topic: Topic, bytes: Vec<u8>) -> Result<(), Lost>;
}

/// Filters for all that nodes write.
fn filters() -> impl Iterator<Item = String> {
    Leaf::ALL.into_iter().filter(|leaf| leaf.direction() == Direction::Up).map(Leaf::of_all_nodes)
}

/// A message of a node, unless its topic is none of a node's.
fn message(topic: &str, bytes: Bytes, retained: bool) -> Option<BusEvent> {
    match topic.parse::<Topic>() {
        Ok(topic) if topic.leaf.direction() == Direction::Up => {
            Some(BusEvent::Message { topic, bytes, retained })
        }
        Ok(topic) => {
            tracing::debug!(%topic, "ignored: not a node's to write");
            None
        }
        Err(error) => {
            tracing::debug!("ignored: {error}");
            None
        }
    }
}
