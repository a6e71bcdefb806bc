//! The stage between a fork and the program: it sets itself up, then becomes the program.
//!
//! Why a stage that is executed: what has to be done between fork and exec needs unsafe code
//! if it is done in the forked copy of another program, and plain safe calls if it is done
//! by a program of its own. The stage keeps its process id when it becomes the program.
//!
//! ```text
//!  parent                          marram-shim child              program
//!    │ fork, exec ───────────────────► │
//!    │ orders, on a socket as stdin ─► │ cgroup, namespaces, user, …
//!    │ ◄──────────── error ─────────── │ (something failed: code 127)
//!    │ ◄──── end of file ────────────── exec ─────────────────────► │
//! ```
//!
//! Invariant: the socket closes by itself when the program begins, so the parent knows
//! whether it did.

use crate::cgroup::Group;
use rustix::fs::{Mode, OFlags};
use rustix::mount::{MountFlags, MountPropagationFlags};
use rustix::process::{Gid, Pid, Signal, Uid};
use rustix::thread::{CapabilitySet, CapabilitySets, LinkNameSpaceType};
use serde::{Deserialize, Serialize};
use std::fs::File;
use std::io::{self, Read, Write};
use std::net::Shutdown;
use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};
use std::os::unix::net::UnixStream;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitCode, Stdio};

/// Largest orders or error that are read.
const MESSAGE_BYTES_MAX: u64 = 4 << 20;

/// Highest capability that may exist: the kernel's sets have 64 bits.
const CAPABILITIES_MAX: u32 = 64;

/// Exit code of a stage that did not become its program, as shells have it.
const NOT_STARTED: u8 = 127;

/// What to become and with which rights.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Program {
    /// Absolute path, then the arguments.
    pub argv: Vec<String>,
    /// The whole environment.
    pub environment: Vec<(String, String)>,
    /// Where it starts.
    pub working_dir: PathBuf,
    /// User id.
    pub uid: u32,
    /// Group id.
    pub gid: u32,
    /// Further group ids.
    pub groups: Vec<u32>,
    /// Capabilities that are kept, one bit each; 0 unless the user is root.
    #[serde(default)]
    pub capabilities: u64,
    /// Host paths made visible elsewhere; needs a private mount namespace.
    #[serde(default)]
    pub mounts: Vec<Bind>,
}

/// A host path that is visible elsewhere too.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Bind {
    /// On the host.
    pub source: PathBuf,
    /// Where; must exist.
    pub target: PathBuf,
    /// No writes.
    pub read_only: bool,
}

/// Orders for a stage.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Orders {
    /// What to become.
    pub program: Program,
    /// Where to be counted.
    pub group: Option<Group>,
    /// The process-id namespace is new and the mount namespace is to be.
    #[serde(default)]
    pub make_namespaces: bool,
    /// The process whose mount and process-id namespaces are to be entered.
    #[serde(default)]
    pub enter_namespaces_of: Option<u32>,
    /// Standard input, a path like `/proc/PID/fd/N`; `None` is empty input.
    #[serde(default)]
    pub input: Option<PathBuf>,
    /// Standard input as an inherited descriptor, for a stage that another stage starts.
    #[serde(default)]
    pub inherited_input: Option<i32>,
    /// A terminal for all three, and the controlling one.
    #[serde(default)]
    pub terminal: Option<PathBuf>,
    /// Die when the parent dies.
    #[serde(default)]
    pub die_with: Option<u32>,
}

/// Why a program was not started.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{doing}: {message}")]
pub struct LaunchError {
    /// The step.
    pub doing: String,
    /// The system's words.
    pub message: String,
    /// The system's number, 0 if none.
    pub errno: i32,
}

impl LaunchError {
    /// A failed step.
    pub fn new(doing: impl Into<String>, error: &io::Error) -> Self {
        Self {
            doing: doing.into(),
            message: error.to_string(),
            errno: error.raw_os_error().unwrap_or(0),
        }
    }

