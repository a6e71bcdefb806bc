//! What lies in the file, and the only code that reads or writes a row of it.
//!
//! Why apart: this is the format. Whoever changes a row's bytes raises
//! [`super::open::FORMAT`] and adds a migration.
//!
//! ```text
//! meta     name                          -> number: format, revision, compacted, last_lease
//! entries  key                           -> created, modified, version, lease (u64 le), value
//! history  revision << 32 | index        -> 1 put or 0 deleted, key
//! leases   id                            -> ttl in ms
//! leased   id (u64 be), key              -> nothing; the keys of a lease
//! ```
//!
//! Invariants:
//! - a row of history holds no value: what a key became stands in `entries`, and only the
//!   last change of a key is worth telling;
//! - `leased` has a row exactly for each entry with a lease.

use std::ops::Bound;
use std::path::Path;

use redb::{
    ReadOnlyTable, ReadTransaction, ReadableTable, ReadableTableMetadata, Table, TableDefinition,
    WriteTransaction,
};

use crate::error::{Error, text};
use crate::limits::{HISTORY_CHANGES_MAX, HISTORY_SLACK};
use crate::store::{Change, Changes, Entry, LeaseId, Page};

pub(super) const META: TableDefinition<'_, &str, u64> = TableDefinition::new("meta");
const ENTRIES: TableDefinition<'_, &[u8], &[u8]> = TableDefinition::new("entries");
const HISTORY: TableDefinition<'_, u128, &[u8]> = TableDefinition::new("history");
const LEASES: TableDefinition<'_, u64, u64> = TableDefinition::new("leases");
const LEASED: TableDefinition<'_, &[u8], ()> = TableDefinition::new("leased");

pub(super) const META_FORMAT: &str = "format";
const META_REVISION: &str = "revision";
const META_COMPACTED: &str = "compacted";
const META_LAST_LEASE: &str = "last_lease";

/// Why a step inside a transaction failed, before the file's name is added.
#[derive(Debug)]
pub(super) enum Fault {
    /// The caller asked for something that is not allowed.
    Refused(Error),
    /// A row does not read as its format says.
    Row(String),
    /// What redb said.
    Redb(Box<redb::Error>),
}

impl<E: Into<redb::Error>> From<E> for Fault {
    fn from(error: E) -> Self {
        Self::Redb(Box::new(error.into()))
    }
}

impl Fault {
    pub(super) fn into_error(self, doing: &'static str, path: &Path) -> Error {
        let damaged = |reason| Error::Damaged { path: path.to_path_buf(), reason };
        match self {
            Self::Refused(error) => error,
            Self::Row(reason) => damaged(reason),
            Self::Redb(error) => match *error {
                redb::Error::Corrupted(reason) => damaged(reason),
                // No version of marram ever wrote an older one than it reads.
                redb::Error::UpgradeRequired(format) => {
                    damaged(format!("it claims the file format {format} of redb"))
                }
                redb::Error::DatabaseAlreadyOpen => Error::InUse { path: path.to_path_buf() },
                // How redb says that the file is not one of its own.
                redb::Error::Io(ref io) if io.kind() == std::io::ErrorKind::InvalidData => {
                    damaged(io.to_string())
                }
                error => {
                    let source = Box::new(error);
                    Error::Backing { doing, at: path.display().to_string(), source }
                }
            },
        }
    }
}

/// Makes every table and gives them their first rows.
pub(super) fn create(transaction: &WriteTransaction, format: u64) -> Result<(), Fault> {
    let mut meta = transaction.open_table(META)?;
    meta.insert(META_FORMAT, format)?;
    for name in [META_REVISION, META_COMPACTED, META_LAST_LEASE] {
        meta.insert(name, 0)?;
    }
    transaction.open_table(ENTRIES)?;
    transaction.open_table(HISTORY)?;
    transaction.open_table(LEASES)?;
    transaction.open_table(LEASED)?;
    Ok(())
}

