//! What of the measurements goes up, and when.
//!
//! A node tells what has changed beyond a dead band, and everything once in a while; an
//! idle node then costs some bytes a minute however often it measures.

use marram_protocol::id::InstanceId;
use marram_protocol::v1::{Telemetry, WorkloadUsage};
use std::collections::BTreeMap;

/// Everything is told this often, so that a reader knows the figures are alive.
pub(crate) const HEARTBEAT_MS: u64 = 60_000;

/// Shortest time between two messages.
const INTERVAL_MS: u64 = 5_000;

/// Changes smaller than these are noise.
const CPU_PERMILLE: u32 = 50;
const MEMORY_MIB: u32 = 16;
const DISK_MIB: u32 = 64;
const TEMPERATURE_DECIDEGREES: u32 = 20;

#[derive(Debug, Clone, Default)]
pub(crate) struct Filter {
    sent: Option<(u64, Telemetry)>,
    /// When everything was told, with whatever changed since.
    whole_ms: u64,
    usage: BTreeMap<InstanceId, WorkloadUsage>,
    sequence: u32,
}

impl Filter {
    /// The connection is new: tell everything with the next sample.
    pub(crate) fn reset(&mut self) {
        self.sent = None;
        self.usage.clear();
    }

    /// The message to send for a sample, if there is something to say.
    pub(crate) fn pass(&mut self, mut sample: Telemetry, mono_ms: u64) -> Option<Telemetry> {
        let since = self.sent.as_ref().map(|(at, _)| mono_ms.saturating_sub(*at));
        if since.is_some_and(|ms| ms < INTERVAL_MS) {
            return None;
        }
        let whole = since.is_none() || mono_ms.saturating_sub(self.whole_ms) >= HEARTBEAT_MS;
        self.usage.retain(|id, _| sample.workloads.iter().any(|u| u.instance == *id));
        let noted = &self.usage;
        sample.workloads.retain(|usage| {
            whole || noted.get(&usage.instance).is_none_or(|known| differs(known, usage))
        });
        let quiet = self.sent.as_ref().is_some_and(|(_, sent)| !host_differs(sent, &sample));
        if !whole && quiet && sample.workloads.is_empty() {
            return None;
        }
        if whole {
            self.whole_ms = mono_ms;
        }
        self.usage.extend(sample.workloads.iter().map(|usage| (usage.instance, *usage)));
        self.sequence = self.sequence.wrapping_add(1);
        sample.sequence = self.sequence;
        let host = Telemetry { workloads: Vec::new(), ..sample.clone() };
        self.sent = Some((mono_ms, host));
        Some(sample)
    }
}

fn differs(known: &WorkloadUsage, now: &WorkloadUsage) -> bool {
    known.cpu_permille.abs_diff(now.cpu_permille) >= CPU_PERMILLE
        || known.memory_mib.abs_diff(now.memory_mib) >= MEMORY_MIB
}

fn host_differs(sent: &Telemetry, now: &Telemetry) -> bool {
    let temperature = match (sent.temperature_decidegrees, now.temperature_decidegrees) {
        (Some(sent), Some(now)) => u32::from(sent.abs_diff(now)) >= TEMPERATURE_DECIDEGREES,
        (sent, now) => sent.is_some() != now.is_some(),
    };
    u32::from(sent.cpu_permille.abs_diff(now.cpu_permille)) >= CPU_PERMILLE
        || sent.memory_used_mib.abs_diff(now.memory_used_mib) >= MEMORY_MIB
        || sent.disk_free_mib.abs_diff(now.disk_free_mib) >= DISK_MIB
        || temperature
}

#[cfg(test)]
mod tests {
    use super::*;
    use marram_protocol::id::ServiceId;

    fn sample(cpu_permille: u16, used: &[u32]) -> Telemetry {
        let usage = |(number, memory_mib): (usize, &u32)| WorkloadUsage {
            instance: InstanceId {
                service: ServiceId([1; 12]),
                number: u32::try_from(number).unwrap(),
            },
            cpu_permille: 0,
            memory_mib: *memory_mib,
        };
        let workloads = used.iter().enumerate().map(usage).collect();
        Telemetry { cpu_permille, workloads, ..Telemetry::default() }
    }

    #[test]
    fn only_changes_and_heartbeats_pass() {
        let mut filter = Filter::default();
        let first = filter.pass(sample(100, &[50, 60]), 0).unwrap();
        assert_eq!((first.sequence, first.workloads.len()), (1, 2));
        assert_eq!(filter.pass(sample(900, &[50, 60]), 1_000), None, "too soon");
        assert_eq!(filter.pass(sample(120, &[51, 61]), 10_000), None, "noise");
        let changed = filter.pass(sample(120, &[50, 90]), 20_000).unwrap();
        assert_eq!((changed.sequence, changed.workloads.len()), (2, 1));
        assert_eq!(filter.pass(sample(120, &[50, 90]), 59_999), None);
        let whole = filter.pass(sample(120, &[50, 90]), 60_000).unwrap();
        assert_eq!((whole.sequence, whole.workloads.len()), (3, 2));
    }

    #[test]
    fn what_is_quiet_is_told_beside_what_changes_all_the_time() {
        let mut filter = Filter::default();
        let mut quiet_told = Vec::new();
        for step in 0..=12u32 {
            let busy = if step % 2 == 0 { 500 } else { 100 };
            let at_ms = u64::from(step) * 10_000;
            let passed = filter.pass(sample(0, &[50, busy]), at_ms).unwrap();
            if passed.workloads.iter().any(|usage| usage.instance.number == 0) {
                quiet_told.push(at_ms);
            }
        }
        assert_eq!(quiet_told, [0, 60_000, 120_000]);
    }

    #[test]
    fn a_new_connection_hears_everything() {
        let mut filter = Filter::default();
        assert!(filter.pass(sample(0, &[1]), 0).is_some());
        filter.reset();
        assert_eq!(filter.pass(sample(0, &[1]), 1).unwrap().workloads.len(), 1);
    }
}
