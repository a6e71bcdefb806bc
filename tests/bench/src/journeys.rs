//! From a request at the root to its event there, beside the bare thing.
//!
//! A journey and its baseline take turns, so that both meet the same load.

use crate::events::{Seen, Watch};
use crate::gauges::process_with;
use crate::progress;
use crate::scenes::{self, Deployed, IMAGE};
use crate::stats::{Times, repeat};
use crate::table::{Promise, Table};
use anyhow::{Context, ensure};
use marram_e2e::{Api, Site, Stack};
use rustix::process::{Pid, Signal, kill_process};
use std::fs::File;
use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

const NATIVE_COUNT: usize = 40;
/// Rounds stop here on a slow machine, so that the whole bench stays within minutes.
const NATIVE_TIME_MAX: Duration = Duration::from_secs(30);

const CONTAINER_COUNT: usize = 15;
/// As for native programs; a container takes ten times as long.
const CONTAINER_TIME_MAX: Duration = Duration::from_secs(50);

/// A folder that no disk is behind.
const MEMORY: &str = "/dev/shm";

/// Namespace in containerd for the baseline, so that the node does not see its containers.
const NAMESPACE: &str = "baseline";

pub(crate) fn measure(table: &mut Table, site: &Site, stack: &Stack) -> anyhow::Result<()> {
    progress("native processes");
    let on_disk = native(site)?;
    let in_memory = native(&Site::start_in(Path::new(MEMORY), "[containerd]\nenabled = false\n")?)?;
    tell_native(table, &on_disk, &in_memory);
    progress("containers, beside ctr run");
    let api = site.api()?;
    containers(table, &api, &Watch::start(&api)?, stack)
}

/// A request for one more instance, until it is seen running; tells which.
fn request(api: &Api, watch: &Watch, service: &str) -> anyhow::Result<(String, Duration)> {
    let began = Instant::now();
    let instance = scenes::one_more(api, service)?;
    let seen = watch.until("running", |seen| seen.is(&instance, "running"))?;
    Ok((instance, seen.at.duration_since(began)))
}

fn remove(api: &Api, watch: &Watch, instance: &str) -> anyhow::Result<Duration> {
    let began = Instant::now();
    let status = api.delete(&format!("/api/v1/instances/{instance}"))?;
    ensure!(status == 202, "removing {instance}: {status}");
    let seen = watch.until("its end", |seen| seen.is_end_of(instance))?;
    Ok(seen.at.duration_since(began))
}

/// Deploys a service and takes away its first instance: what is needed once is there then.
fn only_service(api: &Api, watch: &Watch, service: serde_json::Value) -> anyhow::Result<String> {
    let Deployed { services, instances } = scenes::deploy(api, &[service])?;
    for instance in &instances {
        remove(api, watch, instance)?;
    }
    services.into_iter().next().context("one service")
}

/// What native processes took on one site.
#[derive(Debug, Default)]
struct Native {
    bare: Times,
    bare_exit: Times,
    journey: Times,
    exit: Times,
    end: Times,
    durable: Times,
}

impl Native {
    fn over_ms(&self) -> f64 {
        self.journey.median_ms() - self.bare.median_ms()
    }
}

fn native(site: &Site) -> anyhow::Result<Native> {
    let api = site.api()?;
    let watch = Watch::start(&api)?;
    let command = ["/bin/sleep", "4801"];
    let service = only_service(&api, &watch, scenes::native("native", command))?;
    let mut native = Native::default();
    repeat("native processes", NATIVE_COUNT, NATIVE_TIME_MAX, |_| {
        native.durable.push(durable_write(site)?);
        let began = Instant::now();
        let mut child = Command::new(command[0]).arg("4802").stdin(Stdio::null()).spawn()?;
        native.bare.push(began.elapsed());
        let began = Instant::now();
        child.kill()?;
        child.wait()?;
        native.bare_exit.push(began.elapsed());

        let (instance, took) = request(&api, &watch, &service)?;
        native.journey.push(took);
        let pid = i32::try_from(process_with(&command)?)?;
        let pid = Pid::from_raw(pid).context("a process id")?;
        let began = Instant::now();
        kill_process(pid, Signal::KILL)?;
        let exited = |seen: &Seen| seen.of(&instance) && !seen.value["exit"].is_null();
        let seen = watch.until("its exit", exited)?;
        native.exit.push(seen.at.duration_since(began));
        native.end.push(remove(&api, &watch, &instance)?);
        Ok(())
    })?;
    scenes::remove_all(&api)?;
    Ok(native)
}

