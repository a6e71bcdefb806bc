//! The one task that owns the cluster's state: core and relay.
//!
//! Why one task: no lock guards the state, and the order in which things happen is the order
//! in which they were taken from the queues. Everything it does is quick; what waits waits
//! in other tasks.

mod clusters;
mod local;

pub(crate) use clusters::ChildEvent;
pub(crate) use local::Local;

use crate::asked;
use crate::bus::{Bus, BusEvent};
use crate::clock::Clock;
use crate::config::Config;
use crate::parent::{ParentEvent, ParentLink};
use crate::relay::{Asker, Relay};
use crate::run::{Error, Ready};
use crate::storage::{self, Write};
use clusters::Outlets;
use marram_orchestrator_core::{CHILDREN_MAX, Effect, Identity, Input, Tier};
use marram_protocol::id::ChildId;
use marram_protocol::topic::{Leaf, Topic};
use marram_protocol::v1::{ChildKind, Down, StreamFault, StreamId, StreamRequest, Up};
use marram_store::Store;
use std::collections::BTreeMap;
use tokio::sync::mpsc;

/// What a node is told that speaks without having said hello to this start of the cluster.
pub const NODE_UNKNOWN: &str = "this cluster does not know you yet: say hello again";

/// Between two requests to the same node to say hello: longer than a node takes to do it.
const ASK_INTERVAL_MS: u64 = 10_000;

/// Words of nodes that are taken before what follows from them is done: a thousand nodes that
/// have ended something then cost some durable writes, and not a thousand.
const EVENTS_AT_ONCE: usize = 64;

/// Where the shell hears of parent and child clusters.
#[derive(Debug)]
pub(crate) struct Inlets {
    pub(crate) parent_events: mpsc::Receiver<ParentEvent>,
    pub(crate) child_events: mpsc::Receiver<ChildEvent>,
}

/// The owner of the state.
pub(crate) struct Shell<B> {
    tier: Tier,
    relay: Relay,
    store: Box<dyn Store>,
    clock: Clock,
    bus: B,
    parent: Option<ParentLink>,
    inlets: Inlets,
    /// The ways to child clusters.
    outlets: Outlets,
    /// Operators at this machine.
    local: Local,
    /// When a node was asked to say hello, for those that have not yet.
    asked: BTreeMap<ChildId, u64>,
}

