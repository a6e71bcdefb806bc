//! Speaks with the parent: says hello, follows what it desires, reports what is observed.
//!
//! Statuses go up at once. The summary and telemetry go up on change, but not faster than
//! their intervals, so that a busy subtree costs its parent a known number of bytes.

use crate::operate::Asker;
use crate::records::Key;
use crate::tier::{Notes, Tier};
use crate::{Effect, Now};
use marram_protocol::desired::{Desired, Step};
use marram_protocol::id::{ChildId, InstanceId};
use marram_protocol::state::InstanceState;
use marram_protocol::v1::{
    ChildKind, Down, Hello, InstanceStatus, Scope, Summary, Telemetry, Up, WorkloadUsage,
};
use std::collections::{BTreeMap, BTreeSet};

/// Shortest time between two summaries.
const SUMMARY_INTERVAL_MS: u64 = 1_000;

/// Shortest time between two telemetry messages.
const TELEMETRY_INTERVAL_MS: u64 = 15_000;

/// Statuses in one message: with the longest details it stays under the message limit.
const STATUSES_MAX: usize = 200;

/// Usages in one message: 40 bytes each at most, a sixth of the message limit.
const USAGES_MAX: usize = 1_000;

/// What is known of the way up.
#[derive(Debug, Default)]
pub(crate) struct Reporting {
    up: bool,
    pub(crate) summary_stale: bool,
    pub(crate) telemetry_stale: bool,
    summary_sent: Option<(u64, Summary)>,
    telemetry_sent_ms: Option<u64>,
    sequence: u32,
    pub(crate) usage: BTreeMap<InstanceId, WorkloadUsage>,
    usage_changed: BTreeSet<InstanceId>,
}

impl Reporting {
    /// A parent is there to report to.
    pub(crate) fn is_up(&self) -> bool {
        self.up
    }

    /// When something waits to be sent.
    pub(crate) fn due_ms(&self) -> Option<u64> {
        if !self.up {
            return None;
        }
        let summary = self.summary_sent.as_ref().filter(|_| self.summary_stale);
        let summary = summary.map(|(at, _)| at.saturating_add(SUMMARY_INTERVAL_MS));
        let telemetry = self.telemetry_sent_ms.filter(|_| self.telemetry_stale);
        let telemetry = telemetry.map(|at| at.saturating_add(TELEMETRY_INTERVAL_MS));
        [summary, telemetry].into_iter().flatten().min()
    }

    pub(crate) fn note_usage(&mut self, usage: WorkloadUsage) {
        if self.usage.insert(usage.instance, usage) != Some(usage) {
            self.usage_changed.insert(usage.instance);
        }
    }

    /// Instances of which something is remembered.
    #[cfg(test)]
    pub(crate) fn remembered(&self) -> usize {
        self.usage.len() + self.usage_changed.len()
    }

    /// The instance is no more.
    pub(crate) fn forget_usage(&mut self, id: InstanceId) {
        self.usage.remove(&id);
        self.usage_changed.remove(&id);
    }
}

impl Tier {
    pub(crate) fn parent_up(&mut self, preferred: Option<ChildId>, now: Now) {
        let Some(desired) = &self.desired else { return };
        let generation = desired.generation();
        self.reporting.up = true;
        self.history.doubt();
        self.doubt_kin(preferred);
        self.forget_questions();
        let summary = self.own_summary();
        let identity = &self.identity;
        let hello = Hello {
            child: identity.id,
            kind: ChildKind::Cluster,
            name: identity.name.clone(),
            version: identity.version.clone(),
            incarnation: identity.incarnation,
            generation,
            summary: summary.clone(),
            facts: Vec::new(),
            tree: self.tree(),
            preferred: self.above.preferred,
            address: identity.address.clone(),
            node_address: identity.node_address.clone(),
            labels: identity.labels.clone(),
        };
        self.reporting.summary_sent = Some((now.mono_ms, summary));
        self.reporting.summary_stale = false;
        self.reporting.telemetry_sent_ms = Some(now.mono_ms);
        self.notes.sends.push(Effect::ToParent(Up::Hello(hello)));
        self.hand_back_waiting(now);
        self.notes.snapshot = true;
    }

    /// What was handed back stays handed back: the parent may have placed it elsewhere.
    pub(crate) fn parent_gone(&mut self) {
        self.reporting.up = false;
        self.history.doubt();
        self.doubt_kin(None);
        self.forget_questions();
    }

    pub(crate) fn hear_parent(&mut self, message: Down, now: Now) {
        if let Down::Peers(peers) = message {
            return self.hear_peers(peers);
        }
        if let Down::Operate { operation, cluster, child, verb } = message {
            return self.operate(Asker::Parent(operation), cluster, child, verb, now);
        }
        if let Down::Kin(kin) = message {
            return self.hear_kin(kin, now);
        }
        if let Down::Disown(instances) = message {
            return self.hear_disowned(&instances);
        }
        let Some(desired) = &mut self.desired else { return };
        if let Down::Welcome { epoch, .. } = message {
            desired.welcome(epoch);
            return self.history.answered();
        }
        if let Down::Manifest { generation, .. } = &message {
            self.above.assurance.name(*generation);
        }
        match desired.receive(message) {
            Step::Ignored => {}
            Step::Ask(question) => self.notes.sends.push(Effect::ToParent(*question)),
            // A parent of this version never sends more; one that does is not followed.
            Step::TooMany(_) => {}
            Step::Applied { changed, whole } => {
                let held = desired.generation();
                self.applied(&changed, now);
                self.notes.snapshot |= whole;
                if whole {
                    self.above.assurance.apply(held);
                    self.notes.kin_stale = true;
                }
            }
        }
    }

