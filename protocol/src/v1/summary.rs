//! What a child can do and what it uses, in integers.
//!
//! A node is a summary of one; a cluster sums up its children. The largest free slot goes
//! beside the sums, since ten times 100 MiB free hold no workload of 200 MiB.

use crate::id::InstanceId;
use crate::v1::Peer;
use serde::{Deserialize, Serialize};

/// Entries of each list in a summary: its size stays bounded whatever the subtree's size.
pub const SUMMARY_LIST_MAX: usize = 32;

/// Kinds of amounts in [`Resources`].
pub const RESOURCE_KINDS: usize = 7;

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
    /// Memory of GPUs in MiB, of all of them together.
    pub gpu_memory_mib: u32,
    /// Bandwidth towards the machine, in kbit/s.
    pub bandwidth_in_kbps: u32,
    /// Bandwidth from the machine, in kbit/s.
    pub bandwidth_out_kbps: u32,
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
        self.amounts().iter().zip(other.amounts()).all(|(mine, theirs)| *mine <= theirs)
    }

    /// All amounts, in the order of the fields.
    pub fn amounts(self) -> [u32; RESOURCE_KINDS] {
        let Self {
            memory_mib,
            cpu_millicores,
            gpus,
            storage_mib,
            gpu_memory_mib,
            bandwidth_in_kbps,
            bandwidth_out_kbps,
        } = self;
        [
            memory_mib,
            cpu_millicores,
            gpus,
            storage_mib,
            gpu_memory_mib,
            bandwidth_in_kbps,
            bandwidth_out_kbps,
        ]
    }

    /// The reverse of [`Resources::amounts`].
    pub fn of_amounts(amounts: [u32; RESOURCE_KINDS]) -> Self {
        let [
            memory_mib,
            cpu_millicores,
            gpus,
            storage_mib,
            gpu_memory_mib,
            bandwidth_in_kbps,
            bandwidth_out_kbps,
        ] = amounts;
        Self {
            memory_mib,
            cpu_millicores,
            gpus,
            storage_mib,
            gpu_memory_mib,
            bandwidth_in_kbps,
            bandwidth_out_kbps,
        }
    }

    /// The smaller of each.
    pub fn min(self, other: Self) -> Self {
        self.pairwise(other, u32::min)
    }

    fn pairwise(self, other: Self, f: impl Fn(u32, u32) -> u32) -> Self {
        let (mut amounts, others) = (self.amounts(), other.amounts());
        for (mine, theirs) in amounts.iter_mut().zip(others) {
            *mine = f(*mine, theirs);
        }
        Self::of_amounts(amounts)
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
    /// `key=value` or `key`: a node's own, and for a cluster those of its subtree.
    pub labels: Vec<String>,
    /// What is installed beside: names that the constraint `addons` asks for.
    pub addons: Vec<String>,
    /// Models of GPUs.
    pub gpu_models: Vec<String>,
    /// A list above was longer than [`SUMMARY_LIST_MAX`]: what it does not name may be there.
    pub cut: bool,
    /// Where it is in the space of latencies; a cluster tells the middle of its nodes.
    pub coordinate: Option<Coordinate>,
    /// How far the farthest node is from there, in microseconds; 0 for a node.
    pub reach_us: u32,
    /// Takes nothing new.
    pub cordoned: bool,
    /// Some of its nodes that answer echo requests, a node itself; at most
    /// [`ECHOES_MAX`](crate::v1::ECHOES_MAX).
    pub echoes: Vec<Peer>,
}

/// A place in the space of latencies (Vivaldi, two dimensions and a height): the distance of
/// two is the round trip between them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Coordinate {
    /// Microseconds.
    pub x_us: i32,
    /// Microseconds.
    pub y_us: i32,
    /// What the way to the net costs, in microseconds.
    pub height_us: u32,
    /// How much it is to be trusted: expected relative error.
    pub error_permille: u16,
}

/// A place on the globe.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Geo {
    /// Millionths of a degree north.
    pub latitude_udeg: i32,
    /// Millionths of a degree east.
    pub longitude_udeg: i32,
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
        let one = Resources::of_amounts([1; RESOURCE_KINDS]);
        assert_eq!(most.plus(one).memory_mib, u32::MAX);
        assert_eq!(Resources::default().minus(one), Resources::default());
        assert!(one.fits(one));
        assert!(!one.fits(Resources { gpus: 0, ..one }));
    }
}
