//! Further programs in a running container.
//!
//! containerd's shim reads a program's input from a fifo and writes its outputs to others.
//! The fifos lie in the workload's folder and go when the session does.
//!
//! ```text
//!  ExecInput ──► in  ──► shim ──► program ──► shim ──► out, err ──► ExecOutput
//!                        └── exit ─────────────────────────────────┘
//! ```
//!
//! Invariant: however a session ends, also by its being dropped, the program is killed, its
//! record in containerd removed and its fifos too: [`Session`] does that when its last half
//! goes.

mod halves;

use crate::backend::{Containerd, Inner};
use crate::container;
use crate::rpc::{QUICK, RUNTIME, failed};
use crate::task;
use containerd_client::services::v1::{DeleteProcessRequest, ExecProcessRequest, StartRequest};
use containerd_client::types::v1::Status;
use halves::{Input, Output};
use marram_backend_api::{
    BoxFuture, Error, ErrorKind, Exec, ExecRequest, ExecSession, Exit, Result, WorkloadId,
};
use rustix::fs::{FileType, Mode};
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::net::unix::pipe;
use tokio::runtime::Handle;
use tokio::sync::watch;

/// Most words of a command; the kernel's own limit is on their bytes.
const ARGUMENTS_MAX: usize = 4096;

/// Type of a program's description, as containerd's own clients write it.
const PROCESS_TYPE: &str = "types.containerd.io/opencontainers/runtime-spec/1/Process";

/// How long a killed program may take to be gone before its record is removed anyhow.
const DYING: Duration = Duration::from_secs(30);

/// No program runs longer than this; waiting needs some number.
const FOR_EVER: Duration = Duration::from_secs(100 * 365 * 24 * 3600);

pub(crate) const DOING: &str = "running a program in the container";

impl Exec for Containerd {
    fn exec<'a>(
        &'a self,
        id: &'a WorkloadId,
        request: &'a ExecRequest,
    ) -> BoxFuture<'a, Result<ExecSession>> {
        Box::pin(exec(self.inner(), id, request))
    }
}

/// A program that was registered with containerd.
#[derive(Debug)]
pub(crate) struct Session {
    pub(crate) inner: Arc<Inner>,
    pub(crate) workload: WorkloadId,
    pub(crate) exec_id: String,
    folder: PathBuf,
    /// How it ended, once it has.
    exit: watch::Receiver<Option<Exit>>,
    runtime: Handle,
}

impl Session {
    /// How it ended, as soon as it has.
    pub(crate) async fn exit(&self) -> Result<Exit> {
        let mut exit = self.exit.clone();
        let ended = exit.wait_for(Option::is_some).await.ok().and_then(|exit| exit.clone());
        ended.ok_or_else(|| {
            Error::new(ErrorKind::Transient, DOING, "containerd does not tell how it ended")
        })
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        let (inner, id) = (self.inner.clone(), self.workload.clone());
        let (exec_id, folder) = (self.exec_id.clone(), self.folder.clone());
        let has_ended = self.exit.borrow().is_some();
        drop(self.runtime.spawn(async move {
            if let Err(error) = remove(&inner, &id, &exec_id, has_ended).await {
                tracing::debug!(error = error.chain(), "an exec was not removed");
            }
            if let Err(error) = std::fs::remove_dir_all(&folder) {
                tracing::debug!(%error, folder = %folder.display(), "fifos were not removed");
            }
        }));
    }
}

async fn remove(inner: &Inner, id: &WorkloadId, exec_id: &str, has_ended: bool) -> Result<()> {
    if !has_ended {
        task::kill(inner, id.as_str(), exec_id, task::KILL).await?;
        task::wait(inner, id.as_str(), exec_id, DYING).await?;
    }
    let request =
        DeleteProcessRequest { container_id: id.as_str().into(), exec_id: exec_id.into() };
    let request = inner.rpc.request(QUICK, request);
    let answer = inner.rpc.tasks().await?.delete_process(request).await;
    crate::rpc::found("removing an exec", answer).map(drop)
}

