//! Host ports of workloads.
//!
//! Workloads share the host's network until they have one of their own, so a port that is
//! the same on both sides needs nothing. For another, the kernel is told to redirect: a
//! table of nftables that belongs to this node and is always written as a whole. It works
//! on while the engine is away, and nothing of it is left when no workload needs it.
//!
//! Since it is whole each time, an engine that starts has to know what the one before it had
//! opened ([`Ports::taken_over`]) before it writes anything: else the first workload that it takes
//! up would close the ports of all others until their turn.

use marram_engine_core::Engine;
use marram_protocol::id::{ChildId, InstanceId};
use marram_protocol::port::{PortMapping, Transport};
use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fmt::Write as _;
use std::net::{Ipv6Addr, TcpListener, UdpSocket};
use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;
use tokio::io::AsyncWriteExt;
use tokio::process::Command;

/// The `nft` program answers within milliseconds, or it hangs on a broken kernel module.
const NFT_TIME_MAX: Duration = Duration::from_secs(10);

/// What is redirected, for whom.
#[derive(Debug)]
pub(crate) struct Ports {
    table: String,
    open: BTreeMap<InstanceId, Vec<PortMapping>>,
    /// The table says what `open` says. Not so after a start: the table may be of an engine
    /// before this one, of before a reboot, or there may be none.
    written: bool,
    nft: PathBuf,
}

impl Ports {
    /// Two nodes on one host have two tables.
    fn new(node: ChildId) -> Self {
        let id = node.to_string();
        let table = format!("marram_{}", &id[..12]);
        Self { table, open: BTreeMap::new(), written: false, nft: "nft".into() }
    }

    /// With what the engine before this one had opened, for all that backends have.
    pub(crate) fn taken_over(engine: &Engine, node: ChildId) -> Self {
        let mut ports = Self::new(node);
        for (instance, slot) in engine.slots().filter(|(_, slot)| slot.backend.is_some()) {
            let mappings = slot.desired.map_or(&[][..], |workload| &workload.spec.ports);
            ports.inherit(instance, mappings);
        }
        ports
    }

    /// Takes over what an earlier engine has opened for one instance.
    fn inherit(&mut self, instance: InstanceId, mappings: &[PortMapping]) {
        self.open.insert(instance, redirected(mappings));
    }

    /// Opens the ports of an instance. Open already is success.
    ///
    /// # Errors
    /// What stands in the way, for people.
    pub(crate) async fn open(
        &mut self,
        instance: InstanceId,
        mappings: &[PortMapping],
        known_running: bool,
    ) -> Result<(), String> {
        let wanted = redirected(mappings);
        let is_known = self.open.get(&instance).map_or(&[][..], Vec::as_slice) == wanted;
        if is_known && (self.written || wanted.is_empty()) {
            return Ok(());
        }
        // After a restart of the engine the port is redirected already.
        if !known_running {
            wanted.iter().try_for_each(is_free)?;
        }
        let before = self.open.clone();
        // The engine gives a port to one at a time: who had it before has ended, and what it
        // left is only not cleared away yet.
        let is_wanted = |mapping: &PortMapping| wanted.iter().any(|one| same_port(one, mapping));
        self.open.values_mut().for_each(|mappings| mappings.retain(|one| !is_wanted(one)));
        self.open.insert(instance, wanted);
        self.apply_or(before).await
    }

    /// Closes the ports of an instance.
    pub(crate) async fn close(&mut self, instance: InstanceId) -> Result<(), String> {
        let before = self.open.clone();
        if self.open.remove(&instance).is_some_and(|mappings| !mappings.is_empty()) {
            return self.apply_or(before).await;
        }
        // It may have had some under an engine before this one. A host without `nft` had none.
        if !self.written
            && let Err(error) = self.apply().await
        {
            tracing::debug!(error, "what an earlier engine redirected was not looked through");
        }
        Ok(())
    }

    /// Writes what is open; if that fails, `before` is what counts.
    async fn apply_or(
        &mut self,
        before: BTreeMap<InstanceId, Vec<PortMapping>>,
    ) -> Result<(), String> {
        let result = self.apply().await;
        if result.is_err() {
            self.open = before;
        }
        result
    }

