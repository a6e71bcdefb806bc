//! What a native workload costs beyond its program: time to start, memory of the shim.
//! Figures, not checks; printed by
//! `MARRAM_SHIM=target/release/marram-shim cargo test -p marram-native --test measure -- --ignored --nocapture`.

#![allow(clippy::unwrap_used, clippy::print_stderr, reason = "test code, and figures are its use")]

mod common;

use common::Place;
use marram_backend_api::conformance::Program;
use marram_backend_api::{Backend, Observed, Spec, WorkloadId};
use marram_native::NativeBackend;
use marram_shim::process;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

const ROUNDS: usize = 50;

fn median(mut all: Vec<Duration>) -> Duration {
    all.sort_unstable();
    all[all.len() / 2]
}

/// A line of `smaps_rollup` in KiB.
fn rollup(pid: u32, name: &str) -> u64 {
    let text = std::fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).unwrap();
    let line = text.lines().find(|line| line.starts_with(name)).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

#[tokio::test]
#[ignore = "prints figures, checks nothing"]
async fn cost_of_a_workload() {
    let mut place = Place::new();
    if let Some(shim) = std::env::var_os("MARRAM_SHIM") {
        place.config.shim = std::path::absolute(shim).unwrap();
    }
    let backend = NativeBackend::new(place.config.clone());
    let spec =
        Spec { args: vec!["1000".into()], image: "sleep".into(), ..common::spec(Program::Exit(0)) };
    let (mut bare, mut prepare, mut start, mut destroy) = (vec![], vec![], vec![], vec![]);
    for round in 0..ROUNDS {
        let began = Instant::now();
        let mut child =
            Command::new("/bin/sleep").arg("1000").stdout(Stdio::null()).spawn().unwrap();
        bare.push(began.elapsed());
        child.kill().unwrap();
        child.wait().unwrap();
        let id = WorkloadId::new(format!("m-{round}")).unwrap();
        let began = Instant::now();
        let handle = backend.prepare(&id, &spec).await.unwrap();
        prepare.push(began.elapsed());
        let began = Instant::now();
        backend.start(&handle).await.unwrap();
        start.push(began.elapsed());
        let began = Instant::now();
        backend.destroy(&id).await.unwrap();
        destroy.push(began.elapsed());
    }
    let [bare, prepare, start, destroy] = [bare, prepare, start, destroy].map(median);
    eprintln!(
        "median of {ROUNDS}: bare fork and exec {bare:?}, prepare {prepare:?}, \
               start {start:?}, destroy {destroy:?}"
    );
    let mut shims = Vec::new();
    for many in 0..10 {
        let id = WorkloadId::new(format!("p-{many}")).unwrap();
        let handle = backend.prepare(&id, &spec).await.unwrap();
        backend.start(&handle).await.unwrap();
        let Observed::Running { pid, .. } = backend.recover(&handle).await.unwrap() else {
            panic!()
        };
        shims.push((id, process::Stat::of(pid).unwrap().ppid));
        if many == 0 || many == 9 {
            let pid = shims[0].1;
            let private = rollup(pid, "Private_Dirty:") + rollup(pid, "Private_Clean:");
            eprintln!(
                "{} shims: PSS {} KiB, private {private} KiB, RSS {} KiB each",
                many + 1,
                rollup(pid, "Pss:"),
                rollup(pid, "Rss:")
            );
        }
    }
    for (id, _) in shims {
        backend.destroy(&id).await.unwrap();
    }
}
