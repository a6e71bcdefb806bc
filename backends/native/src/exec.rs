//! Starting a further program beside a workload's own: same cgroup, user and namespaces.
//!
//! The stage of the shim does the work, see `marram_shim::launch`. Its standard input is the
//! socket with the orders, so the program's own is named to it as a path.

use crate::backend::{NativeBackend, launch_error};
use crate::sessions::{self, Ends};
use crate::workload::io_error;
use marram_backend_api::{
    BoxFuture, Error, ErrorKind, Exec, ExecRequest, ExecSession, Result, WorkloadId,
};
use marram_shim::launch::{self, Orders, Program};
use marram_shim::process::Identity;
use rustix::fs::{Gid, OFlags, Uid};
use rustix::pty::{OpenptFlags, openpt};
use rustix::termios::{Winsize, tcsetwinsize};
use std::collections::BTreeMap;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::net::UnixStream as StdUnixStream;
use std::path::PathBuf;
use std::process::Stdio;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::net::unix::pipe;
use tokio::process::{Child, Command};

const DOING: &str = "starting the program";

/// Longest complaint of a stage that is read.
const COMPLAINT_BYTES_MAX: u64 = 64 * 1024;

impl NativeBackend {
    async fn exec_now(&self, id: &WorkloadId, request: &ExecRequest) -> Result<ExecSession> {
        let failed = io_error(DOING);
        let (workload, running) = self.running(id).await?;
        let spec = workload.spec().map_err(&failed)?;
        let Some(spec) = spec else {
            return Err(Error::new(ErrorKind::NotFound, DOING, format!("{id} is gone")));
        };
        if spec.group.as_ref().is_some_and(|group| group.is_freezing()) {
            let why = format!("{id} is paused");
            return Err(Error::new(ErrorKind::Transient, DOING, why));
        }
        let program = self.program(request, spec.program)?;
        let user = (program.uid, program.gid);
        let mut orders = Orders {
            program,
            group: spec.group,
            make_namespaces: false,
            enter_namespaces_of: spec.private_namespaces.then_some(running.process.pid),
            input: None,
            inherited_input: None,
            terminal: None,
            die_with: None,
        };
        let (ends, keep) = match request.terminal {
            Some((rows, columns)) => terminal(rows, columns, user, &mut orders),
            None => input_pipe(&mut orders),
        }
        .map_err(&failed)?;
        let mut child = self.stage(&orders).await?;
        // The program has its own by now.
        drop(keep);
        let ended = child.id().ok_or_else(|| failed(io::Error::other("it has no process id")))?;
        let identity = Identity::of(ended);
        sessions::session(child_ends(ends, &mut child).map_err(&failed)?, child, identity.ok())
    }

    fn program(&self, request: &ExecRequest, own: Program) -> Result<Program> {
        let Some(name) = request.argv.first() else {
            return Err(Error::new(ErrorKind::Invalid, DOING, "no program is named"));
        };
        let texts = request.argv.iter().chain(request.environment.iter().map(|(_, value)| value));
        let bad_name = |(name, _): &(String, String)| name.is_empty() || name.contains(['=', '\0']);
        if texts.into_iter().any(|text| text.contains('\0'))
            || request.environment.iter().any(bad_name)
        {
            return Err(Error::new(ErrorKind::Invalid, DOING, "a zero byte or a nameless value"));
        }
        let mut argv = request.argv.clone();
        argv[0] = crate::request::program_path(name, &self.config)?;
        let mut environment: BTreeMap<String, String> = own.environment.into_iter().collect();
        environment.extend(request.environment.iter().cloned());
        // Mounts are entered, not made.
        let (environment, mounts) = (environment.into_iter().collect(), Vec::new());
        Ok(Program { argv, environment, mounts, ..own })
    }

