//! Child clusters: the ways to them, and what they say.
//!
//! Why beside the bus: clusters come by the tunnel and nodes by MQTT, and behind that there is
//! no difference between them.

use super::Shell;
use crate::bus::Bus;
use marram_orchestrator_core::Input;
use marram_protocol::id::ChildId;
use marram_protocol::v1::{Down, StreamFault, StreamId, Up};
use marram_tunnel::{Outlet, Streams};
use std::collections::BTreeMap;
use tokio::sync::mpsc;

/// What connections of child clusters tell.
pub(crate) type ChildEvent = marram_tunnel::ChildEvent<Queue>;

/// Messages of streams to one child cluster. They are the relay's, which takes output for a
/// stream like everything else that a child says.
#[derive(Debug)]
pub(crate) struct Queue(mpsc::Sender<Down>);

impl Streams for Queue {
    /// Input that all streams may have on their way in pieces of usual size; who types faster
    /// than a slow link takes it loses the stream, and not the link.
    const QUEUE_MAX: usize = 1024;

    fn new(_child: ChildId, queue: mpsc::Sender<Down>) -> Self {
        Self(queue)
    }

    fn deliver(&self, message: Up) -> Option<Up> {
        Some(message)
    }

    fn close(&self) {}
}

/// The ways to child clusters that are connected.
pub(crate) type Outlets = BTreeMap<ChildId, Outlet<Queue>>;

impl<B: Bus> Shell<B> {
    pub(super) fn cluster_event(&mut self, event: ChildEvent) {
        let now = self.clock.now();
        match event {
            ChildEvent::Up { outlet, hello } => {
                let child = outlet.child;
                if self.is_node(child) {
                    return tracing::warn!(id = %child, "cut off: a node has that id");
                }
                // A connection that takes the place of another one ends its streams.
                self.relay.child_gone(child);
                self.outlets.insert(child, outlet);
                self.tier.handle(now, Input::Child(child, Up::Hello(hello)));
            }
            ChildEvent::Said { child, serial, message } if self.is_current(child, serial) => {
                match message {
                    Up::StreamData { stream, output, bytes } => {
                        self.relay.child_output(child, stream, output, bytes);
                    }
                    Up::StreamEnd { stream, end } => self.relay.child_end(child, stream, end),
                    Up::StreamCredit { stream, bytes } => {
                        self.relay.child_credit(child, stream, bytes);
                    }
                    message => self.tier.handle(now, Input::Child(child, message)),
                }
            }
            ChildEvent::Gone { child, serial } if self.is_current(child, serial) => {
                self.drop_cluster(child);
            }
            // Of a connection that was given up before.
            ChildEvent::Said { .. } | ChildEvent::Gone { .. } => {}
        }
    }

    fn is_current(&self, child: ChildId, serial: u64) -> bool {
        self.outlets.get(&child).is_some_and(|outlet| outlet.serial == serial)
    }

    fn drop_cluster(&mut self, child: ChildId) {
        self.outlets.remove(&child);
        self.gone(child);
    }

    /// Tells a child cluster; gives the message back if the child is none that is connected.
    pub(super) fn tell_cluster(&mut self, child: ChildId, message: Down) -> Option<Down> {
        let Some(outlet) = self.outlets.get(&child) else { return Some(message) };
        let Some(stream) = stream_of(&message) else {
            let rejected = matches!(message, Down::Rejected { .. });
            let told = outlet.tell(message);
            if let Err(why) = &told {
                tracing::warn!(cluster = %child, "cut off: {why}");
            }
            if rejected || told.is_err() {
                self.drop_cluster(child);
            }
            return None;
        };
        let is_input = matches!(message, Down::StreamData { .. });
        if outlet.streams.0.try_send(message).is_err() {
            if is_input {
                // Input with a hole in it would be worse than none.
                let why = "input came faster than the way to the cluster took it".to_owned();
                self.relay.break_off(child, stream, StreamFault::TooMany, why);
            } else {
                tracing::warn!(cluster = %child, "cut off: it does not take orders for streams");
                self.drop_cluster(child);
            }
        }
        None
    }
}

fn stream_of(message: &Down) -> Option<StreamId> {
    match message {
        Down::StreamOpen { stream, .. }
        | Down::StreamData { stream, .. }
        | Down::StreamCredit { stream, .. }
        | Down::StreamClose { stream }
        | Down::StreamResize { stream, .. } => Some(*stream),
        _ => None,
    }
}
