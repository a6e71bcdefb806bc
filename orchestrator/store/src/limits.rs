//! Every limit of the store with its reason.
//!
//! Why apart: an operator who hits one looks for the number here, and a replicated store
//! must be configured with the same ones.

/// Longest key. A path of five ids of 63 characters fits with room; redb and etcd both keep
/// keys inside index pages, so long ones make every lookup slower.
pub const KEY_BYTES_MAX: usize = 512;

/// Longest value: an SLA document of 1 MiB, which is the largest thing anyone may post, with
/// 64 KiB for what the root keeps beside it.
pub const VALUE_BYTES_MAX: usize = 1024 * 1024 + 64 * 1024;

/// Keys and values of one transaction together: etcd refuses requests above 1.5 MiB unless
/// told otherwise.
pub const TXN_BYTES_MAX: usize = 1536 * 1024;

/// Puts and deletes of one transaction: an application has up to 256 services, and each may
/// need its document and its state written. An etcd must be started with `--max-txn-ops=512`
/// (its own default is 128).
pub const TXN_OPS_MAX: usize = 512;

/// Compares of one transaction; the same reason and the same setting of etcd.
pub const TXN_COMPARES_MAX: usize = 512;

/// Changes kept for watchers. A row of history holds the key only, so this is under 1 MiB
/// of file. A watcher that sleeps through more is told that its revision was compacted and
/// lists again, which costs it one range.
pub const HISTORY_CHANGES_MAX: u64 = 4096;

/// History is cut back in steps of this many changes, so that a commit rarely has to touch
/// the page with the oldest ones as well.
pub(crate) const HISTORY_SLACK: u64 = 256;

/// Leases alive at once: one for each child of a tier at most, and then some; each costs
/// about 64 bytes of memory.
pub const LEASES_MAX: usize = 16 * 1024;

/// Longest lease, 366 days: longer than any join token lives. It also keeps sums of times
/// far from overflow.
pub const LEASE_TTL_MS_MAX: u64 = 366 * 24 * 3600 * 1000;