/// One small write that outlives a power cut: what the site's disk takes at least for each.
fn durable_write(site: &Site) -> anyhow::Result<Duration> {
    let mut file = File::create(site.folder().join("durable"))?;
    let began = Instant::now();
    file.write_all(&[0; 512])?;
    file.sync_all()?;
    Ok(began.elapsed())
}

fn tell_native(table: &mut Table, on_disk: &Native, in_memory: &Native) {
    let Native { bare, bare_exit, journey, exit, end, durable } = on_disk;
    let over = on_disk.over_ms();
    table.promised(
        Promise {
            what: "request to running, native process, three tiers, loopback",
            budget: "≤ 15 ms median over bare fork and exec",
            known: "",
        },
        &[(over, 15.0)],
        format!(
            "{over:.1} ms over ({:.1} ms, at most {:.1}; bare {:.2} ms; ratio {:.0}; {} times); \
             {:.1} ms over with state in memory",
            journey.median_ms(),
            journey.most_ms(),
            bare.median_ms(),
            journey.median_ms() / bare.median_ms(),
            journey.count(),
            in_memory.over_ms(),
        ),
    );
    table.noted(
        "one durable write (512 bytes, `fsync`) on the same disk in the same run",
        format!("{:.1} ms, at most {:.1}", durable.median_ms(), durable.most_ms()),
    );
    table.noted(
        "exit of a process to its event at the root",
        format!(
            "{:.1} ms, at most {:.1} (bare kill and wait {:.2} ms; {} times)",
            exit.median_ms(),
            exit.most_ms(),
            bare_exit.median_ms(),
            exit.count(),
        ),
    );
    table.noted(
        "removal of an instance that waits for its restart to its event at the root",
        format!("{:.1} ms, at most {:.1}", end.median_ms(), end.most_ms()),
    );
}

fn containers(table: &mut Table, api: &Api, watch: &Watch, stack: &Stack) -> anyhow::Result<()> {
    let command = ["sleep", "4803"];
    let service = only_service(api, watch, scenes::container("container", command))?;
    let baseline = Baseline::pull(stack)?;
    let (mut bare, mut journey, mut end) = (Times::default(), Times::default(), Times::default());
    repeat("containers", CONTAINER_COUNT, CONTAINER_TIME_MAX, |at| {
        bare.push(baseline.run(&format!("bench-{at}"))?);
        let (instance, took) = request(api, watch, &service)?;
        journey.push(took);
        end.push(remove(api, watch, &instance)?);
        Ok(())
    })?;
    scenes::remove_all(api)?;
    let ratio = journey.median_ms() / bare.median_ms();
    table.promised(
        Promise {
            what: "request to running, container, image present",
            budget: "≤ 1.15 × `ctr run` of the same image in the same run",
            known: "Ankaios 515 ms",
        },
        &[(ratio, 1.15)],
        format!(
            "{ratio:.2} × ({:.0} ms beside {:.0} ms; {} times)",
            journey.median_ms(),
            bare.median_ms(),
            journey.count(),
        ),
    );
    table.noted(
        "removal of a running container to its event at the root",
        format!("{:.0} ms, at most {:.0}", end.median_ms(), end.most_ms()),
    );
    Ok(())
}

/// `ctr` with the same image in the same containerd.
struct Baseline<'a> {
    stack: &'a Stack,
    image: String,
}

impl<'a> Baseline<'a> {
    fn pull(stack: &'a Stack) -> anyhow::Result<Self> {
        let path = IMAGE.strip_prefix("docker.io/").context("an image of docker.io")?;
        let image = format!("{}/{path}", stack.registry);
        let baseline = Self { stack, image };
        baseline.ctr(&["images", "pull", "--plain-http", &baseline.image])?;
        Ok(baseline)
    }

    fn ctr(&self, arguments: &[&str]) -> anyhow::Result<()> {
        let output = Command::new("ctr")
            .args(["--address", &self.stack.containerd, "--namespace", NAMESPACE])
            .args(arguments)
            .output()?;
        let error = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "ctr {arguments:?}: {error}");
        Ok(())
    }

    /// Runs a container, tells how long its start took, and removes it.
    fn run(&self, name: &str) -> anyhow::Result<Duration> {
        let began = Instant::now();
        self.ctr(&["run", "--detach", &self.image, name, "sleep", "4804"])?;
        let took = began.elapsed();
        self.ctr(&["tasks", "rm", "--force", name])?;
        self.ctr(&["containers", "rm", name])?;
        Ok(took)
    }
}
