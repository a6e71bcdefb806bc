//! The program `marram-root`.

use anyhow::Context;
use clap::Parser;
use marram_root::auth::ROUNDS;
use marram_root::config::Config;
use marram_root::root::Root;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use tokio::signal::unix::{SignalKind, signal};
use tracing_subscriber::filter::LevelFilter;

/// Wrong arguments or configuration, as in BSD's sysexits.
const EXIT_USAGE: u8 = 64;

/// Could not start, or could not go on.
const EXIT_FAILED: u8 = 1;

/// The root of a Marram installation: takes applications from operators and hands them to
/// clusters.
#[derive(Parser)]
#[command(name = "marram-root", version)]
struct Arguments {
    /// Configuration in TOML.
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
    /// Written once the root serves, with its addresses as key=value lines.
    #[arg(long, value_name = "PATH")]
    ready_file: Option<PathBuf>,
    /// What is logged: error, warn, info, debug or trace.
    #[arg(long, env = "MARRAM_LOG", default_value = "info", value_name = "LEVEL")]
    log: LevelFilter,
}

fn main() -> ExitCode {
    let arguments = match Arguments::try_parse() {
        Ok(arguments) => arguments,
        Err(error) => {
            // Help and version are no errors. If nobody can read it there is nothing to do.
            drop(error.print());
            return if error.use_stderr() { EXIT_USAGE.into() } else { ExitCode::SUCCESS };
        }
    };
    tracing_subscriber::fmt().with_max_level(arguments.log).with_writer(std::io::stderr).init();
    let config = match Config::read(&arguments.config) {
        Ok(config) => config,
        Err(error) => return fail(EXIT_USAGE, &error.into()),
    };
    match serve(&config, arguments.ready_file.as_deref()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => fail(EXIT_FAILED, &error),
    }
}

fn fail(code: u8, error: &anyhow::Error) -> ExitCode {
    // With all causes, on one line, whatever is logged.
    let line = format!("marram-root: {error:#}\n");
    drop(std::io::Write::write_all(&mut std::io::stderr(), line.as_bytes()));
    code.into()
}

fn serve(config: &Config, ready_file: Option<&Path>) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        // Passwords are hashed one at a time.
        .max_blocking_threads(1)
        .build()
        .context("cannot start the runtime")?;
    runtime.block_on(async {
        let mut terminate = signal(SignalKind::terminate())?;
        let mut interrupt = signal(SignalKind::interrupt())?;
        let root = Root::bind(config, ROUNDS).await?;
        let (listen, tunnel_listen) = (root.listen(), root.tunnel_listen());
        tracing::info!(%listen, %tunnel_listen, version = env!("CARGO_PKG_VERSION"), "serving");
        if let Some(path) = root.new_password() {
            tracing::info!("made user Admin; its password is in {}", path.display());
        }
        if let Some(path) = ready_file {
            write_ready(path, &format!("listen={listen}\ntunnel_listen={tunnel_listen}\n"))
                .with_context(|| format!("cannot write {}", path.display()))?;
        }
        let stop = async {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
            }
        };
        root.run(stop).await?;
        Ok(())
    })
}

/// Whole or not at all, since somebody waits for it to appear.
fn write_ready(path: &Path, text: &str) -> std::io::Result<()> {
    let mut new = path.as_os_str().to_owned();
    new.push(".new");
    std::fs::write(&new, text)?;
    std::fs::rename(&new, path)
}
