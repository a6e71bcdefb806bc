//! The backend object: what its parts share, and the contract's face on it.

use crate::cgroup::Cgroups;
use crate::config::Config;
use crate::image::pull::Images;
use crate::oci::user::Accounts;
use crate::rpc::Rpc;
use crate::watch::Listener;
use crate::{lifecycle, runtime, validate, watch};
use containerd_client::types::Mount;
use marram_backend_api::{
    Backend, BoxFuture, Capabilities, Error, ErrorKind, Events, Exec, Exit, Fingerprint, Handle,
    Health, Logs, Observed, Pause, Result, Runtime, Spec, Usage, WorkloadId,
};
use std::collections::BTreeMap;
use std::future::Future;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;
use tokio::sync::OwnedMutexGuard;

/// Values of the SLA's `virtualization` that mean "a container, whatever the runtime".
const VIRTUALIZATIONS: [&str; 2] = ["container", "docker"];

/// Images whose users are kept in memory, a few kilobytes each.
const ACCOUNTS_MAX: usize = 32;

/// Workloads through containerd.
#[derive(Debug)]
pub struct Containerd {
    inner: Arc<Inner>,
}

/// What the parts of the backend share.
#[derive(Debug)]
pub(crate) struct Inner {
    pub(crate) config: Config,
    pub(crate) rpc: Rpc,
    pub(crate) images: Images,
    pub(crate) cgroups: Cgroups,
    pub(crate) listener: Listener,
    /// Of workloads that were prepared and not started: spares the start a request.
    mounts: Mutex<BTreeMap<String, Vec<Mount>>>,
    /// By the image's snapshot.
    accounts: Mutex<BTreeMap<String, Accounts>>,
}

impl Containerd {
    /// A backend for the daemon that `config` names. Nothing is connected or made yet: a
    /// daemon that is not there is a matter of the fingerprint.
    ///
    /// # Errors
    /// `Invalid` if the configuration cannot be meant.
    pub fn new(config: Config) -> Result<Self> {
        config.check()?;
        // Another part of the program may have chosen the same one before: one is enough.
        drop(rustls::crypto::ring::default_provider().install_default());
        let rpc = Rpc::new(config.socket.clone(), &config.namespace)?;
        let inner = Inner {
            config,
            rpc,
            images: Images::default(),
            cgroups: Cgroups::of_host(),
            listener: Listener::default(),
            mounts: Mutex::default(),
            accounts: Mutex::default(),
        };
        Ok(Self { inner: Arc::new(inner) })
    }

    pub(crate) fn inner(&self) -> &Arc<Inner> {
        watch::begin(&self.inner);
        &self.inner
    }
}

fn open<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Inner {
    /// The folder of a workload; everything in it goes with it.
    pub(crate) fn folder(&self, id: &WorkloadId) -> PathBuf {
        self.config.state_dir.join(id.as_str())
    }

    /// Where its output is kept.
    pub(crate) fn log(&self, id: &WorkloadId) -> PathBuf {
        self.folder(id).join("log")
    }

    /// Its cgroup in each hierarchy.
    pub(crate) fn cgroup(&self, id: &WorkloadId) -> String {
        format!("{}/{id}", self.config.cgroup_parent.trim_end_matches('/'))
    }

    fn mark(&self, id: &WorkloadId) -> PathBuf {
        self.folder(id).join("started")
    }

    /// What its mark says, which outlives the task; `None` if it was not started. After a
    /// power cut the mark alone tells a workload that ran from one that never did.
    pub(crate) fn started(&self, id: &WorkloadId) -> Option<Started> {
        std::fs::read_to_string(self.mark(id)).ok().map(|text| Started::parse(&text))
    }

    pub(crate) fn mark_started(&self, id: &WorkloadId, pid: u32) -> std::io::Result<()> {
        let started = Started { unix_ms: crate::time::now_unix_ms(), pid };
        std::fs::write(self.mark(id), started.to_string())
    }

    pub(crate) fn unmark_started(&self, id: &WorkloadId) -> std::io::Result<()> {
        match std::fs::remove_file(self.mark(id)) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }

    pub(crate) fn keep_mounts(&self, id: &WorkloadId, mounts: Vec<Mount>) {
        open(&self.mounts).insert(id.as_str().into(), mounts);
    }

    pub(crate) fn take_mounts(&self, id: &WorkloadId) -> Option<Vec<Mount>> {
        open(&self.mounts).remove(id.as_str())
    }

    pub(crate) fn accounts(&self, chain_id: &str) -> Option<Accounts> {
        open(&self.accounts).get(chain_id).cloned()
    }

    pub(crate) fn keep_accounts(&self, chain_id: &str, accounts: Accounts) {
        let mut all = open(&self.accounts);
        if all.len() >= ACCOUNTS_MAX {
            all.clear();
        }
        all.insert(chain_id.into(), accounts);
    }

    /// One verb at a time that changes something of a workload, over all objects of this
    /// process that share a daemon: a verb whose future was dropped may still be running.
    pub(crate) async fn lock(&self, id: &WorkloadId) -> OwnedMutexGuard<()> {
        static LOCKS: Mutex<BTreeMap<String, Weak<tokio::sync::Mutex<()>>>> =
            Mutex::new(BTreeMap::new());
        let config = &self.config;
        let key = format!("{} {} {id}", config.socket.display(), config.namespace);
        let lock = {
            let mut locks = open(&LOCKS);
            locks.retain(|_, lock| lock.strong_count() > 0);
            let known = locks.get(&key).and_then(Weak::upgrade);
            let lock = known.unwrap_or_default();
            locks.insert(key, Arc::downgrade(&lock));
            lock
        };
        lock.lock_owned().await
    }
}

