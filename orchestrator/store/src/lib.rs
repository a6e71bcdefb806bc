//! Durable state of a cluster or a root, behind one trait shaped like etcd.
//!
//! Why apart: the tiers must not know whether their state lies in a file beside them or in
//! a replicated service, and one conformance suite must hold for each of these. The trait
//! asks for nothing that etcd cannot give: keys and values are bytes, one revision counts
//! every change of the whole store, and a transaction is a list of compares followed by a
//! list of puts and deletes that happen together or not at all.
//!
//! How to use it:
//! - **Writes are synchronous** and durable when they return. A commit of the embedded store
//!   costs a few milliseconds (one `fsync`) and 30 to 45 KB written for a value of 300
//!   bytes, so a shell writes once for each action of an operator, never for a heartbeat.
//!   A shell calls it from its own task; a read never waits for a write.
//! - **Watching is level-triggered.** [`Store::subscribe`] wakes a task when the revision has
//!   moved (one value, so it can neither grow nor lag), and [`Store::changes_since`] says what
//!   changed since the revision that the task saw last. Changes that a later one replaced
//!   may be left out: what arrives is enough to bring a copy up to date.
//! - **Time is handed in.** Leases end in [`Store::expire`], which the shell calls at
//!   [`Store::next_expiry_ms`]; there is no clock and no thread in here, and an idle store
//!   writes nothing.
//!
//! Invariants:
//! - the revision never decreases, also not across a restart or an expiry;
//! - no key is ever attached to a lease that does not exist;
//! - after an error nothing of the call has happened, apart from an I/O error of a commit,
//!   after which the caller must open the store again to learn whether it did.

mod embedded;
mod error;
mod leases;
mod limits;
mod memory;
mod store;
mod txn;

pub use embedded::{CACHE_BYTES, FORMAT, RedbStore};
pub use error::{Error, Result, Source};
pub use limits::{
    HISTORY_CHANGES_MAX, KEY_BYTES_MAX, LEASE_TTL_MS_MAX, LEASES_MAX, TXN_BYTES_MAX,
    TXN_COMPARES_MAX, TXN_OPS_MAX, VALUE_BYTES_MAX,
};
pub use memory::MemoryStore;
pub use store::{Change, Changes, Entry, LeaseId, Page, Store};
pub use txn::{Compare, Op, Outcome, Txn};
