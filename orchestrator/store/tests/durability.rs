//! What is on disk: after a drop, after a kill, after the file was damaged, and at idle.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::LazyLock;

use marram_store::{Error, LeaseId, RedbStore, Store, Txn};
use proptest::prelude::*;

const ENTRIES: usize = 200;

/// A file with revisions 1 to [`ENTRIES`], cleanly closed.
fn filled(directory: &Path) -> PathBuf {
    let path = directory.join("state");
    let store = RedbStore::open(&path).unwrap();
    for number in 0..ENTRIES {
        store.txn(&Txn::new().put(format!("key/{number:04}"), vec![7; 100])).unwrap();
    }
    path
}

/// What a store that opens again must hold: some prefix of what was written.
fn assert_prefix(store: &RedbStore) {
    let page = store.range(b"", None, usize::MAX).unwrap();
    let count = page.entries.len();
    assert_eq!(u64::try_from(count).unwrap(), page.revision);
    for (number, entry) in page.entries.iter().enumerate() {
        assert_eq!(entry.key, format!("key/{number:04}").into_bytes());
        assert_eq!(entry.value, vec![7; 100]);
    }
}

/// Opens a file that may be damaged: whole old state, or an error that says what is wrong.
fn open_damaged(path: &Path) -> Option<RedbStore> {
    match RedbStore::open(path) {
        Ok(store) => {
            assert_prefix(&store);
            Some(store)
        }
        Err(Error::Damaged { path: named, reason }) => {
            assert_eq!(named, path);
            assert!(!reason.is_empty());
            None
        }
        Err(error) => panic!("{error:?}"),
    }
}

#[test]
fn everything_is_there_after_opening_again() {
    let directory = tempfile::tempdir().unwrap();
    let path = filled(directory.path());
    let store = RedbStore::open(&path).unwrap();
    let lease = store.grant(100, 0).unwrap();
    store.txn(&Txn::new().put_leased("leased", "", lease)).unwrap();
    store.compact(3).unwrap();
    let before = format!("{:?}", store.range(b"", None, usize::MAX).unwrap());
    drop(store);

    let store = RedbStore::open(&path).unwrap();
    assert_eq!(format!("{:?}", store.range(b"", None, usize::MAX).unwrap()), before);
    assert_eq!(*store.subscribe().borrow(), store.revision());
    assert!(matches!(store.changes_since(2, 1), Err(Error::Compacted { kept_since: 3, .. })));
    // Another clock, and the lease has its whole time again.
    assert_eq!(store.next_expiry_ms(), Some(0));
    assert_eq!(store.expire(7_000_000).unwrap(), []);
    assert_eq!(store.next_expiry_ms(), Some(7_000_100));
    assert_eq!(store.expire(7_000_100).unwrap(), [lease]);
    assert_eq!(store.get(b"leased").unwrap(), None);
    drop(store);

    let store = RedbStore::open(&path).unwrap();
    assert_eq!(store.next_expiry_ms(), None);
    assert!(store.grant(1, 0).unwrap() > lease);
    assert!(store.keep_alive(LeaseId::new(1).unwrap(), 0).is_err());
}

#[test]
fn what_was_acknowledged_survives_a_kill() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("state");
    let store = RedbStore::open(&path).unwrap();
    for number in 0..30 {
        store.txn(&Txn::new().put(format!("key/{number:04}"), vec![7; 100])).unwrap();
        // The bytes as they lie there while the process still runs: what a kill leaves.
        let copy = directory.path().join(format!("copy{number}"));
        fs::copy(&path, &copy).unwrap();
        let copy = RedbStore::open(&copy).unwrap();
        assert_eq!(copy.revision(), number + 1);
        assert_prefix(&copy);
    }
}

#[test]
fn a_file_cut_anywhere_opens_whole_or_says_damaged() {
    let directory = tempfile::tempdir().unwrap();
    let whole = fs::read(filled(directory.path())).unwrap();
    let torn = directory.path().join("torn");
    let mut damaged = 0;
    for cut in (0..whole.len()).step_by(whole.len() / 40) {
        fs::write(&torn, &whole[..cut]).unwrap();
        damaged += u32::from(open_damaged(&torn).is_none());
    }
    assert!(damaged > 0, "cutting half of a file must be noticed");
    fs::write(&torn, b"").unwrap();
    let error = RedbStore::open(&torn).unwrap_err().to_string();
    assert!(error.ends_with("torn is damaged: it is empty, so its content was lost"), "{error}");
}

