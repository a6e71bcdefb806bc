//! The embedded store against the one in memory, with whatever calls proptest thinks of.
//!
//! Why: the two are written apart, so a difference is a fault in one of them.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use marram_store::{Change, LeaseId, MemoryStore, RedbStore, Store, Txn};
use proptest::prelude::*;

#[derive(Clone, Debug)]
enum Call {
    Txn(Txn),
    Grant(u64),
    KeepAlive(u64),
    Revoke(u64),
    Pass(u64),
    Compact(u64),
    Reopen,
}

fn key() -> impl Strategy<Value = Vec<u8>> {
    proptest::collection::vec(prop_oneof![Just(b'a'), Just(b'b'), Just(0xff)], 1..4)
}

fn lease() -> impl Strategy<Value = u64> {
    1_u64..6
}

/// One step of building a transaction, of a key, a lease or revision, and a byte.
type Part = fn(Txn, Vec<u8>, u64, u8) -> Txn;

fn part() -> impl Strategy<Value = Part> {
    let parts: [Part; 7] = [
        |txn, key, _, value| txn.put(key, vec![value]),
        |txn, key, number, value| {
            txn.put_leased(key, vec![value], LeaseId::new(number).expect("from 1"))
        },
        |txn, key, _, _| txn.delete(key),
        |txn, key, _, _| txn.delete_prefix(key),
        |txn, key, _, value| if value < 200 { txn } else { txn.if_absent(key) },
        |txn, key, _, value| if value < 200 { txn } else { txn.if_exists(key) },
        |txn, key, number, value| if value < 200 { txn } else { txn.if_mod_revision(key, number) },
    ];
    proptest::sample::select(parts.to_vec())
}

fn txn() -> impl Strategy<Value = Txn> {
    proptest::collection::vec((part(), key(), lease(), any::<u8>()), 0..4).prop_map(|parts| {
        let add = |txn, (part, key, number, value): (Part, _, _, _)| part(txn, key, number, value);
        parts.into_iter().fold(Txn::new(), add)
    })
}

fn call() -> impl Strategy<Value = Call> {
    prop_oneof![
        12 => txn().prop_map(Call::Txn),
        2 => (0_u64..50).prop_map(Call::Grant),
        1 => lease().prop_map(Call::KeepAlive),
        1 => lease().prop_map(Call::Revoke),
        2 => (0_u64..30).prop_map(Call::Pass),
        1 => (0_u64..30).prop_map(Call::Compact),
        1 => Just(Call::Reopen),
    ]
}

/// Does a call and says how it went, in words.
fn perform(store: &dyn Store, call: &Call, now_ms: u64) -> String {
    let said = match call {
        Call::Txn(txn) => store.txn(txn).map(|outcome| format!("{outcome:?}")),
        Call::Grant(ttl_ms) => store.grant(*ttl_ms, now_ms).map(|lease| lease.to_string()),
        Call::KeepAlive(lease) => {
            store.keep_alive(LeaseId::new(*lease).unwrap(), now_ms).map(|()| String::new())
        }
        Call::Revoke(lease) => store.revoke(LeaseId::new(*lease).unwrap()).map(|()| String::new()),
        Call::Pass(_) => store.expire(now_ms).map(|ended| format!("{ended:?}")),
        Call::Compact(revision) => store.compact(*revision).map(|()| String::new()),
        Call::Reopen => Ok(String::new()),
    };
    said.unwrap_or_else(|error| error.to_string())
}

fn everything(store: &dyn Store) -> String {
    let page = store.range(b"", None, usize::MAX).unwrap();
    let at = page.revision;
    let changes: Vec<_> = (0..=at + 1)
        .map(|since| store.changes_since(since, 3).map_err(|e| e.to_string()))
        .collect();
    format!("{page:?} {changes:?} {}", store.revision())
}

/// A copy that only ever reads changes must end up equal to the store.
fn follow(store: &dyn Store, copy: &mut Vec<(Vec<u8>, Vec<u8>)>, seen: &mut u64) {
    loop {
        let Ok(changes) = store.changes_since(*seen, 2) else {
            let page = store.range(b"", None, usize::MAX).unwrap();
            *seen = page.revision;
            *copy = page.entries.into_iter().map(|entry| (entry.key, entry.value)).collect();
            return;
        };
        for change in changes.changes {
            let key = match &change {
                Change::Put(entry) => entry.key.clone(),
                Change::Delete { key, .. } => key.clone(),
            };
            copy.retain(|(old, _)| *old != key);
            if let Change::Put(entry) = change {
                copy.push((entry.key, entry.value));
            }
        }
        *seen = changes.revision;
        if !changes.more {
            return;
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]
    #[test]
    fn both_stores_answer_the_same(calls in proptest::collection::vec(call(), 1..24)) {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("state");
        let model = MemoryStore::new();
        let mut store = RedbStore::open(&path).unwrap();
        let (mut copy, mut seen, mut now_ms) = (Vec::new(), 0, 0);
        for (number, call) in calls.iter().enumerate() {
            if let Call::Pass(ms) = call {
                now_ms += ms;
            }
            if let Call::Reopen = call {
                drop(store);
                store = RedbStore::open(&path).unwrap();
                // Opening gives every lease its whole time anew: do the same to the model.
                store.expire(now_ms).unwrap();
                for lease in (1..100).filter_map(LeaseId::new) {
                    model.keep_alive(lease, now_ms).ok();
                }
            }
            prop_assert_eq!(perform(&store, call, now_ms), perform(&model, call, now_ms));
            prop_assert_eq!(everything(&store), everything(&model));
            prop_assert_eq!(store.next_expiry_ms(), model.next_expiry_ms());
            if number % 3 == 0 {
                follow(&store, &mut copy, &mut seen);
                let page = store.range(b"", None, usize::MAX).unwrap();
                let now: Vec<_> = page.entries.into_iter().map(|e| (e.key, e.value)).collect();
                copy.sort();
                prop_assert_eq!(&copy, &now);
            }
        }
    }
}