    /// Starts the stage and waits until it has become the program.
    async fn stage(&self, orders: &Orders) -> Result<Child> {
        let failed = io_error(DOING);
        let text = serde_json::to_vec(orders).map_err(|error| failed(error.into()))?;
        let (ours, theirs) = StdUnixStream::pair().map_err(&failed)?;
        ours.set_nonblocking(true).map_err(&failed)?;
        let mut ours = UnixStream::from_std(ours).map_err(&failed)?;
        let (out, err) = match orders.terminal {
            Some(_) => (Stdio::null(), Stdio::null()),
            None => (Stdio::piped(), Stdio::piped()),
        };
        let mut child = Command::new(&self.config.shim)
            .arg("child")
            .stdin(OwnedFd::from(theirs))
            .stdout(out)
            .stderr(err)
            .kill_on_drop(true)
            .spawn()
            .map_err(&failed)?;
        let mut said = Vec::new();
        match ours.write_all(&text).await {
            // It has died already, and may have said why.
            Err(error) if error.kind() != io::ErrorKind::BrokenPipe => return Err(failed(error)),
            _ => {}
        }
        match ours.shutdown().await {
            Err(error) if error.kind() != io::ErrorKind::NotConnected => return Err(failed(error)),
            _ => {}
        }
        ours.take(COMPLAINT_BYTES_MAX).read_to_end(&mut said).await.map_err(&failed)?;
        if let Err(error) = launch::outcome(&said) {
            child.wait().await.map_err(&failed)?;
            return Err(launch_error(&error));
        }
        Ok(child)
    }
}

/// A pipe as standard input. The read end stays open until the stage has opened it.
fn input_pipe(orders: &mut Orders) -> io::Result<(Ends, OwnedFd)> {
    let (read, write) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC)?;
    orders.input = Some(own_descriptor(&read));
    rustix::io::ioctl_fionbio(&write, true)?;
    Ok((Ends::Input(pipe::Sender::from_owned_fd(write)?), read))
}

fn own_descriptor(fd: &OwnedFd) -> PathBuf {
    format!("/proc/{}/fd/{}", std::process::id(), fd.as_raw_fd()).into()
}

/// A pseudo-terminal. Its far end stays open until the program has it, or reading would end
/// before it began.
fn terminal(
    rows: u16,
    columns: u16,
    (uid, gid): (u32, u32),
    orders: &mut Orders,
) -> io::Result<(Ends, OwnedFd)> {
    let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
    let near = openpt(flags)?;
    rustix::pty::grantpt(&near)?;
    rustix::pty::unlockpt(&near)?;
    let name = rustix::pty::ptsname(&near, Vec::new())?;
    let path = PathBuf::from(name.to_string_lossy().into_owned());
    let open = OFlags::RDWR | OFlags::NOCTTY | OFlags::CLOEXEC;
    let far = rustix::fs::open(&path, open, rustix::fs::Mode::empty())?;
    // So that the program may open it by name.
    rustix::fs::fchown(&far, Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)))?;
    tcsetwinsize(&near, size(rows, columns))?;
    rustix::io::ioctl_fionbio(&near, true)?;
    orders.terminal = Some(path);
    Ok((Ends::Terminal(near), far))
}

pub(crate) fn size(rows: u16, columns: u16) -> Winsize {
    Winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 }
}

/// Adds the outputs of a program without a terminal.
fn child_ends(ends: Ends, child: &mut Child) -> io::Result<Ends> {
    let Ends::Input(input) = ends else { return Ok(ends) };
    match (child.stdout.take(), child.stderr.take()) {
        (Some(out), Some(err)) => Ok(Ends::Pipes { input, out, err }),
        _ => Err(io::Error::other("it has no outputs")),
    }
}

impl Exec for NativeBackend {
    fn exec<'a>(
        &'a self,
        id: &'a WorkloadId,
        request: &'a ExecRequest,
    ) -> BoxFuture<'a, Result<ExecSession>> {
        Box::pin(self.exec_now(id, request))
    }
}
