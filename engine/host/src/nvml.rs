//! NVIDIA's management library: load and memory of its PCI cards.
//!
//! Why a feature: the library is loaded when the program runs, if it is there at all, and
//! costs several MiB of memory then, which a board without such a card should not pay.

use nvml_wrapper::Nvml;

use crate::gpu::{Found, GPUS_MAX, Gpu, GpuVendor, Source};
use crate::parse;
use crate::root::Root;
use crate::telemetry::GpuSample;

/// The loaded library.
#[derive(Debug)]
pub(crate) struct Library(Nvml);

impl Library {
    /// Loads it; `None` where there is none, or no driver that it could talk to. Without the
    /// driver it is not even looked for: it is large.
    pub(crate) fn load(root: &Root) -> Option<Self> {
        let driver = root.exists("/dev/nvidiactl") || root.exists("/proc/driver/nvidia");
        (root.is_live() && driver).then(|| Nvml::init().ok().map(Self)).flatten()
    }

    /// Completes the cards that the files tell of, and adds those that they do not.
    pub(crate) fn complete(&self, found: &mut Vec<Found>) {
        for index in 0..self.0.device_count().unwrap_or(0) {
            let Ok(device) = self.0.device_by_index(index) else { continue };
            let pci = device.pci_info().ok();
            // The library writes the domain with eight digits, the kernel with four.
            let address = pci.as_ref().and_then(|pci| {
                let start = pci.bus_id.len().checked_sub("0000:01:00.0".len())?;
                parse::pci_address(pci.bus_id.get(start..)?)
            });
            let memory = device.memory_info().ok().map(|memory| memory.total);
            let model = device.name().ok();
            let known = |found: &&mut Found| {
                found.gpu.pci_address.is_some() && found.gpu.pci_address == address
            };
            if let Some(found) = found.iter_mut().find(known) {
                found.gpu.model = model.or(found.gpu.model.take());
                found.gpu.memory_total_bytes = memory;
                found.source = Source::Library(index);
            } else if found.len() < GPUS_MAX {
                let gpu = Gpu {
                    name: address.clone().unwrap_or_else(|| format!("nvidia{index}")),
                    vendor: GpuVendor::Nvidia,
                    model,
                    driver: Some("nvidia".to_owned()),
                    pci_address: address,
                    pci_vendor_id: Some(0x10de),
                    pci_device_id: pci.and_then(|pci| u16::try_from(pci.pci_device_id >> 16).ok()),
                    memory_total_bytes: memory,
                };
                found.push(Found { gpu, source: Source::Library(index) });
            }
        }
    }

    /// Load and memory of one card now.
    pub(crate) fn sample(&self, index: u32) -> GpuSample {
        let Ok(device) = self.0.device_by_index(index) else { return GpuSample::default() };
        let load = device.utilization_rates().ok();
        GpuSample {
            load_permille: load.and_then(|load| u16::try_from(load.gpu.min(100) * 10).ok()),
            memory_used_bytes: device.memory_info().ok().map(|memory| memory.used),
        }
    }
}