/// What the mark of a started workload says: two numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Started {
    pub(crate) unix_ms: u64,
    /// Its first process, by which what marram-shim wrote of its end is known to be of it.
    pub(crate) pid: u32,
}

impl Started {
    /// A mark that was torn by a power cut still says "started"; zero stands for the rest.
    fn parse(text: &str) -> Self {
        let mut words = text.split_whitespace();
        let unix_ms = words.next().and_then(|word| word.parse().ok()).unwrap_or(0);
        let pid = words.next().and_then(|word| word.parse().ok()).unwrap_or(0);
        Self { unix_ms, pid }
    }
}

impl std::fmt::Display for Started {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(out, "{} {}", self.unix_ms, self.pid)
    }
}

/// Runs to its end whether or not anybody waits: half a request to containerd would be
/// finished or undone by it some time later, under the feet of the next verb.
pub(crate) async fn whole<T: Send + 'static>(
    future: impl Future<Output = Result<T>> + Send + 'static,
) -> Result<T> {
    match tokio::spawn(future).await {
        Ok(result) => result,
        Err(error) => {
            let why = "the verb broke off";
            Err(Error::caused(ErrorKind::Internal, "running a verb", why, error))
        }
    }
}

/// Identifies a specification. New fields must be added at the end and only when they are
/// set, or every container made by an older engine would seem to be of another one.
pub(crate) fn digest(spec: &Spec) -> String {
    let mut text = String::new();
    let mut add = |key: &str, value: &dyn std::fmt::Debug| {
        // Debug quotes strings, so no value can pretend to be the next key.
        text.push_str(&format!("{key}={value:?}\n"));
    };
    add("image", &spec.image);
    add("runtime", &spec.runtime);
    add("args", &spec.args);
    add("environment", &spec.environment);
    add("working_dir", &spec.working_dir);
    add("user", &spec.user);
    let resources = &spec.resources;
    add("memory_bytes_max", &resources.memory_bytes_max);
    add("cpu_millicores_max", &resources.cpu_millicores_max);
    add("pids_max", &resources.pids_max);
    for mount in &spec.mounts {
        add("mount", &(&mount.source, &mount.target, mount.read_only));
    }
    add("devices", &spec.devices);
    add("read_only_root", &spec.read_only_root);
    add("private_namespaces", &spec.private_namespaces);
    add("allow_unlimited", &spec.allow_unlimited);
    add("log_bytes_max", &spec.log_bytes_max);
    crate::image::sha256(text.as_bytes())["sha256:".len()..].to_owned()
}

