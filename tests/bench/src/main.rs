//! Measures what docs/SPECIFICATION.md promises, on real sites of this machine.
//!
//! Prints a table with the budget beside each figure. Times are compared with a bare baseline
//! taken in between, in the same run, since another machine or another load would shift both.
//! What is repeated is bounded in number and in time; the whole run takes about eight minutes.
//!
//! Programs are those beside this one, so `--release` measures the release build. Needs root
//! rights and what `make setup` installs; everything listens on loopback and goes away again.

#![allow(clippy::print_stdout, clippy::print_stderr, reason = "printing is what it is for")]

mod crowd;
mod day;
mod events;
mod gauges;
mod idle;
mod journeys;
mod mqtt;
mod placement;
mod puppet;
mod restart;
mod scenes;
mod stats;
mod table;

use clap::Parser;
use marram_e2e::{Site, Stack};
use std::time::Instant;
use table::Table;

/// Measures what docs/SPECIFICATION.md promises.
#[derive(Debug, Parser)]
struct Arguments {
    /// Print the rows of the table in docs/SPECIFICATION.md instead of a table for terminals.
    #[arg(long)]
    markdown: bool,
    /// Measure these parts only: sizes, placement, day, idle, journeys,
    /// restart, crowd.
    parts: Vec<String>,
}

fn main() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    let wanted = |part: &str| {
        arguments.parts.is_empty() || arguments.parts.iter().any(|wanted| wanted == part)
    };
    let began = Instant::now();
    let mut table = Table::default();
    if wanted("placement") {
        placement::measure(&mut table)?;
    }
    if wanted("day") {
        day::measure(&mut table)?;
    }
    if wanted("sizes") {
        gauges::sizes(&mut table)?;
    }
    if ["idle", "journeys", "restart"].into_iter().any(wanted) {
        on_a_site(&mut table, wanted)?;
    }
    if wanted("crowd") {
        crowd::measure(&mut table)?;
    }
    eprintln!("took {} s", began.elapsed().as_secs());
    print!("{}", if arguments.markdown { table.markdown() } else { table.text() });
    Ok(())
}

/// What is measured on one node with a containerd.
fn on_a_site(table: &mut Table, wanted: impl Fn(&str) -> bool) -> anyhow::Result<()> {
    progress("starting a containerd, a registry, a root, a cluster and a node");
    let stack = Stack::start()?;
    let mut site = Site::start(&stack.node_config())?;
    if wanted("idle") {
        idle::measure(table, &site)?;
    }
    if wanted("journeys") {
        journeys::measure(table, &site, &stack)?;
    }
    if wanted("restart") {
        restart::measure(table, &mut site)?;
    }
    Ok(())
}

/// Says on standard error what takes time now; standard output is for the table.
fn progress(what: &str) {
    eprintln!("marram-bench: {what}");
}
