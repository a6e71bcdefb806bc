//! What a child can do and what it uses, in integers.
//!
//! A node is a summary of one; a cluster sums up its children. The largest free slot goes
//! beside the sums, since ten times 100 MiB free hold no workload of 200 MiB.

use crate::id::InstanceId;
use serde::{Deserialize, Serialize};

/// Entries of each list in a summary: its size stays bounded whatever the subtree's size.
pub const SUMMARY_LIST_MAX: usize = 32;

/// Amounts of what is scarce.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Resources {
    /// Memory in MiB.
    pub memory_mib: u32,
    /// Processor time in thousandths of a core.
    pub cpu_millicores: u32,
    /// Whole GPUs.
    pub gpus: u32,
    /// Disk in MiB.
    pub storage_mib: u32,
}

impl Resources {
    /// Sum, held at the largest number instead of wrapping.
    pub fn plus(self, other: Self) -> Self {
        self.pairwise(other, u32::saturating_add)
    }

    /// Difference, held at 0.
    pub fn minus(self, other: Self) -> Self {
        self.pairwise(other, u32::saturating_sub)
    }

    /// The larger of each.
    pub fn max(self, other: Self) -> Self {
        self.pairwise(other, u32::max)
    }

    /// Whether each amount is at most the other's.
    pub fn fits(self, other: Self) -> bool {
        self.memory_mib <= other.memory_mib
            && self.cpu_millicores <= other.cpu_millicores
            && self.gpus <= other.gpus
            && self.storage_mib <= other.storage_mib
    }

    fn pairwise(self, other: Self, f: impl Fn(u32, u32) -> u32) -> Self {
        Self {
            memory_mib: f(self.memory_mib, other.memory_mib),
            cpu_millicores: f(self.cpu_millicores, other.cpu_millicores),
            gpus: f(self.gpus, other.gpus),
            storage_mib: f(self.storage_mib, other.storage_mib),
        }
    }
}

/// What a child can do.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Summary {
    /// Nodes that can take work.
    pub nodes: u32,
    /// All there is.
    pub capacity: Resources,
    /// Promised to instances.
    pub reserved: Resources,
    /// For each resource, the most that is free on one node.
    pub largest_free: Resources,
    /// `amd64`, `arm64`, `arm`, …
    pub architectures: Vec<String>,
    /// Values of the SLA's `virtualization` that are served, runtimes' names among them.
    pub virtualizations: Vec<String>,
    /// `latitude,longitude[,radius in metres]`, empty if not known.
    pub location: String,
}

/// Stall times of the last ten seconds, in thousandths.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Pressure {
    /// Waiting for a processor.
    pub cpu_permille: u16,
    /// Waiting for memory.
    pub memory_permille: u16,
    /// Waiting for disks.
    pub io_permille: u16,
}

/// What is used, at one moment.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Telemetry {
    /// Of which start of the program.
    pub incarnation: u64,
    /// Counts messages of that start; a gap is a loss.
    pub sequence: u32,
    /// Busy share of all processors.
    pub cpu_permille: u16,
    /// Memory in use.
    pub memory_used_mib: u32,
    /// Free on the disk of the state directory.
    pub disk_free_mib: u32,
    /// Hottest zone, in tenths of a degree Celsius.
    pub temperature_decidegrees: Option<i16>,
    /// Where the kernel tells it.
    pub pressure: Option<Pressure>,
    /// Of instances whose use has changed.
    pub workloads: Vec<WorkloadUsage>,
}

/// What one instance uses.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct WorkloadUsage {
    /// Which.
    pub instance: InstanceId,
    /// Of one core, in thousandths.
    pub cpu_permille: u32,
    /// Memory.
    pub memory_mib: u32,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arithmetic_never_wraps() {
        let most = Resources { memory_mib: u32::MAX, ..Resources::default() };
        let one = Resources { memory_mib: 1, cpu_millicores: 1, gpus: 1, storage_mib: 1 };
        assert_eq!(most.plus(one).memory_mib, u32::MAX);
        assert_eq!(Resources::default().minus(one), Resources::default());
        assert!(one.fits(one));
        assert!(!one.fits(Resources { gpus: 0, ..one }));
    }
}