    /// A file or folder does not exist.
    pub fn is_not_found(&self) -> bool {
        let not_found = [rustix::io::Errno::NOENT, rustix::io::Errno::NOTDIR];
        not_found.iter().any(|errno| errno.raw_os_error() == self.errno)
    }

    /// It exists and may not be, or cannot be, executed by this user.
    pub fn is_refused(&self) -> bool {
        let refused =
            [rustix::io::Errno::ACCESS, rustix::io::Errno::PERM, rustix::io::Errno::NOEXEC];
        refused.iter().any(|errno| errno.raw_os_error() == self.errno)
    }
}

/// The parent's side: starts `command` (a `marram-shim child` whose outputs are set) as a
/// stage with these orders. The socket says how it went, see [`outcome`].
pub fn begin(mut command: Command, orders: &Orders) -> Result<(Child, UnixStream), LaunchError> {
    let failed = |error: io::Error| LaunchError::new("starting the stage", &error);
    let text = serde_json::to_vec(orders).map_err(|error| failed(error.into()))?;
    let (mut ours, theirs) = UnixStream::pair().map_err(failed)?;
    let child = command.stdin(Stdio::from(OwnedFd::from(theirs))).spawn().map_err(failed)?;
    // The command holds the other end, which must be the child's alone.
    drop(command);
    // A stage that died while we wrote says so by its end.
    let written = ours.write_all(&text).and_then(|()| ours.shutdown(Shutdown::Write));
    match written {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(failed(error)),
        _ => Ok((child, ours)),
    }
}

/// What the stage said before it closed: nothing if the program began.
pub fn outcome(said: &[u8]) -> Result<(), LaunchError> {
    if said.is_empty() {
        return Ok(());
    }
    Err(serde_json::from_slice(said).unwrap_or_else(|error| LaunchError {
        doing: "starting the stage".into(),
        message: format!("it said what is no error: {error}"),
        errno: 0,
    }))
}

/// Blocks until the program has begun or has failed to.
pub fn await_outcome(socket: UnixStream) -> Result<(), LaunchError> {
    let mut said = Vec::new();
    socket
        .take(MESSAGE_BYTES_MAX)
        .read_to_end(&mut said)
        .map_err(|error| LaunchError::new("hearing from the stage", &error))?;
    outcome(&said)
}

/// The whole of `marram-shim child`: returns only if the program was not started, or was
/// started by a second stage inside other namespaces.
pub fn stage() -> ExitCode {
    let socket = match rustix::io::fcntl_dupfd_cloexec(rustix::stdio::stdin(), 3) {
        Ok(socket) => UnixStream::from(socket),
        Err(_) => return ExitCode::from(NOT_STARTED),
    };
    let error = match orders(&socket).and_then(|orders| become_program(orders, &socket)) {
        Ok(code) => return code,
        Err(error) => error,
    };
    if let Ok(text) = serde_json::to_vec(&error) {
        // The parent may be gone; then nobody wants to know.
        drop((&socket).write_all(&text));
    }
    ExitCode::from(NOT_STARTED)
}

fn orders(socket: &UnixStream) -> Result<Orders, LaunchError> {
    let mut text = Vec::new();
    let read = socket.take(MESSAGE_BYTES_MAX).read_to_end(&mut text);
    read.and_then(|_| serde_json::from_slice(&text).map_err(io::Error::from))
        .map_err(|error| LaunchError::new("reading the orders", &error))
}

/// Names the step in the error.
fn step<T, E: Into<io::Error>>(
    doing: &'static str,
    result: Result<T, E>,
) -> Result<T, LaunchError> {
    result.map_err(|error| LaunchError::new(doing, &error.into()))
}

