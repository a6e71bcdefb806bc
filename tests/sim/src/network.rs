//! Connections between a child and its parent, and what may happen to them.
//!
//! A connection is as TCP promises: each direction keeps its order, and nothing is missing in
//! it while it lasts. So a way that is cut holds messages back; healed in time it delivers
//! them, and when an end gives up they are lost with all that was under way. Each end notices
//! for itself, and a child may be back before its parent has missed it.

use crate::Random;
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

/// An encoded message.
pub(crate) type Bytes = Arc<Vec<u8>>;

/// Who takes part: a tier or a node, by its place in the world's lists.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Actor {
    Tier(usize),
    Node(usize),
}

/// Which connection.
pub(crate) type ConnectionId = u64;

/// A direction, and the end that sends into it.
pub(crate) const UP: usize = 0;
/// A direction, and the end that sends into it.
pub(crate) const DOWN: usize = 1;

/// Longest way of a message.
const LATENCY_MS: u64 = 40;

/// An end that hears nothing gives up within this: keep-alive of 60 s, and half of it again.
pub(crate) const DETECT_MS: u64 = 90_000;

/// Messages that wait for a way; the shells' queues hold no more.
const HELD_MAX: usize = 512;

/// Messages that a client may not know to have arrived: it sends them again.
const DOUBTED_MAX: usize = 4;

/// A connection, from the first end's beginning to the last end's end.
#[derive(Debug)]
pub(crate) struct Connection {
    pub(crate) child: Actor,
    pub(crate) parent: usize,
    /// Whether the end of the child, of the parent, is there.
    pub(crate) open: [bool; 2],
    last_ms: [u64; 2],
    held: [VecDeque<Bytes>; 2],
    /// The last messages, with the times of their arrival.
    recent: [VecDeque<(u64, Bytes)>; 2],
}

/// What became of a message that was given to the network.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Sent {
    /// It arrives then.
    At(u64),
    /// It waits, or nobody is there to send it.
    No,
    /// Too many wait: the sender gives the connection up.
    Overflow,
}

/// All connections, and which ways are cut.
#[derive(Debug, Default)]
pub(crate) struct Network {
    connections: BTreeMap<ConnectionId, Connection>,
    next: ConnectionId,
    /// Ways that do not carry messages, by direction.
    cuts: BTreeMap<(Actor, usize), [bool; 2]>,
}

impl Network {
    pub(crate) fn connect(&mut self, child: Actor, parent: usize) -> ConnectionId {
        self.next += 1;
        let connection = Connection {
            child,
            parent,
            open: [true; 2],
            last_ms: [0; 2],
            held: Default::default(),
            recent: Default::default(),
        };
        self.connections.insert(self.next, connection);
        self.next
    }

    pub(crate) fn get(&self, id: ConnectionId) -> Option<&Connection> {
        self.connections.get(&id)
    }

    /// All that are there, of which one end is one's own.
    pub(crate) fn of(&self, actor: Actor) -> Vec<(ConnectionId, usize)> {
        let own = |(id, c): (&ConnectionId, &Connection)| {
            let end = match actor {
                actor if c.child == actor => UP,
                Actor::Tier(tier) if c.parent == tier => DOWN,
                _ => return None,
            };
            Some((*id, end))
        };
        self.connections.iter().filter_map(own).collect()
    }

    /// Whether messages pass in a direction.
    pub(crate) fn passes(&self, child: Actor, parent: usize, direction: usize) -> bool {
        self.cuts.get(&(child, parent)).is_none_or(|cut| !cut[direction])
    }

    /// Whether messages pass both ways.
    pub(crate) fn is_whole(&self, child: Actor, parent: usize) -> bool {
        self.passes(child, parent, UP) && self.passes(child, parent, DOWN)
    }

    /// Cuts a way; the connections that are hurt.
    pub(crate) fn cut(
        &mut self,
        child: Actor,
        parent: usize,
        directions: [bool; 2],
    ) -> Vec<ConnectionId> {
        self.cuts.insert((child, parent), directions);
        let hurt = self.connections.iter();
        hurt.filter(|(_, c)| c.child == child && c.parent == parent).map(|(id, _)| *id).collect()
    }

