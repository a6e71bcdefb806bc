//! What a node's and a tier's program have in common: it starts, crashes, is slow, and what
//! happens to it meanwhile waits in its queues.

use crate::clock::Clock;
use crate::network::ConnectionId;
use crate::world::Way;
use marram_engine_core as engine;
use marram_orchestrator_core as orchestrator;
use marram_protocol::id::{ChildId, InstanceId};
use marram_protocol::v1::{Down, Telemetry, Up};
use std::collections::VecDeque;

/// What a shell takes out of its queues.
#[derive(Debug)]
pub(crate) enum Happening {
    /// A child's connection to its parent is there.
    Linked(ConnectionId),
    /// It is gone.
    Unlinked,
    /// The parent speaks on it.
    Heard(ConnectionId, Down),
    /// A child speaks on a connection of its own.
    Said(ConnectionId, Up),
    /// Such a connection is gone.
    Left(ConnectionId, ChildId),
    /// The broker brings a node's message; retained or not.
    Bus(ChildId, Up, bool),
    /// The broker has seen a node's connection end.
    BusGone(ChildId),
    /// The way to the broker is there.
    BusUp,
    /// It is not.
    BusDown,
    /// Time is up.
    Due,
    /// A backend has done something.
    Done(InstanceId, engine::Outcome),
    /// A workload has ended.
    Exited(InstanceId, marram_backend_api::Exit),
    /// The backend is to be listed.
    Look,
    /// The node's clock of samples.
    Tick(Option<Box<Telemetry>>),
    /// Something else for the core of a tier.
    Core(Box<orchestrator::Input>),
}

/// A program's life.
#[derive(Debug)]
pub(crate) struct Program {
    pub(crate) is_on: bool,
    /// Counts starts; what was meant for an earlier one is lost.
    pub(crate) life: u64,
    /// Since when this start is.
    pub(crate) since_ms: u64,
    pub(crate) clock: Clock,
    /// It does nothing before this time: it waits for its disk, or was suspended.
    pub(crate) busy_until_ms: u64,
    /// It has been suspended as a whole, with its connections.
    pub(crate) frozen: bool,
    pub(crate) inbox: VecDeque<Happening>,
    /// It is at work: what happens meanwhile waits for its turn.
    pub(crate) at_work: bool,
    /// The entry of the queue that counts.
    pub(crate) timer: Option<u64>,
    /// Its way up.
    pub(crate) way: Option<Way>,
    /// What it has written down of that.
    pub(crate) kept: String,
    /// How long each effect keeps it, at most.
    pub(crate) slow_ms: u64,
    /// Since when it has neither stood still nor been slow.
    pub(crate) steady_since_ms: u64,
}

impl Program {
    pub(crate) fn new(clock: Clock) -> Self {
        Self {
            is_on: false,
            life: 0,
            since_ms: 0,
            clock,
            busy_until_ms: 0,
            frozen: false,
            inbox: VecDeque::new(),
            at_work: false,
            timer: None,
            way: None,
            kept: String::new(),
            slow_ms: 0,
            steady_since_ms: 0,
        }
    }

    pub(crate) fn start(&mut self, now_ms: u64, boot: bool) {
        self.is_on = true;
        self.life += 1;
        self.since_ms = now_ms;
        self.busy_until_ms = 0;
        self.frozen = false;
        self.inbox.clear();
        self.timer = None;
        self.clock.start(now_ms, boot);
    }

    pub(crate) fn stop(&mut self) {
        self.is_on = false;
        self.way = None;
        self.frozen = false;
        self.inbox.clear();
        self.timer = None;
    }

    pub(crate) fn tier_now(&self, now_ms: u64) -> orchestrator::Now {
        let (mono_ms, unix_ms) = self.clock.read(now_ms);
        orchestrator::Now { mono_ms, unix_ms }
    }

    pub(crate) fn node_now(&self, now_ms: u64) -> engine::Now {
        let (mono_ms, unix_ms) = self.clock.read(now_ms);
        engine::Now { mono_ms, unix_ms }
    }
}
