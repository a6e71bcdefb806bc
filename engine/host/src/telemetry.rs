//! How this machine is doing now.
//!
//! Why apart from the fingerprint: this runs every few seconds on boards that have better
//! things to do. Which files there are is found once; a sample then reads about ten small
//! ones into one buffer.
//!
//! Invariant: a sample says nothing about time. The caller keeps the sample before and asks
//! for the difference.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use crate::disk::Disk;
use crate::gpu::{self, Found, Gpu, Source};
use crate::network;
use crate::parse::{self, Counters, CpuTicks, Load, Memory, Pressure, Throttling};
use crate::root::{Buffer, Root};

/// Thermal zones that are read: a Jetson has a dozen, and each read asks a sensor.
pub const THERMAL_ZONES_MAX: usize = 32;

/// Interfaces of which is remembered whether they are hardware; names of containers' ones
/// come and go, so the memory is emptied when it is full.
const REMEMBERED_INTERFACES_MAX: usize = 1024;

/// Pressure of each resource, where the kernel tells it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Pressures {
    /// Waiting for a processor.
    pub cpu: Option<Pressure>,
    /// Waiting for memory.
    pub memory: Option<Pressure>,
    /// Waiting for disks.
    pub io: Option<Pressure>,
}

/// Use of one GPU.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct GpuSample {
    /// How busy it is.
    pub load_permille: Option<u16>,
    /// How much of its own memory is in use.
    pub memory_used_bytes: Option<u64>,
}

/// Use of the machine at one moment.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Sample {
    /// Processor time since boot.
    pub cpu_ticks: Option<CpuTicks>,
    /// Memory.
    pub memory: Option<Memory>,
    /// How many programs want to run.
    pub load: Option<Load>,
    /// How long they wait.
    pub pressures: Pressures,
    /// The disk that holds the state directory.
    pub state_disk: Option<Disk>,
    /// Bytes that all interfaces with hardware have carried since they came up; of all but
    /// the loopback one where none has hardware, as in a container.
    pub network: Option<Counters>,
    /// The hottest place.
    pub temperature_max_millidegrees: Option<i32>,
    /// What a Raspberry Pi's firmware complains of.
    pub throttling: Option<Throttling>,
    /// In the order of the fingerprint's GPUs.
    pub gpus: Vec<GpuSample>,
}

impl Sample {
    /// How busy all processors were since an earlier sample.
    pub fn cpu_permille_since(&self, earlier: &Self) -> Option<u16> {
        parse::busy_permille(earlier.cpu_ticks?, self.cpu_ticks?)
    }
}

/// Takes samples. Make a new one when hardware was plugged in.
#[derive(Debug)]
pub struct Sampler {
    root: Root,
    buffer: Buffer,
    state_dir: PathBuf,
    stat: PathBuf,
    meminfo: PathBuf,
    loadavg: PathBuf,
    pressures: [PathBuf; 3],
    net_dev: PathBuf,
    temperatures: Vec<PathBuf>,
    throttled: Option<PathBuf>,
    gpus: Vec<Found>,
    physical: BTreeMap<String, bool>,
    #[cfg(feature = "nvml")]
    library: Option<crate::nvml::Library>,
}

impl Sampler {
    /// Finds out which files there are. `state_dir` is a path of the running machine,
    /// whatever the root.
    pub fn new(root: &Root, state_dir: &Path) -> Self {
        #[cfg_attr(not(feature = "nvml"), expect(unused_mut, reason = "only the library adds"))]
        let mut gpus = gpu::find(root);
        #[cfg(feature = "nvml")]
        let library = crate::nvml::Library::load(root);
        #[cfg(feature = "nvml")]
        if let Some(library) = &library {
            library.complete(&mut gpus);
        }
        let pressure = |name: &str| root.path(format!("/proc/pressure/{name}"));
        Self {
            buffer: Buffer::default(),
            state_dir: state_dir.to_path_buf(),
            stat: root.path("/proc/stat"),
            meminfo: root.path("/proc/meminfo"),
            loadavg: root.path("/proc/loadavg"),
            pressures: [pressure("cpu"), pressure("memory"), pressure("io")],
            net_dev: root.path("/proc/net/dev"),
            temperatures: temperatures(root),
            throttled: throttled(root),
            gpus,
            physical: BTreeMap::new(),
            #[cfg(feature = "nvml")]
            library,
            root: root.clone(),
        }
    }

    /// The GPUs whose use the samples tell, in that order.
    pub fn gpus(&self) -> impl Iterator<Item = &Gpu> {
        self.gpus.iter().map(|found| &found.gpu)
    }

