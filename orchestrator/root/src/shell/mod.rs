//! The one task that owns the root's state: catalog and orchestrator core.
//!
//! ```text
//!  REST ──commands──►┌───────┐◄──events── connections of clusters
//!       ◄──answers───│ shell │───────────► their control queues
//!  SSE  ◄──changes───└───┬───┘
//!                        ▼ first of all
//!                      store
//! ```
//!
//! Why one task: no lock guards the state, and the order in which things happen is the order
//! in which they were taken from the queues. What takes long, as streams and hashing, is not
//! done here.
//!
//! Invariant: what is to be durable is committed before a client, a child or a watcher hears
//! of it. If the store fails, memory and disk may differ, so the task ends and with it the
//! program; the next start reads what is true.

mod actions;
mod command;
mod history;
mod scale;

pub use command::{Applied, AppliedService, Handle, View};
pub use scale::{SCALE_STEP_MAX, Scaled};

use crate::catalog::Catalog;
use crate::clock::Clock;
use crate::refusal::Refusal;
use crate::secret::{SecretError, random};
use crate::storage::{self, CORE_PREFIX, StorageError, Write};
use crate::view::{self, InstanceView};
use command::{COMMANDS_MAX, Command};
use history::History;
use marram_orchestrator_core::{Effect, Identity, Input, RecordError, Tier};
use marram_protocol::id::{ChildId, InstanceId, ServiceId};
use marram_protocol::v1::{Down, Missed, OperationEnd, OperationId, Up};
use marram_rest::link::Link;
use marram_store::Store;
use marram_tunnel::Streams as _;
use std::collections::BTreeMap;
use std::sync::Arc;
use tokio::sync::{broadcast, mpsc, oneshot};

/// Events of children that wait for the owner of the state; their connections wait then.
const CHILD_EVENTS_MAX: usize = 64;

/// Changes that a watcher may lag behind before it is given the whole anew.
const CHANGES_MAX: usize = 256;

