//! What this machine is.
//!
//! Why apart from telemetry: this is read once at start and may take some milliseconds; it
//! changes when somebody plugs something in or boots another kernel.

use std::path::Path;

use rustix::fs::{Access, access};

use crate::cgroups::Cgroups;
use crate::disk::Disk;
use crate::gpu::{self, Gpu};
use crate::network::{self, Interface};
use crate::parse;
use crate::root::Root;
use crate::telemetry::THERMAL_ZONES_MAX;

/// A processor architecture in the words of OCI images.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Architecture {
    /// `amd64`, `arm64`, `arm`, `riscv64`, …: that of this program, since a 32-bit system on a
    /// 64-bit kernel runs 32-bit programs.
    pub name: &'static str,
    /// `v6`, `v7`, `v8` on ARM.
    pub variant: Option<String>,
}

impl Architecture {
    /// From Rust's name of an architecture and `/proc/cpuinfo`.
    pub fn of(rust_name: &'static str, cpuinfo: &str) -> Self {
        let name = match rust_name {
            "x86_64" => "amd64",
            "x86" => "386",
            "aarch64" => "arm64",
            "loongarch64" => "loong64",
            "powerpc64" => "ppc64le",
            other => other,
        };
        let version = parse::arm_version(cpuinfo).filter(|_| name.starts_with("arm"));
        // A 32-bit program on a processor of version 8 has version 7 at most.
        let version = if name == "arm" { version.map(|v| v.min(7)) } else { version };
        Self { name, variant: version.map(|version| format!("v{version}")) }
    }
}

/// The processors.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Cpu {
    /// How many the system runs on, hyperthreads counted.
    pub threads: Option<u32>,
    /// How many of these are of a slower kind than the rest, on a machine with two kinds.
    pub efficiency_threads: Option<u32>,
    /// Their name.
    pub model: Option<String>,
}

/// A place where temperature is measured.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ThermalZone {
    /// `cpu-thermal`, `x86_pkg_temp`, …
    pub name: String,
    /// In thousandths of a degree Celsius, when the fingerprint was taken.
    pub temperature_millidegrees: Option<i32>,
}

/// The kernel's door to hardware virtualization. That it opens says nothing about whether a
/// guest really runs; only starting one does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KvmDevice {
    /// There is none.
    Absent,
    /// It is there, but we may not use it.
    Forbidden,
    /// It is there and may be opened.
    Accessible,
}

/// What a machine is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fingerprint {
    /// Its name.
    pub hostname: Option<String>,
    /// What programs it runs.
    pub architecture: Architecture,
    /// The kernel's release.
    pub kernel: Option<String>,
    /// The system's name for people.
    pub os_name: Option<String>,
    /// The board's or computer's model.
    pub board: Option<String>,
    /// An id that stays with the installation. It is no secret and no proof of anything.
    pub machine_id: Option<String>,
    /// An id of this run of the kernel.
    pub boot_id: Option<String>,
    /// Processors.
    pub cpu: Cpu,
    /// Memory that the kernel has.
    pub memory_total_bytes: Option<u64>,
    /// Swap.
    pub swap_total_bytes: Option<u64>,
    /// The disk that holds the state directory.
    pub state_disk: Option<Disk>,
    /// Which limits can be set.
    pub cgroups: Cgroups,
    /// GPUs, in the order in which a sample tells their load.
    pub gpus: Vec<Gpu>,
    /// Where temperature is measured.
    pub thermal_zones: Vec<ThermalZone>,
    /// Network interfaces but the loopback one.
    pub interfaces: Vec<Interface>,
    /// Hardware virtualization.
    pub kvm: KvmDevice,
}

impl Fingerprint {
    /// Reads it. `state_dir` is a path of the running machine, whatever the root.
    pub fn read(root: &Root, state_dir: &Path) -> Self {
        let cpuinfo = root.text("/proc/cpuinfo").unwrap_or_default();
        let memory = root.text("/proc/meminfo").and_then(|text| parse::memory(&text));
        Self {
            hostname: root.line("/proc/sys/kernel/hostname"),
            architecture: Architecture::of(std::env::consts::ARCH, &cpuinfo),
            kernel: root.line("/proc/sys/kernel/osrelease"),
            os_name: os_name(root),
            board: board(root),
            machine_id: ["/etc/machine-id", "/var/lib/dbus/machine-id"]
                .into_iter()
                .find_map(|path| parse::board_id(&root.line(path)?)),
            boot_id: root
                .line("/proc/sys/kernel/random/boot_id")
                .and_then(|text| parse::board_id(&text)),
            cpu: cpu(root, &cpuinfo),
            memory_total_bytes: memory.map(|memory| memory.total_bytes),
            swap_total_bytes: memory.map(|memory| memory.swap_total_bytes),
            state_disk: Disk::of(state_dir),
            cgroups: Cgroups::read(root),
            gpus: gpus(root),
            thermal_zones: thermal_zones(root),
            interfaces: network::interfaces(root),
            kvm: kvm(root),
        }
    }