    /// How the machine is doing now.
    pub fn sample(&mut self) -> Sample {
        let [cpu, memory, io] = &self.pressures;
        let buffer = &mut self.buffer;
        let mut pressure = |path: &Path| buffer.read(path).and_then(parse::pressure);
        let pressures =
            Pressures { cpu: pressure(cpu), memory: pressure(memory), io: pressure(io) };
        Sample {
            cpu_ticks: buffer.read(&self.stat).and_then(parse::cpu_ticks),
            memory: buffer.read(&self.meminfo).and_then(parse::memory),
            load: buffer.read(&self.loadavg).and_then(parse::load),
            pressures,
            state_disk: Disk::of(&self.state_dir),
            temperature_max_millidegrees: self
                .temperatures
                .iter()
                .filter_map(|path| buffer.read(path).and_then(parse::temperature_millidegrees))
                .max(),
            throttling: self
                .throttled
                .as_ref()
                .and_then(|path| buffer.read(path).and_then(parse::throttling)),
            gpus: self.sample_gpus(),
            network: self.sample_network(),
        }
    }

    fn sample_gpus(&mut self) -> Vec<GpuSample> {
        let buffer = &mut self.buffer;
        let sample = |found: &Found| match &found.source {
            Source::Files { load, memory_used } => GpuSample {
                load_permille: load
                    .as_ref()
                    .and_then(|(path, unit)| unit.permille(buffer.read(path)?)),
                memory_used_bytes: memory_used
                    .as_ref()
                    .and_then(|path| buffer.read(path)?.trim().parse().ok()),
            },
            #[cfg(feature = "nvml")]
            Source::Library(index) => {
                self.library.as_ref().map(|library| library.sample(*index)).unwrap_or_default()
            }
        };
        self.gpus.iter().map(sample).collect()
    }

    fn sample_network(&mut self) -> Option<Counters> {
        if self.physical.len() > REMEMBERED_INTERFACES_MAX {
            self.physical.clear();
        }
        let add = |sum: &mut Option<Counters>, one: Counters| {
            let sum = sum.get_or_insert_default();
            sum.rx_bytes = sum.rx_bytes.saturating_add(one.rx_bytes);
            sum.tx_bytes = sum.tx_bytes.saturating_add(one.tx_bytes);
        };
        let (mut hardware, mut all) = (None, None);
        let table = self.buffer.read(&self.net_dev)?;
        for (name, counters) in parse::interface_counters(table) {
            if name == "lo" {
                continue;
            }
            let physical = match self.physical.get(name) {
                Some(physical) => *physical,
                None => {
                    let physical = network::is_physical(&self.root, name);
                    self.physical.insert(name.to_owned(), physical);
                    physical
                }
            };
            if physical {
                add(&mut hardware, counters);
            }
            add(&mut all, counters);
        }
        hardware.or(all)
    }
}

/// The files with temperatures: thermal zones, or where there are none the sensors of the
/// processor itself.
fn temperatures(root: &Root) -> Vec<PathBuf> {
    let zones = root.names("/sys/class/thermal");
    let mut files: Vec<_> = zones
        .iter()
        .filter(|name| name.starts_with("thermal_zone"))
        .map(|name| root.path(format!("/sys/class/thermal/{name}/temp")))
        .collect();
    if files.is_empty() {
        for name in root.names("/sys/class/hwmon") {
            let directory = format!("/sys/class/hwmon/{name}");
            let sensor = root.line(format!("{directory}/name")).unwrap_or_default();
            if ["coretemp", "k10temp", "cpu_thermal"].contains(&sensor.as_str()) {
                let inputs = root.names(&directory);
                let inputs = inputs
                    .iter()
                    .filter(|input| input.starts_with("temp") && input.ends_with("_input"));
                files.extend(inputs.map(|input| root.path(format!("{directory}/{input}"))));
            }
        }
    }
    files.truncate(THERMAL_ZONES_MAX);
    files
}

/// The file in which a Raspberry Pi's firmware complains. The platform device is called
/// `soc`, on a Pi 5 with its address behind.
fn throttled(root: &Root) -> Option<PathBuf> {
    let platform = "/sys/devices/platform";
    let devices = root.names(platform);
    let socs = devices.iter().filter(|name| *name == "soc" || name.starts_with("soc@"));
    socs.flat_map(|soc| {
        let children = root.names(format!("{platform}/{soc}"));
        let firmware = children.into_iter().filter(|name| name.ends_with(":firmware"));
        firmware.map(move |name| format!("{platform}/{soc}/{name}/get_throttled"))
    })
    .find(|path| root.exists(path))
    .map(|path| root.path(path))
}