fn check(request: &ExecRequest) -> Result<()> {
    let invalid = |why: String| Err(Error::new(ErrorKind::Invalid, DOING, why));
    if request.argv.first().is_none_or(String::is_empty) || request.argv.len() > ARGUMENTS_MAX {
        return invalid(format!("{} words, 1 to {ARGUMENTS_MAX} are allowed", request.argv.len()));
    }
    let values = request.environment.iter().map(|(_, value)| value);
    if let Some(text) = request.argv.iter().chain(values).find(|text| text.contains('\0')) {
        return invalid(format!("{text:?} holds a zero byte"));
    }
    let bad = |key: &str| key.is_empty() || key.contains(['=', '\0']);
    match request.environment.iter().find(|(key, _)| bad(key)) {
        Some((key, _)) => invalid(format!("{key:?} is no name of a variable")),
        None => Ok(()),
    }
}

async fn exec(inner: &Arc<Inner>, id: &WorkloadId, request: &ExecRequest) -> Result<ExecSession> {
    check(request)?;
    let absent = || Error::new(ErrorKind::NotFound, DOING, format!("{id} does not run"));
    match task::get(inner, id).await?.map(|task| task.status()) {
        Some(Status::Running) => {}
        Some(Status::Paused | Status::Pausing) => {
            return Err(Error::new(ErrorKind::Transient, DOING, format!("{id} is paused")));
        }
        _ => return Err(absent()),
    }
    let container = container::get(inner, id).await?.ok_or_else(absent)?;
    let description = container.spec.map(|spec| spec.value).unwrap_or_default();
    let process = describe(&description, request)?;
    let exec_id = new_id();
    let fifos = Fifos::make(&inner.folder(id).join("exec").join(&exec_id))?;
    let outputs = fifos.open_outputs(request.terminal.is_some())?;
    // Keeps the shim's end of the input from being the only one until ours is open.
    let hold = fifos.hold_input()?;
    let session = begin(inner, id, exec_id, &fifos, process, request.terminal.is_some()).await?;
    let input = fifos.open_input()?;
    drop(hold);
    let mut input = Input::new(session.clone(), input, request.terminal.is_some());
    if let Some((rows, columns)) = request.terminal {
        input.set_size(rows, columns).await?;
    }
    let output = Output::new(session, outputs);
    Ok(ExecSession { input: Box::new(input), output: Box::new(output) })
}

/// The container's own program with another command. Read as plain JSON: nothing else has to
/// be understood, and reading all types of the specification links a regex engine.
fn describe(description: &[u8], request: &ExecRequest) -> Result<Vec<u8>> {
    let broken = |why: &str| Error::new(ErrorKind::Internal, DOING, why);
    let mut spec: Value = serde_json::from_slice(description)
        .map_err(|_| broken("the container's description cannot be read"))?;
    let process = spec.get_mut("process").and_then(Value::as_object_mut);
    let process = process.ok_or_else(|| broken("it describes no program"))?;
    process.insert("args".into(), request.argv.clone().into());
    process.insert("terminal".into(), request.terminal.is_some().into());
    let environment = process.entry("env").or_insert_with(|| Value::Array(Vec::new()));
    let environment =
        environment.as_array_mut().ok_or_else(|| broken("its environment is no list"))?;
    let terminal = request.terminal.map(|_| ("TERM".to_owned(), "xterm".to_owned()));
    for (key, value) in terminal.iter().chain(&request.environment) {
        let names = |entry: &Value| entry.as_str().and_then(|e| e.split('=').next()) == Some(key);
        environment.retain(|entry| !names(entry));
        environment.push(format!("{key}={value}").into());
    }
    serde_json::to_vec(&process).map_err(|_| broken("the program's description is no JSON"))
}

fn new_id() -> String {
    static COUNT: AtomicU64 = AtomicU64::new(0);
    let count = COUNT.fetch_add(1, Ordering::Relaxed);
    format!("exec-{}-{count}", crate::time::now_unix_ms())
}

