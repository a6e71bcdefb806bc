//! Host ports of workloads.
//!
//! Workloads share the host's network until they have one of their own, so a port that is
//! the same on both sides needs nothing. For another, the kernel is told to redirect: a
//! table of nftables that belongs to this node and is always written as a whole. It works
//! on while the engine is away, and nothing of it is left when no workload needs it.

use marram_protocol::id::{ChildId, InstanceId};
use marram_protocol::port::{PortMapping, Transport};
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::net::{Ipv6Addr, TcpListener, UdpSocket};
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
}

impl Ports {
    /// Two nodes on one host have two tables.
    pub(crate) fn new(node: ChildId) -> Self {
        let id = node.to_string();
        Self { table: format!("marram_{}", &id[..12]), open: BTreeMap::new() }
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
        let wanted: Vec<PortMapping> =
            mappings.iter().filter(|m| m.host != m.workload).copied().collect();
        if self.open.get(&instance).map_or(&[][..], Vec::as_slice) == wanted {
            return Ok(());
        }
        // After a restart of the engine the port is redirected already.
        if !known_running {
            wanted.iter().try_for_each(is_free)?;
        }
        let before = self.open.insert(instance, wanted);
        let result = self.apply().await;
        if result.is_err() {
            match before {
                Some(before) => drop(self.open.insert(instance, before)),
                None => drop(self.open.remove(&instance)),
            }
        }
        result
    }

    /// Closes the ports of an instance.
    pub(crate) async fn close(&mut self, instance: InstanceId) -> Result<(), String> {
        match self.open.remove(&instance) {
            Some(mappings) if !mappings.is_empty() => self.apply().await,
            _ => Ok(()),
        }
    }

    async fn apply(&self) -> Result<(), String> {
        let rules = self.rules();
        let failed = |why: String| format!("host ports cannot be redirected by nft: {why}");
        let mut child = Command::new("nft")
            .args(["-f", "-"])
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .map_err(|error| failed(error.to_string()))?;
        if let Some(mut input) = child.stdin.take() {
            input.write_all(rules.as_bytes()).await.map_err(|error| failed(error.to_string()))?;
        }
        let output = tokio::time::timeout(NFT_TIME_MAX, child.wait_with_output())
            .await
            .map_err(|_| failed(format!("no answer within {NFT_TIME_MAX:?}")))?
            .map_err(|error| failed(error.to_string()))?;
        if output.status.success() {
            return Ok(());
        }
        let why = String::from_utf8_lossy(&output.stderr);
        Err(failed(why.lines().next().unwrap_or("no reason given").to_owned()))
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
mod tests {
    use super::*;
    use marram_protocol::id::ServiceId;

    #[test]
    fn the_table_is_written_as_a_whole() {
        let mut ports = Ports::new(ChildId([0xab; 12]));
        let empty = ports.rules();
        assert_eq!(
            empty,
            "table ip marram_abababababab\ndelete table ip marram_abababababab\n\
             table ip6 marram_abababababab\ndelete table ip6 marram_abababababab\n"
        );
        let instance = InstanceId { service: ServiceId([1; 12]), number: 0 };
        let mapping = PortMapping { host: 6080, workload: 60, transport: Transport::Tcp };
        ports.open.insert(instance, vec![mapping]);
        let rules = ports.rules();
        let rule = "fib daddr type local tcp dport 6080 redirect to :60";
        assert_eq!(rules.matches(rule).count(), 4, "{rules}");
        assert!(rules.contains("oifname \"lo\" fib"), "{rules}");
    }

    #[test]
    fn a_port_that_somebody_listens_on_is_not_free() {
        let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let host = listener.local_addr().unwrap().port();
        let mapping = PortMapping { host, workload: 1, transport: Transport::Tcp };
        assert!(is_free(&mapping).unwrap_err().contains(&host.to_string()));
        drop(listener);
        assert_eq!(is_free(&mapping), Ok(()));
    }
}
