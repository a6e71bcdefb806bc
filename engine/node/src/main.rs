//! `marram-node`: the node engine.
//!
//! Parses, locks the state, starts the shell, turns signals into orders. Exit codes: 0 ended
//! as ordered, 64 usage or configuration, 1 anything else.

use anyhow::{Context, bail};
use clap::{Parser, Subcommand};
use marram_node::config::Config;
use marram_node::shell::{Order, Shell, random};
use marram_protocol::id::ChildId;
use rustix::fs::{FlockOperation, flock};
use rustix::process::{Pid, Signal, kill_process};
use std::fs::{File, OpenOptions};
use std::io::{Read, Seek, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

/// Exit code for a command line or a configuration that cannot be used.
const USAGE: u8 = 64;

/// What threads that use the disk may take at the end.
const SHUTDOWN_TIME_MAX: Duration = Duration::from_secs(2);

/// Marram's node engine: runs workloads on this machine as its cluster desires.
///
/// It opens no port unless `coordinates.listen` names one. SIGTERM and SIGINT end it and leave workloads running; SIGUSR1 stops
/// all workloads first, as `marram-node drain` does.
#[derive(Debug, Parser)]
#[command(version)]
struct Arguments {
    /// Configuration, TOML.
    #[arg(long, value_name = "FILE", default_value = "/etc/marram/node.toml")]
    config: PathBuf,
    /// What is logged to standard error: error, warn, info, debug or trace.
    #[arg(long, env = "MARRAM_LOG", default_value = "info", value_name = "LEVEL")]
    log: LevelFilter,
    /// Written once the node knows its backends.
    #[arg(long, value_name = "FILE")]
    ready_file: Option<PathBuf>,
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Subcommand)]
enum Command {
    /// Run the engine (what it does without a command).
    Run,
    /// Stop all workloads and end; they start again with the engine.
    Drain,
}

fn main() -> ExitCode {
    let arguments = match Arguments::try_parse() {
        Ok(arguments) => arguments,
        Err(error) => {
            let code = if error.use_stderr() { USAGE } else { 0 };
            // Without a terminal to print to there is nobody to tell.
            return if error.print().is_ok() { code.into() } else { USAGE.into() };
        }
    };
    let targets = Targets::new().with_default(arguments.log);
    tracing_subscriber::registry()
        .with(tracing_subscriber::fmt::layer().with_writer(std::io::stderr).with_ansi(false))
        .with(targets)
        .init();
    let config = match Config::read(&arguments.config) {
        Ok(config) => config,
        Err(error) => {
            let error = anyhow::Error::from(error);
            tracing::error!("{error:#}");
            return USAGE.into();
        }
    };
    match run(arguments, config) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!("{error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: Arguments, config: Config) -> anyhow::Result<()> {
    private_dir(&config.state_dir)?;
    private_dir(&config.runtime_dir)?;
    let drain = arguments.command == Some(Command::Drain);
    let lock = if drain { lock_after_drain(&config)? } else { lock(&config)? };
    let node = identity(&config.state_dir)?;
    let shim = match config.shim.clone() {
        Some(shim) => shim,
        None => std::env::current_exe()?.with_file_name("marram-shim"),
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let result = runtime.block_on(async {
        let (give, orders) = watch::channel(if drain { Order::Drain } else { Order::Run });
        let shell = Shell::open(config, shim, node, arguments.ready_file)?;
        let mut terminate = signal(SignalKind::terminate())?;
        let mut interrupt = signal(SignalKind::interrupt())?;
        let mut usr1 = signal(SignalKind::user_defined1())?;
        let mut running = std::pin::pin!(shell.run(orders));
        loop {
            tokio::select! {
                result = &mut running => return result,
                _ = terminate.recv() => give.send_replace(Order::Stop),
                _ = interrupt.recv() => give.send_replace(Order::Stop),
                _ = usr1.recv() => give.send_replace(Order::Drain),
            };
        }
    });
    // A thread may hang in a read or write of a broken disk; nobody needs what it brings.
    runtime.shutdown_timeout(SHUTDOWN_TIME_MAX);
    drop(lock);
    result
}

fn private_dir(path: &Path) -> anyhow::Result<()> {
    std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o711)
        .create(path)
        .with_context(|| format!("{} cannot be made", path.display()))
}

/// The file that one engine holds while it lives; it tells its process id.
fn lock_file(config: &Config) -> anyhow::Result<File> {
    let path = config.state_dir.join("engine.lock");
    OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(&path)
        .with_context(|| format!("{} cannot be opened", path.display()))
}

fn claim(mut file: File) -> anyhow::Result<File> {
    file.set_len(0)?;
    file.rewind()?;
    writeln!(file, "{}", std::process::id())?;
    Ok(file)
}

fn lock(config: &Config) -> anyhow::Result<File> {
    let file = lock_file(config)?;
    if flock(&file, FlockOperation::NonBlockingLockExclusive).is_err() {
        bail!("another engine works with {}", config.state_dir.display());
    }
    claim(file)
}

/// Has a running engine drain and end, and takes its place: what it could not stop is
/// stopped here.
fn lock_after_drain(config: &Config) -> anyhow::Result<File> {
    let mut file = lock_file(config)?;
    if flock(&file, FlockOperation::NonBlockingLockExclusive).is_err() {
        let mut text = String::new();
        file.read_to_string(&mut text)?;
        let pid = text.trim().parse().ok().and_then(Pid::from_raw);
        let pid = pid.context("the running engine has not told its process id")?;
        kill_process(pid, Signal::USR1).context("the running engine cannot be told to drain")?;
        flock(&file, FlockOperation::LockExclusive)?;
    }
    claim(file)
}

/// The node's id: drawn at its first start, kept for ever.
fn identity(state_dir: &Path) -> anyhow::Result<ChildId> {
    let path = state_dir.join("id");
    match std::fs::read_to_string(&path) {
        Ok(text) => text.trim().parse().with_context(|| format!("{} holds no id", path.display())),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            let (a, b) = (random()?.to_be_bytes(), random()?.to_be_bytes());
            let mut bytes = [0; 12];
            bytes[..8].copy_from_slice(&a);
            bytes[8..].copy_from_slice(&b[..4]);
            let id = ChildId(bytes);
            let draft = path.with_extension("new");
            let mut file = File::create(&draft)?;
            writeln!(file, "{id}")?;
            file.sync_all()?;
            std::fs::rename(&draft, &path)?;
            File::open(state_dir)?.sync_all()?;
            Ok(id)
        }
        Err(error) => Err(error).with_context(|| format!("{} cannot be read", path.display())),
    }
}