    async fn apply(&mut self) -> Result<(), String> {
        self.written = false;
        self.write().await?;
        self.written = true;
        Ok(())
    }

    async fn write(&self) -> Result<(), String> {
        let rules = self.rules();
        let failed = |why: String| format!("host ports cannot be redirected by nft: {why}");
        let mut child = Command::new(&self.nft)
            .env("PATH", search_path())
            .args(["-f", "-"])
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .map_err(|error| failed(error.to_string()))?;
        let input = child.stdin.take();
        let written = async {
            let Some(mut input) = input else { return Ok(()) };
            input.write_all(rules.as_bytes()).await
        };
        let both = async { tokio::join!(written, child.wait_with_output()) };
        let (written, output) = tokio::time::timeout(NFT_TIME_MAX, both)
            .await
            .map_err(|_| failed(format!("no answer within {NFT_TIME_MAX:?}")))?;
        let output = output.map_err(|error| failed(error.to_string()))?;
        if !output.status.success() {
            // It may have ended without listening, and says why.
            let why = String::from_utf8_lossy(&output.stderr);
            return Err(failed(why.lines().next().unwrap_or("no reason given").to_owned()));
        }
        written.map_err(|error| failed(error.to_string()))
    }

    /// The whole table, to replace what is there in one step.
    fn rules(&self) -> String {
        let mut text = String::new();
        for family in ["ip", "ip6"] {
            let table = &self.table;
            // Writing into a string cannot fail. A table must exist to be deleted.
            let _never = write!(text, "table {family} {table}\ndelete table {family} {table}\n");
            if self.open.values().all(Vec::is_empty) {
                continue;
            }
            let chain = |name: &str, hook: &str, which: &str| {
                let mut rules = format!("    chain {name} {{\n        type nat hook {hook};\n");
                for mapping in self.open.values().flatten() {
                    let transport = match mapping.transport {
                        Transport::Tcp => "tcp",
                        Transport::Udp => "udp",
                    };
                    let PortMapping { host, workload, .. } = mapping;
                    let _never = writeln!(
                        rules,
                        "        {which}fib daddr type local {transport} dport {host} \
                         redirect to :{workload}"
                    );
                }
                rules.push_str("    }\n");
                rules
            };
            let prerouting = chain("prerouting", "prerouting priority -100", "");
            let output = chain("output", "output priority -100", "oifname \"lo\" ");
            let _never = write!(text, "table {family} {table} {{\n{prerouting}{output}}}\n");
        }
        text
    }
}

fn same_port(one: &PortMapping, other: &PortMapping) -> bool {
    (one.host, one.transport) == (other.host, other.transport)
}

/// Where `nft` is looked for: who became root by `su` has not the folders for root's programs.
fn search_path() -> OsString {
    let mut path = std::env::var_os("PATH").unwrap_or_else(|| "/usr/bin:/bin".into());
    path.push(":/usr/sbin:/sbin");
    path
}

/// What the kernel has to be told of.
fn redirected(mappings: &[PortMapping]) -> Vec<PortMapping> {
    mappings.iter().filter(|mapping| mapping.host != mapping.workload).copied().collect()
}

/// Whether nobody on the host listens there, whose traffic would be taken away.
fn is_free(mapping: &PortMapping) -> Result<(), String> {
    let any = (Ipv6Addr::UNSPECIFIED, mapping.host);
    let any_v4 = (std::net::Ipv4Addr::UNSPECIFIED, mapping.host);
    let in_use = |error: std::io::Error| error.kind() == std::io::ErrorKind::AddrInUse;
    let taken = match mapping.transport {
        Transport::Tcp => {
            TcpListener::bind(any).is_err_and(in_use)
                || TcpListener::bind(any_v4).is_err_and(in_use)
        }
        Transport::Udp => {
            UdpSocket::bind(any).is_err_and(in_use) || UdpSocket::bind(any_v4).is_err_and(in_use)
        }
    };
    match taken {
        true => Err(format!("host port {} is in use by another program", mapping.host)),
        false => Ok(()),
    }
}

#[cfg(test)]
pub(crate) mod tests;
