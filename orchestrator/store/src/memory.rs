//! The store in memory: for tests, and as the model that the embedded one is held against.
//!
//! Why apart: it is written for plainness, not for size or speed, so that a difference
//! between the two points at the other one.
//!
//! Invariant: an entry with a lease is found by that lease, for a scan over all entries
//! stands in for the index that the embedded store keeps.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::sync::watch;

use crate::error::{Error, Result};
use crate::leases::Leases;
use crate::limits::{HISTORY_CHANGES_MAX, HISTORY_SLACK};
use crate::store::{Change, Changes, Entry, LeaseId, Page, Store};
use crate::txn::{Op, Outcome, Txn};

/// A store that forgets everything when it is dropped.
#[derive(Debug)]
pub struct MemoryStore {
    state: Mutex<State>,
    revision: watch::Sender<u64>,
}

#[derive(Debug, Default)]
struct State {
    revision: u64,
    compacted: u64,
    last_lease: u64,
    entries: BTreeMap<Vec<u8>, Entry>,
    /// By revision, what it put (true) or deleted (false).
    history: BTreeMap<u64, Vec<(Vec<u8>, bool)>>,
    leases: Leases,
}

impl Default for MemoryStore {
    fn default() -> Self {
        Self { state: Mutex::default(), revision: watch::Sender::new(0) }
    }
}

impl MemoryStore {
    /// An empty one at revision 0.
    pub fn new() -> Self {
        Self::default()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // A panic in a holder would be a programmer's error in this file; the state is
        // changed only after everything was checked, so it is whole even then.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn publish(&self, state: &State) {
        self.revision.send_if_modified(|seen| {
            let moved = *seen < state.revision;
            *seen = state.revision;
            moved
        });
    }
}

impl State {
    fn keys_with(&self, prefix: &[u8]) -> Vec<Vec<u8>> {
        let from = (Bound::Included(prefix), Bound::Unbounded);
        let keys = self.entries.range::<[u8], _>(from).map(|(key, _)| key);
        keys.take_while(|key| key.starts_with(prefix)).cloned().collect()
    }

    fn put(&mut self, key: &[u8], value: &[u8], lease: Option<LeaseId>, revision: u64) {
        let old = self.entries.get(key);
        let entry = Entry {
            key: key.to_vec(),
            value: value.to_vec(),
            create_revision: old.map_or(revision, |old| old.create_revision),
            mod_revision: revision,
            version: old.map_or(1, |old| old.version + 1),
            lease,
        };
        self.entries.insert(key.to_vec(), entry);
        self.history.entry(revision).or_default().push((key.to_vec(), true));
    }

    fn delete(&mut self, key: &[u8], revision: u64) {
        if self.entries.remove(key).is_some() {
            self.history.entry(revision).or_default().push((key.to_vec(), false));
        }
    }

    /// Takes the new revision if something was entered under it, and cuts the history.
    fn settle(&mut self, revision: u64) {
        if self.history.contains_key(&revision) {
            self.revision = revision;
        }
        let count = |history: &BTreeMap<u64, Vec<(Vec<u8>, bool)>>| {
            history.values().map(|rows| rows.len() as u64).sum::<u64>()
        };
        if count(&self.history) > HISTORY_CHANGES_MAX + HISTORY_SLACK {
            while count(&self.history) > HISTORY_CHANGES_MAX {
                let Some((oldest, _)) = self.history.pop_first() else { break };
                self.compacted = oldest;
            }
        }
    }

    fn end_leases(&mut self, ended: &[LeaseId]) {
        let revision = self.revision + 1;
        let attached = |entry: &&Entry| entry.lease.is_some_and(|lease| ended.contains(&lease));
        let keys: Vec<_> =
            self.entries.values().filter(attached).map(|entry| entry.key.clone()).collect();
        for key in keys {
            self.delete(&key, revision);
        }
        self.settle(revision);
        for lease in ended {
            self.leases.remove(*lease);
        }
    }
}

impl Store for MemoryStore {
    fn revision(&self) -> u64 {
        self.state().revision
    }

    fn get(&self, key: &[u8]) -> Result<Option<Entry>> {
        Ok(self.state().entries.get(key).cloned())
    }

