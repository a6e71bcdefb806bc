//! `marram`, the operator's command: reads the command line, runs one command, ends with a code.
//!
//! Why a client of its own protocol only: whatever it can do, any other client of the root can
//! do as well. `up` and `down` are the exception: they run the three programs on this machine.
//!
//! Invariant: results go to standard output, everything else to standard error; the exit code is
//! one of [`exit`].

mod apply;
mod args;
mod client;
mod commands;
mod config;
mod error;
mod events;
mod exec;
mod exit;
mod explain;
mod instance;
mod names;
mod operate;
mod problem;
mod progress;
mod server;
mod site;
mod socket;
mod sse;
mod table;
mod terminal;
mod text;
mod ui;
mod view;
mod wait;

use std::process::ExitCode;

use clap::{CommandFactory, Parser};

use crate::args::{Cli, Command, Global};
use crate::client::Client;
use crate::config::Config;
use crate::error::Error;
use crate::ui::Ui;

fn main() -> ExitCode {
    // Clap ends the process itself: 0 for help, 2 for a wrong command line.
    let cli = Cli::parse();
    let ui = Ui { format: cli.global.output, quiet: cli.global.quiet };
    match run(ui, &cli) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            if !error.is_silent() {
                ui.complain(&format!("error: {error}"));
            }
            ExitCode::from(error.code())
        }
    }
}

fn run(ui: Ui, cli: &Cli) -> Result<(), Error> {
    if cli.global.cluster.is_some() && !cli.command.is_for_clusters() {
        return Err(Error::Usage(
            "a cluster does not know that command; ask the root, without --cluster".into(),
        ));
    }
    let client = || client(&cli.global);
    match &cli.command {
        Command::Up(args) => site::up(ui, &cli.global, args),
        Command::Down(args) => site::down(ui, &cli.global, args),
        Command::Login(args) => commands::login(ui, &client()?, args),
        Command::Apply(args) => apply::run(ui, &client()?, args),
        Command::Get { kind, foreign } => commands::get(ui, &client()?, *kind, *foreign),
        Command::Describe { kind, name } => commands::describe(ui, &client()?, *kind, name),
        Command::Scale(args) => operate::scale(ui, &client()?, args),
        Command::Cordon(args) => operate::run(ui, &client()?, "cordon", args),
        Command::Uncordon(args) => operate::run(ui, &client()?, "uncordon", args),
        Command::Drain(args) => operate::run(ui, &client()?, "drain", args),
        Command::Forget(args) => operate::run(ui, &client()?, "forget", args),
        Command::Rebalance(args) => operate::run(ui, &client()?, "rebalance", args),
        Command::Adopt { child } => operate::adopt(ui, &client()?, child),
        Command::Delete(args) => commands::delete(ui, &client()?, args),
        Command::Logs(args) => commands::logs(ui, &client()?, args),
        Command::Exec(args) => exec::run(ui, &client()?, args),
        Command::Version { client: true } => commands::version(ui, None),
        Command::Version { client: false } => commands::version(ui, Some(&client()?)),
        Command::Completions { shell } => {
            let mut script = Vec::new();
            clap_complete::generate(*shell, &mut Cli::command(), "marram", &mut script);
            ui.print_bytes(&script)
        }
    }
}

fn client(global: &Global) -> Result<Client, Error> {
    if let Some(given) = &global.cluster {
        return Ok(Client::of_cluster(socket::find(given.as_deref())));
    }
    Client::new(Config::load(global.config.as_deref())?, global.server.as_deref())
}
