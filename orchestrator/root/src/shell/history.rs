//! What happened to instances while their cluster could tell nobody.
//!
//! Why apart from the core: no decision depends on it. It is kept in memory, for whoever looks
//! into an outage once it is over; the present state of each instance is in the core.

use marram_protocol::id::InstanceId;
use marram_protocol::v1::{InstanceStatus, Missed};
use std::collections::VecDeque;

/// Entries kept of one instance: some rounds of failing and starting again.
const OF_ONE_MAX: usize = 16;

/// Entries kept of all: what eight clusters tell that were cut off, and a MiB at most.
const OF_ALL_MAX: usize = 2048;

/// The last entries, in the order they came in.
#[derive(Debug, Default)]
pub(super) struct History {
    entries: VecDeque<Missed>,
}

impl History {
    /// A child tells what it could not tell before, oldest first. What was told already is told
    /// again if a connection breaks in between.
    pub(super) fn note(&mut self, entries: Vec<Missed>) {
        for mut entry in entries {
            entry.detail = InstanceStatus::detail(&entry.detail);
            if self.entries.contains(&entry) {
                continue;
            }
            if self.of(entry.instance).count() >= OF_ONE_MAX {
                self.drop_oldest(entry.instance);
            } else if self.entries.len() >= OF_ALL_MAX {
                self.entries.pop_front();
            }
            self.entries.push_back(entry);
        }
    }

    /// The instance is no more.
    pub(super) fn forget(&mut self, instance: InstanceId) {
        self.entries.retain(|entry| entry.instance != instance);
    }

    /// What is kept of an instance, oldest first.
    pub(super) fn of(&self, instance: InstanceId) -> impl Iterator<Item = &Missed> {
        self.entries.iter().filter(move |entry| entry.instance == instance)
    }

    fn drop_oldest(&mut self, instance: InstanceId) {
        if let Some(oldest) = self.entries.iter().position(|entry| entry.instance == instance) {
            self.entries.remove(oldest);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use marram_protocol::id::ServiceId;
    use marram_protocol::state::InstanceState;

    fn entry(number: u32, unix_ms: u64) -> Missed {
        let instance = InstanceId { service: ServiceId([1; 12]), number };
        Missed { instance, unix_ms, state: InstanceState::Failed, detail: "x".repeat(600) }
    }

    #[test]
    fn the_last_entries_are_kept_each_once_and_within_bounds() {
        let mut history = History::default();
        history.note((0..20).map(|at| entry(0, at)).collect());
        history.note(vec![entry(0, 19), entry(1, 7)]);
        let one = entry(0, 0).instance;
        let kept: Vec<u64> = history.of(one).map(|entry| entry.unix_ms).collect();
        assert_eq!(kept, (4..20).collect::<Vec<u64>>());
        assert_eq!(history.of(one).next().unwrap().detail.len(), 512);
        history.note((0..5000).map(|number| entry(number, 100)).collect());
        assert_eq!(history.entries.len(), OF_ALL_MAX);
        assert_eq!(history.of(one).count(), 0, "the oldest of all went first");
        let last = entry(4999, 0).instance;
        history.forget(last);
        assert_eq!(history.of(last).count(), 0);
    }
}