/// Registers and starts the program, and begins to wait for its end.
async fn begin(
    inner: &Arc<Inner>,
    id: &WorkloadId,
    exec_id: String,
    fifos: &Fifos,
    process: Vec<u8>,
    terminal: bool,
) -> Result<Arc<Session>> {
    let path = |name: &str| fifos.folder.join(name).to_string_lossy().into_owned();
    let request = ExecProcessRequest {
        container_id: id.as_str().into(),
        stdin: path("in"),
        stdout: path("out"),
        stderr: if terminal { String::new() } else { path("err") },
        terminal,
        spec: Some(prost_types::Any { type_url: PROCESS_TYPE.into(), value: process }),
        exec_id: exec_id.clone(),
    };
    let (ended, exit) = watch::channel(None);
    let session = Arc::new(Session {
        inner: inner.clone(),
        workload: id.clone(),
        exec_id: exec_id.clone(),
        folder: fifos.folder.clone(),
        exit,
        runtime: Handle::current(),
    });
    let answer = inner.rpc.tasks().await?.exec(inner.rpc.request(RUNTIME, request)).await;
    answer.map_err(|status| failed(DOING, status))?;
    let request = StartRequest { container_id: id.as_str().into(), exec_id: exec_id.clone() };
    let answer = inner.rpc.tasks().await?.start(inner.rpc.request(RUNTIME, request)).await;
    answer.map_err(|status| failed(DOING, status))?;
    let (inner, id) = (inner.clone(), id.clone());
    drop(tokio::spawn(async move {
        match task::wait(&inner, id.as_str(), &exec_id, FOR_EVER).await {
            Ok(Some((status, at))) => {
                ended.send_replace(Some(task::exec_exit(status, at.as_ref())));
            }
            // The sender goes, and who waits is told that nothing is known.
            Ok(None) => {}
            Err(error) => tracing::debug!(error = error.chain(), "an exec's end is not known"),
        }
    }));
    Ok(session)
}

/// The three fifos of a session.
#[derive(Debug)]
struct Fifos {
    folder: PathBuf,
}

impl Fifos {
    fn make(folder: &Path) -> Result<Self> {
        std::fs::create_dir_all(folder).map_err(broken)?;
        let mode = Mode::RUSR | Mode::WUSR;
        for name in ["in", "out", "err"] {
            let path = folder.join(name);
            rustix::fs::mknodat(rustix::fs::CWD, path, FileType::Fifo, mode, 0)
                .map_err(|error| broken(error.into()))?;
        }
        Ok(Self { folder: folder.to_path_buf() })
    }

    fn open_outputs(&self, terminal: bool) -> Result<[Option<pipe::Receiver>; 2]> {
        let open = |name| pipe::OpenOptions::new().open_receiver(self.folder.join(name));
        let error = if terminal { None } else { Some(open("err").map_err(broken)?) };
        Ok([Some(open("out").map_err(broken)?), error])
    }

    fn hold_input(&self) -> Result<pipe::Sender> {
        let mut options = pipe::OpenOptions::new();
        options.read_write(true).open_sender(self.folder.join("in")).map_err(broken)
    }

    fn open_input(&self) -> Result<Option<pipe::Sender>> {
        match pipe::OpenOptions::new().open_sender(self.folder.join("in")) {
            Ok(sender) => Ok(Some(sender)),
            // Nobody reads any more: the program has ended already.
            Err(error) if error.raw_os_error() == Some(rustix::io::Errno::NXIO.raw_os_error()) => {
                Ok(None)
            }
            Err(error) => Err(broken(error)),
        }
    }
}

pub(crate) fn broken(error: std::io::Error) -> Error {
    let kind = match error.kind() {
        std::io::ErrorKind::StorageFull => ErrorKind::Exhausted,
        _ => ErrorKind::Internal,
    };
    Error::caused(kind, DOING, "its fifos cannot be used", error)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn the_program_stays_as_it_is_but_for_command_and_environment() {
        let own = json!({
            "args": ["nginx"], "cwd": "/srv", "env": ["A=1", "PATH=/bin", "odd"],
            "user": {"uid": 33, "gid": 33}, "noNewPrivileges": true, "unheard": [1]
        });
        let description = json!({"ociVersion": "1.0.2", "process": own}).to_string();
        let request = ExecRequest {
            argv: vec!["sh".into(), "-c".into()],
            environment: vec![("A".into(), "2=3".into())],
            terminal: Some((24, 80)),
        };
        let described = describe(description.as_bytes(), &request).expect("a process");
        let described: Value = serde_json::from_slice(&described).expect("JSON");
        let mut expected = own;
        expected["args"] = json!(["sh", "-c"]);
        expected["terminal"] = json!(true);
        expected["env"] = json!(["PATH=/bin", "odd", "TERM=xterm", "A=2=3"]);
        assert_eq!(described, expected);
        for bad in ["", "{}", r#"{"process": 1}"#, r#"{"process": {"env": 1}}"#] {
            assert!(describe(bad.as_bytes(), &request).is_err(), "{bad}");
        }
    }
}