/// A number of the meta table, which must be there.
pub(super) fn meta_number(
    meta: &impl ReadableTable<&'static str, u64>,
    name: &str,
) -> Result<u64, Fault> {
    let row = meta.get(name)?;
    row.map(|row| row.value()).ok_or_else(|| Fault::Row(format!("it has no {name}")))
}

/// The first bytes of an entry's row.
#[derive(Clone, Copy)]
struct Head {
    create_revision: u64,
    mod_revision: u64,
    version: u64,
    lease: Option<LeaseId>,
}

const HEAD_BYTES: usize = 32;

impl Head {
    fn split(row: &[u8]) -> Result<(Self, &[u8]), Fault> {
        let (head, value) = row
            .split_first_chunk::<HEAD_BYTES>()
            .ok_or_else(|| Fault::Row(format!("an entry has only {} bytes", row.len())))?;
        let mut numbers = head.chunks_exact(8).map(|number| {
            u64::from_le_bytes(number.try_into().expect("chunks_exact gives eight bytes"))
        });
        let mut next = || numbers.next().unwrap_or_default();
        let head = Self {
            create_revision: next(),
            mod_revision: next(),
            version: next(),
            lease: LeaseId::new(next()),
        };
        Ok((head, value))
    }

    fn join(self, value: &[u8]) -> Vec<u8> {
        let mut row = Vec::with_capacity(HEAD_BYTES + value.len());
        let lease = self.lease.map_or(0, LeaseId::get);
        for number in [self.create_revision, self.mod_revision, self.version, lease] {
            row.extend_from_slice(&number.to_le_bytes());
        }
        row.extend_from_slice(value);
        row
    }
}

fn entry(key: &[u8], row: &[u8]) -> Result<Entry, Fault> {
    let (head, value) = Head::split(row)?;
    Ok(Entry {
        key: key.to_vec(),
        value: value.to_vec(),
        create_revision: head.create_revision,
        mod_revision: head.mod_revision,
        version: head.version,
        lease: head.lease,
    })
}

fn history_key(revision: u64, index: u32) -> u128 {
    u128::from(revision) << 32 | u128::from(index)
}

fn history_revision(key: u128) -> u64 {
    u64::try_from(key >> 32).unwrap_or(u64::MAX)
}

fn leased_key(lease: LeaseId, key: &[u8]) -> Vec<u8> {
    [&lease.get().to_be_bytes()[..], key].concat()
}

/// One snapshot of the file.
pub(super) struct Reader {
    meta: ReadOnlyTable<&'static str, u64>,
    entries: ReadOnlyTable<&'static [u8], &'static [u8]>,
    history: ReadOnlyTable<u128, &'static [u8]>,
    leases: ReadOnlyTable<u64, u64>,
}

impl Reader {
    pub(super) fn new(transaction: &ReadTransaction) -> Result<Self, Fault> {
        Ok(Self {
            meta: transaction.open_table(META)?,
            entries: transaction.open_table(ENTRIES)?,
            history: transaction.open_table(HISTORY)?,
            leases: transaction.open_table(LEASES)?,
        })
    }

    pub(super) fn revision(&self) -> Result<u64, Fault> {
        meta_number(&self.meta, META_REVISION)
    }

    pub(super) fn leases(&self) -> Result<Vec<(LeaseId, u64)>, Fault> {
        let mut leases = Vec::new();
        for row in self.leases.iter()? {
            let (id, ttl_ms) = row?;
            let id = LeaseId::new(id.value());
            leases.push((id.ok_or_else(|| Fault::Row("lease 0".to_owned()))?, ttl_ms.value()));
        }
        Ok(leases)
    }

    pub(super) fn get(&self, key: &[u8]) -> Result<Option<Entry>, Fault> {
        self.entries.get(key)?.map(|row| entry(key, row.value())).transpose()
    }

