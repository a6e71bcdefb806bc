//! The trait and what it hands out.
//!
//! Why apart: this is all that a shell needs to know; the implementations sit beside it.

use std::fmt;
use std::num::NonZeroU64;

use tokio::sync::watch;

use crate::error::Result;
use crate::txn::{Outcome, Txn};

/// The id of a lease; never given twice by one store.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LeaseId(NonZeroU64);

impl LeaseId {
    /// The lease of that number; there is no lease 0.
    pub fn new(number: u64) -> Option<Self> {
        NonZeroU64::new(number).map(Self)
    }

    /// The number, to be stored or sent.
    pub fn get(self) -> u64 {
        self.0.get()
    }
}

impl fmt::Display for LeaseId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A key with its value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The key.
    pub key: Vec<u8>,
    /// What the last put gave it.
    pub value: Vec<u8>,
    /// The revision at which the key came to be, after its last deletion.
    pub create_revision: u64,
    /// The revision of the last put.
    pub mod_revision: u64,
    /// How often it was put since it came to be; 1 after the first.
    pub version: u64,
    /// The lease that takes the key with it when it ends.
    pub lease: Option<LeaseId>,
}

/// Part of a range, in the order of the keys' bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Page {
    /// The store's revision when the page was read. A copy that is built from several pages is
    /// brought up to date by the changes since the revision of the *first*.
    pub revision: u64,
    /// The entries.
    pub entries: Vec<Entry>,
    /// Whether more follow after the last key here.
    pub more: bool,
}

/// What happened to a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// It has this value since this entry's `mod_revision`.
    Put(Entry),
    /// It is gone.
    Delete {
        /// The key.
        key: Vec<u8>,
        /// The revision of the deletion.
        revision: u64,
    },
}

/// What happened since a revision.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Changes {
    /// How far this goes: ask for changes since this one next.
    pub revision: u64,
    /// In order of revision, one revision always whole.
    pub changes: Vec<Change>,
    /// Whether there is more to ask for at once.
    pub more: bool,
}

/// Durable state with one global revision. See the crate's documentation for how to use it.
///
/// Every method may be called from any thread. All but the reads MUST be durable when they
/// return, `keep_alive` excepted: deadlines live in memory, and a lease that outlives the
/// process gets its whole time anew when the store is opened again.
pub trait Store: fmt::Debug + Send + Sync {
    /// The revision of the last change; 0 when nothing was ever written.
    fn revision(&self) -> u64;

    /// The entry of a key.
    fn get(&self, key: &[u8]) -> Result<Option<Entry>>;

    /// Up to `limit` entries whose keys begin with `prefix`, in order, from behind the key
    /// `after` on. An empty prefix is every key. MUST be one consistent snapshot.
    fn range(&self, prefix: &[u8], after: Option<&[u8]>, limit: usize) -> Result<Page>;

    /// Does all operations if every compare holds, else none. All changes of one transaction
    /// have the same revision; one that changes nothing MUST NOT write nor count.
    fn txn(&self, txn: &Txn) -> Result<Outcome>;

    /// What changed after `revision`, oldest first: about `limit` changes, but never a part of
    /// one revision. A change that was superseded since may be left out.
    ///
    /// # Errors
    /// [`crate::Error::Compacted`] when that is too long ago; the caller then ranges again.
    fn changes_since(&self, revision: u64, limit: usize) -> Result<Changes>;

    /// A value that follows the revision. Waiting on it is how a task learns that
    /// `changes_since` has something; what it missed meanwhile is never lost.
    fn subscribe(&self) -> watch::Receiver<u64>;

    /// A lease of `ttl_ms` from `now_ms` on. `now_ms` is the caller's monotonic time in
    /// milliseconds, of any origin, the same for all calls on one opened store.
    fn grant(&self, ttl_ms: u64, now_ms: u64) -> Result<LeaseId>;

    /// Gives a lease its whole time anew. MUST NOT write.
    fn keep_alive(&self, lease: LeaseId, now_ms: u64) -> Result<()>;

    /// Ends a lease now; its keys are deleted with it. Revoking what is gone succeeds.
    fn revoke(&self, lease: LeaseId) -> Result<()>;

    /// Ends every lease whose time is over and says which. Writes only if there is one.
    fn expire(&self, now_ms: u64) -> Result<Vec<LeaseId>>;

    /// When `expire` should be called next; `None` while there is no lease. It is 0 right
    /// after opening a store that holds leases: that call is what starts their time.
    fn next_expiry_ms(&self) -> Option<u64>;

    /// Forgets the changes up to `revision`. Entries stay. Doing it again succeeds.
    fn compact(&self, revision: u64) -> Result<()>;
}
