//! Text of the kernel in, values out.
//!
//! Why apart: these functions are total and touch nothing, so they can be given any text at
//! all, by tests and by fuzzing.
//!
//! Invariant: no function here panics, and none invents a value for a field that is missing.

mod cgroups;
mod cpu;
mod memory;
mod network;
mod system;
#[cfg(test)]
mod tests;

pub use cgroups::{CgroupMounts, cgroup_mounts, controllers_enabled, own_cgroups};
pub use cpu::{
    CpuTicks, Load, Pressure, Stall, arm_version, busy_permille, count_list, cpu_model, cpu_ticks,
    load, pressure,
};
pub use memory::{Memory, memory};
pub use network::{
    Addresses, AddressesError, Counters, address_request, addresses, interface_counters,
};
pub use system::{
    Throttling, board_id, drm_card, nvidia_model, os_pretty_name, pci_address, pci_id,
    temperature_millidegrees, throttling, uevent_value,
};

/// A decimal number as an integer of its thousandths (`digits` 3), tenths (1) and so on.
/// Digits beyond are cut off; a sign, a bare point or anything else is no number.
fn fixed_point(text: &str, digits: u32) -> Option<u64> {
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    let only_digits = |part: &str| part.bytes().all(|byte| byte.is_ascii_digit());
    if whole.is_empty() || !only_digits(whole) || !only_digits(fraction) {
        return None;
    }
    let mut number: u64 = whole.parse().ok()?;
    let mut fraction = fraction.bytes();
    for _ in 0..digits {
        let digit = fraction.next().map_or(0, |byte| byte - b'0');
        number = number.checked_mul(10)?.checked_add(u64::from(digit))?;
    }
    Some(number)
}
