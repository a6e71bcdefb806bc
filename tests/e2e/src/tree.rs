//! A tree of real programs, each on a machine of its own in a [`Net`].
//!
//! Why beside the site: a site is one of each on loopback, started by most tests; here links
//! are cut, machines lose their power, and children go to other parents.

#![allow(clippy::print_stderr, reason = "tests tell what went wrong on standard error")]

use crate::{Api, Net, Tier, programs, wait_for};
use anyhow::Context;
use rustix::io::Errno;
use rustix::process::{Pid, Signal, kill_process};
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

/// Ports are free on machines of their own.
const REST_PORT: u16 = 10_000;
const TUNNEL_PORT: u16 = 10_001;
const MQTT_PORT: u16 = 10_003;

/// A machine and what is to run on it.
#[derive(Debug, Clone, Copy)]
pub struct Place {
    /// Its name, and its program's.
    pub name: &'static str,
    /// Which program.
    pub tier: Tier,
    /// The machine of its parent; empty for the root.
    pub parent: &'static str,
}

/// Seconds of an unreachable parent until another one is looked for, and of a well one until
/// the child goes back. Short, for tests.
pub const FAILOVER_S: u64 = 3;
/// See [`FAILOVER_S`].
pub const FAILBACK_S: u64 = 5;

/// A process that cannot be taken for another one.
pub type Process = (i32, String);

/// Programs on machines; they and their workloads end with it.
#[derive(Debug)]
pub struct Tree {
    /// The machines.
    pub net: Net,
    folder: tempfile::TempDir,
    programs: PathBuf,
    places: Vec<Place>,
    running: BTreeMap<String, Child>,
}

impl Tree {
    /// Starts all, parents first, and moves this thread to the root's machine.
    ///
    /// # Errors
    /// Something does not start.
    pub fn start(places: &[Place]) -> anyhow::Result<Self> {
        let names: Vec<&str> = places.iter().map(|place| place.name).collect();
        let net = Net::new(&names)?;
        let folder = tempfile::Builder::new().prefix("mrm").tempdir_in("/tmp")?;
        let (places, running) = (places.to_vec(), BTreeMap::new());
        let mut tree = Self { net, folder, programs: programs()?, places, running };
        for place in tree.places.clone() {
            let text = tree.configuration(place)?;
            fs::write(tree.file(place.name, "toml"), text)?;
            tree.boot(place.name)?;
        }
        let root = tree.places.iter().find(|place| place.tier == Tier::Root);
        tree.net.enter(root.context("a tree has a root")?.name)?;
        Ok(tree)
    }

    fn configuration(&self, place: Place) -> anyhow::Result<String> {
        let Place { name, tier, parent } = place;
        let path = self.folder.path().display();
        let common = format!("state_dir = \"{path}/{name}\"\ninsecure_network = true\n");
        let own = self.net.address(name)?;
        let waits =
            format!("failover_patience_s = {FAILOVER_S}\nfailback_hysteresis_s = {FAILBACK_S}\n");
        Ok(match tier {
            Tier::Root => format!(
                "{common}listen = \"127.0.0.1:{REST_PORT}\"\n\
                 tunnel_listen = \"{own}:{TUNNEL_PORT}\"\n"
            ),
            Tier::Cluster => format!(
                "{common}name = \"{name}\"\nmqtt_listen = \"{own}:{MQTT_PORT}\"\n\
                 [children]\nlisten = \"{own}:{TUNNEL_PORT}\"\n\
                 [parent]\nurl = \"http://{}:{TUNNEL_PORT}\"\n{waits}",
                self.net.address(parent)?
            ),
            Tier::Node => format!(
                "{common}name = \"{name}\"\nruntime_dir = \"{path}/run/{name}\"\n\
                 [cluster]\nurl = \"mqtt://{}:{MQTT_PORT}\"\n{waits}\
                 [native]\ncgroup_parent = \"/marram-test/{}-{name}\"\n\
                 [containerd]\nenabled = false\n",
                self.net.address(parent)?,
                std::process::id()
            ),
        })
    }

    fn file(&self, name: &str, ending: &str) -> PathBuf {
        self.folder.path().join(format!("{name}.{ending}"))
    }

