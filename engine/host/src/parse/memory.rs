//! Memory.

/// Memory and swap in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Memory {
    /// All there is.
    pub total_bytes: u64,
    /// What programs could still get without swapping, by the kernel's estimate.
    pub available_bytes: u64,
    /// Swap.
    pub swap_total_bytes: u64,
    /// Swap that is not in use.
    pub swap_free_bytes: u64,
}

impl Memory {
    /// What is not available.
    pub fn used_bytes(&self) -> u64 {
        self.total_bytes.saturating_sub(self.available_bytes)
    }
}

/// `/proc/meminfo`. `None` without total or available (the latter came with 3.14).
pub fn memory(meminfo: &str) -> Option<Memory> {
    let mut found = [None; 4];
    for line in meminfo.lines() {
        let Some((name, value)) = line.split_once(':') else { continue };
        let place = match name {
            "MemTotal" => 0,
            "MemAvailable" => 1,
            "SwapTotal" => 2,
            "SwapFree" => 3,
            _ => continue,
        };
        if let Some(found) = found.get_mut(place) {
            *found = bytes(value);
        }
        // The rest of the file is three times as long and tells nothing for us.
        if found.iter().all(Option::is_some) {
            break;
        }
    }
    let [total, available, swap_total, swap_free] = found;
    Some(Memory {
        total_bytes: total?,
        available_bytes: available?,
        swap_total_bytes: swap_total.unwrap_or(0),
        swap_free_bytes: swap_free.unwrap_or(0),
    })
}

fn bytes(value: &str) -> Option<u64> {
    let kib: u64 = value.trim().strip_suffix("kB")?.trim_end().parse().ok()?;
    kib.checked_mul(1024)
}
