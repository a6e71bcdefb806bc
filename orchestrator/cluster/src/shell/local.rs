//! Operators at this cluster itself: what they ask of the owner of the state.
//!
//! Streams of theirs go through the relay like the parent's; the rest is a look at the state or
//! an operation.

use super::Shell;
use crate::asked;
use crate::bus::Bus;
use crate::local::{Command, LocalSight};
use crate::relay::Asker;
use crate::run::Error;
use marram_orchestrator_core::Input;
use marram_protocol::v1::{Down, OperationEnd, OperationId, Up};
use marram_rest::front::Order;
use marram_rest::link::Link;
use marram_tunnel::Streams as _;
use std::collections::BTreeMap;
use std::sync::Arc;
use tokio::sync::{mpsc, oneshot};

/// The shell's end of the cluster's own socket.
#[derive(Debug)]
pub(crate) struct Local {
    /// On which operators' streams are opened.
    pub(crate) link: Arc<Link>,
    /// What they say about streams.
    pub(crate) streams: mpsc::Receiver<Down>,
    /// What else they want.
    pub(crate) commands: mpsc::Receiver<Command>,
    waiting: BTreeMap<OperationId, oneshot::Sender<OperationEnd>>,
    last: u64,
}

impl Local {
    pub(crate) fn new(
        link: Arc<Link>,
        streams: mpsc::Receiver<Down>,
        commands: mpsc::Receiver<Command>,
    ) -> Self {
        Self { link, streams, commands, waiting: BTreeMap::new(), last: 0 }
    }

    /// An operation is over; whoever has waited for it may have gone.
    pub(super) fn operated(&mut self, operation: OperationId, end: OperationEnd) {
        if let Some(reply) = self.waiting.remove(&operation) {
            drop(reply.send(end));
        }
    }
}

impl<B: Bus> Shell<B> {
    pub(super) fn local_command(&mut self, command: Command) -> Result<(), Error> {
        match command {
            Command::Look(look) => look(&LocalSight {
                tier: &self.tier,
                now: self.clock.now(),
                link: &self.local.link,
            }),
            Command::Adopt(child, reply) => {
                self.tier.handle(self.clock.now(), Input::Adopt(child));
                self.settle()?;
                // An error says that the operator has hung up; it is done all the same.
                reply.send(()).ok();
            }
            Command::Operate(Order { cluster, child, verb }, reply) => {
                self.local.last = self.local.last.wrapping_add(1);
                let operation = OperationId(self.local.last);
                self.local.waiting.insert(operation, reply);
                let operate = Input::Operate { operation, cluster, child, verb };
                self.tier.handle(self.clock.now(), operate);
            }
        }
        Ok(())
    }

    pub(super) fn local_stream(&mut self, message: Down) {
        let Down::StreamOpen { stream, request } = message else {
            return self.relay.asker_says(Asker::Local, message);
        };
        let source = asked::source(&self.tier, Asker::Local, request);
        let opened = source.and_then(|source| self.relay.open((Asker::Local, stream), source));
        if let Err(end) = opened {
            // What belongs to no stream is not given back: this does.
            drop(self.local.link.deliver(Up::StreamEnd { stream, end }));
        }
    }

    /// Output for operators goes to them at once: it was granted, and they hold it.
    pub(super) fn give_local_output(&mut self) {
        while let Some(message) = self.relay.next_output(Asker::Local) {
            drop(self.local.link.deliver(message));
        }
    }
}