    /// Mends a way; what was held back goes on, at these times.
    pub(crate) fn heal(
        &mut self,
        child: Actor,
        parent: usize,
        now_ms: u64,
    ) -> Vec<(u64, ConnectionId, usize, Bytes)> {
        self.cuts.remove(&(child, parent));
        let mut gone_on = Vec::new();
        for (id, connection) in &mut self.connections {
            if (connection.child, connection.parent) != (child, parent) {
                continue;
            }
            for direction in [UP, DOWN] {
                for bytes in std::mem::take(&mut connection.held[direction]) {
                    let at_ms = connection.last_ms[direction].max(now_ms + 1);
                    connection.last_ms[direction] = at_ms;
                    gone_on.push((at_ms, *id, direction, bytes));
                }
            }
        }
        gone_on
    }

    /// All ways that are cut.
    pub(crate) fn cut_ways(&self) -> Vec<(Actor, usize)> {
        self.cuts.keys().copied().collect()
    }

    /// Sends a message.
    pub(crate) fn send(
        &mut self,
        id: ConnectionId,
        direction: usize,
        bytes: &Bytes,
        now_ms: u64,
        random: &mut Random,
    ) -> Sent {
        let Some(connection) = self.connections.get_mut(&id) else { return Sent::No };
        if !connection.open[direction] {
            return Sent::No;
        }
        let cut = self.cuts.get(&(connection.child, connection.parent));
        let waits = !connection.held[direction].is_empty() || cut.is_some_and(|c| c[direction]);
        if waits {
            connection.held[direction].push_back(bytes.clone());
            let full = connection.held[direction].len() > HELD_MAX;
            return if full { Sent::Overflow } else { Sent::No };
        }
        let at_ms = connection.last_ms[direction].max(now_ms + random.below(LATENCY_MS));
        connection.last_ms[direction] = at_ms;
        if matches!(connection.child, Actor::Node(_)) {
            let recent = &mut connection.recent[direction];
            recent.push_back((at_ms, bytes.clone()));
            while recent.len() > DOUBTED_MAX && recent[0].0 < now_ms {
                recent.pop_front();
            }
        }
        Sent::At(at_ms)
    }

    /// A message is at its end: it is taken, held back by a cut, or there is nobody to take it.
    pub(crate) fn arrive(
        &mut self,
        id: ConnectionId,
        direction: usize,
        bytes: &Bytes,
    ) -> Option<&Connection> {
        let connection = self.connections.get_mut(&id)?;
        if !connection.open[1 - direction] {
            return None;
        }
        let cut = self.cuts.get(&(connection.child, connection.parent));
        if cut.is_some_and(|cut| cut[direction]) {
            connection.held[direction].push_back(bytes.clone());
            return None;
        }
        Some(connection)
    }

    /// When everything that was sent in a direction has arrived.
    pub(crate) fn drained_ms(&self, id: ConnectionId, direction: usize) -> u64 {
        self.connections.get(&id).map_or(0, |connection| connection.last_ms[direction])
    }

    /// An end is no more. What it has sent, in order, and cannot know to have arrived.
    pub(crate) fn close(
        &mut self,
        id: ConnectionId,
        end: usize,
        now_ms: u64,
        random: &mut Random,
    ) -> Vec<Bytes> {
        let Some(connection) = self.connections.get_mut(&id) else { return Vec::new() };
        connection.open[end] = false;
        let recent = std::mem::take(&mut connection.recent[end]);
        let arrived = recent.iter().filter(|(at_ms, _)| *at_ms <= now_ms).count();
        let known = arrived - random.index(arrived.min(DOUBTED_MAX - 1) + 1);
        let doubted = recent.into_iter().skip(known).map(|(_, bytes)| bytes);
        let doubted = doubted.chain(std::mem::take(&mut connection.held[end])).collect();
        if connection.open == [false; 2] {
            self.connections.remove(&id);
        }
        doubted
    }
}