impl Backend for Containerd {
    fn name(&self) -> &'static str {
        "containerd"
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities { logs: true, exec: true, pause: true }
    }

    fn fingerprint(&self) -> BoxFuture<'_, Fingerprint> {
        Box::pin(fingerprint(self.inner()))
    }

    fn watch(&self, events: Arc<dyn Events>) {
        self.inner.listener.set_sink(events);
        watch::begin(&self.inner);
    }

    fn validate(&self, spec: &Spec) -> Result<()> {
        validate::validate(&self.inner, spec)
    }

    fn prepare<'a>(&'a self, id: &'a WorkloadId, spec: &'a Spec) -> BoxFuture<'a, Result<Handle>> {
        Box::pin(lifecycle::prepare(self.inner(), id, spec))
    }

    fn start<'a>(&'a self, handle: &'a Handle) -> BoxFuture<'a, Result<Handle>> {
        Box::pin(lifecycle::start(self.inner(), handle))
    }

    fn stop<'a>(&'a self, id: &'a WorkloadId, grace: Duration) -> BoxFuture<'a, Result<Exit>> {
        Box::pin(lifecycle::stop(self.inner(), id, grace))
    }

    fn destroy<'a>(&'a self, id: &'a WorkloadId) -> BoxFuture<'a, Result<()>> {
        Box::pin(lifecycle::destroy(self.inner(), id))
    }

    fn list(&self) -> BoxFuture<'_, Result<Vec<(WorkloadId, Observed)>>> {
        Box::pin(lifecycle::list(self.inner()))
    }

    fn recover<'a>(&'a self, handle: &'a Handle) -> BoxFuture<'a, Result<Observed>> {
        Box::pin(lifecycle::recover(self.inner(), handle))
    }

    fn usage<'a>(&'a self, id: &'a WorkloadId) -> BoxFuture<'a, Result<Usage>> {
        Box::pin(lifecycle::usage(self.inner(), id))
    }

    fn as_logs(&self) -> Option<&dyn Logs> {
        Some(self)
    }

    fn as_exec(&self) -> Option<&dyn Exec> {
        Some(self)
    }

    fn as_pause(&self) -> Option<&dyn Pause> {
        Some(self)
    }
}

async fn fingerprint(inner: &Arc<Inner>) -> Fingerprint {
    let mut print = Fingerprint {
        health: Health::Healthy,
        version: String::new(),
        runtimes: Vec::new(),
        virtualizations: Vec::new(),
        limits: inner.cgroups.limits(),
    };
    match version(inner).await {
        Ok(version) => print.version = version,
        Err(error) => {
            print.health = match inner.config.socket.exists() {
                true => Health::Unhealthy(error.chain()),
                false => Health::Undetected(format!("no {}", inner.config.socket.display())),
            };
            return print;
        }
    }
    let mut found = runtime::detect(&inner.config);
    if let Some(default) = &inner.config.default_runtime {
        match found.iter().position(|one| one.name == *default) {
            Some(place) => found[..=place].rotate_right(1),
            None => {
                let why = format!("the default runtime {default:?} is not on this host");
                print.health = Health::Unhealthy(why);
            }
        }
    }
    if found.is_empty() {
        print.health = Health::Unhealthy("containerd is there, and no runtime (runc)".into());
    }
    if !inner.config.shim_path.is_file() {
        let why = format!("no {}, which keeps the output", inner.config.shim_path.display());
        print.health = Health::Unhealthy(why);
    }
    if print.health == Health::Healthy {
        let names = found.iter().map(|one| one.name.as_str());
        print.virtualizations =
            VIRTUALIZATIONS.into_iter().chain(names).map(String::from).collect();
        let runtimes = found.into_iter();
        print.runtimes =
            runtimes.map(|one| Runtime { name: one.name, version: one.handler }).collect();
    }
    print
}

async fn version(inner: &Inner) -> Result<String> {
    let request = inner.rpc.request(crate::rpc::QUICK, ());
    let answer = inner.rpc.version().await?.version(request).await;
    let answer = answer.map_err(|status| crate::rpc::failed("asking containerd", status))?;
    Ok(format!("containerd {}", answer.into_inner().version))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_digest_tells_specifications_apart() {
        let first = Spec { image: "a".into(), ..Spec::default() };
        let mut other = first.clone();
        assert_eq!(digest(&first), digest(&other));
        other.args = vec!["x\"]\nuser=Some(\"root".into()];
        let mut third = first.clone();
        third.args = vec!["x".into()];
        third.user = Some("root".into());
        assert_ne!(digest(&other), digest(&third));
        // Containers outlive engines: this text may never change for fields of today.
        assert_eq!(digest(&Spec::default()).len(), 64);
    }

    #[test]
    fn marks_are_read_whole_or_torn() {
        let started = Started { unix_ms: 1_700_000_000_000, pid: 77 };
        assert_eq!(Started::parse(&started.to_string()), started);
        assert_eq!(Started::parse("5"), Started { unix_ms: 5, pid: 0 });
        assert_eq!(Started::parse(""), Started { unix_ms: 0, pid: 0 });
    }

    #[test]
    fn both_faces_of_capabilities_agree() {
        let backend = Containerd::new(Config::new("/s", "/shim")).unwrap();
        let capabilities = backend.capabilities();
        assert_eq!(capabilities.logs, backend.as_logs().is_some());
        assert_eq!(capabilities.exec, backend.as_exec().is_some());
        assert_eq!(capabilities.pause, backend.as_pause().is_some());
    }
}
