//! The contract's lifecycle on containerd's containers and tasks.
//!
//! What a verb has to expect is anything that a verb before it left half done; see the order
//! of things in [`crate::container`].

use crate::backend::{Inner, digest, whole};
use crate::image::info::Image;
use crate::image::reference::Reference;
use crate::rpc::{QUICK, RUNTIME, failed, found, made};
use crate::{container, leaked, metrics, task, validate, watch};
use containerd_client::services::v1::{
    CreateTaskRequest, ListTasksRequest, MetricsRequest, ResumeTaskRequest, StartRequest,
};
use containerd_client::types::v1::{Process, Status};
use marram_backend_api::{
    Error, ErrorKind, Event, Exit, ExitReason, Handle, Observed, Result, Spec, Usage, WorkloadId,
};
use std::collections::BTreeMap;
use std::os::unix::fs::DirBuilderExt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

/// Layout of a handle's state.
const HANDLE_VERSION: u16 = 1;

/// How long a killed program may take to be gone: it may hang in a slow device's driver.
const DYING: Duration = Duration::from_secs(30);

/// How often, and how far apart, a start is tried again while containerd still takes away
/// what a start of before left.
const START_TRIES: u32 = 100;
const START_WAIT: Duration = Duration::from_millis(100);

/// How often a shim that does not start is tried again, with the pause above, and what
/// containerd says of it. It has one folder for a task's name, and after an engine was killed in
/// the middle of a start it removes that folder while the next start already uses it: before the
/// shim, before the root file system is mounted, or before the runtime writes its own log.
const SHIM_TRIES: u32 = 30;
const NO_SHIM: &str = "failed to start shim";
const NO_FOLDER: [&str; 2] =
    ["/rootfs: no such file or directory", "/log.json: no such file or directory"];

/// What containerd says while that folder is still to be removed; tried again as often as a start
/// that is being taken away, since containerd gives itself seconds for it.
const OLD_FOLDER: &str = ": file exists";

/// Whether what failed is still being taken away for a start of before, at this try.
fn is_in_the_way(error: &Error, number: u32) -> bool {
    let tries = match &error.why {
        why if why.contains(OLD_FOLDER) => START_TRIES,
        why if why.contains(NO_SHIM) => SHIM_TRIES,
        why if NO_FOLDER.iter().any(|text| why.contains(text)) => SHIM_TRIES,
        _ => 0,
    };
    number <= tries
}

/// How often, and how far apart, a folder is removed again into which something was written
/// meanwhile: the marram-shim of a shim that was just ended has its last words to write.
const FOLDER_TRIES: u32 = 100;
const FOLDER_WAIT: Duration = Duration::from_millis(10);

/// What the engine keeps for us.
#[derive(Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
struct State {
    /// Digest of the specification.
    spec: String,
    log_bytes_max: u64,
}

fn handle(id: &WorkloadId, spec: &Spec) -> Result<Handle> {
    let state = State { spec: digest(spec), log_bytes_max: spec.log_bytes_max };
    let state = serde_json::to_vec(&state).map_err(|error| {
        Error::caused(ErrorKind::Internal, "making the handle", "it is no JSON", error)
    })?;
    Ok(Handle { workload: id.clone(), version: HANDLE_VERSION, state })
}

fn state(handle: &Handle) -> Result<State> {
    let fail = |why: String| Error::new(ErrorKind::Invalid, "reading the handle", why);
    if handle.version != HANDLE_VERSION {
        let why = format!("layout {}, only {HANDLE_VERSION} is known", handle.version);
        return Err(fail(why));
    }
    serde_json::from_slice(&handle.state).map_err(|error| fail(error.to_string()))
}

fn io(doing: &'static str, error: std::io::Error) -> Error {
    let kind = match error.kind() {
        std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded => ErrorKind::Exhausted,
        _ => ErrorKind::Internal,
    };
    Error::caused(kind, doing, "the workload's folder cannot be used", error)
}

