//! The program `marram-cluster`: reads its configuration, runs the cluster, ends on a signal.

use anyhow::Context;
use clap::Parser;
use marram_cluster::config::Config;
use marram_cluster::{Ready, run};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use tokio::signal::unix::{SignalKind, signal};
use tracing::level_filters::LevelFilter;

/// The configuration or the command line is wrong.
const EXIT_USAGE: u8 = 64;

/// Something needed is not there.
const EXIT_INIT: u8 = 1;

/// Marram's cluster orchestrator: places instances on its nodes.
#[derive(Debug, Parser)]
#[command(name = "marram-cluster", version)]
struct Args {
    /// Configuration file (TOML).
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
    /// Written once nodes can connect, with the bound addresses as key=value lines.
    #[arg(long, value_name = "PATH")]
    ready_file: Option<PathBuf>,
    /// What is logged: error, warn, info, debug or trace.
    #[arg(long, env = "MARRAM_LOG", default_value = "info", value_name = "LEVEL")]
    log: LevelFilter,
}

fn main() -> ExitCode {
    let args = match Args::try_parse() {
        Ok(args) => args,
        Err(error) => {
            // Help and version are no errors; if nobody takes the text there is no other way.
            drop(error.print());
            return if error.use_stderr() { EXIT_USAGE.into() } else { ExitCode::SUCCESS };
        }
    };
    tracing_subscriber::fmt().with_writer(std::io::stderr).with_max_level(args.log).init();
    let config = match Config::read(&args.config) {
        Ok(config) => config,
        Err(error) => {
            tracing::error!("{error}");
            return EXIT_USAGE.into();
        }
    };
    match start(config, args.ready_file) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!("{error:#}");
            EXIT_INIT.into()
        }
    }
}

fn start(config: Config, ready_file: Option<PathBuf>) -> anyhow::Result<()> {
    // One thread is enough for a site, and takes the least memory.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let mut terminate = signal(SignalKind::terminate())?;
        let mut interrupt = signal(SignalKind::interrupt())?;
        let stop = async {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
            }
            tracing::info!("ending");
        };
        let ready = |ready: Ready| {
            if let Some(path) = &ready_file
                && let Err(error) = write_ready(path, &ready)
            {
                tracing::error!(path = %path.display(), "the ready file: {error:#}");
            }
        };
        run(config, ready, stop).await?;
        Ok(())
    })
}

/// Written aside and renamed, so that who waits for it never reads half of it.
fn write_ready(path: &Path, ready: &Ready) -> anyhow::Result<()> {
    let line = |key: &str, address: Option<SocketAddr>| {
        address.map(|address| format!("{key}={address}\n")).unwrap_or_default()
    };
    let text =
        line("mqtt_listen", ready.mqtt_listen) + &line("children_listen", ready.children_listen);
    let mut aside = path.as_os_str().to_owned();
    aside.push(".new");
    std::fs::write(&aside, text).context("cannot be written")?;
    std::fs::rename(&aside, path).context("cannot be put in its place")?;
    Ok(())
}