    pub(super) fn range(
        &self,
        prefix: &[u8],
        after: Option<&[u8]>,
        limit: usize,
    ) -> Result<Page, Fault> {
        let start = match after {
            Some(after) if after >= prefix => Bound::Excluded(after),
            _ => Bound::Included(prefix),
        };
        let mut page = Page { revision: self.revision()?, entries: Vec::new(), more: false };
        for row in self.entries.range::<&[u8]>((start, Bound::Unbounded))? {
            let (key, row) = row?;
            if !key.value().starts_with(prefix) {
                break;
            }
            if page.entries.len() >= limit {
                page.more = true;
                break;
            }
            page.entries.push(entry(key.value(), row.value())?);
        }
        Ok(page)
    }

    pub(super) fn changes_since(&self, revision: u64, limit: usize) -> Result<Changes, Fault> {
        let current = self.revision()?;
        if revision > current {
            return Err(Fault::Refused(Error::FutureRevision { asked: revision, current }));
        }
        let kept_since = meta_number(&self.meta, META_COMPACTED)?;
        if revision < kept_since {
            return Err(Fault::Refused(Error::Compacted { asked: revision, kept_since }));
        }
        let mut answer = Changes { revision: current, changes: Vec::new(), more: false };
        let mut inside = revision;
        for row in self.history.range(history_key(revision + 1, 0)..)? {
            let (at, row) = row?;
            let at = history_revision(at.value());
            if at != inside && answer.changes.len() >= limit.max(1) {
                answer.revision = inside;
                answer.more = true;
                break;
            }
            inside = at;
            answer.changes.extend(self.change(at, row.value())?);
        }
        Ok(answer)
    }

    /// What a row of history has to tell, unless a later row tells more of the same key.
    fn change(&self, at: u64, row: &[u8]) -> Result<Option<Change>, Fault> {
        let Some((put, key)) = row.split_first() else {
            return Err(Fault::Row(format!("a change of revision {at} is empty")));
        };
        Ok(match (self.get(key)?, put) {
            (Some(entry), 1) if entry.mod_revision == at => Some(Change::Put(entry)),
            (None, 0) => Some(Change::Delete { key: key.to_vec(), revision: at }),
            _ => None,
        })
    }
}

/// The tables inside one write transaction.
pub(super) struct Writer<'t> {
    meta: Table<'t, &'static str, u64>,
    entries: Table<'t, &'static [u8], &'static [u8]>,
    history: Table<'t, u128, &'static [u8]>,
    leases: Table<'t, u64, u64>,
    leased: Table<'t, &'static [u8], ()>,
    revision: u64,
    changes: u32,
    changed: bool,
}

impl<'t> Writer<'t> {
    pub(super) fn new(transaction: &'t WriteTransaction) -> Result<Self, Fault> {
        let meta = transaction.open_table(META)?;
        let revision = meta_number(&meta, META_REVISION)?;
        Ok(Self {
            meta,
            entries: transaction.open_table(ENTRIES)?,
            history: transaction.open_table(HISTORY)?,
            leases: transaction.open_table(LEASES)?,
            leased: transaction.open_table(LEASED)?,
            revision,
            changes: 0,
            changed: false,
        })
    }

    /// The revision that the store has if this transaction ends now.
    pub(super) fn revision(&self) -> u64 {
        self.revision + u64::from(self.changes > 0)
    }

    /// Writes the revision and cuts the history; says whether there is anything to commit.
    pub(super) fn finish(&mut self) -> Result<bool, Fault> {
        if self.changes > 0 {
            self.meta.insert(META_REVISION, self.revision())?;
            let rows = self.history.len()?;
            if rows > HISTORY_CHANGES_MAX + HISTORY_SLACK {
                self.cut(rows - HISTORY_CHANGES_MAX)?;
            }
        }
        Ok(self.changed || self.changes > 0)
    }

    /// Forgets at least that many of the oldest changes, whole revisions only.
    fn cut(&mut self, excess: u64) -> Result<(), Fault> {
        let last = usize::try_from(excess - 1).unwrap_or(usize::MAX);
        let at = match self.history.iter()?.nth(last) {
            Some(row) => history_revision(row?.0.value()),
            None => return Ok(()),
        };
        self.compact(at)
    }