/// See [`marram_backend_api::Backend::prepare`].
pub(crate) async fn prepare(inner: &Arc<Inner>, id: &WorkloadId, spec: &Spec) -> Result<Handle> {
    validate::validate(inner, spec)?;
    let reference = Reference::parse(&spec.image)?;
    let guard = inner.lock(id).await;
    let known = container::get(inner, id).await?;
    if let Some(known) = &known {
        container::same(known, spec)?;
        // Started once, it needs nothing of what follows, perhaps not even its image.
        if inner.started(id).is_some() {
            return handle(id, spec);
        }
        clear_the_way(inner, id).await?;
    }
    let progress = |done, all| inner.listener.push(Event::Progress(id.clone(), done, all));
    let image = inner.images.ensure(&inner.rpc, &inner.config, &reference, &progress).await?;
    let record = match known {
        Some(_) => None,
        None => {
            let name = reference.to_string();
            Some(container::record(inner, id, spec, &name, &image).await?)
        }
    };
    let (owned, key) = (inner.clone(), id.clone());
    let (guard, complete) = whole({
        let image = image.clone();
        async move {
            if let Some(record) = record {
                container::create(&owned, record).await?;
            }
            let complete = create_rest(&owned, &key, &image).await?;
            Ok((guard, complete))
        }
    })
    .await?;
    if !complete {
        // Somebody removed the image's snapshots: they are made again of what is there.
        let image = inner.images.pull(&inner.rpc, &inner.config, &reference, &progress).await?;
        let (owned, key) = (inner.clone(), id.clone());
        let complete = whole(async move {
            let _guard = guard;
            create_rest(&owned, &key, &image).await
        });
        if !complete.await? {
            let why = format!("{reference} vanished while it was used");
            return Err(Error::new(ErrorKind::Transient, "making the root file system", why));
        }
    }
    handle(id, spec)
}

/// Snapshot and folder. `false`: the image is not unpacked.
async fn create_rest(inner: &Inner, id: &WorkloadId, image: &Image) -> Result<bool> {
    if !container::create_root(inner, id, image).await? {
        return Ok(false);
    }
    // Output may hold secrets: for our eyes only.
    let made = std::fs::DirBuilder::new().recursive(true).mode(0o700).create(inner.log(id));
    made.map_err(|error| io("making the workload's folder", error))?;
    Ok(true)
}

/// An engine before this one may have been killed while it started this: containerd then takes
/// away what it had begun, and a start that comes too early is given the shim that goes.
async fn clear_the_way(inner: &Inner, id: &WorkloadId) -> Result<()> {
    match task::get(inner, id).await? {
        None => leaked::end(inner, id).await,
        Some(_) => Ok(()),
    }
}

/// See [`marram_backend_api::Backend::start`].
pub(crate) async fn start(inner: &Arc<Inner>, handle: &Handle) -> Result<Handle> {
    let state = state(handle)?;
    watch::live(inner).await?;
    let guard = inner.lock(&handle.workload).await;
    let (inner, id) = (inner.clone(), handle.workload.clone());
    whole(async move {
        let _guard = guard;
        started(&inner, &id, &state).await
    })
    .await?;
    Ok(handle.clone())
}

async fn started(inner: &Inner, id: &WorkloadId, state: &State) -> Result<()> {
    const DOING: &str = "starting the container";
    for number in 1..=START_TRIES {
        if inner.started(id).is_none() {
            match create_task(inner, id, state).await {
                Ok(Some(pid)) => return start_task(inner, id, pid).await,
                Ok(None) => {}
                Err(error) if is_in_the_way(&error, number) => {
                    tracing::debug!(error = error.chain(), number, "trying the shim again");
                }
                Err(error) => return Err(error),
            }
        }
        let task = task::get(inner, id).await?;
        let pid = task.as_ref().map_or(0, |task| task.pid);
        match task.as_ref().map(Process::status) {
            Some(Status::Created) => return start_task(inner, id, pid).await,
            Some(Status::Running | Status::Paused | Status::Pausing) => return Ok(()),
            Some(Status::Stopped) => {
                let why = format!("{id} has ended; destroy and prepare it to run it again");
                return Err(Error::new(ErrorKind::Invalid, DOING, why));
            }
            None if inner.started(id).is_some() => {
                let why = match container::get(inner, id).await? {
                    Some(_) => (ErrorKind::Invalid, "has ended, and its task is gone"),
                    None => (ErrorKind::NotFound, "is not there"),
                };
                return Err(Error::new(why.0, DOING, format!("{id} {}", why.1)));
            }
            // A start of before that was cut off is still being taken away.
            Some(Status::Unknown) | None => tokio::time::sleep(START_WAIT).await,
        }
    }
    let why = format!("{id} neither starts nor goes away");
    Err(Error::new(ErrorKind::Transient, DOING, why))
}

/// Makes the task, whose first process is held at its first instruction. `None`: there is one.
async fn create_task(inner: &Inner, id: &WorkloadId, state: &State) -> Result<Option<u32>> {
    const DOING: &str = "creating the task";
    let request = marram_shim::driver::Request {
        log: inner.log(id),
        bytes_max: state.log_bytes_max,
        exit: Some(inner.folder(id)),
        memory_counter: Some(inner.cgroups.memory_counter(&inner.cgroup(id))),
    };
    let output = request.uri(&inner.config.shim_path).map_err(|error| {
        Error::caused(ErrorKind::Invalid, DOING, "the output has no place", error)
    })?;
    let request = CreateTaskRequest {
        container_id: id.as_str().into(),
        rootfs: container::mounts(inner, id).await?,
        stdout: output.clone(),
        stderr: output,
        ..Default::default()
    };
    let answer = inner.rpc.tasks().await?.create(inner.rpc.request(RUNTIME, request)).await;
    Ok(made(DOING, answer)?.map(|answer| answer.into_inner().pid))
}

