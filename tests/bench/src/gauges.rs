//! What the kernel tells of a process: memory, processor time, bytes written, bytes on a
//! connection; and the sizes of the programs.

use crate::table::{Promise, Table};
use anyhow::{Context, bail, ensure};
use marram_e2e::{Site, Tier, programs};
use std::fs;
use std::process::Command;
use std::time::Instant;

const KIB: f64 = 1024.0;

/// Processes of Marram, in the order of the tables.
pub(crate) const PROGRAMS: [&str; 5] =
    ["marram-node", "marram-cluster", "marram-root", "marram-shim", "marram"];

/// Memory that a process has for itself, with its share of what it shares.
pub(crate) fn pss_mib(pid: u32) -> anyhow::Result<f64> {
    Ok(field(&format!("/proc/{pid}/smaps_rollup"), "Pss:")? / KIB)
}

/// Memory of this process that belongs to no file.
pub(crate) fn own_anonymous_mib() -> anyhow::Result<f64> {
    Ok(field("/proc/self/smaps_rollup", "Anonymous:")? / KIB)
}

/// Bytes that a process has had written to disks.
fn written_bytes(pid: u32) -> anyhow::Result<f64> {
    field(&format!("/proc/{pid}/io"), "write_bytes:")
}

/// The number behind a key in a file of lines.
fn field(path: &str, key: &str) -> anyhow::Result<f64> {
    let text = fs::read_to_string(path).with_context(|| path.to_owned())?;
    let line = text.lines().find_map(|line| line.strip_prefix(key));
    let line = line.with_context(|| format!("no {key} in {path}"))?;
    let number = line.split_whitespace().next().unwrap_or_default();
    number.parse().with_context(|| format!("{key}{line} in {path}"))
}

/// Processor time that a process has used, in seconds: all of it in ticks of a clock, and that
/// of its first thread, which does nearly everything, to the nanosecond.
fn processor_s(pid: u32) -> anyhow::Result<(f64, f64)> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat"))?;
    let (_, rest) = text.rsplit_once(')').context("no name in stat")?;
    let numbers: Vec<&str> = rest.split_whitespace().collect();
    let ticks = |at: usize| numbers.get(at).context("a short stat")?.parse::<f64>().context("stat");
    let per_second = rustix::param::clock_ticks_per_second();
    let all = (ticks(11)? + ticks(12)?) / f64::from(u32::try_from(per_second)?);
    let text = fs::read_to_string(format!("/proc/{pid}/schedstat"))?;
    let first = text.split_whitespace().next().context("an empty schedstat")?;
    Ok((all, first.parse::<f64>().context("schedstat")? / 1e9))
}

/// Payload that went over a connection, and what the headers of TCP and IP add.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(crate) struct Traffic {
    pub(crate) payload_bytes: f64,
    pub(crate) wire_bytes: f64,
}

/// Headers of IPv4 and of TCP with time stamps.
const HEADER_BYTES: f64 = 52.0;

/// What went over a process's connection to this port, both ways, since it was made.
pub(crate) fn traffic(pid: u32, port: u16) -> anyhow::Result<Traffic> {
    let output = Command::new("ss").args(["-HOtinp", "state", "established"]).output()?;
    ensure!(output.status.success(), "ss: {}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8_lossy(&output.stdout);
    find_traffic(&text, pid, port).with_context(|| format!("no connection of {pid} to {port}"))
}

fn find_traffic(text: &str, pid: u32, port: u16) -> Option<Traffic> {
    let (peer, owner) = (format!(":{port}"), format!(",pid={pid},"));
    let is = |line: &&str| {
        line.contains(&owner) && line.split_whitespace().nth(3).is_some_and(|p| p.ends_with(&peer))
    };
    let line = text.lines().find(is)?;
    let counter = |key: &str| {
        let word = line.split_whitespace().find_map(|word| word.strip_prefix(key));
        word.and_then(|number| number.parse::<f64>().ok()).unwrap_or(0.0)
    };
    let payload_bytes = counter("bytes_sent:") + counter("bytes_received:");
    let segments = counter("segs_out:") + counter("segs_in:");
    Some(Traffic { payload_bytes, wire_bytes: payload_bytes + segments * HEADER_BYTES })
}

/// What a process has used up to a moment.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Gauge {
    pid: u32,
    at: Instant,
    processor_s: (f64, f64),
    written_bytes: f64,
}

/// What a process used between two moments.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Use {
    /// Of one core.
    pub(crate) processor_percent: f64,
    pub(crate) written_mib_per_day: f64,
}

impl Gauge {
    pub(crate) fn start(pid: u32) -> anyhow::Result<Self> {
        let (processor_s, written_bytes) = (processor_s(pid)?, written_bytes(pid)?);
        Ok(Self { pid, at: Instant::now(), processor_s, written_bytes })
    }