/// Why the owner of the state cannot go on.
#[derive(Debug, thiserror::Error)]
pub enum ShellError {
    /// The store failed, or holds what cannot be read.
    #[error(transparent)]
    Storage(#[from] StorageError),
    /// The core's records cannot be read.
    #[error(transparent)]
    Record(#[from] RecordError),
    /// No randomness.
    #[error(transparent)]
    Secret(#[from] SecretError),
}

/// An instance is other than before.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// Whose it is.
    pub owner: String,
    /// Which.
    pub id: InstanceId,
    /// How it is now; `None` when it is gone.
    pub now: Option<InstanceView>,
}

/// What the connections of clusters tell.
pub type ChildEvent = marram_tunnel::ChildEvent<Link>;

/// The way to a connected cluster.
pub type Outlet = marram_tunnel::Outlet<Link>;

/// The owner of the state.
#[derive(Debug)]
pub struct Shell {
    tier: Tier,
    catalog: Catalog,
    store: Arc<dyn Store>,
    clock: Clock,
    outlets: BTreeMap<ChildId, Outlet>,
    /// Services to be forgotten if they are removed and nothing of them is left.
    leaving: Vec<ServiceId>,
    /// Who waits for operations, each answered once by the core.
    operations: BTreeMap<OperationId, oneshot::Sender<OperationEnd>>,
    last_operation: u64,
    history: History,
    changes: broadcast::Sender<Arc<Change>>,
    commands: mpsc::Receiver<Command>,
    events: mpsc::Receiver<ChildEvent>,
}

impl Shell {
    /// Reads everything, and mends what an interrupted change has left. `address` is where
    /// clusters reach this root, as others are told.
    pub fn open(
        store: Arc<dyn Store>,
        clock: Clock,
        address: String,
    ) -> Result<(Self, Handle, mpsc::Sender<ChildEvent>), ShellError> {
        let catalog = Catalog::load(&*store)?;
        let records = storage::load(&*store, CORE_PREFIX)?;
        let records = records.into_iter().map(|(key, value)| {
            let own = key.strip_prefix(CORE_PREFIX).unwrap_or(&key).to_vec();
            (own, value)
        });
        let identity = Identity {
            // Nobody is told who the root is: it has no parent.
            id: ChildId::default(),
            name: "root".to_owned(),
            location: String::new(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            incarnation: u64::from_le_bytes(random()?),
            labels: Vec::new(),
            address,
            node_address: String::new(),
        };
        // Never 0, which means "no epoch yet".
        let epoch = u64::from_le_bytes(random()?) | 1;
        let tier = Tier::restore(identity, true, epoch, records, clock.now())?;
        let (command_sender, commands) = mpsc::channel(COMMANDS_MAX);
        let (event_sender, events) = mpsc::channel(CHILD_EVENTS_MAX);
        let mut shell = Self {
            tier,
            catalog,
            store,
            clock,
            outlets: BTreeMap::new(),
            leaving: Vec::new(),
            operations: BTreeMap::new(),
            last_operation: 0,
            history: History::default(),
            changes: broadcast::Sender::new(CHANGES_MAX),
            commands,
            events,
        };
        shell.mend();
        shell.settle()?;
        Ok((shell, Handle { commands: command_sender }, event_sender))
    }

    /// A change too large for one transaction may have been cut short by a crash before it
    /// was acknowledged: what it began to take down goes, and what has no service goes.
    fn mend(&mut self) {
        for orphan in self.catalog.orphans() {
            tracing::warn!(service = %orphan, "removing a service without an application");
            self.catalog.remove_orphan(orphan);
        }
        self.take_down(&self.catalog.removed());
        let known = |id: &InstanceId| self.catalog.any_service(id.service).is_some();
        let strays: Vec<InstanceId> =
            self.tier.instances().keys().filter(|id| !known(id)).copied().collect();
        for id in strays {
            tracing::warn!(instance = %id, "removing an instance without a service");
            self.tier.handle(self.clock.now(), Input::Remove(id));
        }
    }

    /// Runs until `stop` or until the store fails.
    pub async fn run(mut self, stop: impl Future<Output = ()>) -> Result<(), ShellError> {
        tokio::pin!(stop);
        loop {
            let due = self.tier.poll_timeout().map(|at| self.clock.at(at));
            let timeout = async {
                match due {
                    Some(due) => tokio::time::sleep_until(due).await,
                    None => std::future::pending().await,
                }
            };
            // Receiving from a queue and sleeping can both be given up without loss.
            tokio::select! {
                () = &mut stop => return Ok(()),
                Some(event) = self.events.recv() => self.child_events(event)?,
                Some(command) = self.commands.recv() => self.command(command)?,
                () = timeout => {
                    self.tier.handle_timeout(self.clock.now());
                    self.settle()?;
                }
                else => return Ok(()),
            }
        }
    }

    fn command(&mut self, command: Command) -> Result<(), ShellError> {
        let now_unix_ms = self.clock.now().unix_ms;
        match command {
            Command::Read(look) => {
                look(&View {
                    catalog: &self.catalog,
                    tier: &self.tier,
                    now: self.clock.now(),
                    links: &self.outlets,
                    changes: &self.changes,
                    history: &self.history,
                });
                Ok(())
            }
            Command::Create(access, draft, reply) => {
                let done = self.catalog.create(&access, draft, now_unix_ms);
                self.answer(done, reply)
            }
            Command::AddServices(access, id, services, reply) => {
                let done = self.catalog.add_services(&access, id, services, now_unix_ms);
                self.answer(done, reply)
            }
            Command::Apply(access, draft, reply) => {
                let done = self.apply(&access, draft);
                self.answer(done, reply)
            }
            Command::Deploy(access, id, reply) => {
                let done = self.deploy(&access, id);
                self.answer(done, reply)
            }
            Command::Scale(access, id, replicas, reply) => {
                let done = self.scale(&access, id, replicas);
                self.answer(done, reply)
            }
            Command::Operate(order, reply) => {
                self.operate(order, reply);
                self.settle()
            }
            Command::Adopt(child, reply) => {
                self.tier.handle(self.clock.now(), Input::Adopt(child));
                self.answer(Ok(()), reply)
            }
            Command::RemoveInstance(access, id, reply) => {
                let done = self.remove_instance(&access, id);
                self.answer(done, reply)
            }
            Command::RemoveInstances(access, id, reply) => {
                let done = self.remove_instances(&access, id);
                self.answer(done, reply)
            }
            Command::RemoveService(access, id, reply) => {
                let done = self.remove_service(&access, id);
                self.answer(done, reply)
            }
            Command::RemoveApplication(access, id, reply) => {
                let done = self.remove_application(&access, id);
                self.answer(done, reply)
            }
        }
    }

    /// Makes it durable, then says it.
    fn answer<T>(
        &mut self,
        done: Result<T, Refusal>,
        reply: oneshot::Sender<Result<T, Refusal>>,
    ) -> Result<(), ShellError> {
        self.settle()?;
        // An error says that the client has hung up; it is done all the same.
        drop(reply.send(done));
        Ok(())
    }

    /// Takes what has come, so that all that is to be durable of it is written at once.
    fn child_events(&mut self, first: ChildEvent) -> Result<(), ShellError> {
        self.child_event(first);
        for _ in 1..CHILD_EVENTS_MAX {
            let Ok(event) = self.events.try_recv() else { break };
            self.child_event(event);
        }
        self.settle()
    }

    fn child_event(&mut self, event: ChildEvent) {
        let now = self.clock.now();
        match event {
            ChildEvent::Up { outlet, hello } => {
                let child = outlet.child;
                // A connection that takes the place of another one ends that one.
                if let Some(old) = self.outlets.insert(child, outlet) {
                    old.streams.close();
                }
                self.tier.handle(now, Input::Child(child, Up::Hello(hello)));
            }
            ChildEvent::Said { child, serial, message } => {
                if self.is_current(child, serial) {
                    if let Up::Missed { entries, dropped } = &message {
                        self.missed(child, entries, *dropped);
                    }
                    self.tier.handle(now, Input::Child(child, message));
                }
            }
            ChildEvent::Gone { child, serial } => {
                if self.is_current(child, serial) {
                    self.drop_child(child);
                }
            }
        }
    }

    /// What a cluster could not tell before, as far as it concerns instances that there are.
    fn missed(&mut self, child: ChildId, entries: &[Missed], dropped: u32) {
        let count = entries.len();
        tracing::info!(cluster = %child, count, dropped, "told of what happened meanwhile");
        let known = |entry: &&Missed| self.tier.instances().contains_key(&entry.instance);
        self.history.note(entries.iter().filter(known).cloned().collect());
    }

    fn is_current(&self, child: ChildId, serial: u64) -> bool {
        self.outlets.get(&child).is_some_and(|outlet| outlet.serial == serial)
    }

    fn drop_child(&mut self, child: ChildId) {
        if let Some(outlet) = self.outlets.remove(&child) {
            outlet.streams.close();
        }
        self.tier.handle(self.clock.now(), Input::ChildGone(child, None));
    }

    /// Performs what the core has decided, until nothing is left: disk first.
    fn settle(&mut self) -> Result<(), ShellError> {
        loop {
            let mut writes: Vec<Write> = self.catalog.take_writes();
            let mut effects = Vec::new();
            while let Some(effect) = self.tier.poll_effect() {
                match effect {
                    Effect::Persist(records) => writes.extend(
                        records
                            .into_iter()
                            .map(|(key, value)| ([CORE_PREFIX, &key].concat(), value)),
                    ),
                    other => effects.push(other),
                }
            }
            if writes.is_empty() && effects.is_empty() && self.leaving.is_empty() {
                return Ok(());
            }
            storage::commit(&*self.store, writes)?;
            for effect in effects {
                match effect {
                    Effect::ToChild(child, message) => self.tell(child, message),
                    Effect::Changed(id) => self.changed(id),
                    Effect::Operated { operation, end } => {
                        // Without one it has waited for longer than the core does.
                        if let Some(reply) = self.operations.remove(&operation) {
                            drop(reply.send(end));
                        }
                    }
                    // A root has no parent; what is persisted was taken out above.
                    Effect::ToParent(_) | Effect::LeaveParent { .. } | Effect::Persist(_) => {}
                }
            }
            let (leaving, tier) = (std::mem::take(&mut self.leaving), &self.tier);
            self.catalog.forget(&leaving, |id| view::ids_of(tier, id).next().is_some());
        }
    }

    fn tell(&mut self, child: ChildId, message: Down) {
        let rejected = matches!(message, Down::Rejected { .. });
        let Some(outlet) = self.outlets.get(&child) else { return };
        if let Err(why) = outlet.tell(message) {
            tracing::warn!(cluster = %child, "cut off: {why}");
            self.drop_child(child);
        } else if rejected {
            self.drop_child(child);
        }
    }

    fn changed(&mut self, id: InstanceId) {
        let Some(service) = self.catalog.any_service(id.service) else { return };
        let now = view::instance(&self.tier, service, id);
        if now.is_none() {
            self.history.forget(id);
            self.leaving.push(id.service);
        }
        if let Some(view) = &now {
            tracing::debug!(instance = %id, state = view.state.name(), detail = view.detail);
        }
        if self.changes.receiver_count() > 0 {
            let change = Change { owner: service.owner.clone(), id, now };
            // An error says that the last watcher has just left.
            drop(self.changes.send(Arc::new(change)));
        }
    }
}

#[cfg(test)]
mod tests;
