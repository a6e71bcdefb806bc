//! The embedded store: one redb file, the default of a cluster and of a root.
//!
//! Why redb: pure Rust, copy-on-write pages with checksums, and a commit is one `fsync`, so a
//! cut of the power leaves either the state before the transaction or the one after it.
//!
//! Invariants:
//! - one transaction of redb per call that changes something, none for one that does not;
//! - the writer's lock is held from before the transaction until its revision is published,
//!   so revisions are published in order;
//! - leases in memory are changed only after the commit.
//!
//! See also: [`tables`] (what lies in the file), [`open`] (creating, checking, migrating).

mod open;
mod tables;

use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use redb::{Database, ReadableDatabase};
use tokio::sync::watch;

use crate::error::{Error, Result};
use crate::leases::Leases;
use crate::store::{Changes, Entry, LeaseId, Page, Store};
use crate::txn::{Op, Outcome, Txn};
use tables::{Fault, Reader, Writer};

pub use open::{CACHE_BYTES, FORMAT};

/// A store in one file of this machine.
#[derive(Debug)]
pub struct RedbStore {
    path: PathBuf,
    database: Database,
    /// Held by whoever writes.
    leases: Mutex<Leases>,
    revision: watch::Sender<u64>,
}

impl RedbStore {
    /// Opens the store in that file, and makes it if there is none. The whole file is read and
    /// its checksums verified, so a damaged one is refused here and not met later.
    ///
    /// # Errors
    /// [`Error::InUse`] when another process has it, [`Error::Damaged`] when it is beyond
    /// recovery, [`Error::FormatTooNew`] when a newer version wrote it. None of these changes
    /// what is in the file.
    pub fn open(path: &Path) -> Result<Self> {
        let database = open::open(path)?;
        let (revision, leases) =
            Self::load(&database).map_err(|fault| fault.into_error("reading", path))?;
        Ok(Self {
            path: path.to_path_buf(),
            database,
            leases: Mutex::new(leases),
            revision: watch::Sender::new(revision),
        })
    }

    fn load(database: &Database) -> Result<(u64, Leases), Fault> {
        let reader = Reader::new(&database.begin_read()?)?;
        let mut leases = Leases::default();
        for (id, ttl_ms) in reader.leases()? {
            leases.restore(id, ttl_ms);
        }
        Ok((reader.revision()?, leases))
    }

    fn leases(&self) -> MutexGuard<'_, Leases> {
        // What it guards is changed in one step after a commit, so it is whole even if a
        // holder panicked.
        self.leases.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn read<T>(&self, what: impl FnOnce(&Reader) -> Result<T, Fault>) -> Result<T> {
        let run = || what(&Reader::new(&self.database.begin_read()?)?);
        run().map_err(|fault| fault.into_error("reading", &self.path))
    }

    /// Runs one transaction and commits it if `what` says that something changed.
    fn write<T>(&self, what: impl FnOnce(&mut Writer<'_>) -> Result<T, Fault>) -> Result<T> {
        let run = || {
            let transaction = self.database.begin_write()?;
            let mut writer = Writer::new(&transaction)?;
            let answer = what(&mut writer)?;
            let changed = writer.finish()?;
            let revision = writer.revision();
            drop(writer);
            if changed {
                transaction.commit()?;
                self.publish(revision);
            } else {
                transaction.abort()?;
            }
            Ok(answer)
        };
        run().map_err(|fault: Fault| fault.into_error("writing", &self.path))
    }

    fn publish(&self, revision: u64) {
        self.revision.send_if_modified(|seen| {
            let moved = *seen < revision;
            *seen = revision;
            moved
        });
    }

    fn end_leases(&self, leases: &mut Leases, ended: &[LeaseId]) -> Result<()> {
        self.write(|writer| ended.iter().try_for_each(|lease| writer.end_lease(*lease)))?;
        for lease in ended {
            leases.remove(*lease);
        }
        Ok(())
    }
}

impl Store for RedbStore {
    fn revision(&self) -> u64 {
        *self.revision.borrow()
    }

    fn get(&self, key: &[u8]) -> Result<Option<Entry>> {
        self.read(|reader| reader.get(key))
    }

    fn range(&self, prefix: &[u8], after: Option<&[u8]>, limit: usize) -> Result<Page> {
        self.read(|reader| reader.range(prefix, after, limit))
    }

    fn txn(&self, txn: &Txn) -> Result<Outcome> {
        txn.check()?;
        let leases = self.leases();
        self.write(|writer| {
            for compare in txn.compares() {
                if !compare.holds(writer.mod_revision(compare.key())?) {
                    return Ok(Outcome::Refused { revision: writer.revision() });
                }
            }
            for op in txn.ops() {
                match op {
                    Op::Put { lease: Some(lease), .. } if !leases.contains(*lease) => {
                        return Err(Fault::Refused(Error::LeaseGone(*lease)));
                    }
                    Op::Put { key, value, lease } => writer.put(key, value, *lease)?,
                    Op::Delete { key } => writer.delete(key)?,
                    Op::DeletePrefix { prefix } => writer.delete_prefix(prefix)?,
                }
            }
            Ok(Outcome::Committed { revision: writer.revision() })
        })
    }

    fn changes_since(&self, revision: u64, limit: usize) -> Result<Changes> {
        self.read(|reader| reader.changes_since(revision, limit))
    }

    fn subscribe(&self) -> watch::Receiver<u64> {
        self.revision.subscribe()
    }

    fn grant(&self, ttl_ms: u64, now_ms: u64) -> Result<LeaseId> {
        let mut leases = self.leases();
        leases.check_grant(ttl_ms)?;
        let id = self.write(|writer| writer.add_lease(ttl_ms))?;
        leases.insert(id, ttl_ms, now_ms);
        Ok(id)
    }

    fn keep_alive(&self, lease: LeaseId, now_ms: u64) -> Result<()> {
        self.leases().keep_alive(lease, now_ms)
    }

    fn revoke(&self, lease: LeaseId) -> Result<()> {
        let mut leases = self.leases();
        if !leases.contains(lease) {
            return Ok(());
        }
        self.end_leases(&mut leases, &[lease])
    }

    fn expire(&self, now_ms: u64) -> Result<Vec<LeaseId>> {
        let mut leases = self.leases();
        let due = leases.due(now_ms);
        if !due.is_empty() {
            self.end_leases(&mut leases, &due)?;
        }
        Ok(due)
    }

    fn next_expiry_ms(&self) -> Option<u64> {
        self.leases().next_ms()
    }

    fn compact(&self, revision: u64) -> Result<()> {
        let _writer = self.leases();
        let current = self.revision();
        if revision > current {
            return Err(Error::FutureRevision { asked: revision, current });
        }
        self.write(|writer| writer.compact(revision))
    }
}
