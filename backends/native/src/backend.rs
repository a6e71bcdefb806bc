//! The verbs of the contract for programs of the host.
//!
//! Why hardly any state here: the directory of a workload says everything, see
//! [`crate::workload`], so that an engine that was killed anywhere finds its way.

use crate::config::Config;
use crate::host::Host;
use crate::request::{self, REQUEST, Request};
use crate::watches::Watches;
use crate::workload::{Seen, Workload, exit, io_error};
use marram_backend_api::{
    Backend, BoxFuture, Capabilities, Error, ErrorKind, Events, Exec, Exit, ExitReason,
    Fingerprint, Handle, Logs, Observed, Pause, Result, Spec, Usage, WorkloadId,
};
use marram_shim::files::{self, RunSpec, Running};
use marram_shim::launch::LaunchError;
use marram_shim::supervise::Report;
use rustix::fs::Mode;
use rustix::process::Signal;
use std::fs;
use std::io;
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::AsyncReadExt;
use tokio::process::{Child, Command};

/// Layout of [`Handle::state`]: the incarnation as text.
const HANDLE_VERSION: u16 = 1;

/// Longest text of an incarnation that is believed.
const INCARNATION_BYTES_MAX: usize = 64;

/// How long a shim may take to start its program on a slow and loaded board.
const START_DEADLINE: Duration = Duration::from_secs(30);

/// Longest report of a shim that is read.
const REPORT_BYTES_MAX: u64 = 64 * 1024;

/// What a shim complains of, kept for one start.
const COMPLAINTS: &str = "shim.err";

/// Before the name of a directory that is being removed.
const GONE_PREFIX: &str = ".gone-";

/// Runs programs of the host as workloads.
#[derive(Debug)]
pub struct NativeBackend {
    pub(crate) config: Config,
    pub(crate) host: Host,
    pub(crate) watches: Watches,
}

impl NativeBackend {
    /// A backend over the state in `config.state_dir`. Never fails: what is missing on this
    /// host is said by the fingerprint. Needs a runtime with I/O and time from then on.
    pub fn new(config: Config) -> Self {
        let host = Host::look(&config);
        let backend = Self { config, host, watches: Watches::default() };
        backend.sweep();
        backend
    }

    pub(crate) fn workload(&self, id: &WorkloadId) -> Workload {
        Workload { id: id.clone(), dir: self.config.state_dir.join(id.as_str()) }
    }

    /// Finishes removals that a killed engine had begun.
    fn sweep(&self) {
        let Ok(entries) = fs::read_dir(&self.config.state_dir) else { return };
        for entry in entries.flatten() {
            if entry.file_name().to_string_lossy().starts_with(GONE_PREFIX)
                && let Err(error) = fs::remove_dir_all(entry.path())
            {
                tracing::warn!(path = %entry.path().display(), %error, "not removed");
            }
        }
    }

    /// A workload that runs, watched; `NotFound` for others.
    pub(crate) async fn running(&self, id: &WorkloadId) -> Result<(Workload, Running)> {
        let workload = self.workload(id);
        match workload.seen().await? {
            Seen::Running(running) => Ok((workload, running)),
            other => Err(Error::new(
                ErrorKind::NotFound,
                "looking for the running workload",
                format!("{id} {other}"),
            )),
        }
    }

    fn watch_running(&self, workload: &Workload, shim: Option<Child>) {
        if let Ok(Some(spec)) = workload.spec() {
            self.watches.add(workload, &spec.incarnation, shim);
        }
    }

    fn observed(&self, workload: &Workload, seen: Seen) -> Observed {
        match seen {
            Seen::Absent => Observed::Absent,
            Seen::Prepared => Observed::Prepared,
            Seen::Exited(ended) => Observed::Exited(exit(ended)),
            Seen::Running(running) => Observed::Running {
                pid: running.process.pid,
                started_unix_ms: running.started_unix_ms,
                paused: workload.group().is_some_and(|group| group.is_freezing()),
            },
        }
    }

