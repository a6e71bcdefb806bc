//! GPUs and where their load is read, as the kernel's files tell it.
//!
//! Why by files: they need no library and no rights. NVIDIA's driver for PCI cards tells its
//! load only through a library; see the feature `nvml`.
//!
//! What counts as a GPU is a device that can render or compute, which is one with a render
//! node; a server's screen chip has none. Jetson's is not among these devices at all and is
//! found by its load file.

use std::path::PathBuf;

use crate::parse;
use crate::root::Root;

/// GPUs told of at most: more than any machine of this kind holds.
pub const GPUS_MAX: usize = 32;

/// Who made a GPU, by what its driver can be expected to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GpuVendor {
    /// AMD.
    Amd,
    /// ARM's Mali.
    Arm,
    /// Broadcom's VideoCore, on a Raspberry Pi.
    Broadcom,
    /// Intel.
    Intel,
    /// NVIDIA, cards and Jetson.
    Nvidia,
    /// Qualcomm's Adreno.
    Qualcomm,
    /// Somebody else, a hypervisor for one.
    Other,
}

/// One GPU.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Gpu {
    /// The kernel's name for it: `card0`, an address on PCI, or the platform device.
    pub name: String,
    /// Who made it.
    pub vendor: GpuVendor,
    /// Its name for people, where something tells it.
    pub model: Option<String>,
    /// The kernel's driver.
    pub driver: Option<String>,
    /// Where it is on PCI: `0000:01:00.0`.
    pub pci_address: Option<String>,
    /// Vendor's number on PCI.
    pub pci_vendor_id: Option<u16>,
    /// Vendor's number for the device.
    pub pci_device_id: Option<u16>,
    /// Memory of its own; a GPU that shares the machine's memory has none.
    pub memory_total_bytes: Option<u64>,
}

/// A GPU and how to ask for its load.
#[derive(Debug)]
pub(crate) struct Found {
    pub(crate) gpu: Gpu,
    pub(crate) source: Source,
}

/// Where the load of a GPU comes from.
#[derive(Debug)]
pub(crate) enum Source {
    /// Files, where there are any.
    Files { load: Option<(PathBuf, Unit)>, memory_used: Option<PathBuf> },
    /// NVIDIA's library, by its index there.
    #[cfg(feature = "nvml")]
    Library(u32),
}

/// The unit of a load file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Unit {
    Percent,
    Permille,
}

impl Unit {
    pub(crate) fn permille(self, text: &str) -> Option<u16> {
        let number: u16 = text.trim().parse().ok()?;
        let permille = match self {
            Self::Percent => number.checked_mul(10)?,
            Self::Permille => number,
        };
        Some(permille.min(1000))
    }
}

/// Every GPU, in a fixed order.
pub(crate) fn find(root: &Root) -> Vec<Found> {
    let mut found: Vec<Found> = root
        .names("/sys/class/drm")
        .into_iter()
        .filter(|name| parse::drm_card(name).is_some())
        .filter_map(|name| drm(root, name))
        .collect();
    add_nvidia_without_drm(root, &mut found);
    if let Some(jetson) = jetson(root) {
        // The same chip's screen part has a render node as well, and is not what computes.
        let screen = |found: &Found| {
            found.gpu.driver.as_deref().is_some_and(|driver| driver.starts_with("tegra"))
        };
        found.retain(|found| !screen(found));
        found.push(jetson);
    }
    found.truncate(GPUS_MAX);
    found
}