    /// Where the files are.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    fn place(&self, name: &str) -> anyhow::Result<Place> {
        let found = self.places.iter().find(|place| place.name == name);
        found.copied().with_context(|| format!("no place {name}"))
    }

    /// Starts a program and waits until it is ready.
    ///
    /// # Errors
    /// It ends, or is not ready in time.
    pub fn boot(&mut self, name: &str) -> anyhow::Result<()> {
        let place = self.place(name)?;
        let ready = self.file(name, "ready");
        if ready.exists() {
            fs::remove_file(&ready)?;
        }
        let log = File::options().create(true).append(true).open(self.file(name, "log"))?;
        let program = self.programs.join(format!("marram-{}", place.tier.name()));
        let mut command = Command::new(program);
        command
            .arg("--config")
            .arg(self.file(name, "toml"))
            .arg("--ready-file")
            .arg(&ready)
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log);
        let mut child = self.net.within(name, || command.spawn())?.context("cannot start")?;
        let waited = wait_for(name, || {
            let ended = child.try_wait().ok().flatten().is_some();
            (ended || fs::read_to_string(&ready).is_ok_and(|t| t.ends_with('\n'))).then_some(ended)
        });
        self.running.insert(name.to_owned(), child);
        match waited {
            Ok(false) => Ok(()),
            Ok(true) => anyhow::bail!("{name} ended: {}", self.log_end(name)),
            Err(error) => Err(error.context(self.log_end(name))),
        }
    }

    /// Kills a program without a warning; what it started runs on.
    ///
    /// # Errors
    /// It does not run.
    pub fn kill(&mut self, name: &str) -> anyhow::Result<()> {
        let mut child = self.running.remove(name).with_context(|| format!("{name} runs not"))?;
        child.kill()?;
        child.wait()?;
        Ok(())
    }

    /// Takes the power from machines: everything on them is gone at once, and what they had in
    /// memory with it.
    ///
    /// # Errors
    /// Something cannot be killed.
    pub fn power_off(&mut self, names: &[&str]) -> anyhow::Result<()> {
        for name in names {
            wait_for(&format!("the end of all on {name}"), || {
                // The oldest first: it may start others.
                let left = self.net.processes(name).unwrap_or_default();
                for pid in left.iter().filter_map(|pid| Pid::from_raw(*pid)) {
                    if let Err(error) = kill_process(pid, Signal::KILL)
                        && error != Errno::SRCH
                    {
                        eprintln!("{name}: {error}");
                    }
                }
                if let Some(mut child) = self.running.remove(*name) {
                    drop(child.kill());
                    drop(child.wait());
                }
                left.is_empty().then_some(())
            })?;
            let memory = self.folder.path().join("run").join(name);
            if memory.exists() {
                fs::remove_dir_all(memory)?;
            }
        }
        Ok(())
    }

    /// Logs in at the root, from the thread that started the tree.
    ///
    /// # Errors
    /// The root does not answer.
    pub fn api(&self) -> anyhow::Result<Api> {
        let root = self.places.iter().find(|place| place.tier == Tier::Root);
        let root = root.context("a tree has a root")?.name;
        let password = fs::read_to_string(self.folder.path().join(root).join("admin-password"))?;
        Api::login(&format!("http://127.0.0.1:{REST_PORT}"), password.trim())
    }

    /// Processes of a machine whose command line begins so.
    ///
    /// # Errors
    /// `ip` refuses.
    pub fn workloads(&self, name: &str, line: &str) -> anyhow::Result<Vec<Process>> {
        let mut found = Vec::new();
        for pid in self.net.processes(name)? {
            let text = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            if String::from_utf8_lossy(&text).replace('\0', " ").starts_with(line) {
                found.extend(start_time(pid).map(|time| (pid, time)));
            }
        }
        found.sort();
        Ok(found)
    }

    /// The whole log of a program.
    pub fn log(&self, name: &str) -> String {
        fs::read_to_string(self.file(name, "log")).unwrap_or_default()
    }

    fn log_end(&self, name: &str) -> String {
        let text = self.log(name);
        let lines: Vec<&str> = text.lines().collect();
        let start = lines.len().saturating_sub(25);
        format!("--- {name}\n{}\n", lines[start..].join("\n"))
    }

    /// The last lines of all logs.
    pub fn logs(&self) -> String {
        self.places.iter().map(|place| self.log_end(place.name)).collect()
    }
}

impl Drop for Tree {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("{}", self.logs());
        }
        let names: Vec<&str> = self.places.iter().map(|place| place.name).collect();
        if let Err(error) = self.power_off(&names) {
            eprintln!("not everything of {} was ended: {error}", self.folder.path().display());
        }
        for child in self.running.values_mut() {
            // Ended already is as good.
            drop(child.kill());
            drop(child.wait());
        }
    }
}

fn start_time(pid: i32) -> Option<String> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    stat.rsplit_once(')')?.1.split_whitespace().nth(19).map(str::to_owned)
}
