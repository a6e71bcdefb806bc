//! Connections and brokers: what shells need not decide.

use super::{Event, World};
use crate::broker::LANES;
use crate::network::{Actor, Bytes, ConnectionId, DETECT_MS, DOWN, Sent, UP};
use crate::program::Happening;
use marram_protocol::id::ChildId;
use marram_protocol::v1::{Down, Up};
use std::sync::Arc;

/// Messages of a cluster that wait for its broker.
const PENDING_MAX: usize = 256;

/// Longest way of a message between a broker and its cluster.
const BUS_MS: u64 = 10;

impl World {
    pub(super) fn broker_answers(&self, tier: usize) -> bool {
        let broker = &self.tiers[tier].broker;
        if broker.external { broker.is_on } else { self.answers(Actor::Tier(tier)) }
    }

    pub(super) fn connect_node(&mut self, node: usize, tier: usize, id: ConnectionId) {
        let now_ms = self.queue.now_ms();
        let own = &mut self.nodes[node];
        own.connection = Some(id);
        own.subscribed = false;
        let clean = std::mem::take(&mut own.clean);
        let (child, incarnation) = (own.id, own.incarnation());
        let doubted = std::mem::take(&mut own.doubted);
        let will = encode_up(&Up::Presence { online: false, incarnation });
        let broker = &mut self.tiers[tier].broker;
        let (former, spoken, waiting) = broker.connect(child, id, clean, will, now_ms);
        if let Some(former) = former {
            self.network.close(former, DOWN, now_ms, &mut self.random);
            self.queue.push(now_ms + 1, Event::Notice(former, UP));
        }
        if let Some(will) = spoken {
            self.broker_hears(tier, child, will);
        }
        for bytes in waiting {
            self.send(id, DOWN, &bytes, true);
        }
        for bytes in doubted {
            self.send(id, UP, &bytes, true);
        }
        self.send_up(id, &Up::Presence { online: true, incarnation });
        let at_ms = now_ms + 1 + self.random.below(80);
        self.queue.push(at_ms, Event::Subscribed(id));
    }

    pub(super) fn subscribed(&mut self, id: ConnectionId) {
        let Some(connection) = self.network.get(id).filter(|c| c.open[UP]) else { return };
        let child = connection.child;
        if let Actor::Node(node) = child {
            self.nodes[node].subscribed = true;
        }
        self.way_is_up(child);
        self.give(child, Happening::Linked(id));
    }

    /// Sends a child's message.
    pub(super) fn send_up(&mut self, id: ConnectionId, message: &Up) {
        let is_loud = !matches!(message, Up::Telemetry(_));
        self.send(id, UP, &encode_up(message), is_loud);
    }

    pub(super) fn send(&mut self, id: ConnectionId, way: usize, bytes: &Bytes, is_loud: bool) {
        let now_ms = self.queue.now_ms();
        self.traffic[way].0 += 1;
        self.traffic[way].1 += bytes.len() as u64;
        self.loud += u64::from(is_loud);
        match self.network.send(id, way, bytes, now_ms, &mut self.random) {
            Sent::At(at_ms) => self.queue.push(at_ms, Event::Arrive(id, way, bytes.clone())),
            Sent::No => {}
            Sent::Overflow => self.queue.push(now_ms, Event::Notice(id, way)),
        }
    }

    pub(super) fn arrive(&mut self, id: ConnectionId, direction: usize, bytes: &Bytes) {
        let Some(connection) = self.network.arrive(id, direction, bytes) else { return };
        let (child, parent) = (connection.child, connection.parent);
        match (direction, child) {
            (DOWN, _) => {
                let message = Down::decode(bytes).expect("a message that was encoded");
                self.give(child, Happening::Heard(id, message));
            }
            (_, Actor::Tier(_)) => {
                let message = Up::decode(bytes).expect("a message that was encoded");
                self.give(Actor::Tier(parent), Happening::Said(id, message));
            }
            (_, Actor::Node(node)) => {
                let child = self.nodes[node].id;
                self.broker_hears(parent, child, bytes.clone());
            }
        }
    }

