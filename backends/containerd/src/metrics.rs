//! Decodes what containerd measures of a task.
//!
//! Why by hand: the two message types belong to another project of containerd's and come
//! with no crate; of their many fields these few are needed, and protobuf skips the rest.

use marram_backend_api::{Error, ErrorKind, Result, Usage};
use prost::Message;

const DOING: &str = "reading the measurements";

/// `io.containerd.cgroups.v1.Metrics`, as far as it is needed.
#[derive(Clone, PartialEq, Message)]
struct V1 {
    #[prost(message, optional, tag = "2")]
    pids: Option<Pids>,
    #[prost(message, optional, tag = "3")]
    cpu: Option<V1Cpu>,
    #[prost(message, optional, tag = "4")]
    memory: Option<V1Memory>,
    #[prost(message, optional, tag = "5")]
    blkio: Option<V1Blkio>,
}

/// The same in both versions.
#[derive(Clone, PartialEq, Message)]
struct Pids {
    #[prost(uint64, tag = "1")]
    current: u64,
}

#[derive(Clone, PartialEq, Message)]
struct V1Cpu {
    #[prost(message, optional, tag = "1")]
    usage: Option<V1CpuUsage>,
}

#[derive(Clone, PartialEq, Message)]
struct V1CpuUsage {
    /// Nanoseconds.
    #[prost(uint64, tag = "1")]
    total: u64,
}

#[derive(Clone, PartialEq, Message)]
struct V1Memory {
    #[prost(uint64, tag = "29")]
    total_inactive_file: u64,
    #[prost(message, optional, tag = "33")]
    usage: Option<V1MemoryEntry>,
}

#[derive(Clone, PartialEq, Message)]
struct V1MemoryEntry {
    #[prost(uint64, tag = "2")]
    usage: u64,
}

#[derive(Clone, PartialEq, Message)]
struct V1Blkio {
    #[prost(message, repeated, tag = "1")]
    io_service_bytes_recursive: Vec<V1BlkioEntry>,
}

#[derive(Clone, PartialEq, Message)]
struct V1BlkioEntry {
    #[prost(string, tag = "1")]
    op: String,
    #[prost(uint64, tag = "5")]
    value: u64,
}

/// `io.containerd.cgroups.v2.Metrics`, as far as it is needed.
#[derive(Clone, PartialEq, Message)]
struct V2 {
    #[prost(message, optional, tag = "1")]
    pids: Option<Pids>,
    #[prost(message, optional, tag = "2")]
    cpu: Option<V2Cpu>,
    #[prost(message, optional, tag = "4")]
    memory: Option<V2Memory>,
    #[prost(message, optional, tag = "6")]
    io: Option<V2Io>,
}

#[derive(Clone, PartialEq, Message)]
struct V2Cpu {
    #[prost(uint64, tag = "1")]
    usage_usec: u64,
}

#[derive(Clone, PartialEq, Message)]
struct V2Memory {
    #[prost(uint64, tag = "13")]
    inactive_file: u64,
    #[prost(uint64, tag = "32")]
    usage: u64,
}

#[derive(Clone, PartialEq, Message)]
struct V2Io {
    #[prost(message, repeated, tag = "1")]
    usage: Vec<V2IoEntry>,
}

#[derive(Clone, PartialEq, Message)]
struct V2IoEntry {
    #[prost(uint64, tag = "3")]
    rbytes: u64,
    #[prost(uint64, tag = "4")]
    wbytes: u64,
}

/// Turns a measurement of either version into a sample.
pub(crate) fn usage(data: &prost_types::Any) -> Result<Usage> {
    let name = data.type_url.rsplit('/').next().unwrap_or_default();
    let broken = |error: prost::DecodeError| {
        Error::caused(ErrorKind::Internal, DOING, format!("{name} cannot be read"), error)
    };
    match name {
        "io.containerd.cgroups.v1.Metrics" => {
            V1::decode(data.value.as_slice()).map(|v1| v1.usage()).map_err(broken)
        }
        "io.containerd.cgroups.v2.Metrics" => {
            V2::decode(data.value.as_slice()).map(|v2| v2.usage()).map_err(broken)
        }
        other => {
            let why = format!("measurements of type {other:?} are not known");
            Err(Error::new(ErrorKind::Unsupported, DOING, why))
        }
    }
}

fn count(pids: Option<Pids>) -> u32 {
    u32::try_from(pids.unwrap_or_default().current).unwrap_or(u32::MAX)
}

impl V1 {
    fn usage(self) -> Usage {
        let memory = self.memory.unwrap_or_default();
        let used = memory.usage.unwrap_or_default().usage;
        let io = self.blkio.unwrap_or_default().io_service_bytes_recursive;
        let sum = |op: &str| {
            let of = io.iter().filter(|entry| entry.op.eq_ignore_ascii_case(op));
            of.map(|entry| entry.value).fold(0, u64::saturating_add)
        };
        Usage {
            cpu_usec: self.cpu.unwrap_or_default().usage.unwrap_or_default().total / 1000,
            memory_bytes: used.saturating_sub(memory.total_inactive_file),
            pids: count(self.pids),
            io_read_bytes: sum("read"),
            io_write_bytes: sum("write"),
        }
    }
}

impl V2 {
    fn usage(self) -> Usage {
        let memory = self.memory.unwrap_or_default();
        let io = self.io.unwrap_or_default().usage;
        Usage {
            cpu_usec: self.cpu.unwrap_or_default().usage_usec,
            memory_bytes: memory.usage.saturating_sub(memory.inactive_file),
            pids: count(self.pids),
            io_read_bytes: io.iter().map(|entry| entry.rbytes).fold(0, u64::saturating_add),
            io_write_bytes: io.iter().map(|entry| entry.wbytes).fold(0, u64::saturating_add),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn any(name: &str, value: Vec<u8>) -> prost_types::Any {
        prost_types::Any { type_url: name.into(), value }
    }

    #[test]
    fn version_two_is_read_field_by_field() {
        // pids{1:7} cpu{1:1500} memory{13:10, 32:300} io{1:{3:4, 4:5}}, written out.
        let bytes = [
            0x0a, 2, 0x08, 7, //
            0x12, 3, 0x08, 0xdc, 0x0b, //
            0x22, 6, 0x68, 10, 0x80, 0x02, 0xac, 0x02, //
            0x32, 6, 0x0a, 4, 0x18, 4, 0x20, 5,
        ];
        let usage = usage(&any("io.containerd.cgroups.v2.Metrics", bytes.into())).unwrap();
        let expected = Usage {
            cpu_usec: 1500,
            memory_bytes: 290,
            pids: 7,
            io_read_bytes: 4,
            io_write_bytes: 5,
        };
        assert_eq!(usage, expected);
    }

    #[test]
    fn what_is_not_known_or_torn_is_an_error() {
        let kind = |name, bytes: &[u8]| usage(&any(name, bytes.into())).unwrap_err().kind;
        assert_eq!(kind("io.kata.Metrics", &[]), ErrorKind::Unsupported);
        assert_eq!(kind("io.containerd.cgroups.v1.Metrics", &[0x12, 9]), ErrorKind::Internal);
    }
}
