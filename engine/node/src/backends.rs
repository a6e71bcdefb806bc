//! The table of backends that are compiled in, and what they push.

use crate::config::Config;
use marram_backend_api::{Backend, Event, Events};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use tokio::sync::mpsc;
use tokio::task::JoinSet;

/// Events that wait for the shell; more coalesce to one request to look again.
const EVENTS_MAX: usize = 256;

/// Events of all backends on their way to the shell; more wait in the backends' own queues.
const GATHERED_MAX: usize = 16;

/// A backend that is switched on, and the stream of its events.
#[derive(Debug)]
pub(crate) struct Mounted {
    pub(crate) backend: Arc<dyn Backend>,
    pub(crate) events: EventQueue,
}

/// Receives events of one backend.
#[derive(Debug)]
pub(crate) struct EventQueue {
    receiver: mpsc::Receiver<Event>,
    overflowed: Arc<AtomicBool>,
}

#[derive(Debug)]
struct Sink {
    sender: mpsc::Sender<Event>,
    overflowed: Arc<AtomicBool>,
}

impl Events for Sink {
    fn push(&self, event: Event) {
        if self.sender.try_send(event).is_err() {
            self.overflowed.store(true, Ordering::Release);
        }
    }
}

impl EventQueue {
    /// The next event; `None` when the backend is gone.
    pub(crate) async fn next(&mut self) -> Option<Event> {
        if self.receiver.is_empty() && self.overflowed.swap(false, Ordering::AcqRel) {
            return Some(Event::Resync);
        }
        self.receiver.recv().await
    }
}

/// Joins the events of all backends into one stream.
pub(crate) fn gather(
    mounted: Vec<Mounted>,
    background: &mut JoinSet<()>,
) -> mpsc::Receiver<(&'static str, Event)> {
    let (sender, receiver) = mpsc::channel(GATHERED_MAX);
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

/// A backend whose events are heard from now on.
pub(crate) fn watched(backend: Arc<dyn Backend>) -> Mounted {
    let (sender, receiver) = mpsc::channel(EVENTS_MAX);
    let overflowed = Arc::new(AtomicBool::new(false));
    backend.watch(Arc::new(Sink { sender, overflowed: Arc::clone(&overflowed) }));
    Mounted { backend, events: EventQueue { receiver, overflowed } }
}

/// Makes every backend that is compiled in and switched on. One that cannot be made is an
/// error of the configuration; one whose host part is missing says so in its fingerprint.
pub(crate) fn mount(config: &Config, shim: PathBuf) -> anyhow::Result<Vec<Mounted>> {
    let mut mounted = Vec::new();
    let mut add = |backend: Arc<dyn Backend>| mounted.push(watched(backend));
    #[cfg(feature = "containerd")]
    if config.containerd.enabled {
        add(Arc::new(containerd(config, shim.clone())?));
    }
    #[cfg(feature = "native")]
    if config.native.enabled {
        add(Arc::new(native(config, shim)));
    }
    Ok(mounted)
}

#[cfg(feature = "native")]
fn native(config: &Config, shim: PathBuf) -> marram_native::NativeBackend {
    let mut native = marram_native::Config::new(config.runtime_dir.join("native"), shim);
    native.user.clone_from(&config.native.default_user);
    if let Some(path) = &config.native.path {
        native.search_path.clone_from(path);
    }
    native.cgroup_parent.clone_from(&config.native.cgroup_parent);
    native.limits = marram_backend_api::Limits {
        allow_root: config.native.allow_root,
        mount_roots: config.native.mount_roots.clone(),
        devices: config.native.devices.clone(),
    };
    marram_native::NativeBackend::new(native)
}

#[cfg(feature = "containerd")]
fn containerd(config: &Config, shim: PathBuf) -> anyhow::Result<marram_containerd::Containerd> {
    let said = &config.containerd;
    let mut containerd =
        marram_containerd::Config::new(config.runtime_dir.join("containerd"), shim);
    containerd.socket.clone_from(&said.socket);
    containerd.namespace.clone_from(&said.namespace);
    containerd.snapshotter.clone_from(&said.snapshotter);
    containerd.cgroup_parent.clone_from(&said.cgroup_parent);
    containerd.default_runtime.clone_from(&said.default_runtime);
    containerd.credentials_file.clone_from(&said.credentials_file);
    if let Some(path) = &said.config {
        containerd.containerd_config.clone_from(path);
    }
    containerd.limits = marram_backend_api::Limits {
        allow_root: false,
        mount_roots: said.mount_roots.clone(),
        devices: said.devices.clone(),
    };
    for (host, registry) in &said.registries {
        let mirror = |m: &crate::config::Mirror| marram_containerd::Mirror {
            url: m.url.clone(),
            insecure: m.insecure,
        };
        let registry = marram_containerd::Registry {
            mirrors: registry.mirrors.iter().map(mirror).collect(),
            mirrors_only: registry.mirrors_only,
        };
        containerd.registries.insert(host.clone(), registry);
    }
    Ok(marram_containerd::Containerd::new(containerd)?)
}
