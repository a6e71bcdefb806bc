//! Performs effects of the engine on backends, each in a task of its own.
//!
//! The engine never gives out a second effect for an instance while one is in flight, so
//! tasks need no order among themselves. Whatever happens, exactly one result comes back.

use crate::convert;
use crate::ports::Ports;
use marram_backend_api::{Backend, Error, ErrorKind, Observed};
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
        let spec = convert::spec(&workload.spec)?;
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
        match &observed {
            // It runs, with its ports or without; they are tried again with the next change.
            Observed::Running { .. } => {
                if let Err(error) = self.open_ports(instance, ports, true).await {
                    tracing::warn!(%instance, error = error.chain(), "it runs without them");
                }
            }
            Observed::Prepared | Observed::Exited(_) | Observed::Absent => {
                self.ended(instance).await;
            }
            Observed::Unknown(_) => {}
        }
        Ok(Outcome::Recovered(observed))
    }

    /// An instance has ended by itself: what comes to its host ports is for nobody, least of
    /// all for who listens next on the port behind them.
    pub(crate) async fn ended(&self, instance: InstanceId) -> Done {
        if let Err(why) = self.ports.lock().await.close(instance).await {
            tracing::warn!(%instance, why, "its host ports stay open until it is removed");
        }
        None
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::moody::{Mood, Moody};
    use crate::ports::tests::{instead, writing};
    use marram_protocol::id::ServiceId;
    use marram_protocol::port::Transport;
    use std::path::Path;

    const INSTANCE: InstanceId = InstanceId { service: ServiceId([1; 12]), number: 0 };

    fn performer(moody: &Moody, ports: Ports) -> Performer {
        let backend: Arc<dyn Backend> = Arc::new(moody.clone());
        Performer::new(BTreeMap::from([("moody", backend)]), ports)
    }

    fn mapping() -> Vec<PortMapping> {
        let free = std::net::TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let host = free.local_addr().unwrap().port();
        vec![PortMapping { host, workload: 1, transport: Transport::Tcp }]
    }

    fn redirects(dir: &Path) -> usize {
        std::fs::read_to_string(dir.join("nft.rules")).unwrap().matches("redirect").count()
    }

    fn backend() -> String {
        "moody".into()
    }

    fn handle() -> HandleBytes {
        HandleBytes { version: 1, state: Vec::new() }
    }

    async fn perform(performer: &Performer, effect: Effect, ports: &[PortMapping]) -> Outcome {
        performer.clone().perform(effect, ports.to_vec()).await.unwrap().1
    }

    fn start() -> Effect {
        Effect::Start { backend: backend(), instance: INSTANCE, handle: handle() }
    }

    fn recover() -> Effect {
        Effect::Recover { backend: backend(), instance: INSTANCE, handle: handle() }
    }

    #[tokio::test]
    async fn ports_of_a_start_that_failed_are_closed_with_what_it_left() {
        let (dir, moody) = (tempfile::tempdir().unwrap(), Moody::new(Mood::Away));
        let (performer, ports) = (performer(&moody, writing(dir.path())), mapping());
        let started = perform(&performer, start(), &ports).await;
        assert!(matches!(started, Outcome::Failed(ErrorKind::Transient, _)), "{started:?}");
        assert!(redirects(dir.path()) > 0);
        moody.be(Mood::Well);
        let destroy = Effect::Destroy { backend: backend(), instance: INSTANCE };
        assert_eq!(perform(&performer, destroy, &[]).await, Outcome::Destroyed);
        assert_eq!(redirects(dir.path()), 0);
    }

    #[tokio::test]
    async fn ports_of_what_is_gone_are_closed() {
        let (dir, moody) = (tempfile::tempdir().unwrap(), Moody::new(Mood::Well));
        let (performer, ports) = (performer(&moody, writing(dir.path())), mapping());
        let started = perform(&performer, start(), &ports).await;
        assert_eq!(started, Outcome::Started(handle()));
        perform(&performer, recover(), &ports).await;
        assert!(redirects(dir.path()) > 0, "it runs");
        performer.ended(INSTANCE).await;
        assert_eq!(redirects(dir.path()), 0);
        perform(&performer, start(), &ports).await;
        assert!(redirects(dir.path()) > 0);
        let id = convert::workload_id(INSTANCE).unwrap();
        moody.destroy(&id).await.unwrap();
        let recovered = perform(&performer, recover(), &ports).await;
        assert_eq!(recovered, Outcome::Recovered(Observed::Absent));
        assert_eq!(redirects(dir.path()), 0);
    }

    #[tokio::test]
    async fn what_runs_is_taken_up_even_if_its_ports_cannot_be_opened() {
        let (dir, moody) = (tempfile::tempdir().unwrap(), Moody::new(Mood::Well));
        let performer = performer(&moody, instead(dir.path(), "exit 1"));
        let started = perform(&performer, start(), &[]).await;
        assert_eq!(started, Outcome::Started(handle()));
        let recovered = perform(&performer, recover(), &mapping()).await;
        assert!(matches!(recovered, Outcome::Recovered(Observed::Running { .. })), "{recovered:?}");
        // To start one without them is another matter.
        let started = perform(&performer, start(), &mapping()).await;
        assert!(matches!(started, Outcome::Failed(ErrorKind::Exhausted, _)), "{started:?}");
    }

    #[tokio::test]
    async fn a_backend_that_is_not_there_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let performer = Performer::new(BTreeMap::new(), writing(dir.path()));
        let failed = perform(&performer, recover(), &[]).await;
        let Outcome::Failed(ErrorKind::Unsupported, why) = failed else { panic!("{failed:?}") };
        assert!(why.contains("moody"), "{why}");
    }
}
