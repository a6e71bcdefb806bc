//! A root, a cluster and a node on this machine.

#![allow(clippy::print_stderr, reason = "tests tell what went wrong on standard error")]

use crate::{Api, programs, wait_for};
use anyhow::Context;
use rustix::process::{Pid, Signal, kill_process};
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

/// A program of a site.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Tier {
    /// `marram-root`.
    Root,
    /// `marram-cluster`.
    Cluster,
    /// `marram-node`.
    Node,
}

impl Tier {
    /// All, from the top.
    pub const ALL: [Self; 3] = [Self::Root, Self::Cluster, Self::Node];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Root => "root",
            Self::Cluster => "cluster",
            Self::Node => "node",
        }
    }
}

/// A site; its programs and workloads end with it.
#[derive(Debug)]
pub struct Site {
    folder: tempfile::TempDir,
    programs: PathBuf,
    running: BTreeMap<Tier, Child>,
    root_port: u16,
}

impl Site {
    /// Starts all three and waits until the node is known at the root. `node_config` is
    /// added to the node's configuration.
    ///
    /// # Errors
    /// Something does not start.
    pub fn start(node_config: &str) -> anyhow::Result<Self> {
        Self::start_in(Path::new("/tmp"), node_config)
    }

    /// Starts all three with everything they keep below this folder, whose path is short.
    ///
    /// # Errors
    /// Something does not start.
    pub fn start_in(folder: &Path, node_config: &str) -> anyhow::Result<Self> {
        let mut site = Self::lay_out(folder, node_config)?;
        for tier in Tier::ALL {
            site.start_one(tier)?;
        }
        let api = site.api()?;
        wait_for("the node at the root", || {
            let linked = |cluster: &serde_json::Value| cluster["nodes"].as_u64() == Some(1);
            api.items("clusters").iter().any(linked).then_some(())
        })
        .with_context(|| site.logs())?;
        Ok(site)
    }

    fn lay_out(folder: &Path, node_config: &str) -> anyhow::Result<Self> {
        let folder = tempfile::Builder::new().prefix("mrm").tempdir_in(folder)?;
        let [root_port, tunnel_port, mqtt_port] = free_ports()?;
        let path = folder.path().display().to_string();
        let write = |tier: Tier, text: String| {
            fs::write(folder.path().join(format!("{}.toml", tier.name())), text)
        };
        write(
            Tier::Root,
            format!(
                "listen = \"127.0.0.1:{root_port}\"\n\
                 tunnel_listen = \"127.0.0.1:{tunnel_port}\"\n\
                 state_dir = \"{path}/root\"\n"
            ),
        )?;
        write(
            Tier::Cluster,
            format!(
                "name = \"site\"\nparent = \"http://127.0.0.1:{tunnel_port}\"\n\
                 mqtt_listen = \"127.0.0.1:{mqtt_port}\"\nstate_dir = \"{path}/cluster\"\n"
            ),
        )?;
        write(
            Tier::Node,
            format!(
                "name = \"board\"\ncluster = \"mqtt://127.0.0.1:{mqtt_port}\"\n\
                 state_dir = \"{path}/node\"\nruntime_dir = \"{path}/run\"\n{node_config}"
            ),
        )?;
        Ok(Self { folder, programs: programs()?, running: BTreeMap::new(), root_port })
    }

    /// Where the site's files are.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Starts a program and waits until it is ready.
    ///
    /// # Errors
    /// It ends, or is not ready in time.
    pub fn start_one(&mut self, tier: Tier) -> anyhow::Result<()> {
        let name = tier.name();
        let ready = self.folder.path().join(format!("{name}.ready"));
        if ready.exists() {
            fs::remove_file(&ready)?;
        }
        let log = File::options()
            .create(true)
            .append(true)
            .open(self.folder.path().join(format!("{name}.log")))?;
        let mut child = Command::new(self.programs.join(format!("marram-{name}")))
            .arg("--config")
            .arg(self.folder.path().join(format!("{name}.toml")))
            .arg("--ready-file")
            .arg(&ready)
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()
            .with_context(|| format!("marram-{name} cannot be started"))?;
        let waited = wait_for(name, || {
            let ended = child.try_wait().ok().flatten().is_some();
            (ended || fs::read_to_string(&ready).is_ok_and(|t| t.ends_with('\n'))).then_some(ended)
        });
        self.running.insert(tier, child);
        match waited {
            Ok(false) => Ok(()),
            Ok(true) => anyhow::bail!("marram-{name} ended: {}", self.logs()),
            Err(error) => Err(error.context(self.logs())),
        }
    }