fn drm(root: &Root, name: String) -> Option<Found> {
    let device = format!("/sys/class/drm/{name}/device");
    let nodes = root.names(format!("{device}/drm"));
    if !nodes.iter().any(|node| node.starts_with("renderD")) {
        return None;
    }
    let uevent = root.text(format!("{device}/uevent")).unwrap_or_default();
    let value = |key| parse::uevent_value(&uevent, key).map(str::to_owned);
    let driver = root.link_name(format!("{device}/driver")).or_else(|| value("DRIVER"));
    let pci_id = |file: &str| parse::pci_id(&root.line(format!("{device}/{file}"))?);
    let pci_vendor_id = pci_id("vendor");
    let pci_address = value("PCI_SLOT_NAME")
        .or_else(|| root.link_name(&device))
        .and_then(|address| parse::pci_address(&address));
    let file = |file: &str| {
        let path = format!("{device}/{file}");
        root.exists(&path).then(|| root.path(path))
    };
    let gpu = Gpu {
        name,
        vendor: vendor(pci_vendor_id, driver.as_deref()),
        model: None,
        driver,
        pci_address,
        pci_vendor_id,
        pci_device_id: pci_id("device"),
        memory_total_bytes: root.number(format!("{device}/mem_info_vram_total")),
    };
    let load = file("gpu_busy_percent").map(|path| (path, Unit::Percent));
    Some(Found { gpu, source: Source::Files { load, memory_used: file("mem_info_vram_used") } })
}

fn vendor(pci_vendor_id: Option<u16>, driver: Option<&str>) -> GpuVendor {
    match (pci_vendor_id, driver.unwrap_or_default()) {
        (Some(0x10de), _) | (None, "nvgpu" | "nvidia" | "nouveau") => GpuVendor::Nvidia,
        (Some(0x1002), _) => GpuVendor::Amd,
        (Some(0x8086), _) => GpuVendor::Intel,
        (None, driver) if driver.starts_with("tegra") => GpuVendor::Nvidia,
        (None, "v3d" | "vc4" | "vc4-drm") => GpuVendor::Broadcom,
        (None, "panfrost" | "panthor" | "lima" | "mali") => GpuVendor::Arm,
        (None, "msm" | "msm_dpu" | "adreno") => GpuVendor::Qualcomm,
        _ => GpuVendor::Other,
    }
}

/// Cards of NVIDIA's own driver: it gives the model of those already found, and tells of those
/// that a machine without a screen driver does not show.
fn add_nvidia_without_drm(root: &Root, found: &mut Vec<Found>) {
    for name in root.names("/proc/driver/nvidia/gpus") {
        let Some(address) = parse::pci_address(&name) else { continue };
        let information = root.text(format!("/proc/driver/nvidia/gpus/{name}/information"));
        let model = information.and_then(|text| parse::nvidia_model(&text));
        let known = |found: &&mut Found| found.gpu.pci_address.as_deref() == Some(&address);
        if let Some(found) = found.iter_mut().find(known) {
            found.gpu.model = model;
            continue;
        }
        let pci_id = |file: &str| {
            parse::pci_id(&root.line(format!("/sys/bus/pci/devices/{address}/{file}"))?)
        };
        let gpu = Gpu {
            name: address.clone(),
            vendor: GpuVendor::Nvidia,
            model,
            driver: Some("nvidia".to_owned()),
            pci_vendor_id: pci_id("vendor"),
            pci_device_id: pci_id("device"),
            pci_address: Some(address),
            memory_total_bytes: None,
        };
        found.push(Found { gpu, source: Source::Files { load: None, memory_used: None } });
    }
}

/// The GPU inside a Jetson's chip. Its place has moved with every release of its system.
fn jetson(root: &Root) -> Option<Found> {
    let fixed = ["/sys/devices/gpu.0", "/sys/devices/platform/gpu.0"];
    let mut places: Vec<String> = fixed.iter().map(|&place| place.to_owned()).collect();
    for name in root.names("/sys/class/devfreq") {
        let chip = ["ga10b", "gv11b", "gp10b", "gm20b", "gpu"];
        if chip.iter().any(|chip| name.ends_with(chip)) {
            places.push(format!("/sys/class/devfreq/{name}/device"));
        }
    }
    let place = places.into_iter().find(|place| root.exists(format!("{place}/load")))?;
    let name = root.link_name(&place).or_else(|| place.rsplit('/').next().map(str::to_owned))?;
    let gpu = Gpu {
        name,
        vendor: GpuVendor::Nvidia,
        model: None,
        driver: Some("nvgpu".to_owned()),
        pci_address: None,
        pci_vendor_id: None,
        pci_device_id: None,
        memory_total_bytes: None,
    };
    let load = Some((root.path(format!("{place}/load")), Unit::Permille));
    Some(Found { gpu, source: Source::Files { load, memory_used: None } })
}
