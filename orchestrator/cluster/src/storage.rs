//! The cluster's records in the store: its own id, and those of the core.
//!
//! ```text
//! cluster/id     the twelve bytes by which the parent knows this cluster
//! core/…         the core's records, whose keys are the core's own
//! ```

use marram_protocol::id::ChildId;
use marram_store::{Store, TXN_BYTES_MAX, TXN_OPS_MAX, Txn};

const ID: &[u8] = b"cluster/id";
const CORE_PREFIX: &[u8] = b"core/";

/// Entries read at once at start: keeps the largest page small.
const PAGE_MAX: usize = 256;

/// Why state cannot be read or written.
#[derive(Debug, thiserror::Error)]
pub enum StorageError {
    /// The store.
    #[error(transparent)]
    Store(#[from] marram_store::Error),
    /// Another program's file.
    #[error("the cluster's id on disk has {0} bytes, an id has 12")]
    Id(usize),
}

/// A change of one of the core's records; `None` deletes.
pub(crate) type Write = (Vec<u8>, Option<Vec<u8>>);

/// One of the core's records.
pub(crate) type Record = (Vec<u8>, Vec<u8>);

/// The cluster's id, drawn and written if there is none.
pub(crate) fn id(store: &dyn Store, drawn: ChildId) -> Result<ChildId, StorageError> {
    if let Some(entry) = store.get(ID)? {
        let bytes = entry.value.as_slice();
        return bytes.try_into().map(ChildId).map_err(|_| StorageError::Id(bytes.len()));
    }
    store.txn(&Txn::new().put(ID, drawn.0))?;
    Ok(drawn)
}

/// The core's records.
pub(crate) fn load(store: &dyn Store) -> Result<Vec<Record>, StorageError> {
    let mut records = Vec::new();
    let mut after: Option<Vec<u8>> = None;
    loop {
        let page = store.range(CORE_PREFIX, after.as_deref(), PAGE_MAX)?;
        after = page.entries.last().map(|entry| entry.key.clone());
        records.extend(page.entries.into_iter().map(|entry| {
            let key = entry.key.strip_prefix(CORE_PREFIX).unwrap_or_default().to_vec();
            (key, entry.value)
        }));
        if !page.more {
            return Ok(records);
        }
    }
}

/// Makes changes durable, in one transaction if they fit one.
///
/// What does not fit is written so that a crash in between loses nothing: children first,
/// whose count then is beyond what they were told, so that they are told everything; then
/// instances; at last the generation of the parent, which is asked for anew without it.
pub(crate) fn commit(store: &dyn Store, mut writes: Vec<Write>) -> Result<(), StorageError> {
    let rank = |key: &[u8]| match key.first() {
        Some(b'c') => 0,
        Some(b'i') => 1,
        _ => 2,
    };
    writes.sort_by_key(|(key, _)| rank(key));
    let mut txn = Txn::new();
    let (mut bytes, mut count) = (0_usize, 0_usize);
    for (key, value) in writes {
        let key = [CORE_PREFIX, &key].concat();
        let size = key.len() + value.as_ref().map_or(0, Vec::len);
        if count > 0 && (count >= TXN_OPS_MAX || bytes + size > TXN_BYTES_MAX) {
            store.txn(&std::mem::take(&mut txn))?;
            (bytes, count) = (0, 0);
        }
        txn = match value {
            Some(value) => txn.put(key, value),
            None => txn.delete(key),
        };
        bytes += size;
        count += 1;
    }
    if count > 0 {
        store.txn(&txn)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use marram_store::MemoryStore;

    #[test]
    fn an_id_is_drawn_once() {
        let store = MemoryStore::new();
        assert_eq!(id(&store, ChildId([1; 12])).unwrap(), ChildId([1; 12]));
        assert_eq!(id(&store, ChildId([2; 12])).unwrap(), ChildId([1; 12]));
        store.txn(&Txn::new().put(ID, [1, 2])).unwrap();
        assert!(matches!(id(&store, ChildId([2; 12])), Err(StorageError::Id(2))));
    }

    #[test]
    fn what_is_written_is_read_whatever_its_size() {
        let store = MemoryStore::new();
        let key = |n: u32| [b"i".as_slice(), &n.to_be_bytes()].concat();
        let mut writes: Vec<Write> = (0..1200).map(|n| (key(n), Some(vec![7; 2000]))).collect();
        writes.insert(0, (b"p".to_vec(), Some(vec![1])));
        writes.push((b"cx".to_vec(), Some(vec![2])));
        commit(&store, writes).unwrap();
        let records = load(&store).unwrap();
        assert_eq!(records.len(), 1202);
        // The generation came last, the child first.
        let revision =
            |key: &[u8]| store.get(&[CORE_PREFIX, key].concat()).unwrap().unwrap().mod_revision;
        assert!(revision(b"cx") < revision(b"p"));
        assert_eq!(revision(b"p"), store.revision());
        let gone = (0..1200).map(|n| (key(n), None)).collect();
        commit(&store, gone).unwrap();
        assert_eq!(load(&store).unwrap().len(), 2);
        commit(&store, Vec::new()).unwrap();
    }
}
