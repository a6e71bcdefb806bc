//! The one task that owns the engine: feeds it, performs its effects, sleeps until it is due.
//!
//! Everything else is a task that speaks to this one by a bounded channel: the link, the
//! calls of backends, streams. So there is no lock around a decision, and the order of
//! effects is the engine's.

use crate::backends::{Mounted, gather, mount};
use crate::config::Config;
use crate::convert;
use crate::disk::{Disk, Kept};
use crate::echo::Echo;
use crate::explain;
use crate::link::{Link, LinkEvent, Sender};
use crate::looks::{Look, Looks};
use crate::measure::{self, Meter, Seen};
use crate::perform::{Done, Performer};
use crate::ports::Ports;
use crate::streams::Streams;
use crate::way::Way;
use anyhow::{Context, bail};
use marram_backend_api::{Backend, Event};
use marram_engine_core::{Effect, Engine, Identity, Input, Now, SlotView};
use marram_host::Fingerprint;
use marram_protocol::id::{ChildId, InstanceId};
use marram_protocol::port::PortMapping;
use marram_protocol::v1::{Down, Telemetry, Up};
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior};

/// Messages of the link that wait for the engine.
const LINK_EVENTS_MAX: usize = 64;

/// Time between two samples. What has not changed is not told, so this costs no traffic.
const SAMPLE_INTERVAL: Duration = Duration::from_secs(5);

/// Longest pause before a node that its cluster does not take says hello again.
const HELLO_AGAIN_MAX: Duration = Duration::from_secs(60);

/// Beyond the longest grace period, a drain gives up after this: some workloads may belong to
/// a backend that does not answer, and who waits has to be told.
const DRAIN_SPARE: Duration = Duration::from_secs(60);

/// Workloads that are named when a drain gives up.
const NAMED_MAX: usize = 5;

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
    Backend(&'static str, Event),
    Looked(Look),
    Tick,
    Moved,
    Measured(Box<Meter>, Telemetry),
    Ordered,
    Due,
}

/// A running node.
pub struct Shell {
    config: Config,
    engine: Engine,
    disk: Disk,
    host: Fingerprint,
    started: Instant,
    incarnation: u64,
    backends: BTreeMap<&'static str, Arc<dyn Backend>>,
    events: mpsc::Receiver<(&'static str, Event)>,
    looks: Looks,
    seen: BTreeMap<&'static str, Seen>,
    performer: Performer,
    performing: JoinSet<Done>,
    /// The link, and the events of backends; they end with the shell.
    _background: JoinSet<()>,
    link: Sender,
    link_events: mpsc::Receiver<LinkEvent>,
    linked: bool,
    /// The cluster that the node would rather have than the present one.
    preferred: Option<ChildId>,
    /// The cluster lacks something on a live link: everything is told again with the first
    /// sample after this.
    behind: Option<Instant>,
    /// In a row.
    rejections: u32,
    streams: Streams,
    echo: Echo,
    /// `None` while it takes a sample.
    meter: Option<Box<Meter>>,
    measuring: JoinSet<(Box<Meter>, Telemetry)>,
    ready_file: Option<PathBuf>,
    drained: bool,
    drain_spare: Duration,
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
        let mounted = mount(&config, shim)?;
        Self::with(config, mounted, node, ready_file)
    }

    fn with(
        config: Config,
        mounted: Vec<Mounted>,
        node: ChildId,
        ready_file: Option<PathBuf>,
    ) -> anyhow::Result<Self> {
        let incarnation = random()?;
        let (disk, record) = Disk::open(&config.state_dir.join("ledger"))?;
        // Once: it reads some hundred files, and hardware does not come and go.
        let host = Fingerprint::read(&marram_host::Root::host(), &config.state_dir);
        let name = config.name.clone().or_else(|| host.hostname.clone());
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
        let backends = measure::by_name(&mounted);
        let way = Way::open(&config, node, incarnation)?;
        let (link, sender) = Link::new(way, node, incarnation)?;
        let (link_sender, link_events) = mpsc::channel(LINK_EVENTS_MAX);
        let mut background = JoinSet::new();
        background.spawn(link.run(link_sender));
        let events = gather(mounted, &mut background);
        Ok(Self {
            performer: Performer::new(backends.clone(), Ports::taken_over(&engine, node)),
            meter: Some(Box::new(Meter::new(&config, incarnation))),
            measuring: JoinSet::new(),
            streams: Streams::new(sender.clone()),
            looks: Looks::new(&backends),
            echo: Echo::start(&config, node, &mut background),
            config,
            engine,
            disk,
            host,
            started,
            incarnation,
            backends,
            events,
            seen: BTreeMap::new(),
            performing: JoinSet::new(),
            _background: background,
            link: sender,
            link_events,
            linked: false,
            preferred: None,
            behind: None,
            rejections: 0,
            ready_file,
            drained: false,
            drain_spare: DRAIN_SPARE,
        })
    }