    fn prepare_now(&self, id: &WorkloadId, spec: &Spec) -> Result<Handle> {
        let doing = "preparing the workload";
        let failed = io_error(doing);
        let mut program = request::check(spec, &self.config, &self.host)?;
        let wanted = Request::of(spec);
        let workload = self.workload(id);
        let dir = &workload.dir;
        if let Some(there) = workload.spec().map_err(&failed)? {
            return match files::load::<Request>(dir, REQUEST).map_err(&failed)? {
                Some(known) if known == wanted => Ok(handle(id, &there)),
                _ => {
                    let why = format!("{id} exists with another specification; destroy it first");
                    Err(Error::new(ErrorKind::Invalid, doing, why))
                }
            };
        }
        if let Some(name) = program.argv.first_mut() {
            *name = request::program_path(name, &self.config)?;
        }
        fs::create_dir_all(workload.log_dir()).map_err(&failed)?;
        make_fifo(&dir.join(files::ALIVE)).map_err(&failed)?;
        files::store(dir, REQUEST, &wanted).map_err(&failed)?;
        let group = match self.host.cgroups() {
            Ok(cgroups) => Some(cgroups.make(id.as_str(), &wanted.resources()).map_err(&failed)?),
            Err(_) => None,
        };
        let orders = RunSpec {
            incarnation: incarnation().map_err(&failed)?,
            program,
            group,
            log_bytes_max: spec.log_bytes_max,
            private_namespaces: spec.private_namespaces,
        };
        // The last step: with this file it is prepared.
        files::store(dir, files::SPEC, &orders).map_err(&failed)?;
        Ok(handle(id, &orders))
    }

    async fn start_now(&self, handle: &Handle) -> Result<Handle> {
        let doing = "starting the workload";
        let workload = self.workload(&handle.workload);
        let meant = incarnation_of(handle)?;
        loop {
            let seen = workload.seen().await?;
            let orders = workload.spec().map_err(io_error(doing))?;
            let Some(orders) = orders.filter(|orders| orders.incarnation == meant) else {
                let why = format!("{} is not prepared, or anew", workload.id);
                return Err(Error::new(ErrorKind::NotFound, doing, why));
            };
            match seen {
                Seen::Running(_) => {
                    self.watches.add(&workload, &meant, None);
                    return Ok(handle.clone());
                }
                Seen::Exited(_) => {
                    let why = format!("{} {seen}", workload.id);
                    return Err(Error::new(ErrorKind::Invalid, doing, why));
                }
                Seen::Absent | Seen::Prepared => {}
            }
            if let Some(orders) = self.renew_group(&workload, orders).await?
                && self.start_shim(&workload, &orders).await?
            {
                return Ok(handle.clone());
            }
            // Another shim was quicker; what became of it shows in the next look.
        }
    }

    /// Groups do not survive a reboot, and a start that was cut may have left processes. `None`:
    /// they are those of a shim that an engine before this one had started, and that came late.
    async fn renew_group(&self, workload: &Workload, orders: RunSpec) -> Result<Option<RunSpec>> {
        let failed = io_error("making the cgroup");
        if let Some(group) = &orders.group
            && !group.pids().map_err(&failed)?.is_empty()
        {
            // A shim has its lock before it puts anything into the group.
            if workload.supervisor().map_err(&failed)?.is_some() {
                return Ok(None);
            }
            workload.kill_all().await?;
        }
        let request = files::load::<Request>(&workload.dir, REQUEST).map_err(&failed)?;
        let resources = request.unwrap_or_default().resources();
        let id = workload.id.as_str();
        let group = match self.host.cgroups() {
            Ok(cgroups) => Some(cgroups.make(id, &resources).map_err(&failed)?),
            Err(_) => None,
        };
        let renewed = RunSpec { group, ..orders.clone() };
        if renewed != orders {
            files::store(&workload.dir, files::SPEC, &renewed).map_err(&failed)?;
        }
        Ok(Some(renewed))
    }

    /// Starts a shim and hears how it went; `false` if another one has the workload.
    async fn start_shim(&self, workload: &Workload, orders: &RunSpec) -> Result<bool> {
        let doing = "starting the shim";
        let failed = io_error(doing);
        let complaints = fs::File::create(workload.dir.join(COMPLAINTS)).map_err(&failed)?;
        let mut shim = Command::new(&self.config.shim)
            .arg("run")
            .arg(&workload.dir)
            .arg(&orders.incarnation)
            .env_clear()
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(complaints)
            .spawn()
            .map_err(&failed)?;
        let mut line = Vec::new();
        if let Some(stdout) = shim.stdout.take() {
            let mut stdout = stdout.take(REPORT_BYTES_MAX);
            let heard = tokio::time::timeout(START_DEADLINE, stdout.read_to_end(&mut line)).await;
            heard
                .map_err(|_| {
                    let why = format!("no word from the shim for {START_DEADLINE:?}");
                    Error::new(ErrorKind::Transient, doing, why)
                })?
                .map_err(&failed)?;
        }
        match serde_json::from_slice::<Report>(&line) {
            Ok(Report::Running(_)) => {
                self.watches.add(workload, &orders.incarnation, Some(shim));
                Ok(true)
            }
            Ok(Report::Failed(error)) => {
                reap(workload, shim).await;
                Err(launch_error(&error))
            }
            Ok(Report::Busy | Report::Ended(_)) => {
                reap(workload, shim).await;
                Ok(false)
            }
            Err(_) => {
                reap(workload, shim).await;
                let said = fs::read_to_string(workload.dir.join(COMPLAINTS)).unwrap_or_default();
                Err(Error::new(ErrorKind::Internal, doing, format!("it failed: {}", said.trim())))
            }
        }
    }