#[test]
fn garbage_behind_the_end_does_no_harm() {
    let directory = tempfile::tempdir().unwrap();
    let whole = fs::read(filled(directory.path())).unwrap();
    for extra in [1_usize, 17, 4096, 70_000] {
        let path = directory.path().join(format!("long{extra}"));
        let mut bytes = whole.clone();
        bytes.extend((0..extra).map(|n| u8::try_from(n * 31 % 251).unwrap()));
        fs::write(&path, bytes).unwrap();
        if let Some(store) = open_damaged(&path) {
            assert_eq!(store.revision(), u64::try_from(ENTRIES).unwrap());
            store.txn(&Txn::new().put(format!("key/{ENTRIES:04}"), vec![7; 100])).unwrap();
            drop(store);
            assert_prefix(&RedbStore::open(&path).unwrap());
        }
    }
}

#[test]
fn a_file_that_is_no_store_is_refused_and_kept() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("notes.txt");
    let text = "something else entirely\n".repeat(1000);
    fs::write(&path, &text).unwrap();
    assert!(open_damaged(&path).is_none());
    assert_eq!(fs::read_to_string(&path).unwrap(), text);
}

#[test]
fn a_second_opening_is_refused_while_the_first_lives() {
    let directory = tempfile::tempdir().unwrap();
    let path = filled(directory.path());
    let _first = RedbStore::open(&path).unwrap();
    let error = RedbStore::open(&path).unwrap_err();
    assert!(matches!(error, Error::InUse { .. }), "{error}");
}

#[test]
fn an_unfinished_beginning_is_swept_away() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("state");
    fs::write(directory.path().join("state.new"), b"half").unwrap();
    drop(RedbStore::open(&path).unwrap());
    let mode = fs::metadata(&path).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1);
}

#[test]
fn a_directory_that_is_not_there_is_named() {
    let error = RedbStore::open(Path::new("/nonexistent/of/marram/state")).unwrap_err();
    let text = error.to_string();
    assert_eq!(text, "creating /nonexistent/of/marram/state.new failed");
}

#[test]
fn reading_and_keeping_alive_write_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let path = filled(directory.path());
    let store = RedbStore::open(&path).unwrap();
    let lease = store.grant(1_000_000, 0).unwrap();
    let stamp = || {
        let found = fs::metadata(&path).unwrap();
        (found.mtime(), found.mtime_nsec(), found.size(), fs::read(&path).unwrap())
    };
    let before = stamp();
    for now_ms in 0..50 {
        store.get(b"key/0001").unwrap();
        store.range(b"", None, usize::MAX).unwrap();
        store.changes_since(0, usize::MAX).unwrap();
        store.keep_alive(lease, now_ms).unwrap();
        assert_eq!(store.expire(now_ms).unwrap(), []);
        store.txn(&Txn::new().if_absent("key/0001").put("x", "")).unwrap();
        store.txn(&Txn::new().delete("absent")).unwrap();
        store.revoke(LeaseId::new(77).unwrap()).unwrap();
        store.compact(0).unwrap();
    }
    assert!(stamp() == before, "an idle store must not write");
}

#[test]
fn overwriting_one_key_for_long_does_not_grow_the_file() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("state");
    let store = RedbStore::open(&path).unwrap();
    for _ in 0..40 {
        store.txn(&Txn::new().put("same", vec![1; 100_000])).unwrap();
    }
    let size = fs::metadata(&path).unwrap().len();
    assert!(size < 2 * 1024 * 1024, "{size} bytes for one value of 100 000");
}

/// What a failing card does to a file: single bits, or a block of zeros.
#[derive(Clone, Debug)]
enum Harm {
    Bit {
        at: u32,
        bit: u8,
    },
    /// The header is small, so that chance alone would hardly ever meet it.
    HeaderBit {
        at: u32,
        bit: u8,
    },
    ZeroBlock {
        at: u32,
    },
}

fn harm() -> impl Strategy<Value = Harm> {
    prop_oneof![
        (any::<u32>(), 0_u8..8).prop_map(|(at, bit)| Harm::Bit { at, bit }),
        (0_u32..512, 0_u8..8).prop_map(|(at, bit)| Harm::HeaderBit { at, bit }),
        any::<u32>().prop_map(|at| Harm::ZeroBlock { at }),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]
    #[test]
    fn a_harmed_file_never_panics(harms in proptest::collection::vec(harm(), 1..4)) {
        static WHOLE: LazyLock<Vec<u8>> = LazyLock::new(|| {
            fs::read(filled(tempfile::tempdir().unwrap().path())).unwrap()
        });
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("state");
        let mut bytes = WHOLE.clone();
        let length = bytes.len();
        for harm in harms {
            match harm {
                Harm::Bit { at, bit } | Harm::HeaderBit { at, bit } => {
                    bytes[usize::try_from(at).unwrap() % length] ^= 1 << bit;
                }
                Harm::ZeroBlock { at } => {
                    let start = usize::try_from(at).unwrap() % length / 512 * 512;
                    bytes[start..length.min(start + 512)].fill(0);
                }
            }
        }
        fs::write(&path, bytes).unwrap();
        if let Some(store) = open_damaged(&path) {
            store.changes_since(0, usize::MAX).ok();
            store.txn(&Txn::new().put("new", "")).ok();
        }
    }
}
