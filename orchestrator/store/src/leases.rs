//! When which lease ends; which leases there are.
//!
//! Why apart: deadlines are kept in memory by every store (writing each keep-alive would wear
//! out a card), so this is the one part that all of them share.
//!
//! Invariant: a lease without a deadline comes from a store that was just opened, and gets
//! one at the first `due`.

use std::collections::BTreeMap;

use crate::error::{Error, Result};
use crate::limits::{LEASE_TTL_MS_MAX, LEASES_MAX};
use crate::store::LeaseId;

#[derive(Clone, Copy, Debug)]
struct Lease {
    ttl_ms: u64,
    deadline_ms: Option<u64>,
}

/// The leases of one opened store.
#[derive(Debug, Default)]
pub(crate) struct Leases {
    by_id: BTreeMap<LeaseId, Lease>,
}

impl Leases {
    /// Takes over a lease that was found on disk; its time starts later.
    pub(crate) fn restore(&mut self, id: LeaseId, ttl_ms: u64) {
        self.by_id.insert(id, Lease { ttl_ms, deadline_ms: None });
    }

    /// Whether a lease of that length may be granted now.
    pub(crate) fn check_grant(&self, ttl_ms: u64) -> Result<()> {
        if ttl_ms == 0 || ttl_ms > LEASE_TTL_MS_MAX {
            return Err(Error::LeaseTtl { ttl_ms });
        }
        if self.by_id.len() >= LEASES_MAX {
            return Err(Error::TooManyLeases);
        }
        Ok(())
    }

    /// Enters a granted lease.
    pub(crate) fn insert(&mut self, id: LeaseId, ttl_ms: u64, now_ms: u64) {
        let deadline_ms = Some(now_ms.saturating_add(ttl_ms));
        self.by_id.insert(id, Lease { ttl_ms, deadline_ms });
    }

    pub(crate) fn contains(&self, id: LeaseId) -> bool {
        self.by_id.contains_key(&id)
    }

    pub(crate) fn keep_alive(&mut self, id: LeaseId, now_ms: u64) -> Result<()> {
        let lease = self.by_id.get_mut(&id).ok_or(Error::LeaseGone(id))?;
        lease.deadline_ms = Some(now_ms.saturating_add(lease.ttl_ms));
        Ok(())
    }

    pub(crate) fn remove(&mut self, id: LeaseId) {
        self.by_id.remove(&id);
    }

    /// The leases whose time is over. They stay entered until `remove`, so that an expiry
    /// that could not be written is tried again.
    pub(crate) fn due(&mut self, now_ms: u64) -> Vec<LeaseId> {
        let mut due = Vec::new();
        for (id, lease) in &mut self.by_id {
            let fresh = now_ms.saturating_add(lease.ttl_ms);
            if *lease.deadline_ms.get_or_insert(fresh) <= now_ms {
                due.push(*id);
            }
        }
        due
    }

    /// When the next one is due. A walk over all: there are few, and this is asked rarely.
    pub(crate) fn next_ms(&self) -> Option<u64> {
        self.by_id.values().map(|lease| lease.deadline_ms.unwrap_or(0)).min()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(number: u64) -> LeaseId {
        LeaseId::new(number).expect("not zero")
    }

    #[test]
    fn a_restored_lease_gets_its_whole_time_at_the_first_look() {
        let mut leases = Leases::default();
        leases.restore(id(1), 100);
        assert_eq!(leases.next_ms(), Some(0));
        assert_eq!(leases.due(5000), []);
        assert_eq!(leases.next_ms(), Some(5100));
        assert_eq!(leases.due(5099), []);
        assert_eq!(leases.due(5100), [id(1)]);
    }

    #[test]
    fn what_is_due_stays_due_until_removed() {
        let mut leases = Leases::default();
        leases.insert(id(1), 10, 0);
        leases.insert(id(2), 20, 0);
        assert_eq!(leases.due(10), [id(1)]);
        assert_eq!(leases.due(11), [id(1)]);
        leases.remove(id(1));
        assert_eq!(leases.due(11), []);
        assert_eq!(leases.next_ms(), Some(20));
    }

    #[test]
    fn the_number_of_leases_is_bounded() {
        let mut leases = Leases::default();
        for number in 1..=u64::try_from(LEASES_MAX).expect("small") {
            leases.check_grant(1).expect("room");
            leases.insert(id(number), 1, 0);
        }
        assert!(matches!(leases.check_grant(1), Err(Error::TooManyLeases)));
    }
}