fn become_program(orders: Orders, socket: &UnixStream) -> Result<ExitCode, LaunchError> {
    let keep = [Some(socket.as_raw_fd()), orders.inherited_input];
    step("closing what it inherited", close_others(&keep))?;
    if let Some(group) = &orders.group {
        step("joining the cgroup", group.join())?;
    }
    if let Some(pid) = orders.enter_namespaces_of {
        return enter(orders, pid, socket);
    }
    if orders.make_namespaces {
        step("making a mount namespace", make_mounts(&orders.program.mounts))?;
    }
    // A stage that leads its group already (never so today) keeps its session.
    step("making a session", rustix::process::setsid())?;
    step("opening its input", standard_streams(&orders))?;
    // The shim is kept from the kernel's out-of-memory killer, its program is not.
    step("setting the out-of-memory score", std::fs::write("/proc/self/oom_score_adj", "0"))?;
    rustix::process::umask(Mode::from_raw_mode(0o022));
    // The shim blocks some, and a mask is inherited.
    step("unblocking signals", nix::sys::signal::SigSet::empty().thread_set_mask())?;
    let program = &orders.program;
    step("dropping rights", drop_rights(program))?;
    step("entering its working directory", rustix::process::chdir(&program.working_dir))?;
    if let Some(parent) = orders.die_with {
        step("binding it to its parent", die_with(parent))?;
    }
    let Some((path, arguments)) = program.argv.split_first() else {
        return Err(LaunchError::new("executing it", &io::ErrorKind::InvalidInput.into()));
    };
    let mut command = Command::new(path);
    command.args(arguments).env_clear().envs(program.environment.iter().cloned());
    Err(LaunchError::new(format!("executing {path}"), &command.exec()))
}

/// A process-id namespace takes effect for children only: a second stage goes in and this
/// one stays to say how it ended.
fn enter(orders: Orders, pid: u32, socket: &UnixStream) -> Result<ExitCode, LaunchError> {
    // The path means something only out here, where the parent's descriptors can be seen.
    let input = match &orders.input {
        Some(path) => Some(step("opening its input", inheritable(path))?),
        None => None,
    };
    for (name, kind) in [("pid", LinkNameSpaceType::ProcessID), ("mnt", LinkNameSpaceType::Mount)] {
        let link = step("opening a namespace", File::open(format!("/proc/{pid}/ns/{name}")))?;
        let moved = rustix::thread::move_into_link_name_space(link.as_fd(), Some(kind));
        step("entering a namespace", moved)?;
    }
    let inner = Orders {
        enter_namespaces_of: None,
        group: None,
        input: None,
        inherited_input: input.as_ref().map(AsRawFd::as_raw_fd),
        // Seen from inside, the parent is outside and has no id.
        die_with: Some(0),
        ..orders
    };
    let mut command = Command::new("/proc/self/exe");
    command.arg("child");
    let (mut child, inner_socket) = begin(command, &inner)?;
    await_outcome(inner_socket)?;
    drop(input);
    // Only now: the parent takes the end of file for "it runs".
    step("telling the parent", socket.shutdown(Shutdown::Both))?;
    let status = step("waiting for it", child.wait())?;
    if let Some(signal) = status.signal().and_then(Signal::from_named_raw) {
        // Ends this process the same way; SIGKILL for what cannot end one here.
        let own = rustix::process::getpid();
        step("ending like it", rustix::process::kill_process(own, signal))?;
        step("ending like it", rustix::process::kill_process(own, Signal::KILL))?;
    }
    let code = status.code().and_then(|code| u8::try_from(code).ok());
    Ok(ExitCode::from(code.unwrap_or(NOT_STARTED)))
}

fn inheritable(path: &Path) -> io::Result<OwnedFd> {
    let file = rustix::fs::open(path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?;
    rustix::io::fcntl_setfd(&file, rustix::io::FdFlags::empty())?;
    Ok(file)
}

/// Mounts of our own that nobody else sees.
fn make_mounts(binds: &[Bind]) -> io::Result<()> {
    nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNS)?;
    let private = MountPropagationFlags::PRIVATE | MountPropagationFlags::REC;
    rustix::mount::mount_change("/", private)?;
    // The new process-id namespace needs its own view of processes.
    let safe = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
    rustix::mount::mount("proc", "/proc", "proc", safe, None)?;
    for bind in binds {
        // Not what is mounted below the source: read-only would not reach it.
        rustix::mount::mount_bind(&bind.source, &bind.target)?;
        let mut flags = MountFlags::BIND | MountFlags::NOSUID | MountFlags::NODEV;
        if bind.read_only {
            flags |= MountFlags::RDONLY;
        }
        rustix::mount::mount_remount(&bind.target, flags, "")?;
    }
    Ok(())
}