    /// Kills a program without a warning.
    ///
    /// # Errors
    /// It does not run.
    pub fn kill(&mut self, tier: Tier) -> anyhow::Result<()> {
        let mut child = self.running.remove(&tier).context("it does not run")?;
        child.kill()?;
        child.wait()?;
        Ok(())
    }

    /// Asks a program to end and returns its exit code.
    ///
    /// # Errors
    /// It does not run, or does not end.
    pub fn stop(&mut self, tier: Tier) -> anyhow::Result<Option<i32>> {
        let mut child = self.running.remove(&tier).context("it does not run")?;
        terminate(&child)?;
        let status = wait_for("its end", || child.try_wait().ok().flatten())?;
        Ok(status.code())
    }

    /// The process id of a program.
    ///
    /// # Errors
    /// It does not run.
    pub fn pid(&self, tier: Tier) -> anyhow::Result<u32> {
        Ok(self.running.get(&tier).context("it does not run")?.id())
    }

    /// Stops all workloads of the node, which ends then.
    ///
    /// # Errors
    /// It fails.
    pub fn drain(&mut self) -> anyhow::Result<()> {
        let status = Command::new(self.programs.join("marram-node"))
            .arg("--config")
            .arg(self.folder.path().join("node.toml"))
            .arg("drain")
            .stderr(
                File::options()
                    .create(true)
                    .append(true)
                    .open(self.folder.path().join("node.log"))?,
            )
            .status()?;
        if let Some(mut child) = self.running.remove(&Tier::Node) {
            wait_for("the node's end", || child.try_wait().ok().flatten())?;
        }
        anyhow::ensure!(status.success(), "drain: {status}: {}", self.logs());
        Ok(())
    }

    /// Logs in at the root.
    ///
    /// # Errors
    /// The root does not answer.
    pub fn api(&self) -> anyhow::Result<Api> {
        let password = fs::read_to_string(self.folder.path().join("root/admin-password"))?;
        Api::login(&format!("http://127.0.0.1:{}", self.root_port), password.trim())
    }

    /// The last lines of all logs.
    pub fn logs(&self) -> String {
        let tail = |tier: Tier| {
            let path = self.folder.path().join(format!("{}.log", tier.name()));
            let text = fs::read_to_string(path).unwrap_or_default();
            let lines: Vec<&str> = text.lines().collect();
            let start = lines.len().saturating_sub(15);
            format!("--- {}\n{}\n", tier.name(), lines[start..].join("\n"))
        };
        Tier::ALL.into_iter().map(tail).collect()
    }
}

impl Drop for Site {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("{}", self.logs());
        }
        if let Err(error) = self.drain() {
            eprintln!("the node of {} was not drained: {error}", self.folder.path().display());
        }
        for child in self.running.values_mut() {
            // Ended already is as good.
            drop(child.kill());
            drop(child.wait());
        }
    }
}

fn terminate(child: &Child) -> anyhow::Result<()> {
    let pid = i32::try_from(child.id()).ok().and_then(Pid::from_raw).context("no process id")?;
    Ok(kill_process(pid, Signal::TERM)?)
}

/// Ports that nobody listens on now.
fn free_ports() -> anyhow::Result<[u16; 3]> {
    let listeners = [0; 3].map(|_| TcpListener::bind(("127.0.0.1", 0)));
    let mut ports = [0; 3];
    for (port, listener) in ports.iter_mut().zip(listeners) {
        *port = listener?.local_addr()?.port();
    }
    Ok(ports)
}