impl<B: Bus> Shell<B> {
    pub(crate) fn open(
        config: &Config,
        listen: &Ready,
        id: ChildId,
        store: Box<dyn Store>,
        bus: B,
        inlets: Inlets,
        local: Local,
    ) -> Result<Self, Error> {
        let identity = Identity {
            id,
            name: config.name.clone(),
            location: config.location.clone(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            incarnation: getrandom::u64()?,
            labels: config.labels.clone(),
            address: listen.address(config),
            node_address: listen.node_address(config),
        };
        // Never 0, which means "no epoch yet".
        let epoch = getrandom::u64()? | 1;
        let clock = Clock::start();
        let records = storage::load(&*store)?;
        let tier = Tier::restore(identity, false, epoch, records, clock.now())?;
        let (relay, asked) = (Relay::default(), BTreeMap::new());
        let outlets = Outlets::new();
        let parent = None;
        let mut shell =
            Self { tier, relay, store, clock, bus, parent, inlets, outlets, local, asked };
        shell.settle()?;
        Ok(shell)
    }

    pub(crate) async fn run(
        mut self,
        ready: impl FnOnce(),
        stop: impl Future<Output = ()>,
    ) -> Result<(), Error> {
        let mut ready = Some(ready);
        let mut stop = std::pin::pin!(stop);
        loop {
            let due = self.tier.poll_timeout().map(|at| self.clock.at(at));
            let timeout = async {
                match due {
                    Some(due) => tokio::time::sleep_until(due).await,
                    None => std::future::pending().await,
                }
            };
            let room = room(self.parent.as_ref(), self.relay.has_output(Asker::Parent));
            // Every arm can be given up without loss: queues keep what was not taken, and a
            // place in a queue is given back.
            tokio::select! {
                () = &mut stop => return Ok(()),
                event = self.bus.next() => {
                    if event == BusEvent::Up && let Some(ready) = ready.take() {
                        ready();
                    }
                    self.bus_event(event);
                    if ready.is_none() {
                        self.bus_events().await;
                    }
                }
                Some(event) = self.inlets.parent_events.recv() => self.parent_event(event),
                Some(event) = self.inlets.child_events.recv() => self.cluster_event(event),
                Some(command) = self.local.commands.recv() => self.local_command(command)?,
                Some(message) = self.local.streams.recv() => self.local_stream(message),
                Some(place) = room => {
                    if let Some(message) = self.relay.next_output(Asker::Parent) {
                        place.send(message);
                    }
                }
                () = timeout => self.tier.handle_timeout(self.clock.now()),
            }
            self.settle()?;
        }
    }

    /// Takes what else nodes have said, so that all that is to be durable of it is written at
    /// once.
    async fn bus_events(&mut self) {
        for _ in 1..EVENTS_AT_ONCE {
            tokio::select! {
                biased;
                event = self.bus.next() => self.bus_event(event),
                () = std::future::ready(()) => return,
            }
        }
    }

    fn bus_event(&mut self, event: BusEvent) {
        match event {
            BusEvent::Up => {
                tracing::info!("nodes can be heard");
                self.asked.clear();
            }
            BusEvent::Down => {
                let nodes = self.tier.children().values().filter(|c| c.kind() == ChildKind::Node);
                let connected = nodes.filter(|c| c.is_connected());
                for child in connected.map(|c| c.id()).collect::<Vec<_>>() {
                    self.gone(child);
                }
            }
            BusEvent::Gone(child) => self.gone(child),
            BusEvent::Message { topic, bytes, retained } => match Up::decode(&bytes) {
                Ok(message) => self.node_says(topic, message, retained),
                Err(error) => tracing::warn!(%topic, "dropped: {error}"),
            },
        }
    }

    fn node_says(&mut self, topic: Topic, message: Up, retained: bool) {
        let child = topic.node;
        if !carries(topic.leaf, &message) {
            return tracing::warn!(%topic, "dropped: a message that does not belong there");
        }
        if self.tier.children().contains_key(&child) && !self.is_node(child) {
            return tracing::warn!(%topic, "dropped: a child cluster has that id");
        }
        match message {
            Up::Hello(hello) => {
                if hello.child != child || hello.kind != ChildKind::Node {
                    return tracing::warn!(%topic, "dropped: a hello of another child");
                }
                tracing::info!(id = %child, name = hello.name, "node says hello");
                self.asked.remove(&child);
                // A connection that takes the place of another one ends its streams.
                self.relay.child_gone(child);
                self.tier.handle(self.clock.now(), Input::Child(child, Up::Hello(hello)));
            }
            Up::StreamData { stream, output, bytes } => {
                self.relay.child_output(child, stream, output, bytes);
            }
            Up::StreamEnd { stream, end } => self.relay.child_end(child, stream, end),
            Up::StreamCredit { stream, bytes } => self.relay.child_credit(child, stream, bytes),
            message @ Up::Presence { online, .. } => {
                self.tier.handle(self.clock.now(), Input::Child(child, message));
                match (online, self.is_connected(child)) {
                    // It was there before this cluster listened, so its hello was not heard.
                    (true, false) if retained => self.ask_hello(child),
                    (false, false) => self.relay.child_gone(child),
                    _ => {}
                }
            }
            message => {
                if self.is_connected(child) {
                    self.tier.handle(self.clock.now(), Input::Child(child, message));
                } else {
                    self.ask_hello(child);
                }
            }
        }
    }

    fn is_node(&self, child: ChildId) -> bool {
        self.tier.children().get(&child).is_some_and(|child| child.kind() == ChildKind::Node)
    }

    fn is_connected(&self, child: ChildId) -> bool {
        self.tier.children().get(&child).is_some_and(|child| child.is_connected())
    }

    fn gone(&mut self, child: ChildId) {
        self.relay.child_gone(child);
        self.tier.handle(self.clock.now(), Input::ChildGone(child, None));
    }

    fn ask_hello(&mut self, child: ChildId) {
        let now_ms = self.clock.now().mono_ms;
        let recent = |asked_ms: &u64| now_ms < asked_ms.saturating_add(ASK_INTERVAL_MS);
        if self.asked.get(&child).is_some_and(recent) {
            return;
        }
        if self.asked.len() >= CHILDREN_MAX {
            self.asked.retain(|_, asked_ms| recent(asked_ms));
            if self.asked.len() >= CHILDREN_MAX {
                return;
            }
        }
        self.asked.insert(child, now_ms);
        self.tell(child, Down::Rejected { reason: NODE_UNKNOWN.to_owned() });
    }

    fn parent_event(&mut self, event: ParentEvent) {
        let now = self.clock.now();
        match event {
            ParentEvent::Up(link, preferred) => {
                self.relay.asker_gone(Asker::Parent);
                self.parent = Some(link);
                self.tier.handle(now, Input::ParentUp { preferred });
            }
            ParentEvent::Said(serial, message) if self.is_parent(serial) => match message {
                Down::StreamOpen { stream, request } => self.open_stream(stream, request),
                Down::StreamData { .. }
                | Down::StreamCredit { .. }
                | Down::StreamClose { .. }
                | Down::StreamResize { .. } => self.relay.asker_says(Asker::Parent, message),
                Down::Rejected { reason } => tracing::warn!("the parent refuses: {reason}"),
                message => self.tier.handle(now, Input::Parent(message)),
            },
            ParentEvent::Gone(serial) if self.is_parent(serial) => self.lose_parent(),
            // Of a connection that was given up before.
            ParentEvent::Said(..) | ParentEvent::Gone(_) => {}
        }
    }

    fn is_parent(&self, serial: u64) -> bool {
        self.parent.as_ref().is_some_and(|parent| parent.serial == serial)
    }

    fn lose_parent(&mut self) {
        self.parent = None;
        self.relay.asker_gone(Asker::Parent);
        self.tier.handle(self.clock.now(), Input::ParentGone);
    }

    fn open_stream(&mut self, stream: StreamId, request: StreamRequest) {
        let source = asked::source(&self.tier, Asker::Parent, request);
        let opened = source.and_then(|source| self.relay.open((Asker::Parent, stream), source));
        if let Err(end) = opened {
            self.report(Up::StreamEnd { stream, end });
        }
    }

    /// Performs what core and relay have decided, in order, until nothing is left.
    fn settle(&mut self) -> Result<(), Error> {
        loop {
            let mut idle = true;
            // What is durable earlier than it has to be does no harm: all of it goes first, and
            // of each record the last.
            let (mut writes, mut effects) = (BTreeMap::new(), Vec::new());
            while let Some(effect) = self.tier.poll_effect() {
                match effect {
                    Effect::Persist(records) => writes.extend(records),
                    other => effects.push(other),
                }
            }
            if !writes.is_empty() {
                idle = false;
                let writes: Vec<Write> = writes.into_iter().collect();
                storage::commit(&*self.store, writes)?;
            }
            for effect in effects {
                idle = false;
                match effect {
                    // Taken out above.
                    Effect::Persist(_) => {}
                    Effect::ToChild(child, message) => self.tell(child, message),
                    Effect::ToParent(message) => self.report(message),
                    Effect::LeaveParent { reason } => {
                        tracing::warn!("the parent is left: {reason}");
                        if let Some(parent) = &self.parent {
                            parent.refuse();
                        }
                        self.lose_parent();
                    }
                    Effect::Operated { operation, end } => {
                        self.local.operated(operation, end);
                    }
                    Effect::Changed(instance) => {
                        if let Some(status) = self.tier.status(instance) {
                            let state = status.state.name();
                            tracing::debug!(%instance, state, detail = status.detail);
                        }
                    }
                }
            }
            for (child, message) in self.relay.take_orders() {
                idle = false;
                self.tell(child, message);
            }
            self.give_local_output();
            if idle {
                return Ok(());
            }
        }
    }

    fn tell(&mut self, node: ChildId, message: Down) {
        let Some(message) = self.tell_cluster(node, message) else { return };
        let (leaf, stream) = match &message {
            Down::StreamData { stream, .. } => (Leaf::StreamIn, Some(*stream)),
            Down::StreamOpen { .. }
            | Down::StreamCredit { .. }
            | Down::StreamClose { .. }
            | Down::StreamResize { .. } => (Leaf::StreamIn, None),
            Down::Welcome { .. }
            | Down::Rejected { .. }
            | Down::Change { .. }
            | Down::Manifest { .. }
            | Down::Specs { .. }
            | Down::Kin(_)
            | Down::Disown(_)
            | Down::Operate { .. }
            | Down::Peers(_) => (Leaf::Desired, None),
        };
        let bytes = match message.encode() {
            Ok(bytes) => bytes,
            // The core keeps its messages below the limit.
            Err(error) => return tracing::error!(id = %node, %error, "cannot be sent"),
        };
        let Err(lost) = self.bus.publish(Topic { node, leaf }, bytes) else { return };
        tracing::warn!("{lost}");
        match stream {
            // Input with a hole in it would be worse than none.
            Some(stream) => {
                let why = "input came faster than the node took it".to_owned();
                self.relay.break_off(node, stream, StreamFault::TooMany, why);
            }
            // When it speaks again it is asked to say hello, and is told everything.
            None => self.gone(node),
        }
    }

    fn report(&mut self, message: Up) {
        let Some(parent) = &self.parent else { return };
        if parent.control.try_send(message).is_err() {
            tracing::warn!("the parent is cut off: it does not take what is sent");
            self.lose_parent();
        }
    }
}

/// A place in the queue for output, once there is one and something to put there.
async fn room(parent: Option<&ParentLink>, has_output: bool) -> Option<mpsc::OwnedPermit<Up>> {
    let streams = parent.filter(|_| has_output)?.streams.clone();
    streams.reserve_owned().await.ok()
}

/// Whether a message belongs on a topic of this leaf.
fn carries(leaf: Leaf, message: &Up) -> bool {
    match message {
        Up::Presence { .. } => leaf == Leaf::Presence,
        Up::Telemetry(_) => leaf == Leaf::Telemetry,
        Up::StreamData { .. } | Up::StreamEnd { .. } | Up::StreamCredit { .. } => {
            leaf == Leaf::StreamOut
        }
        Up::Hello(_)
        | Up::Observed { .. }
        | Up::Resync(_)
        | Up::Fetch { .. }
        | Up::Summary(_)
        | Up::Claim(_)
        | Up::Clusters { .. }
        | Up::Operated { .. }
        | Up::Missed { .. } => leaf == Leaf::Report,
    }
}