    fn applied(&mut self, changed: &BTreeSet<InstanceId>, now: Now) {
        self.notes.dirty.insert(Key::Parent);
        for id in changed {
            let workload = self.desired.as_ref().and_then(|d| d.workloads().get(id)).cloned();
            match workload {
                Some(workload) => self.add(workload, now),
                None if self.instances.contains_key(id) => self.remove(*id, now),
                None => {
                    self.not_desired(*id);
                    let undeployed = InstanceState::Undeployed;
                    self.notes.farewells.push(InstanceStatus::bare(*id, undeployed, now.unix_ms));
                }
            }
        }
        self.welcome_all();
    }

    /// Adds to `notes` what the parent shall hear now.
    pub(crate) fn report(&mut self, notes: &mut Notes, now: Now) {
        if !self.reporting.up {
            self.note_missed(notes, now);
            notes.farewells.clear();
            return;
        }
        let generation = self.desired.as_ref().map(Desired::generation).unwrap_or_default();
        let told: Box<dyn Iterator<Item = &InstanceId>> = match notes.snapshot {
            true => Box::new(self.instances.keys()),
            false => Box::new(notes.changed.iter()),
        };
        let mut statuses: Vec<InstanceStatus> = told.filter_map(|id| self.status(*id)).collect();
        if notes.snapshot {
            let parts = Up::snapshot(generation, &statuses, STATUSES_MAX);
            notes.sends.extend(parts.into_iter().map(Effect::ToParent));
            statuses.clear();
        }
        statuses.append(&mut notes.farewells);
        for statuses in statuses.chunks(STATUSES_MAX) {
            let statuses = statuses.to_vec();
            let observed = Up::Observed { generation, scope: Scope::Change, statuses };
            notes.sends.push(Effect::ToParent(observed));
        }
        self.report_cards(notes, now);
        self.report_claims(notes);
        self.report_missed(notes);
        self.report_summary(notes, now);
        self.report_telemetry(notes, now);
    }

    fn report_summary(&mut self, notes: &mut Notes, now: Now) {
        let due = |(at, _): &(u64, Summary)| now.mono_ms >= at + SUMMARY_INTERVAL_MS;
        if !self.reporting.summary_stale || !self.reporting.summary_sent.as_ref().is_none_or(due) {
            return;
        }
        self.reporting.summary_stale = false;
        let summary = self.own_summary();
        if self.reporting.summary_sent.as_ref().is_some_and(|(_, sent)| *sent == summary) {
            return;
        }
        self.reporting.summary_sent = Some((now.mono_ms, summary.clone()));
        notes.sends.push(Effect::ToParent(Up::Summary(summary)));
    }

    fn report_telemetry(&mut self, notes: &mut Notes, now: Now) {
        let last = self.reporting.telemetry_sent_ms.unwrap_or_default();
        if !self.reporting.telemetry_stale || now.mono_ms < last + TELEMETRY_INTERVAL_MS {
            return;
        }
        let changed = std::mem::take(&mut self.reporting.usage_changed);
        let mut workloads = Vec::new();
        for id in changed {
            match self.reporting.usage.get(&id) {
                Some(usage) if workloads.len() < USAGES_MAX => workloads.push(*usage),
                Some(_) => drop(self.reporting.usage_changed.insert(id)),
                None => {}
            }
        }
        let mut telemetry = self.own_telemetry();
        telemetry.workloads = workloads;
        self.reporting.sequence = self.reporting.sequence.wrapping_add(1);
        self.reporting.telemetry_sent_ms = Some(now.mono_ms);
        self.reporting.telemetry_stale = !self.reporting.usage_changed.is_empty();
        notes.sends.push(Effect::ToParent(Up::Telemetry(telemetry)));
    }

    /// What all connected children use together: processors by their number, the hottest
    /// temperature, sums of the rest.
    fn own_telemetry(&self) -> Telemetry {
        let mut sum = Telemetry {
            incarnation: self.identity.incarnation,
            sequence: self.reporting.sequence,
            ..Telemetry::default()
        };
        let (mut busy, mut cores) = (0u64, 0u64);
        for child in self.children.values() {
            let (Some(telemetry), Some(summary)) = (child.telemetry(), child.summary()) else {
                continue;
            };
            let millicores = u64::from(summary.capacity.cpu_millicores);
            busy += u64::from(telemetry.cpu_permille) * millicores;
            cores += millicores;
            sum.memory_used_mib = sum.memory_used_mib.saturating_add(telemetry.memory_used_mib);
            sum.disk_free_mib = sum.disk_free_mib.saturating_add(telemetry.disk_free_mib);
            sum.temperature_decidegrees =
                sum.temperature_decidegrees.max(telemetry.temperature_decidegrees);
        }
        sum.cpu_permille = u16::try_from(busy / cores.max(1)).unwrap_or(1000);
        sum
    }
}
