//! A private containerd and registry with the demo's images, from `demo/stack.sh`.

#![allow(clippy::print_stderr, reason = "tests tell what went wrong on standard error")]

use anyhow::{Context, bail};
use std::path::{Path, PathBuf};
use std::process::Command;

/// A running containerd and registry; stopped when dropped.
#[derive(Debug)]
pub struct Stack {
    folder: PathBuf,
    /// containerd's socket.
    pub containerd: String,
    /// The registry's address.
    pub registry: String,
}

fn script() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../demo/stack.sh")
}

impl Stack {
    /// Starts both.
    ///
    /// # Errors
    /// What the script said.
    pub fn start() -> anyhow::Result<Self> {
        // Sockets need short paths.
        let folder = tempfile::Builder::new().prefix("mrm").tempdir_in("/tmp")?.keep();
        let output = Command::new(script()).arg("start").arg(&folder).output()?;
        let mut stack = Self { folder, containerd: String::new(), registry: String::new() };
        if !output.status.success() {
            bail!("demo/stack.sh failed: {}", String::from_utf8_lossy(&output.stderr));
        }
        let text = std::fs::read_to_string(stack.folder.join("env"))?;
        let value = |key: &str| {
            let line = text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix('='));
            line.map(str::to_owned).with_context(|| format!("{key} is missing in {text}"))
        };
        stack.containerd = value("CONTAINERD_ADDRESS")?;
        stack.registry = value("REGISTRY_ADDRESS")?;
        Ok(stack)
    }

    /// The part of a node's configuration that names both.
    pub fn node_config(&self) -> String {
        format!(
            "[containerd]\nsocket = \"{}\"\n\n\
             [containerd.registries.\"docker.io\"]\n\
             mirrors = [{{ url = \"http://{}\", insecure = true }}]\nmirrors_only = true\n",
            self.containerd, self.registry
        )
    }

    /// Runs `ctr` in Marram's namespace.
    ///
    /// # Errors
    /// It failed.
    pub fn ctr(&self, arguments: &[&str]) -> anyhow::Result<String> {
        let output = Command::new("ctr")
            .args(["--address", &self.containerd, "--namespace", "marram"])
            .args(arguments)
            .output()?;
        if !output.status.success() {
            bail!("ctr {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
        }
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }
}

impl Drop for Stack {
    fn drop(&mut self) {
        let stopped = Command::new(script()).arg("stop").arg(&self.folder).output();
        match stopped {
            Ok(output) if output.status.success() => {}
            other => eprintln!("the stack in {} was not stopped: {other:?}", self.folder.display()),
        }
    }
}