    fn range(&self, prefix: &[u8], after: Option<&[u8]>, limit: usize) -> Result<Page> {
        let state = self.state();
        let start = match after {
            Some(after) if after >= prefix => Bound::Excluded(after),
            _ => Bound::Included(prefix),
        };
        let mut entries = state
            .entries
            .range::<[u8], _>((start, Bound::Unbounded))
            .map(|(_, entry)| entry)
            .take_while(|entry| entry.key.starts_with(prefix));
        let page = entries.by_ref().take(limit).cloned().collect();
        let more = entries.next().is_some();
        Ok(Page { revision: state.revision, entries: page, more })
    }

    fn txn(&self, txn: &Txn) -> Result<Outcome> {
        txn.check()?;
        let mut state = self.state();
        for compare in txn.compares() {
            let found = state.entries.get(compare.key()).map(|entry| entry.mod_revision);
            if !compare.holds(found) {
                return Ok(Outcome::Refused { revision: state.revision });
            }
        }
        for op in txn.ops() {
            if let Op::Put { lease: Some(lease), .. } = op
                && !state.leases.contains(*lease)
            {
                return Err(Error::LeaseGone(*lease));
            }
        }
        let revision = state.revision + 1;
        for op in txn.ops() {
            match op {
                Op::Put { key, value, lease } => state.put(key, value, *lease, revision),
                Op::Delete { key } => state.delete(key, revision),
                Op::DeletePrefix { prefix } => {
                    for key in state.keys_with(prefix) {
                        state.delete(&key, revision);
                    }
                }
            }
        }
        state.settle(revision);
        self.publish(&state);
        Ok(Outcome::Committed { revision: state.revision })
    }

    fn changes_since(&self, revision: u64, limit: usize) -> Result<Changes> {
        let state = self.state();
        if revision > state.revision {
            return Err(Error::FutureRevision { asked: revision, current: state.revision });
        }
        if revision < state.compacted {
            return Err(Error::Compacted { asked: revision, kept_since: state.compacted });
        }
        let mut changes = Vec::new();
        for (at, rows) in state.history.range(revision + 1..) {
            if changes.len() >= limit.max(1) {
                return Ok(Changes { revision: at - 1, changes, more: true });
            }
            for (key, put) in rows {
                match state.entries.get(key) {
                    Some(entry) if *put && entry.mod_revision == *at => {
                        changes.push(Change::Put(entry.clone()));
                    }
                    None if !put => {
                        changes.push(Change::Delete { key: key.clone(), revision: *at });
                    }
                    // A later change of the same key stands further on.
                    _ => {}
                }
            }
        }
        Ok(Changes { revision: state.revision, changes, more: false })
    }

    fn subscribe(&self) -> watch::Receiver<u64> {
        self.revision.subscribe()
    }

    fn grant(&self, ttl_ms: u64, now_ms: u64) -> Result<LeaseId> {
        let mut state = self.state();
        state.leases.check_grant(ttl_ms)?;
        state.last_lease += 1;
        let id = LeaseId::new(state.last_lease).expect("counts from 1");
        state.leases.insert(id, ttl_ms, now_ms);
        Ok(id)
    }

    fn keep_alive(&self, lease: LeaseId, now_ms: u64) -> Result<()> {
        self.state().leases.keep_alive(lease, now_ms)
    }

    fn revoke(&self, lease: LeaseId) -> Result<()> {
        let mut state = self.state();
        state.end_leases(&[lease]);
        self.publish(&state);
        Ok(())
    }

    fn expire(&self, now_ms: u64) -> Result<Vec<LeaseId>> {
        let mut state = self.state();
        let due = state.leases.due(now_ms);
        if !due.is_empty() {
            state.end_leases(&due);
            self.publish(&state);
        }
        Ok(due)
    }

    fn next_expiry_ms(&self) -> Option<u64> {
        self.state().leases.next_ms()
    }

    fn compact(&self, revision: u64) -> Result<()> {
        let mut state = self.state();
        if revision > state.revision {
            return Err(Error::FutureRevision { asked: revision, current: state.revision });
        }
        if revision > state.compacted {
            state.compacted = revision;
            state.history = state.history.split_off(&(revision + 1));
        }
        Ok(())
    }
}
