//! What this machine is and what it uses, in the words of the protocol.

use crate::backends::Mounted;
use crate::config::Config;
use marram_backend_api::{Backend, Fingerprint, Health, Usage};
use marram_engine_core::BackendFacts;
use marram_host::{Interface, Root, Sample, Sampler};
use marram_protocol::id::InstanceId;
use marram_protocol::v1::{Pressure, Resources, Summary, Telemetry, WorkloadUsage};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

/// A backend that does not answer about itself in this time is not healthy.
const FINGERPRINT_TIME_MAX: Duration = Duration::from_secs(10);

/// A backend that does not tell the use of one workload in this time is not asked for those of
/// others.
const USAGE_TIME_MAX: Duration = Duration::from_secs(5);

const MIB: u64 = 1024 * 1024;

/// Taken for a machine whose links don't tell their speed, as wireless and most virtual ones:
/// ten gigabits a second, so that nothing that services ask for is refused for not knowing.
const UNKNOWN_LINK_KBPS: u32 = 10_000_000;

/// A backend as it was seen last.
#[derive(Debug)]
pub(crate) struct Seen {
    pub(crate) facts: BackendFacts,
    pub(crate) fingerprint: Fingerprint,
}

/// Asks a backend about itself, within bounds.
pub(crate) async fn look_at(backend: &Arc<dyn Backend>) -> Seen {
    let name = backend.name().to_owned();
    let asked = tokio::time::timeout(FINGERPRINT_TIME_MAX, backend.fingerprint()).await;
    let fingerprint = asked.unwrap_or_else(|_| Fingerprint {
        health: Health::Unhealthy(format!("no answer within {FINGERPRINT_TIME_MAX:?}")),
        version: String::new(),
        runtimes: Vec::new(),
        virtualizations: Vec::new(),
        limits: Vec::new(),
    });
    let (serves, trouble) = match &fingerprint.health {
        Health::Healthy => {
            let runtimes = fingerprint.runtimes.iter().map(|runtime| runtime.name.clone());
            let serves: BTreeSet<String> =
                fingerprint.virtualizations.iter().cloned().chain(runtimes).collect();
            (serves.into_iter().collect(), None)
        }
        Health::Undetected(why) | Health::Unhealthy(why) => (Vec::new(), Some(why.clone())),
    };
    Seen { facts: BackendFacts { name, serves, trouble }, fingerprint }
}

/// What the node can do and what is known of it.
pub(crate) fn host(
    config: &Config,
    found: &marram_host::Fingerprint,
    seen: &BTreeMap<&'static str, Seen>,
) -> (Summary, Vec<(String, String)>) {
    let mib = |bytes: u64| u32::try_from(bytes / MIB).unwrap_or(u32::MAX);
    let reserved = config.reserved;
    let link_kbps = link_kbps(&found.interfaces);
    let all = Resources {
        memory_mib: found.memory_total_bytes.map_or(0, mib),
        cpu_millicores: found.cpu.threads.unwrap_or(1).saturating_mul(1000),
        // A GPU can be promised once it can be handed over; until then there is none.
        gpus: 0,
        storage_mib: found.state_disk.map_or(0, |disk| mib(disk.total_bytes)),
        bandwidth_in_kbps: config.bandwidth_in_kbps.unwrap_or(link_kbps),
        bandwidth_out_kbps: config.bandwidth_out_kbps.unwrap_or(link_kbps),
        gpu_memory_mib: 0,
    };
    let capacity = all.minus(Resources {
        memory_mib: reserved.memory_mib,
        cpu_millicores: reserved.cpu_millicores,
        storage_mib: reserved.storage_mib,
        ..Resources::default()
    });
    let serves: BTreeSet<&String> = seen.values().flat_map(|seen| &seen.facts.serves).collect();
    let summary = Summary {
        nodes: 1,
        capacity,
        reserved: Resources::default(),
        largest_free: capacity,
        architectures: vec![found.architecture.name.to_owned()],
        virtualizations: serves.into_iter().cloned().collect(),
        location: config.location.clone(),
        labels: config.labels.clone(),
        addons: config.addons.clone(),
        ..Summary::default()
    };
    let mut facts: Vec<(String, String)> =
        found.facts().into_iter().map(|(key, value)| (key.to_owned(), value)).collect();
    facts.push(("address".into(), address(config)));
    for (name, seen) in seen {
        facts.push((format!("backend_{name}"), describe(&seen.fingerprint)));
    }
    (summary, facts)
}

/// The fastest of the machine's links that are up.
fn link_kbps(interfaces: &[Interface]) -> u32 {
    let known = interfaces.iter().filter(|interface| interface.physical);
    let known = known.filter(|interface| interface.up != Some(false));
    let fastest = known.filter_map(|interface| interface.speed_mbps).max();
    fastest.map_or(UNKNOWN_LINK_KBPS, |mbps| mbps.saturating_mul(1000))
}

/// Where host ports answer. Links are loopback only for now, and so is this unless the
/// operator knows better.
fn address(config: &Config) -> String {
    config.address.clone().unwrap_or_else(|| "127.0.0.1".to_owned())
}

