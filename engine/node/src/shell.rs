//! The one task that owns the engine: feeds it, performs its effects, sleeps until it is due.
//!
//! Everything else is a task that speaks to this one by a bounded channel: the link, the
//! calls of backends, streams. So there is no lock around a decision, and the order of
//! effects is the engine's.

use crate::backends::{EventQueue, Mounted, mount};
use crate::config::Config;
use crate::convert;
use crate::ledger::{Ledger, LedgerError};
use crate::link::{Link, LinkEvent, Sender};
use crate::measure::{self, Meter, Seen};
use crate::perform::{Done, Performer};
use crate::ports::Ports;
use crate::streams::Streams;
use anyhow::Context;
use marram_backend_api::{Backend, Event};
use marram_engine_core::{Effect, Engine, Identity, Input, Now};
use marram_protocol::id::{ChildId, InstanceId};
use marram_protocol::port::PortMapping;
use marram_protocol::v1::{Down, Up};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior};

/// Messages of the link that wait for the engine.
const LINK_EVENTS_MAX: usize = 64;

/// Results of looks at backends that wait for the engine.
const LOOKS_MAX: usize = 16;

/// Time between two samples. What has not changed is not told, so this costs no traffic.
const SAMPLE_INTERVAL: Duration = Duration::from_secs(5);

/// A backend that is not healthy is looked at again after so long.
const LOOK_AGAIN: Duration = Duration::from_secs(10);

/// Waits between attempts to write the ledger on a disk that fails or is full.
const WRITE_AGAIN: Duration = Duration::from_secs(2);

/// What the shell is told from outside.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Order {
    /// Work.
    Run,
    /// End; workloads go on.
    Stop,
    /// Stop all workloads, then end.
    Drain,
}