    /// Runs until ordered to end.
    ///
    /// # Errors
    /// A drain that could not stop everything, or what this program cannot go on with.
    pub async fn run(mut self, mut orders: watch::Receiver<Order>) -> anyhow::Result<()> {
        let result = self.work(&mut orders).await;
        if self.linked {
            self.link.goodbye(self.incarnation, &mut self.link_events).await;
        }
        result
    }

    async fn work(&mut self, orders: &mut watch::Receiver<Order>) -> anyhow::Result<()> {
        if self.backends.is_empty() {
            tracing::warn!("no backend is switched on, so this node runs nothing");
            self.tell_host();
        }
        let mut samples = tokio::time::interval(SAMPLE_INTERVAL);
        samples.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut order = *orders.borrow_and_update();
        let mut drain_end = None;
        loop {
            if order == Order::Drain && drain_end.is_none() {
                drain_end = Some(Instant::now() + self.drain_time());
                self.handle(Input::Drain);
            }
            let go_on = self.perform_all(orders).await?;
            if !go_on || order == Order::Stop || self.drained {
                return self.disk.mirror().await;
            }
            if drain_end.is_some_and(|end| end <= Instant::now()) {
                bail!("not everything could be stopped: {}", self.left());
            }
            let due = self.engine.poll_timeout().map(|ms| self.started + Duration::from_millis(ms));
            let happened = tokio::select! {
                // Each of these keeps what it has not handed out when it is dropped.
                Some(event) = self.link_events.recv() => Happened::Link(event),
                Some(done) = self.performing.join_next() => {
                    Happened::Performed(done.context("an effect's task broke")?)
                }
                Some((name, event)) = self.events.recv() => Happened::Backend(name, event),
                look = self.looks.next() => Happened::Looked(look.context("a look broke")?),
                () = self.streams.ended() => continue,
                () = self.echo.changed() => Happened::Moved,
                _ = samples.tick(), if self.linked => Happened::Tick,
                Some(measured) = self.measuring.join_next() => {
                    let (meter, sample) = measured.context("taking a sample broke")?;
                    Happened::Measured(meter, sample)
                }
                changed = orders.changed() => {
                    changed.context("nobody can give orders any more")?;
                    order = *orders.borrow_and_update();
                    Happened::Ordered
                }
                () = until(due) => Happened::Due,
                () = until(drain_end) => Happened::Due,
                () = until(self.disk.mirror_due()) => {
                    self.disk.mirror().await?;
                    continue;
                }
            };
            self.take(happened);
        }
    }

    fn take(&mut self, happened: Happened) {
        match happened {
            Happened::Link(event) => self.link_event(event),
            Happened::Performed(Some((id, outcome))) => self.handle(Input::Done(id, outcome)),
            Happened::Performed(None) | Happened::Ordered => {}
            Happened::Backend(name, event) => self.backend_event(name, event),
            Happened::Looked(look) => self.looked(look),
            Happened::Tick => self.tick(),
            Happened::Moved => self.tell_host(),
            Happened::Measured(meter, sample) => {
                self.meter = Some(meter);
                self.handle(Input::Telemetry(sample));
            }
            Happened::Due => {
                let now = self.now();
                self.engine.handle_timeout(now);
            }
        }
    }