async fn start_task(inner: &Inner, id: &WorkloadId, pid: u32) -> Result<()> {
    inner.mark_started(id, pid).map_err(|error| io("starting the container", error))?;
    let request = StartRequest { container_id: id.as_str().into(), exec_id: String::new() };
    let answer = inner.rpc.tasks().await?.start(inner.rpc.request(RUNTIME, request)).await;
    let Err(status) = answer else { return Ok(()) };
    let error = failed("starting the container", status);
    // It may have started all the same, and ended.
    if let Some(task) = task::get(inner, id).await?
        && task.status() == Status::Created
        && let Err(error) = remove_created(inner, id).await
    {
        tracing::debug!(error = error.chain(), "a task that does not start stays for now");
    }
    Err(error)
}

/// Removes a task that never ran. Some runtimes cannot kill such a one, all can delete it.
async fn remove_created(inner: &Inner, id: &WorkloadId) -> Result<()> {
    let killed = task::kill(inner, id.as_str(), "", task::KILL).await;
    if killed.is_ok() {
        task::wait(inner, id.as_str(), "", DYING).await?;
    }
    task::delete(inner, id).await?;
    inner.unmark_started(id).map_err(|error| io("starting the container", error))
}

const LOST: Exit = Exit { reason: ExitReason::Lost, at_unix_ms: 0 };

/// See [`marram_backend_api::Backend::stop`].
pub(crate) async fn stop(inner: &Arc<Inner>, id: &WorkloadId, grace: Duration) -> Result<Exit> {
    // Waits for a start that is still on its way, and lets a destroy come in between.
    drop(inner.lock(id).await);
    let Some(task) = task::get(inner, id).await? else { return Ok(gone(inner, id)) };
    match task.status() {
        Status::Created => return Ok(LOST),
        Status::Stopped => return Ok(ended(inner, id, task.exit_status, task.exited_at)),
        Status::Running | Status::Paused | Status::Pausing | Status::Unknown => {}
    }
    let container = container::get(inner, id).await?;
    let name = container.as_ref().and_then(|one| one.labels.get(container::SIGNAL_LABEL));
    let signal = task::signal_number(name.map(String::as_str));
    resume_to_die(inner, id, task.status()).await?;
    task::kill(inner, id.as_str(), "", signal).await?;
    if let Some((status, at)) = task::wait(inner, id.as_str(), "", grace).await? {
        return Ok(ended(inner, id, status, at));
    }
    match kill_and_wait(inner, id).await? {
        Some((status, at)) => Ok(ended(inner, id, status, at)),
        None => Ok(gone(inner, id)),
    }
}

fn gone(inner: &Inner, id: &WorkloadId) -> Exit {
    inner.started(id).map_or(LOST, |started| task::gone(inner, id, started))
}

fn ended(
    inner: &Arc<Inner>,
    id: &WorkloadId,
    status: u32,
    at: Option<prost_types::Timestamp>,
) -> Exit {
    inner.finish_log(id);
    task::exit(inner, id, status, at.as_ref())
}

/// A frozen program takes no signal, on cgroup v1 not even the last one, and some runtimes
/// refuse to send any.
async fn resume_to_die(inner: &Inner, id: &WorkloadId, status: Status) -> Result<()> {
    if !matches!(status, Status::Paused | Status::Pausing) {
        return Ok(());
    }
    let request = ResumeTaskRequest { container_id: id.as_str().into() };
    let answer = inner.rpc.tasks().await?.resume(inner.rpc.request(RUNTIME, request)).await;
    let Err(error) = found("resuming the container", answer) else { return Ok(()) };
    // Somebody else may have thawed or killed it meanwhile.
    let now = task::get(inner, id).await?.map(|task| task.status());
    match now {
        Some(Status::Paused | Status::Pausing) => Err(error),
        _ => Ok(()),
    }
}

type Ended = (u32, Option<prost_types::Timestamp>);

async fn kill_and_wait(inner: &Inner, id: &WorkloadId) -> Result<Option<Ended>> {
    let Some(task) = task::get(inner, id).await? else { return Ok(None) };
    if task.status() != Status::Stopped {
        resume_to_die(inner, id, task.status()).await?;
        task::kill(inner, id.as_str(), "", task::KILL).await?;
    }
    if let Some(ended) = task::wait(inner, id.as_str(), "", DYING).await? {
        return Ok(Some(ended));
    }
    if task::get(inner, id).await?.is_none() {
        return Ok(None);
    }
    let why = format!("{id} was killed and is not gone after {DYING:?}");
    Err(Error::new(ErrorKind::Transient, "killing the container", why))
}

