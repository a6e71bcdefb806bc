//! What clients ask of the task that owns the state, and the handle they ask by.
//!
//! Reading is a function over a [`View`]; changing is one of a closed list of commands. The
//! answer to a change comes when it is durable.

use super::history::History;
use super::{Change, Scaled};
use crate::auth::Access;
use crate::catalog::{Catalog, Draft, DraftService};
use crate::refusal::Refusal;
use crate::view::{self, InstanceView};
use marram_orchestrator_core::{Now, Tier};
use marram_protocol::id::{ApplicationId, ChildId, InstanceId, ServiceId};
use marram_protocol::v1::{Missed, OperationEnd};
use marram_rest::front::Order;
use marram_rest::link::Link;
use std::collections::BTreeMap;
use std::sync::Arc;
use tokio::sync::{broadcast, mpsc, oneshot};

/// Requests that wait for the owner of the state. A client waits for a place in the queue.
pub(super) const COMMANDS_MAX: usize = 64;

type Reply<T> = oneshot::Sender<Result<T, Refusal>>;
type Read = Box<dyn FnOnce(&View<'_>) + Send>;

/// What an [`Handle::apply`] found or made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Applied {
    /// The application.
    pub application: ApplicationId,
    /// Its services of the document, in the document's order.
    pub services: Vec<AppliedService>,
}

/// A service after an apply.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AppliedService {
    /// Its id.
    pub service: ServiceId,
    /// Whether it was not there before.
    pub created: bool,
    /// Its instances now.
    pub instances: Vec<InstanceId>,
}

pub(super) enum Command {
    Read(Read),
    Create(Access, Draft, Reply<Vec<ApplicationId>>),
    AddServices(Access, ApplicationId, Vec<DraftService>, Reply<Vec<ServiceId>>),
    Apply(Access, Draft, Reply<Vec<Applied>>),
    Deploy(Access, ServiceId, Reply<InstanceId>),
    Scale(Access, ServiceId, usize, Reply<Scaled>),
    Operate(Order, oneshot::Sender<OperationEnd>),
    Adopt(ChildId, Reply<()>),
    RemoveInstance(Access, InstanceId, Reply<()>),
    RemoveInstances(Access, ServiceId, Reply<()>),
    RemoveService(Access, ServiceId, Reply<()>),
    RemoveApplication(Access, ApplicationId, Reply<()>),
}

/// What a reader sees, at one moment.
#[derive(Debug)]
pub struct View<'a> {
    /// Applications and services.
    pub catalog: &'a Catalog,
    /// Instances and clusters.
    pub tier: &'a Tier,
    /// When.
    pub now: Now,
    pub(super) links: &'a BTreeMap<ChildId, super::Outlet>,
    pub(super) changes: &'a broadcast::Sender<Arc<Change>>,
    pub(super) history: &'a History,
}

impl View<'_> {
    /// An instance, if the caller may see it.
    pub fn instance(&self, access: &Access, id: InstanceId) -> Result<InstanceView, Refusal> {
        view::instance_for(self.tier, self.catalog, access, id)
    }

    /// All instances that the caller may see.
    pub fn instances(&self, access: &Access) -> Vec<InstanceView> {
        view::instances(self.tier, self.catalog, access)
    }

    /// The connection that leads to an instance.
    pub fn route(&self, access: &Access, id: InstanceId) -> Result<Arc<Link>, Refusal> {
        self.instance(access, id)?;
        let outlet = self.tier.route(id).and_then(|child| self.links.get(&child));
        let outlet = outlet.ok_or_else(|| {
            Refusal::Busy(format!("instance {id} is on no cluster that is connected now"))
        })?;
        Ok(outlet.streams.clone())
    }

    /// The connection of a cluster.
    pub fn way(&self, child: ChildId) -> Option<Arc<Link>> {
        self.links.get(&child).map(|outlet| outlet.streams.clone())
    }

    /// What happened to an instance while nobody here could be told, oldest first.
    pub fn missed(&self, id: InstanceId) -> Vec<Missed> {
        self.history.of(id).cloned().collect()
    }

    /// Every change from this moment on.
    pub fn subscribe(&self) -> broadcast::Receiver<Arc<Change>> {
        self.changes.subscribe()
    }
}