    pub(crate) fn end(self) -> anyhow::Result<Use> {
        const DAY_S: f64 = 86_400.0;
        let seconds = self.at.elapsed().as_secs_f64();
        let (all, first) = processor_s(self.pid)?;
        // Whichever is larger is nearer: the one is too coarse, the other may lack something.
        let processor_s = (all - self.processor_s.0).max(first - self.processor_s.1);
        let bytes = written_bytes(self.pid)? - self.written_bytes;
        Ok(Use {
            processor_percent: processor_s * 100.0 / seconds,
            written_mib_per_day: bytes * DAY_S / seconds / KIB / KIB,
        })
    }
}

/// The shims of a site's workloads, known by the site's folder among their arguments.
pub(crate) fn shims(site: &Site) -> anyhow::Result<Vec<u32>> {
    let file = programs()?.join("marram-shim").canonicalize()?;
    let folder = site.folder().to_string_lossy().into_owned();
    let is = |pid: &u32| {
        let runs_it = fs::read_link(format!("/proc/{pid}/exe")).is_ok_and(|e| e == file);
        let line = fs::read_to_string(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        runs_it && line.contains(&folder)
    };
    Ok(all_pids()?.into_iter().filter(is).collect())
}

/// The process whose command line is this.
pub(crate) fn process_with(command_line: &[&str]) -> anyhow::Result<u32> {
    let text: String = command_line.iter().map(|word| format!("{word}\0")).collect();
    let is = |pid: &u32| {
        fs::read_to_string(format!("/proc/{pid}/cmdline")).is_ok_and(|found| found == text)
    };
    match all_pids()?.into_iter().filter(is).collect::<Vec<_>>()[..] {
        [pid] => Ok(pid),
        ref pids => bail!("{} processes {command_line:?}", pids.len()),
    }
}

fn all_pids() -> anyhow::Result<Vec<u32>> {
    let entries = fs::read_dir("/proc")?.flatten();
    Ok(entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect())
}

/// A port that a program of the site has told in its ready file.
pub(crate) fn port(site: &Site, tier: &str, key: &str) -> anyhow::Result<u16> {
    let path = site.folder().join(format!("{tier}.ready"));
    let text = fs::read_to_string(&path).with_context(|| path.display().to_string())?;
    let address = text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix('='));
    let port = address.and_then(|a| a.rsplit_once(':')).and_then(|(_, port)| port.parse().ok());
    port.with_context(|| format!("no {key} in {text}"))
}

/// The process ids of a site, in the order node, cluster, root.
pub(crate) fn pids(site: &Site) -> anyhow::Result<[u32; 3]> {
    Ok([site.pid(Tier::Node)?, site.pid(Tier::Cluster)?, site.pid(Tier::Root)?])
}

/// Sizes of the programs.
pub(crate) fn sizes(table: &mut Table) -> anyhow::Result<()> {
    let folder = programs()?;
    let mut sizes = Vec::new();
    for program in PROGRAMS {
        let bytes = fs::metadata(folder.join(program))?.len();
        sizes.push(f64::from(u32::try_from(bytes)?) / 1e6);
    }
    let [node, cluster, root, shim, cli] = sizes[..] else { bail!("five programs") };
    let promise = Promise {
        what: "binary, stripped, AArch64: node / cluster / root",
        budget: "≤ 6 / 10 / 14 MB",
        known: "",
    };
    table.promised(
        promise,
        &[(node, 6.0), (cluster, 10.0), (root, 14.0)],
        format!("{node:.1} / {cluster:.1} / {root:.1} MB (x86-64, glibc)"),
    );
    table.noted("binary: shim / `marram`", format!("{shim:.1} / {cli:.1} MB (x86-64, glibc)"));
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_connection_is_found_by_its_owner_and_its_peer() {
        let text = "0 0 127.0.0.1:50 127.0.0.1:1883 users:((\"n\",pid=7,fd=4)) cubic \
                    bytes_sent:100 bytes_acked:101 bytes_received:20 segs_out:3 segs_in:2\n\
                    0 0 127.0.0.1:1883 127.0.0.1:50 users:((\"c\",pid=8,fd=4)) bytes_sent:20\n";
        let found = find_traffic(text, 7, 1883);
        assert_eq!(found, Some(Traffic { payload_bytes: 120.0, wire_bytes: 380.0 }));
        for (pid, port) in [(8, 1883), (7, 50), (70, 1883), (7, 883)] {
            assert_eq!(find_traffic(text, pid, port), None, "{pid} to {port}");
        }
    }

    #[test]
    fn a_process_can_be_weighed() {
        let pid = std::process::id();
        assert!(pss_mib(pid).expect("Linux tells") > 0.1);
        let used = Gauge::start(pid).expect("Linux tells").end().expect("Linux tells");
        assert!(used.processor_percent >= 0.0 && used.written_mib_per_day >= 0.0);
        assert_eq!(process_with(&["no", "such"]).ok(), None);
    }
}