/// See [`marram_backend_api::Backend::destroy`].
pub(crate) async fn destroy(inner: &Arc<Inner>, id: &WorkloadId) -> Result<()> {
    let guard = inner.lock(id).await;
    let (inner, id) = (inner.clone(), id.clone());
    whole(async move {
        let _guard = guard;
        destroyed(&inner, &id).await
    })
    .await
}

async fn destroyed(inner: &Inner, id: &WorkloadId) -> Result<()> {
    match task::get(inner, id).await?.map(|task| task.status()) {
        None => leaked::end(inner, id).await?,
        Some(Status::Created) => remove_created(inner, id).await?,
        Some(_) => {
            kill_and_wait(inner, id).await?;
            task::delete(inner, id).await?;
        }
    }
    container::remove_root(inner, id).await?;
    remove_folder(&inner.folder(id)).await?;
    container::remove(inner, id).await?;
    drop(inner.take_mounts(id));
    inner.listener.forget(id.as_str());
    Ok(())
}

/// Removes a workload's folder with all that is in it.
async fn remove_folder(folder: &Path) -> Result<()> {
    let mut tries = FOLDER_TRIES;
    loop {
        tries -= 1;
        match std::fs::remove_dir_all(folder) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
            Err(error) if error.kind() == std::io::ErrorKind::DirectoryNotEmpty && tries > 0 => {
                tokio::time::sleep(FOLDER_WAIT).await;
            }
            other => return other.map_err(|error| io("removing the workload's folder", error)),
        }
    }
}

/// See [`marram_backend_api::Backend::list`].
pub(crate) async fn list(inner: &Arc<Inner>) -> Result<Vec<(WorkloadId, Observed)>> {
    const DOING: &str = "listing tasks";
    let ids = container::list(inner).await?;
    let request = inner.rpc.request(QUICK, ListTasksRequest { filter: String::new() });
    let answer = inner.rpc.tasks().await?.list(request).await;
    let tasks = answer.map_err(|status| failed(DOING, status))?.into_inner().tasks;
    let by_id: BTreeMap<&str, &Process> =
        tasks.iter().map(|task| (task.id.as_str(), task)).collect();
    let seen = |id: WorkloadId| {
        let seen = task::observed(inner, &id, by_id.get(id.as_str()).copied());
        (id, seen)
    };
    Ok(ids.into_iter().map(seen).collect())
}

/// See [`marram_backend_api::Backend::recover`].
pub(crate) async fn recover(inner: &Arc<Inner>, handle: &Handle) -> Result<Observed> {
    let id = &handle.workload;
    let state = match state(handle) {
        Ok(state) => state,
        Err(error) => return Ok(Observed::Unknown(error.chain())),
    };
    // Before the look, so that an exit after it is heard.
    watch::live(inner).await?;
    drop(inner.lock(id).await);
    let Some(container) = container::get(inner, id).await? else { return Ok(Observed::Absent) };
    if container.labels.get(container::SPEC_LABEL) != Some(&state.spec) {
        let why = format!("the container {id} was made of another specification");
        return Ok(Observed::Unknown(why));
    }
    let task = task::get(inner, id).await?;
    let seen = task::observed(inner, id, task.as_ref());
    match seen {
        Observed::Exited(_) => inner.finish_log(id),
        Observed::Prepared => clear_the_way(inner, id).await?,
        _ => {}
    }
    Ok(seen)
}

/// See [`marram_backend_api::Backend::usage`].
pub(crate) async fn usage(inner: &Arc<Inner>, id: &WorkloadId) -> Result<Usage> {
    const DOING: &str = "measuring the container";
    let absent = || Error::new(ErrorKind::NotFound, DOING, format!("{id} does not run"));
    let task = task::get(inner, id).await?.ok_or_else(absent)?;
    if !matches!(task.status(), Status::Running | Status::Paused | Status::Pausing) {
        return Err(absent());
    }
    let filters = vec![format!("id==\"{id}\"")];
    let request = inner.rpc.request(QUICK, MetricsRequest { filters });
    let answer = inner.rpc.tasks().await?.metrics(request).await;
    let all = answer.map_err(|status| failed(DOING, status))?.into_inner().metrics;
    let data = all.into_iter().find(|one| one.id == id.as_str()).and_then(|one| one.data);
    metrics::usage(&data.ok_or_else(absent)?)
}