    /// The fingerprint as names and values for people, what is unknown left out.
    pub fn facts(&self) -> Vec<(&'static str, String)> {
        let mut facts = Vec::new();
        let mut fact = |name, value: Option<String>| {
            facts.extend(value.map(|value| (name, value)));
        };
        fact("hostname", self.hostname.clone());
        fact("architecture", Some(self.architecture.name.to_owned()));
        fact("kernel", self.kernel.clone());
        fact("os", self.os_name.clone());
        fact("board", self.board.clone());
        fact("cpu", self.cpu.model.clone());
        fact("cpus", self.cpu.threads.map(|threads| threads.to_string()));
        let mib = |bytes: u64| (bytes / (1024 * 1024)).to_string();
        fact("memory_mib", self.memory_total_bytes.map(mib));
        fact("disk_mib", self.state_disk.map(|disk| mib(disk.total_bytes)));
        fact("cgroups", Some(self.cgroups.mode.as_str().to_owned()));
        let reasons = self.cgroups.controllers.iter().filter_map(|c| c.unusable.clone());
        let reasons = reasons.collect::<Vec<_>>().join("; ");
        fact("cgroups_unusable", Some(reasons).filter(|reasons| !reasons.is_empty()));
        let gpus = self.gpus.iter().map(|gpu| gpu.model.as_deref().unwrap_or(&gpu.name));
        let gpus = gpus.collect::<Vec<_>>().join(", ");
        fact("gpus", Some(gpus).filter(|gpus| !gpus.is_empty()));
        let kvm = match self.kvm {
            KvmDevice::Absent => "absent",
            KvmDevice::Forbidden => "forbidden",
            KvmDevice::Accessible => "accessible",
        };
        fact("kvm", Some(kvm.to_owned()));
        facts
    }
}

fn os_name(root: &Root) -> Option<String> {
    let mut files = ["/etc/os-release", "/usr/lib/os-release"].into_iter();
    files.find_map(|path| parse::os_pretty_name(&root.text(path)?))
}

fn board(root: &Root) -> Option<String> {
    let of_tree = ["/proc/device-tree/model", "/sys/firmware/devicetree/base/model"];
    if let Some(model) = of_tree.into_iter().find_map(|path| root.line(path)) {
        return Some(model);
    }
    let product = root.line("/sys/class/dmi/id/product_name")?;
    match root.line("/sys/class/dmi/id/sys_vendor") {
        Some(vendor) if !product.starts_with(&vendor) => Some(format!("{vendor} {product}")),
        _ => Some(product),
    }
}

fn cpu(root: &Root, cpuinfo: &str) -> Cpu {
    let online = root.line("/sys/devices/system/cpu/online");
    let threads = online.and_then(|list| parse::count_list(&list)).or_else(|| {
        let count = root.text("/proc/stat")?.lines().filter(|l| l.starts_with("cpu")).count();
        u32::try_from(count.checked_sub(1)?).ok().filter(|count| *count > 0)
    });
    Cpu { threads, efficiency_threads: efficiency_threads(root), model: parse::cpu_model(cpuinfo) }
}

/// On x86 the two kinds are two devices; on ARM each processor has a capacity.
fn efficiency_threads(root: &Root) -> Option<u32> {
    if let Some(atoms) = root.line("/sys/devices/cpu_atom/cpus") {
        return parse::count_list(&atoms);
    }
    let capacities: Vec<u64> = root
        .names("/sys/devices/system/cpu")
        .iter()
        .filter_map(|name| root.number(format!("/sys/devices/system/cpu/{name}/cpu_capacity")))
        .collect();
    let most = capacities.iter().max()?;
    let slower = capacities.iter().filter(|capacity| *capacity < most).count();
    u32::try_from(slower).ok().filter(|slower| *slower > 0)
}

fn thermal_zones(root: &Root) -> Vec<ThermalZone> {
    let zone = |name: &String| {
        let directory = format!("/sys/class/thermal/{name}");
        let temperature = root.line(format!("{directory}/temp"));
        ThermalZone {
            name: root.line(format!("{directory}/type")).unwrap_or_else(|| name.clone()),
            temperature_millidegrees: temperature
                .and_then(|text| parse::temperature_millidegrees(&text)),
        }
    };
    let names = root.names("/sys/class/thermal");
    let names = names.iter().filter(|name| name.starts_with("thermal_zone"));
    names.take(THERMAL_ZONES_MAX).map(zone).collect()
}

fn gpus(root: &Root) -> Vec<Gpu> {
    #[cfg_attr(not(feature = "nvml"), expect(unused_mut, reason = "only the library adds some"))]
    let mut found = gpu::find(root);
    #[cfg(feature = "nvml")]
    if let Some(library) = crate::nvml::Library::load(root) {
        library.complete(&mut found);
    }
    found.into_iter().map(|found| found.gpu).collect()
}

fn kvm(root: &Root) -> KvmDevice {
    if !root.exists("/dev/kvm") {
        return KvmDevice::Absent;
    }
    match access(root.path("/dev/kvm"), Access::READ_OK | Access::WRITE_OK) {
        Ok(()) => KvmDevice::Accessible,
        Err(_) => KvmDevice::Forbidden,
    }
}