/// Something else than the engine's own time.
enum Happened {
    Link(LinkEvent),
    Performed(Done),
    Backend(&'static str, Option<Event>),
    Looked(&'static str, Look),
    Sampled,
    Ordered,
    Due,
}

/// What a look at a backend has shown.
struct Look {
    seen: Seen,
    found: Option<Vec<(InstanceId, marram_backend_api::Observed)>>,
}

/// A look, and at which backend.
type Looked = (&'static str, Look);

/// A running node.
pub struct Shell {
    config: Config,
    engine: Engine,
    ledger: Ledger,
    started: Instant,
    incarnation: u64,
    backends: BTreeMap<&'static str, Arc<dyn Backend>>,
    events: mpsc::Receiver<(&'static str, Event)>,
    looks: (mpsc::Sender<Looked>, mpsc::Receiver<Looked>),
    seen: BTreeMap<&'static str, Seen>,
    performer: Performer,
    performing: JoinSet<Done>,
    background: JoinSet<()>,
    link: Sender,
    link_events: mpsc::Receiver<LinkEvent>,
    linked: bool,
    /// The cluster lacks something on a live link: everything is told again with the next
    /// sample.
    behind: bool,
    streams: Streams,
    meter: Meter,
    ready_file: Option<PathBuf>,
    drained: bool,
}

impl Shell {
    /// Opens what the node needs and takes up what the ledger holds.
    ///
    /// # Errors
    /// What cannot be mended by waiting: another engine on the same state, a ledger of a
    /// newer program, a configuration that no backend accepts.
    pub fn open(
        config: Config,
        shim: PathBuf,
        node: ChildId,
        ready_file: Option<PathBuf>,
    ) -> anyhow::Result<Self> {
        let incarnation = random()?;
        let (ledger, record) = open_ledger(&config.state_dir.join("ledger"))?;
        let name = config.name.clone().or_else(|| {
            let host = marram_host::Root::host();
            marram_host::Fingerprint::read(&host, &config.state_dir).hostname
        });
        let identity = Identity {
            id: node,
            name: name.unwrap_or_else(|| node.to_string()),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            incarnation,
        };
        let started = Instant::now();
        let now = Now { mono_ms: 0, unix_ms: unix_ms() };
        let engine = Engine::restore(identity, record.as_deref(), now)
            .context("the ledger cannot be taken up")?;
        let mounted = mount(&config, shim)?;
        let backends = measure::by_name(&mounted);
        let (link, sender) = Link::new(config.cluster_address()?, node, incarnation)?;
        let (link_sender, link_events) = mpsc::channel(LINK_EVENTS_MAX);
        let mut background = JoinSet::new();
        background.spawn(link.run(link_sender));
        let events = gather(mounted, &mut background);
        Ok(Self {
            performer: Performer::new(backends.clone(), Ports::taken_over(&engine, node)),
            meter: Meter::new(&config, incarnation),
            streams: Streams::new(sender.clone()),
            config,
            engine,
            ledger,
            started,
            incarnation,
            backends,
            events,
            looks: mpsc::channel(LOOKS_MAX),
            seen: BTreeMap::new(),
            performing: JoinSet::new(),
            background,
            link: sender,
            link_events,
            linked: false,
            behind: false,
            ready_file,
            drained: false,
        })
    }

    /// Runs until ordered to end.
    ///
    /// # Errors
    /// None that an order has not caused; kept for what a later version cannot go on with.
    pub async fn run(mut self, mut orders: watch::Receiver<Order>) -> anyhow::Result<()> {
        let names: Vec<&'static str> = self.backends.keys().copied().collect();
        for name in names {
            self.look(name, Duration::ZERO);
        }
        let mut samples = tokio::time::interval(SAMPLE_INTERVAL);
        samples.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut order = *orders.borrow_and_update();
        loop {
            if order == Order::Drain {
                self.handle(Input::Drain);
            }
            self.perform_all(&mut orders).await;
            if order == Order::Stop || self.drained {
                break;
            }
            let due = self.engine.poll_timeout().map(|ms| self.started + Duration::from_millis(ms));
            let happened = tokio::select! {
                // Each of these keeps what it has not handed out when it is dropped.
                Some(event) = self.link_events.recv() => Happened::Link(event),
                Some(done) = self.performing.join_next() => {
                    Happened::Performed(done.context("an effect's task broke")?)
                }
                Some((name, event)) = self.events.recv() => Happened::Backend(name, Some(event)),
                Some((name, look)) = self.looks.1.recv() => Happened::Looked(name, look),
                () = self.streams.ended() => continue,
                _ = samples.tick(), if self.linked => Happened::Sampled,
                changed = orders.changed() => {
                    changed.context("nobody can give orders any more")?;
                    order = *orders.borrow_and_update();
                    Happened::Ordered
                }
                () = until(due) => Happened::Due,
            };
            self.take(happened).await;
        }
        if self.linked {
            self.link.goodbye(self.incarnation, &mut self.link_events).await;
        }
        Ok(())
    }

    async fn take(&mut self, happened: Happened) {
        match happened {
            Happened::Link(event) => self.link_event(event),
            Happened::Performed(Some((id, outcome))) => self.handle(Input::Done(id, outcome)),
            Happened::Performed(None) | Happened::Ordered => {}
            Happened::Backend(name, event) => self.backend_event(name, event),
            Happened::Looked(name, look) => self.looked(name, look),
            Happened::Sampled => {
                if std::mem::take(&mut self.behind) {
                    self.handle(Input::LinkUp);
                }
                let running = self.running();
                let sample = self.meter.sample(running, &self.backends).await;
                self.handle(Input::Telemetry(sample));
            }
            Happened::Due => {
                let now = self.now();
                self.engine.handle_timeout(now);
            }
        }
    }

    fn now(&self) -> Now {
        let mono_ms = u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX);
        Now { mono_ms, unix_ms: unix_ms() }
    }

    fn handle(&mut self, input: Input) {
        let now = self.now();
        self.engine.handle(now, input);
    }

    fn link_event(&mut self, event: LinkEvent) {
        match event {
            LinkEvent::Up => {
                tracing::info!("linked to the cluster");
                self.linked = true;
                self.handle(Input::LinkUp);
            }
            LinkEvent::Down => {
                self.linked = false;
                self.streams.close_all();
                self.handle(Input::LinkDown);
            }
            LinkEvent::Desired(Down::Rejected { reason }) => {
                tracing::warn!(%reason, "the cluster does not take this node; asking again soon");
                self.behind = true;
            }
            LinkEvent::Desired(message) => self.handle(Input::Parent(message)),
            LinkEvent::Stream(message) => {
                let (engine, backends) = (&self.engine, &self.backends);
                self.streams.handle(message, |instance| {
                    let slot = engine.slot(instance)?;
                    backends.get(slot.backend?).cloned()
                });
            }
        }
    }

    fn backend_event(&mut self, name: &'static str, event: Option<Event>) {
        match event {
            Some(Event::Exited(id, exit)) => {
                if let Some(instance) = convert::instance_id(&id) {
                    self.handle(Input::Exited(instance, exit));
                }
            }
            Some(Event::Progress(id, done, all)) => {
                if let Some(instance) = convert::instance_id(&id) {
                    self.handle(Input::Progress(instance, done, all));
                }
            }
            Some(Event::Resync) => self.look(name, Duration::ZERO),
            None => {}
        }
    }

    /// Looks at a backend after a while, in a task: it may take its time.
    fn look(&mut self, name: &'static str, after: Duration) {
        let Some(backend) = self.backends.get(name).cloned() else { return };
        let answers = self.looks.0.clone();
        self.background.spawn(async move {
            tokio::time::sleep(after).await;
            let seen = measure::look_at(&backend).await;
            let found = match seen.facts.trouble {
                None => backend.list().await,
                Some(_) => Ok(Vec::new()),
            };
            let trouble = seen.facts.trouble.is_some();
            let found = match found {
                Ok(found) if !trouble => {
                    let ours = |(id, observed): (marram_backend_api::WorkloadId, _)| {
                        convert::instance_id(&id).map(|instance| (instance, observed))
                    };
                    Some(found.into_iter().filter_map(ours).collect())
                }
                Ok(_) => None,
                Err(error) => {
                    tracing::warn!(backend = name, error = error.chain(), "cannot be listed");
                    None
                }
            };
            // The shell has ended; nobody waits for the answer.
            drop(answers.send((name, Look { seen, found })).await);
        });
    }

    fn looked(&mut self, name: &'static str, look: Look) {
        let Look { seen, found } = look;
        let facts = seen.facts.clone();
        match (&facts.trouble, &found) {
            (None, Some(found)) => {
                tracing::info!(backend = name, workloads = found.len(), "healthy");
            }
            (trouble, _) => {
                let why = trouble.as_deref().unwrap_or("cannot be listed");
                tracing::warn!(backend = name, why, "not usable now");
                self.look(name, LOOK_AGAIN);
            }
        }
        self.seen.insert(name, seen);
        self.handle(Input::Backend { facts, found });
        if self.seen.len() == self.backends.len() {
            let (summary, facts) = measure::host(&self.config, &self.seen);
            self.handle(Input::Host { summary, facts });
            if let Some(path) = self.ready_file.take() {
                let text = "ready=true\n";
                if let Err(error) = std::fs::write(&path, text) {
                    tracing::warn!(path = %path.display(), %error, "no ready file");
                }
            }
        }
    }

    fn running(&self) -> Vec<(InstanceId, String)> {
        let running = self.engine.slots().filter(|(_, slot)| slot.is_running);
        running.filter_map(|(id, slot)| Some((id, slot.backend?.to_owned()))).collect()
    }

    async fn perform_all(&mut self, orders: &mut watch::Receiver<Order>) {
        while let Some(effect) = self.engine.poll_effect() {
            match effect {
                Effect::Persist { generation, bytes } => {
                    if !self.persist(generation, &bytes, orders).await {
                        return;
                    }
                }
                Effect::Send(message) => self.send(&message),
                Effect::Drained => self.drained = true,
                effect => {
                    let ports = self.ports_of(&effect);
                    self.performing.spawn(self.performer.clone().perform(effect, ports));
                }
            }
        }
    }

    /// Writes the ledger, however long the disk makes it wait: nothing that follows may
    /// happen before. `false` if the engine is to end instead.
    async fn persist(
        &mut self,
        generation: u64,
        bytes: &[u8],
        orders: &mut watch::Receiver<Order>,
    ) -> bool {
        loop {
            match self.ledger.write(generation, bytes) {
                Ok(()) => return true,
                Err(error) => {
                    tracing::error!(error = chain(&error), "the ledger cannot be written; waiting");
                }
            }
            tokio::select! {
                () = tokio::time::sleep(WRITE_AGAIN) => {}
                _ = orders.wait_for(|order| *order == Order::Stop) => return false,
            }
        }
    }

    fn send(&mut self, message: &Up) {
        if let Err(error) = self.link.try_send(message) {
            tracing::warn!(%error, "a message to the cluster was lost; telling all again soon");
            self.behind = true;
        }
    }

    fn ports_of(&self, effect: &Effect) -> Vec<PortMapping> {
        let (Effect::Start { instance, .. } | Effect::Recover { instance, .. }) = effect else {
            return Vec::new();
        };
        let slot = self.engine.slot(*instance);
        let desired = slot.and_then(|slot| slot.desired);
        desired.map(|workload| workload.spec.ports.clone()).unwrap_or_default()
    }
}

impl std::fmt::Debug for Shell {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Shell").field("incarnation", &self.incarnation).finish_non_exhaustive()
    }
}

/// Joins the events of all backends into one stream.
fn gather(
    mounted: Vec<Mounted>,
    background: &mut JoinSet<()>,
) -> mpsc::Receiver<(&'static str, Event)> {
    let (sender, receiver) = mpsc::channel(LOOKS_MAX);
    for Mounted { backend, events } in mounted {
        background.spawn(forward(backend.name(), events, sender.clone()));
    }
    receiver
}

async fn forward(
    name: &'static str,
    mut events: EventQueue,
    sender: mpsc::Sender<(&'static str, Event)>,
) {
    while let Some(event) = events.next().await {
        if sender.send((name, event)).await.is_err() {
            return;
        }
    }
}

async fn until(due: Option<Instant>) {
    match due {
        Some(due) => tokio::time::sleep_until(due).await,
        None => std::future::pending().await,
    }
}

/// Opens the ledger. One that is damaged beyond reading is put aside: the node starts with
/// nothing desired, touches nothing that runs, and waits for its cluster.
fn open_ledger(directory: &Path) -> anyhow::Result<(Ledger, Option<Vec<u8>>)> {
    match Ledger::open(directory) {
        Ok((mut ledger, record)) => {
            if let Some(record) = &record
                && ledger.damage().next().is_some()
            {
                tracing::warn!("one copy of the ledger was damaged and is mended");
                ledger.write(record.generation, &record.bytes)?;
            }
            Ok((ledger, record.map(|record| record.bytes)))
        }
        Err(error @ LedgerError::Damaged { .. }) => {
            let aside = directory.with_extension(format!("damaged-{}", unix_ms()));
            tracing::error!(error = chain(&error), aside = %aside.display(), "starting anew");
            std::fs::rename(directory, &aside)
                .with_context(|| format!("{} cannot be put aside", directory.display()))?;
            let (ledger, _) = Ledger::open(directory)?;
            Ok((ledger, None))
        }
        Err(error) => Err(error.into()),
    }
}

/// An error with all its causes on one line.
fn chain(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        next = cause.source();
    }
    text
}

fn unix_ms() -> u64 {
    // A clock before 1970 says nothing useful; times are for people only.
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

/// A random number from the kernel.
///
/// # Errors
/// The kernel has none to give.
pub fn random() -> anyhow::Result<u64> {
    let mut bytes = [0; 8];
    getrandom::fill(&mut bytes).map_err(|error| anyhow::anyhow!("no random bytes: {error}"))?;
    // Zero is kept for "none".
    Ok(u64::from_le_bytes(bytes).max(1))
}
