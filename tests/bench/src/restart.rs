//! Start-up of each program, and of a node with workloads that must not notice.

use crate::events::Watch;
use crate::progress;
use crate::scenes;
use crate::stats::{Times, repeat};
use crate::table::{Promise, Table};
use anyhow::ensure;
use marram_e2e::{Site, Tier};
use std::collections::BTreeSet;
use std::fs;
use std::time::{Duration, Instant};

/// Of each kind; the budget is for both together.
const WORKLOADS: usize = 10;

const RESTARTS: usize = 5;
/// Rounds stop here on a slow machine, so that the whole bench stays within minutes.
const RESTARTS_TIME_MAX: Duration = Duration::from_secs(30);

const NATIVE: [&str; 2] = ["/bin/sleep", "4805"];
const CONTAINER: [&str; 2] = ["sleep", "4806"];

pub(crate) fn measure(table: &mut Table, site: &mut Site) -> anyhow::Result<()> {
    progress("stopping and starting a node with workloads");
    with_workloads(table, site)?;
    progress("starting each program");
    let mut medians = Vec::new();
    for tier in [Tier::Node, Tier::Cluster, Tier::Root] {
        let mut times = Times::default();
        repeat("starts", RESTARTS, RESTARTS_TIME_MAX, |_| {
            site.stop(tier)?;
            let began = Instant::now();
            site.start_one(tier)?;
            times.push(began.elapsed());
            Ok(())
        })?;
        medians.push(format!("{:.0}", times.median_ms()));
    }
    table.noted(
        "start until ready: node / cluster / root",
        format!("{} ms, asked for every 5 ms", medians.join(" / ")),
    );
    Ok(())
}

fn with_workloads(table: &mut Table, site: &mut Site) -> anyhow::Result<()> {
    let api = site.api()?;
    let services = [scenes::native("n", NATIVE), scenes::container("c", CONTAINER)];
    let deployed = scenes::deploy(&api, &services)?;
    for service in &deployed.services {
        for _ in 1..WORKLOADS {
            scenes::one_more(&api, service)?;
        }
    }
    let count = 2 * WORKLOADS;
    scenes::calmly("all to run", || api.all_are("running", count).then_some(()))?;
    table.noted(
        "memory of a process's or container's shim, with 20 of them",
        crate::idle::shims(site)?,
    );
    let before = workloads()?;
    ensure!(before.len() == count, "{} of {count} workloads", before.len());
    let watch = Watch::start(&api)?;
    let mut times = Times::default();
    repeat("restarts", RESTARTS, RESTARTS_TIME_MAX, |_| {
        site.stop(Tier::Node)?;
        all_seen(&watch, "unknown", count)?;
        let began = Instant::now();
        site.start_one(Tier::Node)?;
        times.push(all_seen(&watch, "running", count)?.duration_since(began));
        Ok(())
    })?;
    let touched = before.difference(&workloads()?).count();
    scenes::remove_all(&api)?;
    let median = times.median_ms();
    table.promised(
        Promise {
            what: "engine stopped and started with 20 workloads",
            budget: "0 workloads touched; ≤ 300 ms until all are known",
            known: "",
        },
        &[(f64::from(u32::try_from(touched)?), 0.0), (median, 300.0)],
        format!(
            "{touched} touched; {median:.0} ms, at most {:.0} ({} times, half of them containers)",
            times.most_ms(),
            times.count(),
        ),
    );
    Ok(())
}

/// Waits until each of so many instances was seen in a state; tells when the last was.
fn all_seen(watch: &Watch, state: &str, count: usize) -> anyhow::Result<Instant> {
    let mut seen = BTreeSet::new();
    loop {
        let event = watch.until(state, |event| event.value["state"] == state)?;
        seen.extend(event.value["instance_id"].as_str().map(str::to_owned));
        if seen.len() == count {
            return Ok(event.at);
        }
    }
}

/// Process ids and start times of the workloads, inside containers too.
fn workloads() -> anyhow::Result<BTreeSet<(String, String)>> {
    let lines = [NATIVE, CONTAINER].map(|[program, argument]| format!("{program}\0{argument}\0"));
    let mut found = BTreeSet::new();
    for entry in fs::read_dir("/proc")?.flatten() {
        // Processes that end meanwhile are none of ours.
        let line = fs::read_to_string(entry.path().join("cmdline")).unwrap_or_default();
        let Ok(stat) = fs::read_to_string(entry.path().join("stat")) else { continue };
        let started = stat.rsplit_once(')').and_then(|(_, rest)| rest.split_whitespace().nth(19));
        if let Some(started) = started.filter(|_| lines.contains(&line)) {
            found.insert((entry.file_name().to_string_lossy().into_owned(), started.to_owned()));
        }
    }
    Ok(found)
}