    async fn stop_now(&self, id: &WorkloadId, grace: Duration) -> Result<Exit> {
        let workload = self.workload(id);
        let running = match workload.seen().await? {
            Seen::Absent | Seen::Prepared => {
                return Ok(Exit { reason: ExitReason::Lost, at_unix_ms: 0 });
            }
            Seen::Exited(ended) => return Ok(exit(ended)),
            Seen::Running(running) => running,
        };
        self.watch_running(&workload, None);
        running.process.signal(Signal::TERM);
        if let Some(group) = workload.group()
            && group.is_freezing()
        {
            // The signal is taken when it thaws.
            group.freeze(false).map_err(io_error("thawing the workload"))?;
        }
        if let Ok(ended) = tokio::time::timeout(grace, self.watches.ended(id)).await {
            return ended;
        }
        self.mark_killed(&workload)?;
        // The shim writes the exit down when its program is gone.
        workload.kill_all().await?;
        match workload.seen().await? {
            Seen::Exited(ended) => Ok(exit(ended)),
            other => {
                let why = format!("{id} was killed, and yet it {other}");
                Err(Error::new(ErrorKind::Internal, "stopping the workload", why))
            }
        }
    }

    /// From here on a SIGKILL is ours.
    fn mark_killed(&self, workload: &Workload) -> Result<()> {
        let mark = fs::File::create(workload.dir.join(files::KILLED));
        mark.map(drop).map_err(io_error("marking the kill"))
    }

    async fn destroy_now(&self, id: &WorkloadId) -> Result<()> {
        let failed = io_error("removing the workload");
        let workload = self.workload(id);
        self.watches.remove(id);
        let mut groups: Vec<_> = workload.group().into_iter().collect();
        if workload.dir.is_dir() {
            self.mark_killed(&workload)?;
            workload.kill_all().await?;
        }
        // Where a prepare that was cut would have made it.
        groups.extend(self.host.cgroups().ok().map(|cgroups| cgroups.group(id.as_str())));
        for group in groups {
            workload.remove_group(&group).await?;
        }
        let gone = self.config.state_dir.join(format!("{GONE_PREFIX}{id}"));
        remove_tree(&gone).map_err(&failed)?;
        match fs::rename(&workload.dir, &gone) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            other => other.map_err(&failed)?,
        }
        remove_tree(&gone).map_err(&failed)
    }

    async fn list_now(&self) -> Result<Vec<(WorkloadId, Observed)>> {
        let failed = io_error("listing the workloads");
        let entries = match fs::read_dir(&self.config.state_dir) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(failed(error)),
        };
        let mut all = Vec::new();
        for entry in entries {
            let name = entry.map_err(&failed)?.file_name().into_string();
            let Some(id) = name.ok().and_then(|name| WorkloadId::new(name).ok()) else { continue };
            let workload = self.workload(&id);
            let observed = match workload.seen().await {
                Ok(seen) => self.observed(&workload, seen),
                Err(error) => Observed::Unknown(error.chain()),
            };
            if observed != Observed::Absent {
                all.push((id, observed));
            }
        }
        all.sort_by(|a, b| a.0.cmp(&b.0));
        Ok(all)
    }

    async fn recover_now(&self, handle: &Handle) -> Result<Observed> {
        let meant = incarnation_of(handle)?;
        let workload = self.workload(&handle.workload);
        let seen = workload.seen().await?;
        let orders = workload.spec().map_err(io_error("recovering the workload"))?;
        // What is there under this id now is another's.
        if orders.is_none_or(|orders| orders.incarnation != meant) {
            return Ok(Observed::Absent);
        }
        if matches!(seen, Seen::Running(_)) {
            self.watches.add(&workload, &meant, None);
        }
        Ok(self.observed(&workload, seen))
    }

    async fn usage_now(&self, id: &WorkloadId) -> Result<Usage> {
        let (workload, _) = self.running(id).await?;
        match workload.group() {
            Some(group) => Ok(crate::cgroups::Cgroups::usage(&group)),
            None => {
                let shim = workload.supervisor().map_err(io_error("measuring the workload"))?;
                crate::host::usage_below(shim.unwrap_or(0))
                    .map_err(io_error("measuring the workload"))
            }
        }
    }
}

