//! Reading what a group has used. A file that is not there counts nothing: what is missing
//! is said by the fingerprint, once, and not by each sample.

use marram_backend_api::Usage;
use marram_shim::cgroup::{Group, counter};
use std::fs;
use std::path::Path;

pub(super) fn usage(group: &Group) -> Usage {
    let (io_read_bytes, io_write_bytes) = io_bytes(group);
    Usage {
        cpu_usec: cpu_usec(group).unwrap_or(0),
        memory_bytes: memory_bytes(group).unwrap_or(0),
        pids: pids(group),
        io_read_bytes,
        io_write_bytes,
    }
}

fn number(path: &Path) -> Option<u64> {
    fs::read_to_string(path).ok()?.trim().parse().ok()
}

fn cpu_usec(group: &Group) -> Option<u64> {
    match (group.v1.get("cpuacct"), &group.v2) {
        (Some(dir), _) => Some(number(&dir.join("cpuacct.usage"))? / 1000),
        (None, Some(dir)) => counter(&dir.join("cpu.stat"), "usage_usec"),
        (None, None) => None,
    }
}

/// Less the file cache that the kernel would give back first.
fn memory_bytes(group: &Group) -> Option<u64> {
    let (all, stat, cache) = match (group.v1.get("memory"), &group.v2) {
        (Some(dir), _) => {
            (dir.join("memory.usage_in_bytes"), dir.join("memory.stat"), "total_inactive_file")
        }
        (None, Some(dir)) => (dir.join("memory.current"), dir.join("memory.stat"), "inactive_file"),
        (None, None) => return None,
    };
    Some(number(&all)?.saturating_sub(counter(&stat, cache).unwrap_or(0)))
}

fn pids(group: &Group) -> u32 {
    let dir = group.v1.get("pids").or(group.v2.as_ref());
    let counted = dir.and_then(|dir| number(&dir.join("pids.current")));
    let counted = counted.or_else(|| group.pids().ok().map(|pids| pids.len() as u64));
    counted.and_then(|count| u32::try_from(count).ok()).unwrap_or(0)
}

fn io_bytes(group: &Group) -> (u64, u64) {
    if let Some(dir) = group.v1.get("blkio") {
        let text = fs::read_to_string(dir.join("blkio.throttle.io_service_bytes_recursive"))
            .or_else(|_| fs::read_to_string(dir.join("blkio.throttle.io_service_bytes")))
            .unwrap_or_default();
        return v1_io_bytes(&text);
    }
    let text = group.v2.as_ref().and_then(|dir| fs::read_to_string(dir.join("io.stat")).ok());
    v2_io_bytes(&text.unwrap_or_default())
}

/// Lines of `MAJOR:MINOR Read BYTES`.
pub(super) fn v1_io_bytes(text: &str) -> (u64, u64) {
    let mut sums = (0u64, 0u64);
    for line in text.lines() {
        let words: Vec<&str> = line.split_whitespace().collect();
        let [_, what, bytes] = words.as_slice() else { continue };
        let bytes = bytes.parse().unwrap_or(0);
        match *what {
            "Read" => sums.0 = sums.0.saturating_add(bytes),
            "Write" => sums.1 = sums.1.saturating_add(bytes),
            _ => {}
        }
    }
    sums
}

/// Lines of `MAJOR:MINOR rbytes=BYTES wbytes=BYTES …`.
pub(super) fn v2_io_bytes(text: &str) -> (u64, u64) {
    let mut sums = (0u64, 0u64);
    for word in text.split_whitespace() {
        match word.split_once('=') {
            Some(("rbytes", bytes)) => sums.0 = sums.0.saturating_add(bytes.parse().unwrap_or(0)),
            Some(("wbytes", bytes)) => sums.1 = sums.1.saturating_add(bytes.parse().unwrap_or(0)),
            _ => {}
        }
    }
    sums
}