    /// Ends that the end of an actor would bring about: those at an external broker live on.
    pub(super) fn connections_of(&self, actor: Actor) -> Vec<(ConnectionId, usize)> {
        let mut all = self.network.of(actor);
        if let Actor::Tier(tier) = actor
            && self.tiers[tier].broker.external
        {
            all.retain(|(id, own)| *own == UP || !self.is_of_node(*id));
        }
        all
    }

    fn is_of_node(&self, id: ConnectionId) -> bool {
        self.network.get(id).is_some_and(|c| matches!(c.child, Actor::Node(_)))
    }

    /// An end looks whether its connection is still of use.
    pub(super) fn notice(&mut self, id: ConnectionId, end: usize) {
        let Some(connection) = self.network.get(id) else { return };
        let (child, parent) = (connection.child, connection.parent);
        let other_answers = match (end, child) {
            (UP, Actor::Node(_)) => self.broker_answers(parent),
            (UP, Actor::Tier(_)) => self.answers(Actor::Tier(parent)),
            _ => self.answers(child),
        };
        let is_well =
            connection.open[1 - end] && other_answers && self.network.is_whole(child, parent);
        if !connection.open[end] || is_well {
            return;
        }
        self.close(id, end);
    }

    /// An end gives its connection up, and whoever it belongs to hears of it.
    pub(super) fn close(&mut self, id: ConnectionId, end: usize) {
        let Some(connection) = self.network.get(id).filter(|c| c.open[end]) else { return };
        let now_ms = self.queue.now_ms();
        let (child, parent) = (connection.child, connection.parent);
        if connection.open[1 - end] {
            let is_told = self.network.passes(child, parent, end);
            let drained_ms = self.network.drained_ms(id, end);
            let late_ms = now_ms + 1 + self.random.below(DETECT_MS);
            let at_ms = if is_told { drained_ms.max(now_ms) + 1 } else { late_ms };
            self.queue.push(at_ms, Event::Notice(id, 1 - end));
        }
        let doubted = self.network.close(id, end, now_ms, &mut self.random);
        let child_id = self.id(child);
        match (end, child) {
            (UP, _) => {
                match child {
                    Actor::Tier(tier) if self.tiers[tier].connection == Some(id) => {
                        self.tiers[tier].connection = None;
                    }
                    Actor::Node(node) if self.nodes[node].connection == Some(id) => {
                        self.nodes[node].connection = None;
                        self.nodes[node].doubted = doubted;
                    }
                    _ => return,
                }
                self.note(|w| format!("{} loses {}", w.name(child), w.tiers[parent].name));
                match child {
                    Actor::Node(node) if !self.nodes[node].subscribed => {
                        self.way_has_failed(child);
                    }
                    _ => self.way_is_lost(child),
                }
                self.give(child, Happening::Unlinked);
            }
            (_, Actor::Tier(_)) => {
                self.give(Actor::Tier(parent), Happening::Left(id, child_id));
            }
            (_, Actor::Node(_)) => {
                let broker = &mut self.tiers[parent].broker;
                if broker.disconnected(child_id, id, doubted, now_ms) {
                    let (at_ms, embedded) = (now_ms + broker.will_delay_ms, !broker.external);
                    self.queue.push(at_ms, Event::Will(parent, child_id));
                    if embedded {
                        self.give(Actor::Tier(parent), Happening::BusGone(child_id));
                    }
                }
            }
        }
    }

    pub(super) fn will(&mut self, tier: usize, node: ChildId) {
        let now_ms = self.queue.now_ms();
        if let Some(will) = self.tiers[tier].broker.due_will(node, now_ms) {
            self.broker_hears(tier, node, will);
        }
    }