fn describe(fingerprint: &Fingerprint) -> String {
    let mut text = match &fingerprint.health {
        Health::Healthy => "healthy".to_owned(),
        Health::Unhealthy(why) => format!("unhealthy: {why}"),
        Health::Undetected(why) => format!("not found: {why}"),
    };
    if !fingerprint.version.is_empty() {
        text = format!("{}, {text}", fingerprint.version);
    }
    for limit in &fingerprint.limits {
        if let Err(why) = &limit.enforced {
            text.push_str(&format!("; no {} limit: {why}", limit.name));
        }
    }
    // Facts are short; the whole reason stands in the log.
    text.chars().take(200).collect()
}

/// Takes samples of the host and of workloads.
#[derive(Debug)]
pub(crate) struct Meter {
    sampler: Sampler,
    last: Sample,
    processor_time: BTreeMap<InstanceId, (Instant, u64)>,
    incarnation: u64,
}

impl Meter {
    pub(crate) fn new(config: &Config, incarnation: u64) -> Self {
        let mut sampler = Sampler::new(&Root::host(), &config.state_dir);
        // Load is measured from one sample to the next, and the first one told needs one.
        let last = sampler.sample();
        Self { sampler, last, processor_time: BTreeMap::new(), incarnation }
    }

    /// One sample of everything that runs.
    pub(crate) async fn sample(
        &mut self,
        running: Vec<(InstanceId, String)>,
        mounted: &BTreeMap<&'static str, Arc<dyn Backend>>,
    ) -> Telemetry {
        let mut workloads = Vec::with_capacity(running.len());
        let mut times = BTreeMap::new();
        let mut hung = BTreeSet::new();
        for (instance, backend) in running {
            let Some(backend) = mounted.get(backend.as_str()) else { continue };
            let Ok(id) = crate::convert::workload_id(instance) else { continue };
            if hung.contains(backend.name()) {
                continue;
            }
            // Gone in between, or a backend that is away: there is nothing to tell.
            let usage = match tokio::time::timeout(USAGE_TIME_MAX, backend.usage(&id)).await {
                Ok(Ok(usage)) => usage,
                Ok(Err(_)) => continue,
                Err(_) => {
                    hung.insert(backend.name());
                    continue;
                }
            };
            times.insert(instance, (Instant::now(), usage.cpu_usec));
            workloads.push(self.usage(instance, usage));
        }
        self.processor_time = times;
        self.host(workloads)
    }

    fn usage(&self, instance: InstanceId, usage: Usage) -> WorkloadUsage {
        let busy = self.processor_time.get(&instance).map(|(at, before)| {
            let wall_usec = at.elapsed().as_micros().max(1);
            let used_usec = u128::from(usage.cpu_usec.saturating_sub(*before));
            u32::try_from(used_usec * 1000 / wall_usec).unwrap_or(u32::MAX)
        });
        WorkloadUsage {
            instance,
            cpu_permille: busy.unwrap_or(0),
            memory_mib: u32::try_from(usage.memory_bytes.div_ceil(MIB)).unwrap_or(u32::MAX),
        }
    }

    fn host(&mut self, workloads: Vec<WorkloadUsage>) -> Telemetry {
        let sample = self.sampler.sample();
        let mib = |bytes: u64| u32::try_from(bytes / MIB).unwrap_or(u32::MAX);
        let busy = sample.cpu_permille_since(&self.last);
        let stalled = |pressure: Option<marram_host::parse::Pressure>| {
            pressure.map_or(0, |pressure| pressure.some.ten_seconds_permille)
        };
        let told = &sample.pressures;
        let pressure = told.cpu.or(told.memory).or(told.io).map(|_| Pressure {
            cpu_permille: stalled(told.cpu),
            memory_permille: stalled(told.memory),
            io_permille: stalled(told.io),
        });
        let temperature = sample.temperature_max_millidegrees.map(|milli| milli / 100);
        let telemetry = Telemetry {
            incarnation: self.incarnation,
            sequence: 0,
            cpu_permille: busy.unwrap_or(0),
            memory_used_mib: sample.memory.map_or(0, |memory| mib(memory.used_bytes())),
            disk_free_mib: sample.state_disk.map_or(0, |disk| mib(disk.free_bytes)),
            temperature_decidegrees: temperature.and_then(|deci| i16::try_from(deci).ok()),
            pressure,
            workloads,
        };
        self.last = sample;
        telemetry
    }
}

/// The backends by name.
pub(crate) fn by_name(mounted: &[Mounted]) -> BTreeMap<&'static str, Arc<dyn Backend>> {
    mounted.iter().map(|m| (m.backend.name(), Arc::clone(&m.backend))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_fastest_link_that_is_up_counts() {
        let link = |speed_mbps, up, physical| Interface {
            name: "eth0".into(),
            mac: None,
            up,
            physical,
            speed_mbps,
            addresses: Vec::new(),
        };
        let links = [
            link(Some(100), Some(true), true),
            link(Some(1000), None, true),
            link(Some(2500), Some(false), true),
            link(Some(10_000), Some(true), false),
            link(None, Some(true), true),
        ];
        assert_eq!(link_kbps(&links), 1_000_000);
        assert_eq!(link_kbps(&links[4..]), UNKNOWN_LINK_KBPS);
        assert_eq!(link_kbps(&[]), UNKNOWN_LINK_KBPS);
    }
}