    fn tick(&mut self) {
        if self.behind.is_some_and(|at| at <= Instant::now()) {
            self.behind = None;
            // A cluster that hears hello takes all streams of before for ended.
            self.streams.close_all();
            self.handle(Input::LinkUp { preferred: self.preferred });
        }
        // A backend may take its time to answer; the next sample waits for this one.
        let Some(mut meter) = self.meter.take() else { return };
        let (running, backends) = (self.running(), self.backends.clone());
        self.measuring.spawn(async move {
            let sample = meter.sample(running, &backends).await;
            (meter, sample)
        });
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
            LinkEvent::Up(preferred) => {
                (self.linked, self.behind, self.preferred) = (true, None, preferred);
                self.handle(Input::LinkUp { preferred });
            }
            LinkEvent::Down => {
                self.linked = false;
                self.streams.close_all();
                self.handle(Input::LinkDown);
            }
            LinkEvent::Desired(Down::Rejected { reason }) => self.rejected(&reason),
            LinkEvent::Desired(Down::Peers(peers)) => self.echo.meet(peers),
            LinkEvent::Desired(message) => {
                if let Down::Welcome { .. } = message {
                    self.rejections = 0;
                }
                self.handle(Input::Parent(message));
            }
            LinkEvent::Stream(message) => {
                let (engine, backends) = (&self.engine, &self.backends);
                let find = |instance| {
                    let slot = engine.slot(instance)?;
                    backends.get(slot.backend?).cloned()
                };
                self.streams.handle(message, find, |instance| explain::line(engine, instance));
            }
        }
    }

    /// The cluster does not take this node, or does not know it any more.
    fn rejected(&mut self, reason: &str) {
        if self.rejections == 0 {
            tracing::warn!(reason, "the cluster does not take this node; asking again");
        }
        let doubled = SAMPLE_INTERVAL * (1 << self.rejections.min(8));
        // The first time at once: a cluster that was started anew only has to hear of us.
        let wait = if self.rejections == 0 { Duration::ZERO } else { doubled.min(HELLO_AGAIN_MAX) };
        self.rejections = self.rejections.saturating_add(1);
        self.behind = Some(Instant::now() + wait);
    }

    fn backend_event(&mut self, name: &'static str, event: Event) {
        match event {
            Event::Exited(id, exit) => {
                if let Some(instance) = convert::instance_id(&id) {
                    self.handle(Input::Exited(instance, exit));
                    if self.has_idle_ports(instance) {
                        let performer = self.performer.clone();
                        self.performing.spawn(async move { performer.ended(instance).await });
                    }
                }
            }
            Event::Progress(id, done, all) => {
                if let Some(instance) = convert::instance_id(&id) {
                    self.handle(Input::Progress(instance, done, all));
                }
            }
            Event::Resync => self.looks.ask(name),
        }
    }

    /// It does not run, and host ports may lead to where it was.
    fn has_idle_ports(&self, instance: InstanceId) -> bool {
        self.engine.slot(instance).is_some_and(|slot| {
            let ports = slot.desired.map_or(&[][..], |workload| &workload.spec.ports);
            !slot.is_running && ports.iter().any(|port| port.host != port.workload)
        })
    }

    fn looked(&mut self, look: Look) {
        let facts = look.seen.facts.clone();
        self.seen.insert(look.name, look.seen);
        self.handle(Input::Backend { facts, found: look.found });
        self.tell_host();
    }

    /// Once all backends were looked at, the node knows what it is.
    fn tell_host(&mut self) {
        if self.seen.len() < self.backends.len() {
            return;
        }
        let (mut summary, facts) = measure::host(&self.config, &self.host, &self.seen);
        self.echo.describe(&mut summary);
        self.handle(Input::Host { summary, facts });
        let Some(path) = self.ready_file.take() else { return };
        // Written aside and renamed, so that who waits for it never reads half of it.
        let mut aside = path.clone().into_os_string();
        aside.push(".new");
        let written =
            std::fs::write(&aside, "ready=true\n").and_then(|()| std::fs::rename(&aside, &path));
        if let Err(error) = written {
            tracing::warn!(path = %path.display(), %error, "no ready file");
        }
    }

    /// How long a drain may take.
    fn drain_time(&self) -> Duration {
        let desired = self.engine.slots().filter_map(|(_, slot)| slot.desired);
        let grace_s = desired.map(|workload| workload.spec.stop_grace_s).max().unwrap_or(0);
        self.drain_spare + Duration::from_secs(grace_s.into())
    }

    /// What still runs or may run, for people.
    fn left(&self) -> String {
        let is_left = |slot: &SlotView<'_>| slot.backend.is_some() && !slot.status.state.is_over();
        let left = self.engine.slots().filter(|(_, slot)| is_left(slot));
        let named = left.map(|(id, slot)| {
            let (state, detail) = (slot.status.state.name(), &slot.status.detail);
            format!("{id} on {} ({state} {detail})", slot.backend.unwrap_or_default())
        });
        let mut named: Vec<String> = named.collect();
        let more = named.len().saturating_sub(NAMED_MAX);
        named.truncate(NAMED_MAX);
        if more > 0 {
            named.push(format!("{more} more"));
        }
        named.join("; ")
    }

    fn running(&self) -> Vec<(InstanceId, String)> {
        let running = self.engine.slots().filter(|(_, slot)| slot.is_running);
        running.filter_map(|(id, slot)| Some((id, slot.backend?.to_owned()))).collect()
    }

    /// Performs what the engine has decided, in order. `false` if the program is to end.
    async fn perform_all(&mut self, orders: &watch::Receiver<Order>) -> anyhow::Result<bool> {
        while let Some(effect) = self.engine.poll_effect() {
            match effect {
                Effect::Persist { generation, bytes } => {
                    match self.disk.keep(generation, bytes, orders).await? {
                        Kept::Yes | Kept::No => {}
                        Kept::Ending => return Ok(false),
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
        Ok(true)
    }

    fn send(&mut self, message: &Up) {
        if let Err(error) = self.link.try_send(message) {
            if self.behind.is_none() {
                tracing::warn!(%error, "a message to the cluster was lost; telling all again");
            }
            self.behind = Some(Instant::now());
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

/// Waits until then; for ever if there is no then.
pub(crate) async fn until(due: Option<Instant>) {
    match due {
        Some(due) => tokio::time::sleep_until(due).await,
        None => std::future::pending().await,
    }
}

/// The wall clock.
pub(crate) fn unix_ms() -> u64 {
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

#[cfg(test)]
mod tests;