    /// A node's message has come to the broker, which brings it to the cluster.
    fn broker_hears(&mut self, tier: usize, node: ChildId, bytes: Bytes) {
        let message = Up::decode(&bytes).expect("a message that was encoded");
        let broker = &mut self.tiers[tier].broker;
        let lane = match &message {
            Up::Presence { .. } => {
                broker.retained.insert(node, bytes.clone());
                0
            }
            Up::Telemetry(_) => 1,
            _ => LANES - 1,
        };
        if !broker.external {
            return self.give(Actor::Tier(tier), Happening::Bus(node, message, false));
        }
        // At most once, and each topic at its own pace.
        let lost = lane == 1 && self.random.chance(1);
        if broker.bus && !lost {
            let at_ms = self.queue.now_ms() + self.random.below(BUS_MS);
            broker.last_ms[lane] = broker.last_ms[lane].max(at_ms);
            let event = Event::Bus(tier, broker.bus_life, node, bytes, false);
            self.queue.push(broker.last_ms[lane], event);
        }
    }

    pub(super) fn bus_brings(
        &mut self,
        tier: usize,
        life: u64,
        node: ChildId,
        bytes: &Bytes,
        retained: bool,
    ) {
        let broker = &self.tiers[tier].broker;
        if broker.bus && broker.bus_life == life {
            let message = Up::decode(bytes).expect("a message that was encoded");
            self.give(Actor::Tier(tier), Happening::Bus(node, message, retained));
        }
    }

    /// A cluster sends to a node. False if there is no room for it on the way.
    pub(super) fn publish(&mut self, tier: usize, node: ChildId, bytes: &Bytes) -> bool {
        let now_ms = self.queue.now_ms();
        let broker = &mut self.tiers[tier].broker;
        if broker.external && !broker.bus {
            let has_room = broker.pending.len() < PENDING_MAX;
            if has_room {
                broker.pending.push((node, bytes.clone()));
            }
            return has_room;
        }
        match broker.publish(node, bytes, now_ms) {
            Ok(Some(connection)) => {
                self.send(connection, DOWN, bytes, true);
                true
            }
            Ok(None) => true,
            Err(()) => false,
        }
    }

    /// A cluster connects to its external broker, if that is there.
    pub(super) fn connect_bus(&mut self, tier: usize) {
        let is_on = self.tiers[tier].program.is_on;
        let broker = &mut self.tiers[tier].broker;
        if !broker.external || !broker.is_on || broker.bus || !is_on {
            return;
        }
        broker.bus = true;
        broker.bus_life += 1;
        let life = broker.bus_life;
        let pending = std::mem::take(&mut broker.pending);
        let retained: Vec<_> = broker.retained.iter().map(|(id, b)| (*id, b.clone())).collect();
        for (node, bytes) in pending {
            self.publish(tier, node, &bytes);
        }
        self.give(Actor::Tier(tier), Happening::BusUp);
        let at_ms = self.queue.now_ms() + 1;
        for (node, bytes) in retained {
            self.queue.push(at_ms, Event::Bus(tier, life, node, bytes, true));
        }
    }

    /// The cluster's program has ended: of an embedded broker nothing is left.
    pub(super) fn lose_bus(&mut self, tier: usize) {
        let broker = &mut self.tiers[tier].broker;
        broker.bus = false;
        broker.pending.clear();
        if !broker.external {
            broker.die();
        }
    }

    /// The way between a cluster and its external broker breaks; or the broker itself does.
    pub(super) fn break_bus(&mut self, tier: usize, broker_dies: bool) {
        let broker = &mut self.tiers[tier].broker;
        broker.bus = false;
        if broker_dies {
            broker.is_on = false;
            for id in broker.die() {
                self.close(id, DOWN);
            }
        }
        self.give(Actor::Tier(tier), Happening::BusDown);
    }
}

fn encode_up(message: &Up) -> Bytes {
    Arc::new(message.encode().expect("cores keep messages below the limit"))
}
