//! The table in words, and what the kernel makes of it.

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
    let mapping =
        |place: usize| [PortMapping { host: hosts[place], workload: 1, transport: Transport::Tcp }];
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

fn instance(number: u32) -> InstanceId {
    InstanceId { service: ServiceId([1; 12]), number }
}

fn free() -> u16 {
    TcpListener::bind(("127.0.0.1", 0)).unwrap().local_addr().unwrap().port()
}

#[tokio::test]
async fn a_port_goes_to_whom_it_was_given_last() {
    let table = Table::new();
    let host = free();
    let to = |workload| [PortMapping { host, workload, transport: Transport::Tcp }];
    let mut ports = Ports::new(table.0);
    // The first has ended, and what it left is kept until it is removed.
    ports.open(instance(0), &to(1), false).await.unwrap();
    ports.open(instance(1), &to(2), false).await.unwrap();
    let rules = ports.rules();
    assert!(!rules.contains("redirect to :1\n") && rules.contains("redirect to :2\n"), "{rules}");
    ports.close(instance(0)).await.unwrap();
    assert_eq!(table.redirects(&[host]).unwrap(), [host], "the first has nothing to close");
    ports.close(instance(1)).await.unwrap();
    assert_eq!(table.redirects(&[host]), None);
}

/// A program in the place of `nft`.
pub(crate) fn instead(dir: &std::path::Path, script: &str) -> Ports {
    use std::os::unix::fs::PermissionsExt;
    let path = dir.join("nft");
    std::fs::write(&path, format!("#!/bin/sh\n{script}\n")).unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
    let mut ports = Ports::new(ChildId([1; 12]));
    ports.nft = path;
    ports
}

/// With a program that writes `nft.rules` instead of telling the kernel.
pub(crate) fn writing(dir: &std::path::Path) -> Ports {
    instead(dir, "cat > \"$0.rules\"")
}

/// More than a pipe holds.
fn many() -> Vec<PortMapping> {
    let one = |host| PortMapping { host, workload: 1, transport: Transport::Tcp };
    (20_000..22_000).map(one).collect()
}

#[tokio::test]
async fn what_nft_says_is_told_even_if_it_does_not_listen() {
    let dir = tempfile::tempdir().unwrap();
    let mut ports = instead(dir.path(), "echo no such kernel >&2; exit 1");
    let error = ports.open(instance(0), &many(), true).await.unwrap_err();
    assert!(error.contains("no such kernel"), "{error}");
    ports.nft = dir.path().join("none");
    let error = ports.open(instance(0), &many(), true).await.unwrap_err();
    assert!(error.contains("nft") && error.contains("No such file"), "{error}");
    // It has none, so that there is no nft must not keep it.
    ports.close(instance(0)).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn an_nft_that_hangs_is_not_waited_for() {
    let dir = tempfile::tempdir().unwrap();
    let mut ports = instead(dir.path(), "exec sleep 1000");
    let error = ports.open(instance(0), &many(), true).await.unwrap_err();
    assert!(error.contains("no answer"), "{error}");
}

#[tokio::test]
async fn what_could_not_be_closed_is_tried_again() {
    let dir = tempfile::tempdir().unwrap();
    let mut ports = writing(dir.path());
    let mapping = [PortMapping { host: free(), workload: 1, transport: Transport::Tcp }];
    ports.open(instance(0), &mapping, false).await.unwrap();
    let right = std::mem::replace(&mut ports.nft, dir.path().join("none"));
    for _ in 0..2 {
        ports.close(instance(0)).await.unwrap_err();
    }
    ports.nft = right;
    ports.close(instance(0)).await.unwrap();
    let rules = std::fs::read_to_string(dir.path().join("nft.rules")).unwrap();
    assert!(!rules.contains("redirect"), "{rules}");
}

/// Runs the next test in a network of its own, where it may do as it likes.
#[test]
fn traffic_goes_where_it_should() {
    let own = std::env::current_exe().unwrap();
    let output = std::process::Command::new("unshare")
        .args(["--user", "--map-root-user", "--net", "--"])
        .arg(own)
        .args(["--exact", "ports::tests::inside_its_own_network", "--ignored"])
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && said.contains("1 passed"), "{output:?}");
}

#[tokio::test]
#[ignore = "run by another test in a network of its own"]
async fn inside_its_own_network() {
    let lo = ["link", "set", "lo", "up"];
    assert!(std::process::Command::new("ip").args(lo).status().unwrap().success());
    let table = Table::new();
    let listener = TcpListener::bind(("127.0.0.1", 8000)).unwrap();
    let mapping = |host| [PortMapping { host, workload: 8000, transport: Transport::Tcp }];
    let reach = |port: u16| std::net::TcpStream::connect(("127.0.0.1", port)).is_ok();
    let mut ports = Ports::new(table.0);
    assert!(!reach(80));
    ports.open(instance(0), &mapping(80), false).await.unwrap();
    ports.open(instance(1), &mapping(81), false).await.unwrap();
    assert!(reach(80) && reach(81));
    // Again, and after what somebody else did to the tables.
    ports.open(instance(0), &mapping(80), false).await.unwrap();
    ports.close(instance(0)).await.unwrap();
    assert!(!reach(80) && reach(81));
    assert!(ports.open(instance(2), &mapping(8000), false).await.is_ok(), "the same on both sides");
    let taken = [PortMapping { host: 8000, workload: 9, transport: Transport::Tcp }];
    let error = ports.open(instance(3), &taken, false).await.unwrap_err();
    assert!(error.contains("8000 is in use"), "{error}");
    assert!(reach(81), "a failure leaves the others as they are");
    ports.close(instance(1)).await.unwrap();
    assert_eq!(table.redirects(&[80, 81]), None);
    drop(listener);
}