/// Closes what the engine's own parent left open: it is none of the program's.
pub(crate) fn close_others(keep: &[Option<RawFd>]) -> io::Result<()> {
    let mut others = Vec::new();
    for entry in std::fs::read_dir("/proc/self/fd")? {
        let number = entry?.file_name().to_str().and_then(|name| name.parse::<RawFd>().ok());
        others.extend(number.filter(|number| *number > 2 && !keep.contains(&Some(*number))));
    }
    for number in others {
        match nix::unistd::close(number) {
            // The directory that was read.
            Ok(()) | Err(nix::errno::Errno::EBADF) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

fn standard_streams(orders: &Orders) -> io::Result<()> {
    let open = |path: &Path, flags| rustix::fs::open(path, flags | OFlags::CLOEXEC, Mode::empty());
    if let Some(path) = &orders.terminal {
        let terminal = open(path, OFlags::RDWR | OFlags::NOCTTY)?;
        rustix::process::ioctl_tiocsctty(&terminal)?;
        rustix::stdio::dup2_stdin(&terminal)?;
        rustix::stdio::dup2_stdout(&terminal)?;
        rustix::stdio::dup2_stderr(&terminal)?;
        return Ok(());
    }
    if let Some(number) = orders.inherited_input {
        let path = format!("/proc/self/fd/{number}");
        rustix::stdio::dup2_stdin(open(Path::new(&path), OFlags::RDONLY)?)?;
        return Ok(nix::unistd::close(number)?);
    }
    let input = orders.input.as_deref().unwrap_or(Path::new("/dev/null"));
    Ok(rustix::stdio::dup2_stdin(open(input, OFlags::RDONLY)?)?)
}

/// Leaves root, for ever. The order matters: each step needs rights that a later one takes.
fn drop_rights(program: &Program) -> io::Result<()> {
    let keep = CapabilitySet::from_bits_retain(program.capabilities);
    for bit in 0..CAPABILITIES_MAX {
        let capability = CapabilitySet::from_bits_retain(1 << bit);
        if keep.contains(capability) {
            continue;
        }
        match rustix::thread::remove_capability_from_bounding_set(capability) {
            // Above what this kernel knows.
            Err(rustix::io::Errno::INVAL) => break,
            other => other?,
        }
    }
    let groups: Vec<Gid> = program.groups.iter().copied().map(Gid::from_raw).collect();
    let (uid, gid) = (Uid::from_raw(program.uid), Gid::from_raw(program.gid));
    rustix::thread::set_thread_groups(&groups)?;
    rustix::thread::set_thread_res_gid(gid, gid, gid)?;
    rustix::thread::set_thread_res_uid(uid, uid, uid)?;
    rustix::thread::clear_ambient_capability_set()?;
    let sets =
        CapabilitySets { effective: keep, permitted: keep, inheritable: CapabilitySet::empty() };
    rustix::thread::set_capabilities(None, sets)?;
    Ok(rustix::thread::set_no_new_privs(true)?)
}

/// SIGKILL when the parent ends, even if it has ended before this call.
fn die_with(parent: u32) -> io::Result<()> {
    rustix::process::set_parent_process_death_signal(Some(Signal::KILL))?;
    let now = rustix::process::getppid().map_or(0, Pid::as_raw_pid);
    if u32::try_from(now) == Ok(parent) {
        return Ok(());
    }
    Err(io::Error::other("the parent has ended"))
}
