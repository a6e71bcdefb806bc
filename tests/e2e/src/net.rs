//! Machines of a test: network namespaces around one bridge, with links that can be cut.
//!
//! Why namespaces: what happens on a broken link is the kernel's doing, and only a packet that
//! is dropped shows how long a program takes to notice.
//!
//! Invariant: nothing of the machine's own network is touched; all names begin with this
//! process's number, and go with the [`Net`].

#![allow(clippy::print_stderr, reason = "tests tell what went wrong on standard error")]

use anyhow::{Context, bail};
use rustix::fd::AsFd;
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::os::unix::fs::MetadataExt;
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};

/// The first three numbers of every machine's address.
const SUBNET: &str = "10.77.0";

/// Machines of one net: a bridge's ports, and the last number of an address.
const MACHINES_MAX: usize = 64;

/// Nets of this process, so that two tests in one do not share names.
static NETS: AtomicU32 = AtomicU32::new(0);

/// All machines of a test.
#[derive(Debug)]
pub struct Net {
    prefix: String,
    /// By name, with the last number of the address.
    machines: BTreeMap<String, usize>,
}

impl Net {
    /// Makes machines that all reach each other.
    ///
    /// # Errors
    /// The kernel or `ip` refuse.
    pub fn new(names: &[&str]) -> anyhow::Result<Self> {
        anyhow::ensure!(names.len() <= MACHINES_MAX, "at most {MACHINES_MAX} machines");
        let number = NETS.fetch_add(1, Ordering::Relaxed);
        let prefix = format!("mrm{}x{number}", std::process::id());
        let mut net = Self { prefix, machines: BTreeMap::new() };
        let hub = net.namespace("hub");
        ip(&["netns", "add", &hub])?;
        ip(&["-n", &hub, "link", "add", "bridge", "type", "bridge"])?;
        ip(&["-n", &hub, "link", "set", "bridge", "up"])?;
        for (index, name) in names.iter().enumerate() {
            net.machines.insert((*name).to_owned(), index + 1);
            net.plug(name, &hub, &format!("port{index}"))?;
        }
        Ok(net)
    }

    fn plug(&self, name: &str, hub: &str, port: &str) -> anyhow::Result<()> {
        let own = self.namespace(name);
        let address = format!("{}/24", self.address(name)?);
        ip(&["netns", "add", &own])?;
        ip(&["-n", &own, "link", "set", "lo", "up"])?;
        let veth = ["type", "veth", "peer", "name", port, "netns", hub];
        ip(&[&["-n", &own, "link", "add", "eth0"], &veth[..]].concat())?;
        ip(&["-n", hub, "link", "set", port, "master", "bridge", "up"])?;
        ip(&["-n", &own, "address", "add", &address, "dev", "eth0"])?;
        ip(&["-n", &own, "link", "set", "eth0", "up"])?;
        let rules = "table inet mrm_cut {\n\
            set lost { type ipv4_addr; }\n\
            chain in { type filter hook input priority -300; ip saddr @lost drop; }\n\
            chain out { type filter hook output priority -300; ip daddr @lost drop; }\n}\n";
        self.nft(name, &[rules])
    }

    fn namespace(&self, name: &str) -> String {
        format!("{}-{name}", self.prefix)
    }

    /// A machine's address.
    ///
    /// # Errors
    /// There is no such machine.
    pub fn address(&self, name: &str) -> anyhow::Result<String> {
        let number = self.machines.get(name).with_context(|| format!("no machine {name}"))?;
        Ok(format!("{SUBNET}.{number}"))
    }

    /// Moves this thread, and what it starts from now on, to a machine.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn enter(&self, name: &str) -> anyhow::Result<()> {
        let path = format!("/run/netns/{}", self.namespace(name));
        let there = File::open(&path).with_context(|| path.clone())?;
        move_into_link_name_space(there.as_fd(), Some(LinkNameSpaceType::Network))
            .with_context(|| path)
    }

    /// Does something on a machine.
    ///
    /// # Errors
    /// The kernel refuses to go there or back.
    pub fn within<T>(&self, name: &str, act: impl FnOnce() -> T) -> anyhow::Result<T> {
        let back = File::open("/proc/thread-self/ns/net")?;
        self.enter(name)?;
        let done = act();
        move_into_link_name_space(back.as_fd(), Some(LinkNameSpaceType::Network))?;
        Ok(done)
    }

    /// Drops all packets between two machines, both ways.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn cut(&self, one: &str, other: &str) -> anyhow::Result<()> {
        let lost = format!("{{ {} }}", self.address(other)?);
        self.nft(one, &["add", "element", "inet", "mrm_cut", "lost", &lost])
    }

    /// Undoes [`Net::cut`].
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn heal(&self, one: &str, other: &str) -> anyhow::Result<()> {
        let lost = format!("{{ {} }}", self.address(other)?);
        self.nft(one, &["delete", "element", "inet", "mrm_cut", "lost", &lost])
    }

    /// Commands, or a whole text.
    fn nft(&self, name: &str, words: &[&str]) -> anyhow::Result<()> {
        let words: Vec<String> = words.iter().map(|word| (*word).to_owned()).collect();
        self.within(name, || run("nft", &words.iter().map(String::as_str).collect::<Vec<_>>()))?
    }

    /// Everything that runs on a machine.
    ///
    /// # Errors
    /// There is no such machine.
    pub fn processes(&self, name: &str) -> anyhow::Result<Vec<i32>> {
        let there = fs::metadata(format!("/run/netns/{}", self.namespace(name)))?;
        let is_there = |pid: &i32| {
            let own = fs::metadata(format!("/proc/{pid}/ns/net"));
            own.is_ok_and(|own| (own.dev(), own.ino()) == (there.dev(), there.ino()))
        };
        let entries = fs::read_dir("/proc")?.flatten();
        let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
        Ok(pids.filter(is_there).collect())
    }
}

impl Drop for Net {
    fn drop(&mut self) {
        let names: Vec<String> = self.machines.keys().cloned().chain(["hub".to_owned()]).collect();
        for name in names {
            if let Err(error) = ip(&["netns", "del", &self.namespace(&name)]) {
                eprintln!("{name} stays behind: {error}");
            }
        }
    }
}

fn ip(words: &[&str]) -> anyhow::Result<()> {
    run("ip", words)
}

fn run(program: &str, words: &[&str]) -> anyhow::Result<()> {
    let output = Command::new(program).args(words).output().with_context(|| program.to_owned())?;
    if !output.status.success() {
        let why = String::from_utf8_lossy(&output.stderr);
        bail!("{program} {}: {}", words.join(" "), why.trim());
    }
    Ok(())
}