    pub(super) fn compact(&mut self, revision: u64) -> Result<(), Fault> {
        if revision <= meta_number(&self.meta, META_COMPACTED)? {
            return Ok(());
        }
        let end = history_key(revision, u32::MAX);
        let rows = self.history.range(..=end)?;
        let rows = rows.map(|row| row.map(|(key, _)| key.value()));
        for key in rows.collect::<Result<Vec<_>, _>>()? {
            self.history.remove(key)?;
        }
        self.meta.insert(META_COMPACTED, revision)?;
        self.changed = true;
        Ok(())
    }

    fn head(&self, key: &[u8]) -> Result<Option<Head>, Fault> {
        let row = self.entries.get(key)?;
        row.map(|row| Head::split(row.value()).map(|(head, _)| head)).transpose()
    }

    pub(super) fn mod_revision(&self, key: &[u8]) -> Result<Option<u64>, Fault> {
        Ok(self.head(key)?.map(|head| head.mod_revision))
    }

    pub(super) fn put(
        &mut self,
        key: &[u8],
        value: &[u8],
        lease: Option<LeaseId>,
    ) -> Result<(), Fault> {
        let revision = self.revision + 1;
        let old = self.head(key)?;
        let head = Head {
            create_revision: old.map_or(revision, |old| old.create_revision),
            mod_revision: revision,
            version: old.map_or(1, |old| old.version.saturating_add(1)),
            lease,
        };
        self.entries.insert(key, head.join(value).as_slice())?;
        let old_lease = old.and_then(|old| old.lease);
        if old_lease != lease {
            self.detach(old_lease, key)?;
            if let Some(lease) = lease {
                self.leased.insert(leased_key(lease, key).as_slice(), ())?;
            }
        }
        self.record(true, key)
    }

    pub(super) fn delete(&mut self, key: &[u8]) -> Result<(), Fault> {
        let Some(head) = self.head(key)? else { return Ok(()) };
        self.entries.remove(key)?;
        self.detach(head.lease, key)?;
        self.record(false, key)
    }

    pub(super) fn delete_prefix(&mut self, prefix: &[u8]) -> Result<(), Fault> {
        let mut keys = Vec::new();
        for row in self.entries.range::<&[u8]>(prefix..)? {
            let (key, _) = row?;
            if !key.value().starts_with(prefix) {
                break;
            }
            keys.push(key.value().to_vec());
        }
        keys.iter().try_for_each(|key| self.delete(key))
    }

    fn detach(&mut self, lease: Option<LeaseId>, key: &[u8]) -> Result<(), Fault> {
        if let Some(lease) = lease {
            self.leased.remove(leased_key(lease, key).as_slice())?;
        }
        Ok(())
    }

    fn record(&mut self, put: bool, key: &[u8]) -> Result<(), Fault> {
        let row = [&[u8::from(put)][..], key].concat();
        self.history.insert(history_key(self.revision + 1, self.changes), row.as_slice())?;
        self.changes += 1;
        Ok(())
    }

    pub(super) fn add_lease(&mut self, ttl_ms: u64) -> Result<LeaseId, Fault> {
        let number = meta_number(&self.meta, META_LAST_LEASE)?.saturating_add(1);
        let id = LeaseId::new(number).expect("one more than an unsigned number is not zero");
        self.meta.insert(META_LAST_LEASE, number)?;
        self.leases.insert(number, ttl_ms)?;
        self.changed = true;
        Ok(id)
    }

    pub(super) fn end_lease(&mut self, lease: LeaseId) -> Result<(), Fault> {
        let prefix = lease.get().to_be_bytes();
        let mut keys = Vec::new();
        for row in self.leased.range::<&[u8]>(&prefix[..]..)? {
            let (row, _) = row?;
            match row.value().strip_prefix(&prefix[..]) {
                Some(key) => keys.push(key.to_vec()),
                None => break,
            }
        }
        for key in keys {
            if self.head(&key)?.is_none() {
                return Err(Fault::Row(format!("{:?} has a lease but no value", text(&key))));
            }
            self.delete(&key)?;
        }
        self.leases.remove(lease.get())?;
        self.changed = true;
        Ok(())
    }
}
