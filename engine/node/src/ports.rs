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
    /// The table says what `open` says. Not so after a start: the table may be of an engine
    /// before this one, of before a reboot, or there may be none.
    written: bool,
}

impl Ports {
    /// Two nodes on one host have two tables.
    fn new(node: ChildId) -> Self {
        let id = node.to_string();
        Self { table: format!("marram_{}", &id[..12]), open: BTreeMap::new(), written: false }
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
        let had = self.open.remove(&instance).is_some_and(|mappings| !mappings.is_empty());
        if had {
            return self.apply().await;
        }
        // It may have had some under an engine before this one. A host without `nft` had none.
        if !self.written
            && let Err(error) = self.apply().await
        {
            tracing::debug!(error, "what an earlier engine redirected was not looked through");
        }
        Ok(())
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

    /// A table of a test's own in the kernel, and its end. Needs root.
    struct Table(ChildId);

    impl Table {
        fn new() -> Self {
            let mut id = [0; 12];
            id[..4].copy_from_slice(&std::process::id().to_be_bytes());
            Self(ChildId(id))
        }

        /// Which of the host ports are redirected in the kernel now; `None`: there is no table.
        fn redirects(&self, ports: &[u16]) -> Option<Vec<u16>> {
            let table = Ports::new(self.0).table;
            let mut nft = std::process::Command::new("nft");
            let output = nft.args(["list", "table", "ip", &table]).output().unwrap();
            let text = String::from_utf8_lossy(&output.stdout).into_owned();
            let there = |port: &&u16| text.contains(&format!("dport {port} redirect"));
            output.status.success().then(|| ports.iter().filter(there).copied().collect())
        }
    }

    impl Drop for Table {
        fn drop(&mut self) {
            for family in ["ip", "ip6"] {
                let table = Ports::new(self.0).table;
                let mut nft = std::process::Command::new("nft");
                // Gone already is as good.
                drop(nft.args(["delete", "table", family, &table]).output());
            }
        }
    }

    #[tokio::test]
    async fn an_engine_that_starts_keeps_open_what_runs_and_closes_what_does_not() {
        let table = Table::new();
        let instance = |number| InstanceId { service: ServiceId([1; 12]), number };
        let free = || TcpListener::bind(("127.0.0.1", 0)).unwrap().local_addr().unwrap().port();
        let hosts = [free(), free(), free()];
        let mapping = |place: usize| {
            [PortMapping { host: hosts[place], workload: 1, transport: Transport::Tcp }]
        };
        let mut first = Ports::new(table.0);
        first.close(instance(7)).await.unwrap();
        assert_eq!(table.redirects(&hosts), None, "nothing is redirected, nothing is made");
        for (number, place) in [(0, 0), (1, 1), (2, 2)] {
            first.open(instance(number), &mapping(place), false).await.unwrap();
        }
        assert_eq!(table.redirects(&hosts).unwrap(), hosts);
        drop(first);

        // The third ended while nobody was there.
        let mut second = Ports::new(table.0);
        second.inherit(instance(0), &mapping(0));
        second.inherit(instance(1), &mapping(1));
        second.open(instance(0), &mapping(0), true).await.unwrap();
        assert_eq!(table.redirects(&hosts).unwrap(), hosts[..2], "the second stays open");
        second.open(instance(1), &mapping(1), true).await.unwrap();
        drop(second);

        // Of the last two nothing is known any more but that they are to go.
        let mut third = Ports::new(table.0);
        third.close(instance(1)).await.unwrap();
        assert_eq!(table.redirects(&hosts), None);
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