fn handle(id: &WorkloadId, orders: &RunSpec) -> Handle {
    let state = orders.incarnation.clone().into_bytes();
    Handle { workload: id.clone(), version: HANDLE_VERSION, state }
}

fn incarnation_of(handle: &Handle) -> Result<String> {
    let invalid = |why: String| Error::new(ErrorKind::Invalid, "reading the handle", why);
    if handle.version != HANDLE_VERSION {
        return Err(invalid(format!("version {}, known is {HANDLE_VERSION}", handle.version)));
    }
    let text = std::str::from_utf8(&handle.state).ok();
    let text = text.filter(|text| !text.is_empty() && text.len() <= INCARNATION_BYTES_MAX);
    text.map(str::to_owned).ok_or_else(|| invalid("its state is no incarnation".into()))
}

/// A text that no other workload has.
fn incarnation() -> io::Result<String> {
    Ok(fs::read_to_string("/proc/sys/kernel/random/uuid")?.trim().to_owned())
}

fn make_fifo(path: &std::path::Path) -> io::Result<()> {
    match rustix::fs::mkfifoat(rustix::fs::CWD, path, Mode::RUSR | Mode::WUSR) {
        Ok(()) | Err(rustix::io::Errno::EXIST) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

fn remove_tree(path: &std::path::Path) -> io::Result<()> {
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

async fn reap(workload: &Workload, mut shim: Child) {
    if let Err(error) = shim.wait().await {
        tracing::warn!(workload = %workload.id, %error, "its shim was not reaped");
    }
}

/// Who is to blame for a program that did not start.
pub(crate) fn launch_error(error: &LaunchError) -> Error {
    let kind = match error {
        error if error.is_not_found() => ErrorKind::NotFound,
        error if error.is_refused() => ErrorKind::Invalid,
        _ => ErrorKind::Internal,
    };
    Error::new(kind, "starting the program", error.to_string())
}

impl Backend for NativeBackend {
    fn name(&self) -> &'static str {
        request::RUNTIME
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities { logs: true, exec: true, pause: true }
    }

    fn fingerprint(&self) -> BoxFuture<'_, Fingerprint> {
        Box::pin(async { self.host.fingerprint(&self.config) })
    }

    fn watch(&self, events: Arc<dyn Events>) {
        self.watches.set_events(events);
    }

    fn validate(&self, spec: &Spec) -> Result<()> {
        request::check(spec, &self.config, &self.host).map(drop)
    }

    fn prepare<'a>(&'a self, id: &'a WorkloadId, spec: &'a Spec) -> BoxFuture<'a, Result<Handle>> {
        Box::pin(async move { self.prepare_now(id, spec) })
    }

    fn start<'a>(&'a self, handle: &'a Handle) -> BoxFuture<'a, Result<Handle>> {
        Box::pin(self.start_now(handle))
    }

    fn stop<'a>(&'a self, id: &'a WorkloadId, grace: Duration) -> BoxFuture<'a, Result<Exit>> {
        Box::pin(self.stop_now(id, grace))
    }

    fn destroy<'a>(&'a self, id: &'a WorkloadId) -> BoxFuture<'a, Result<()>> {
        Box::pin(self.destroy_now(id))
    }

    fn list(&self) -> BoxFuture<'_, Result<Vec<(WorkloadId, Observed)>>> {
        Box::pin(self.list_now())
    }

    fn recover<'a>(&'a self, handle: &'a Handle) -> BoxFuture<'a, Result<Observed>> {
        Box::pin(self.recover_now(handle))
    }

    fn usage<'a>(&'a self, id: &'a WorkloadId) -> BoxFuture<'a, Result<Usage>> {
        Box::pin(self.usage_now(id))
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
