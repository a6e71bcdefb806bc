//! What a container may use, as cgroups take it.

use super::Built;
use crate::cgroup::Cgroups;
use marram_backend_api::Spec;
use oci_spec::runtime::{
    LinuxCpuBuilder, LinuxDeviceCgroup, LinuxMemoryBuilder, LinuxPidsBuilder, LinuxResources,
    LinuxResourcesBuilder,
};

/// The kernel's usual period. Shorter ones cost, longer ones make programs stutter.
const PERIOD_USEC: u64 = 100_000;

/// The kernel's longest period, for shares too small for the usual one.
const PERIOD_USEC_MAX: u64 = 1_000_000;

/// The kernel's smallest quota.
const QUOTA_USEC_MIN: u64 = 1_000;

/// Smallest share of a core that can be enforced: the smallest quota in the longest period.
pub(crate) const CPU_MILLICORES_MIN: u32 = 1;

/// Limits that this host enforces; whoever calls has refused the others or was told that
/// they may be left out.
pub(super) fn resources(
    spec: &Spec,
    cgroups: &Cgroups,
    devices: Vec<LinuxDeviceCgroup>,
) -> Built<LinuxResources> {
    let mut all = LinuxResourcesBuilder::default().devices(devices);
    let wanted = &spec.resources;
    if let Some(bytes) = wanted.memory_bytes_max.filter(|_| cgroups.enforces("memory")) {
        let bytes = i64::try_from(bytes).unwrap_or(i64::MAX);
        let mut memory = LinuxMemoryBuilder::default().limit(bytes);
        if cgroups.counts_swap() {
            // Memory and swap together: none of it in swap, or the limit would not hold.
            memory = memory.swap(bytes);
        }
        all = all.memory(memory.build()?);
    }
    if let Some(millicores) = wanted.cpu_millicores_max.filter(|_| cgroups.enforces("cpu")) {
        let (quota, period) = quota(millicores);
        all = all.cpu(LinuxCpuBuilder::default().quota(quota).period(period).build()?);
    }
    if let Some(pids) = wanted.pids_max.filter(|_| cgroups.enforces("pids")) {
        all = all.pids(LinuxPidsBuilder::default().limit(i64::from(pids)).build()?);
    }
    all.build()
}

/// Microseconds of processor time in each period, and the period.
fn quota(millicores: u32) -> (i64, u64) {
    let share = |period: u64| u64::from(millicores) * period / 1000;
    let period = match share(PERIOD_USEC) < QUOTA_USEC_MIN {
        true => PERIOD_USEC_MAX,
        false => PERIOD_USEC,
    };
    (i64::try_from(share(period).max(QUOTA_USEC_MIN)).unwrap_or(i64::MAX), period)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_of_a_core_keep_above_the_smallest_quota() {
        assert_eq!(quota(1000), (100_000, 100_000));
        assert_eq!(quota(200), (20_000, 100_000));
        assert_eq!(quota(10), (1_000, 100_000));
        assert_eq!(quota(9), (9_000, 1_000_000));
        assert_eq!(quota(CPU_MILLICORES_MIN), (1_000, 1_000_000));
        assert_eq!(quota(u32::MAX), (429_496_729_500, 100_000));
    }
}