/// How everybody else speaks to the owner of the state.
#[derive(Debug, Clone)]
pub struct Handle {
    pub(super) commands: mpsc::Sender<Command>,
}

impl Handle {
    /// Looks at the state.
    pub async fn read<T: Send + 'static>(
        &self,
        look: impl FnOnce(&View<'_>) -> T + Send + 'static,
    ) -> Result<T, Refusal> {
        let (reply, answer) = oneshot::channel();
        let look = move |view: &View<'_>| {
            // An error says that the reader has gone away.
            drop(reply.send(look(view)));
        };
        self.commands.send(Command::Read(Box::new(look))).await.map_err(|_| stopping())?;
        answer.await.map_err(|_| stopping())
    }

    /// Makes all applications of a document, or none.
    pub async fn create(
        &self,
        access: Access,
        draft: Draft,
    ) -> Result<Vec<ApplicationId>, Refusal> {
        self.ask(|reply| Command::Create(access, draft, reply)).await
    }

    /// Adds services to an application.
    pub async fn add_services(
        &self,
        access: Access,
        application: ApplicationId,
        services: Vec<DraftService>,
    ) -> Result<Vec<ServiceId>, Refusal> {
        self.ask(|reply| Command::AddServices(access, application, services, reply)).await
    }

    /// Makes what is missing, and deploys what has no instance.
    pub async fn apply(&self, access: Access, draft: Draft) -> Result<Vec<Applied>, Refusal> {
        self.ask(|reply| Command::Apply(access, draft, reply)).await
    }

    /// Deploys one more instance of a service.
    pub async fn deploy(&self, access: Access, service: ServiceId) -> Result<InstanceId, Refusal> {
        self.ask(|reply| Command::Deploy(access, service, reply)).await
    }

    /// Has so many instances of a service: adds new ones, or removes those with the highest
    /// numbers.
    pub async fn scale(
        &self,
        access: Access,
        service: ServiceId,
        replicas: usize,
    ) -> Result<Scaled, Refusal> {
        self.ask(|reply| Command::Scale(access, service, replicas, reply)).await
    }

    /// Does what an operator wants of a tier, and waits for how it went.
    pub async fn operate(&self, order: Order) -> Result<OperationEnd, Refusal> {
        let (reply, answer) = oneshot::channel();
        self.commands.send(Command::Operate(order, reply)).await.map_err(|_| stopping())?;
        answer.await.map_err(|_| stopping())
    }

    /// Takes a child of another tree when it asks again.
    pub async fn adopt(&self, child: ChildId) -> Result<(), Refusal> {
        self.ask(|reply| Command::Adopt(child, reply)).await
    }

    /// Removes one instance.
    pub async fn remove_instance(&self, access: Access, id: InstanceId) -> Result<(), Refusal> {
        self.ask(|reply| Command::RemoveInstance(access, id, reply)).await
    }

    /// Removes all instances of a service.
    pub async fn remove_instances(&self, access: Access, id: ServiceId) -> Result<(), Refusal> {
        self.ask(|reply| Command::RemoveInstances(access, id, reply)).await
    }

    /// Removes a service with its instances.
    pub async fn remove_service(&self, access: Access, id: ServiceId) -> Result<(), Refusal> {
        self.ask(|reply| Command::RemoveService(access, id, reply)).await
    }

    /// Removes an application with its services and their instances.
    pub async fn remove_application(
        &self,
        access: Access,
        id: ApplicationId,
    ) -> Result<(), Refusal> {
        self.ask(|reply| Command::RemoveApplication(access, id, reply)).await
    }

    async fn ask<T>(&self, command: impl FnOnce(Reply<T>) -> Command) -> Result<T, Refusal> {
        let (reply, answer) = oneshot::channel();
        self.commands.send(command(reply)).await.map_err(|_| stopping())?;
        answer.await.map_err(|_| stopping())?
    }
}

fn stopping() -> Refusal {
    Refusal::Busy("the root is stopping".to_owned())
}
