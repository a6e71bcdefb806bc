//! Performs effects of the engine on backends, each in a task of its own.
//!
//! The engine never gives out a second effect for an instance while one is in flight, so
//! tasks need no order among themselves. Whatever happens, exactly one result comes back.

use crate::convert;
use crate::ports::Ports;
use marram_backend_api::{Backend, Error, ErrorKind};
use marram_engine_core::{Effect, HandleBytes, Outcome};
use marram_protocol::id::InstanceId;
use marram_protocol::port::PortMapping;
use marram_protocol::v1::Workload;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{Mutex, Semaphore};

/// Preparations at once: images come over one thin line and go to one slow card.
const PREPARES_MAX: usize = 2;

/// Everything that tasks need.
#[derive(Debug, Clone)]
pub(crate) struct Performer {
    backends: BTreeMap<&'static str, Arc<dyn Backend>>,
    prepares: Arc<Semaphore>,
    ports: Arc<Mutex<Ports>>,
}

impl Performer {
    pub(crate) fn new(backends: BTreeMap<&'static str, Arc<dyn Backend>>, ports: Ports) -> Self {
        let prepares = Arc::new(Semaphore::new(PREPARES_MAX));
        Self { backends, prepares, ports: Arc::new(Mutex::new(ports)) }
    }

    /// Performs an effect that concerns an instance. `ports` are those of the instance's
    /// service.
    pub(crate) async fn perform(self, effect: Effect, ports: Vec<PortMapping>) -> Done {
        let (instance, result) = match effect {
            Effect::Prepare { backend, workload } => {
                (workload.instance, self.prepare(&backend, &workload).await)
            }
            Effect::Start { backend, instance, handle } => {
                (instance, self.start(&backend, instance, handle, &ports).await)
            }
            Effect::Recover { backend, instance, handle } => {
                (instance, self.recover(&backend, instance, handle, &ports).await)
            }
            Effect::Stop { backend, instance, grace_ms } => {
                (instance, self.stop(&backend, instance, grace_ms).await)
            }
            Effect::Destroy { backend, instance } => {
                (instance, self.destroy(&backend, instance).await)
            }
            // The shell performs these itself.
            Effect::Persist { .. } | Effect::Send(_) | Effect::Drained => return None,
        };
        let outcome = result.unwrap_or_else(|error| {
            tracing::warn!(%instance, error = error.chain(), "an effect failed");
            Outcome::Failed(error.kind, error.chain())
        });
        Some((instance, outcome))
    }

    fn backend(&self, name: &str) -> Result<&Arc<dyn Backend>, Error> {
        self.backends.get(name).ok_or_else(|| {
            let why = format!("{name} is not compiled in or switched off");
            Error::new(ErrorKind::Unsupported, "finding the backend", why)
        })
    }

    async fn prepare(&self, backend: &str, workload: &Workload) -> Result<Outcome, Error> {
        let backend = self.backend(backend)?;
        let spec = convert::spec(&workload.spec);
        backend.validate(&spec)?;
        let id = name(workload.instance)?;
        let _turn = self.prepares.acquire().await.map_err(|error| {
            Error::caused(ErrorKind::Internal, "waiting for a turn", "closed", error)
        })?;
        let handle = backend.prepare(&id, &spec).await?;
        Ok(Outcome::Prepared(convert::handle_bytes(handle)))
    }

    async fn start(
        &self,
        backend: &str,
        instance: InstanceId,
        handle: HandleBytes,
        ports: &[PortMapping],
    ) -> Result<Outcome, Error> {
        let backend = self.backend(backend)?;
        self.open_ports(instance, ports, false).await?;
        let handle = convert::handle(instance, handle).map_err(unnameable)?;
        let handle = backend.start(&handle).await?;
        Ok(Outcome::Started(convert::handle_bytes(handle)))
    }

    async fn recover(
        &self,
        backend: &str,
        instance: InstanceId,
        handle: HandleBytes,
        ports: &[PortMapping],
    ) -> Result<Outcome, Error> {
        let handle = convert::handle(instance, handle).map_err(unnameable)?;
        let observed = self.backend(backend)?.recover(&handle).await?;
        if let marram_backend_api::Observed::Running { .. } = observed {
            self.open_ports(instance, ports, true).await?;
        }
        Ok(Outcome::Recovered(observed))
    }

    async fn stop(
        &self,
        backend: &str,
        instance: InstanceId,
        grace_ms: u64,
    ) -> Result<Outcome, Error> {
        let backend = self.backend(backend)?;
        let exit = backend.stop(&name(instance)?, Duration::from_millis(grace_ms)).await?;
        Ok(Outcome::Stopped(exit))
    }

    async fn destroy(&self, backend: &str, instance: InstanceId) -> Result<Outcome, Error> {
        self.backend(backend)?.destroy(&name(instance)?).await?;
        let closed = self.ports.lock().await.close(instance).await;
        closed.map_err(|why| Error::new(ErrorKind::Transient, "closing host ports", why))?;
        Ok(Outcome::Destroyed)
    }

    async fn open_ports(
        &self,
        instance: InstanceId,
        ports: &[PortMapping],
        known_running: bool,
    ) -> Result<(), Error> {
        let opened = self.ports.lock().await.open(instance, ports, known_running).await;
        opened.map_err(|why| Error::new(ErrorKind::Exhausted, "opening host ports", why))
    }
}

/// The result of an effect, for the engine.
pub(crate) type Done = Option<(InstanceId, Outcome)>;

fn name(instance: InstanceId) -> Result<marram_backend_api::WorkloadId, Error> {
    convert::workload_id(instance).map_err(unnameable)
}

fn unnameable(error: marram_backend_api::WorkloadIdError) -> Error {
    Error::caused(ErrorKind::Internal, "naming the workload", "not a name", error)
}
