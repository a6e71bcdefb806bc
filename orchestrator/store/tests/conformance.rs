//! What every store must do, asked of each of them in the same words.
//!
//! Why apart from the implementations: a store of a replicated root has to pass the very
//! same cases. To add one, add a line to `stores!`.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use marram_store::{
    Change, Changes, Entry, Error, HISTORY_CHANGES_MAX, KEY_BYTES_MAX, LEASE_TTL_MS_MAX, LeaseId,
    MemoryStore, Outcome, RedbStore, Store, TXN_COMPARES_MAX, TXN_OPS_MAX, Txn, VALUE_BYTES_MAX,
};

/// Makes one test for each store out of each case.
macro_rules! stores {
    ($($case:ident),* $(,)?) => {
        mod memory {
            $(#[test] fn $case() { super::$case(&super::MemoryStore::new()); })*
        }
        mod embedded {
            $(#[test] fn $case() {
                let directory = tempfile::tempdir().unwrap();
                let path = directory.path().join("state");
                super::$case(&super::RedbStore::open(&path).unwrap());
            })*
        }
    };
}

stores! {
    starts_empty_at_revision_0,
    put_get_and_the_numbers_of_an_entry,
    one_revision_counts_every_change,
    nothing_changed_is_nothing_counted,
    compares_decide,
    a_transaction_happens_whole_or_not_at_all,
    range_is_in_byte_order,
    range_goes_on_where_the_last_page_ended,
    delete_prefix_takes_what_begins_so_and_nothing_else,
    limits_are_errors_that_say_so,
    one_key_twice_is_refused,
    changes_tell_what_is_now,
    changes_come_in_pages_of_whole_revisions,
    changes_of_the_future_are_refused,
    history_is_bounded_and_says_compacted,
    compact_forgets_changes_and_keeps_entries,
    subscribers_see_the_revision_move,
    a_lease_takes_its_keys_with_it,
    keep_alive_puts_the_end_off,
    a_later_put_frees_a_key_from_its_lease,
    revoke_ends_at_once,
    a_lease_that_is_gone_cannot_be_used,
    leases_have_limits,
    two_leases_that_end_together,
    threads_that_race_for_one_key,
}

fn commit(store: &dyn Store, txn: Txn) -> u64 {
    match store.txn(&txn).unwrap() {
        Outcome::Committed { revision } => revision,
        Outcome::Refused { .. } => panic!("refused: {txn:?}"),
    }
}

fn put(store: &dyn Store, key: &str, value: &str) -> u64 {
    commit(store, Txn::new().put(key, value))
}

fn keys(store: &dyn Store, prefix: &str) -> Vec<String> {
    let page = store.range(prefix.as_bytes(), None, usize::MAX).unwrap();
    assert!(!page.more);
    page.entries.into_iter().map(|entry| String::from_utf8(entry.key).unwrap()).collect()
}

/// Changes as text: `+key=value` or `-key`.
fn told(changes: &Changes) -> Vec<String> {
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
    let one = |change: &Change| match change {
        Change::Put(entry) => format!("+{}={}", text(&entry.key), text(&entry.value)),
        Change::Delete { key, .. } => format!("-{}", text(key)),
    };
    changes.changes.iter().map(one).collect()
}

fn starts_empty_at_revision_0(store: &dyn Store) {
    assert_eq!(store.revision(), 0);
    assert_eq!(store.get(b"a").unwrap(), None);
    assert_eq!(keys(store, ""), [""; 0]);
    assert_eq!(told(&store.changes_since(0, 10).unwrap()), [""; 0]);
    assert_eq!(store.next_expiry_ms(), None);
}

fn put_get_and_the_numbers_of_an_entry(store: &dyn Store) {
    put(store, "other", "x");
    put(store, "a", "1");
    put(store, "a", "2");
    let expected = Entry {
        key: b"a".to_vec(),
        value: b"2".to_vec(),
        create_revision: 2,
        mod_revision: 3,
        version: 2,
        lease: None,
    };
    assert_eq!(store.get(b"a").unwrap(), Some(expected));
    commit(store, Txn::new().delete("a"));
    assert_eq!(store.get(b"a").unwrap(), None);
    put(store, "a", "");
    let entry = store.get(b"a").unwrap().unwrap();
    assert_eq!((entry.create_revision, entry.version, entry.value), (5, 1, Vec::new()));
}

fn one_revision_counts_every_change(store: &dyn Store) {
    for expected in 1..=20 {
        let txn = Txn::new().put(format!("k{expected}"), "v").put("same", "v");
        assert_eq!(commit(store, txn), expected);
        assert_eq!(store.revision(), expected);
    }
    let page = store.range(b"k7", None, 1).unwrap();
    assert_eq!(page.revision, 20);
    assert_eq!(page.entries[0].mod_revision, 7);
}

fn nothing_changed_is_nothing_counted(store: &dyn Store) {
    put(store, "a", "1");
    assert_eq!(commit(store, Txn::new()), 1);
    assert_eq!(commit(store, Txn::new().delete("absent").delete_prefix("no")), 1);
    assert_eq!(store.revision(), 1);
}

fn compares_decide(store: &dyn Store) {
    let at = put(store, "a", "1");
    let refused = |txn: Txn| {
        let outcome = store.txn(&txn.put("b", "x")).unwrap();
        assert_eq!(outcome, Outcome::Refused { revision: at });
        assert_eq!(store.revision(), at);
    };
    refused(Txn::new().if_absent("a"));
    refused(Txn::new().if_exists("b"));
    refused(Txn::new().if_mod_revision("a", at + 1));
    refused(Txn::new().if_mod_revision("a", 0));
    refused(Txn::new().if_mod_revision("b", 1));
    refused(Txn::new().if_exists("a").if_exists("b"));
    let all = Txn::new()
        .if_exists("a")
        .if_absent("b")
        .if_mod_revision("a", at)
        .if_mod_revision("b", 0)
        .put("b", "x");
    assert_eq!(commit(store, all), at + 1);
}

fn a_transaction_happens_whole_or_not_at_all(store: &dyn Store) {
    put(store, "old", "1");
    let gone = LeaseId::new(999).unwrap();
    let txn = Txn::new().put("a", "1").delete("old").put_leased("b", "2", gone);
    assert!(matches!(store.txn(&txn), Err(Error::LeaseGone(lease)) if lease == gone));
    assert_eq!(keys(store, ""), ["old"]);
    assert_eq!(store.revision(), 1);
    commit(store, Txn::new().put("a", "1").delete("old").put("b", "2"));
    assert_eq!(keys(store, ""), ["a", "b"]);
    let (a, b) = (store.get(b"a").unwrap().unwrap(), store.get(b"b").unwrap().unwrap());
    assert_eq!((a.mod_revision, b.mod_revision), (2, 2));
}

fn range_is_in_byte_order(store: &dyn Store) {
    for key in ["b", "a/2", "a", "a/10", "a/1", "B", "a0", "é"] {
        put(store, key, "");
    }
    assert_eq!(keys(store, ""), ["B", "a", "a/1", "a/10", "a/2", "a0", "b", "é"]);
    assert_eq!(keys(store, "a/"), ["a/1", "a/10", "a/2"]);
    assert_eq!(keys(store, "zz"), [""; 0]);
    commit(store, Txn::new().put([0xff, 0xff], "1").put([0xff], "2").put([0], "3"));
    let last = store.range(&[0xff], None, 9).unwrap();
    assert_eq!(last.entries.iter().map(|entry| entry.key.len()).collect::<Vec<_>>(), [1, 2]);
}

fn range_goes_on_where_the_last_page_ended(store: &dyn Store) {
    let all: Vec<_> = (0..25).map(|number| format!("n/{number:02}")).collect();
    commit(store, all.iter().fold(Txn::new().put("m", "").put("o", ""), |t, k| t.put(&**k, "")));
    let mut seen = Vec::new();
    let mut after: Option<Vec<u8>> = None;
    loop {
        let page = store.range(b"n/", after.as_deref(), 10).unwrap();
        assert!(page.entries.len() <= 10);
        after = page.entries.last().map(|entry| entry.key.clone());
        seen.extend(page.entries.into_iter().map(|e| String::from_utf8(e.key).unwrap()));
        if !page.more {
            break;
        }
    }
    assert_eq!(seen, all);
    assert_eq!(store.range(b"n/", Some(b"a"), 1).unwrap().entries[0].key, b"n/00");
    let none = store.range(b"n/", None, 0).unwrap();
    assert!(none.entries.is_empty() && none.more);
}

fn delete_prefix_takes_what_begins_so_and_nothing_else(store: &dyn Store) {
    for key in ["app/1", "app/1/x", "app/10", "app/2", "ap", "b"] {
        put(store, key, "");
    }
    let revision = commit(store, Txn::new().delete_prefix("app/1").put("c", ""));
    assert_eq!(revision, 7);
    assert_eq!(keys(store, ""), ["ap", "app/2", "b", "c"]);
    let told = told(&store.changes_since(6, 10).unwrap());
    assert_eq!(told, ["-app/1", "-app/1/x", "-app/10", "+c="]);
}

fn limits_are_errors_that_say_so(store: &dyn Store) {
    let refuse = |txn: Txn, expected: &str| {
        assert_eq!(store.txn(&txn).unwrap_err().to_string(), expected);
    };
    refuse(Txn::new().put("", "x"), "a key is empty, it must have 1 to 512 bytes");
    refuse(Txn::new().delete_prefix(""), "a key is empty, it must have 1 to 512 bytes");
    let long = vec![b'k'; KEY_BYTES_MAX + 1];
    refuse(Txn::new().if_exists(long), "a key has 513 bytes, at most 512 are allowed");
    let value = vec![0; VALUE_BYTES_MAX + 1];
    refuse(
        Txn::new().put("big", value),
        "the value of \"big\" has 1114113 bytes, at most 1114112 are allowed",
    );
    let half = vec![0; 800_000];
    refuse(
        Txn::new().put("a", half.clone()).put("b", half),
        "the transaction has 1600002 bytes, at most 1572864 are allowed",
    );
    let many = (0..=TXN_OPS_MAX).fold(Txn::new(), |txn, n| txn.put(n.to_string(), ""));
    refuse(many, "the transaction has 513 puts and deletes, at most 512 are allowed");
    let many = (0..=TXN_COMPARES_MAX).fold(Txn::new(), |txn, _| txn.if_absent("a"));
    refuse(many, "the transaction has 513 compares, at most 512 are allowed");
    assert_eq!(store.revision(), 0);
    let full = (0..TXN_OPS_MAX).fold(Txn::new(), |txn, n| txn.put(n.to_string(), ""));
    commit(store, full);
    commit(store, Txn::new().put(vec![b'k'; KEY_BYTES_MAX], vec![7; VALUE_BYTES_MAX]));
}

fn one_key_twice_is_refused(store: &dyn Store) {
    let twice = [
        (Txn::new().put("a", "1").put("a", "2"), "a"),
        (Txn::new().put("a", "1").delete("a"), "a"),
        (Txn::new().delete_prefix("ap").put("apple", "1"), "apple"),
        (Txn::new().delete("ap").delete_prefix("ap"), "ap"),
        (Txn::new().delete_prefix("b").delete_prefix("a").delete_prefix("ab"), "ab"),
        (Txn::new().delete_prefix("a").delete_prefix("a"), "a"),
    ];
    for (txn, key) in twice {
        let error = store.txn(&txn).unwrap_err();
        assert_eq!(error.to_string(), format!("the transaction changes {key:?} twice"));
    }
    commit(store, Txn::new().delete_prefix("ap").put("a", "").delete("b").delete_prefix("b/"));
}

fn changes_tell_what_is_now(store: &dyn Store) {
    put(store, "a", "1");
    put(store, "b", "1");
    put(store, "a", "2");
    commit(store, Txn::new().delete("b").put("c", "1"));
    let all = store.changes_since(0, 100).unwrap();
    assert_eq!((all.revision, all.more), (4, false));
    assert_eq!(told(&all), ["+a=2", "-b", "+c=1"]);
    assert_eq!(told(&store.changes_since(3, 100).unwrap()), ["-b", "+c=1"]);
    assert_eq!(told(&store.changes_since(4, 100).unwrap()), [""; 0]);
    put(store, "b", "back");
    assert_eq!(told(&store.changes_since(3, 100).unwrap()), ["+c=1", "+b=back"]);
    let Change::Put(entry) = store.changes_since(4, 100).unwrap().changes.remove(0) else {
        panic!("a put");
    };
    assert_eq!((entry.create_revision, entry.mod_revision, entry.version), (5, 5, 1));
}

fn changes_come_in_pages_of_whole_revisions(store: &dyn Store) {
    commit(store, Txn::new().put("a", "").put("b", "").put("c", ""));
    commit(store, Txn::new().put("d", "").put("e", ""));
    put(store, "f", "");
    let first = store.changes_since(0, 1).unwrap();
    assert_eq!((told(&first).len(), first.revision, first.more), (3, 1, true));
    let second = store.changes_since(first.revision, 2).unwrap();
    assert_eq!((told(&second).len(), second.revision, second.more), (2, 2, true));
    let third = store.changes_since(second.revision, 0).unwrap();
    assert_eq!((told(&third).len(), third.revision, third.more), (1, 3, false));
}

fn changes_of_the_future_are_refused(store: &dyn Store) {
    put(store, "a", "");
    for error in [store.changes_since(2, 9).unwrap_err(), store.compact(2).unwrap_err()] {
        assert!(matches!(error, Error::FutureRevision { asked: 2, current: 1 }), "{error}");
    }
    assert!(matches!(store.changes_since(u64::MAX, 9), Err(Error::FutureRevision { .. })));
}

fn history_is_bounded_and_says_compacted(store: &dyn Store) {
    let batch = |from: usize| {
        (from..from + TXN_OPS_MAX).fold(Txn::new(), |txn, n| txn.put((n % 600).to_string(), ""))
    };
    let per_batch = u64::try_from(TXN_OPS_MAX).unwrap();
    let batches = HISTORY_CHANGES_MAX / per_batch + 4;
    for number in 0..batches {
        commit(store, batch(usize::try_from(number).unwrap() * 100));
    }
    let error = store.changes_since(0, 10).unwrap_err();
    let Error::Compacted { asked: 0, kept_since } = error else { panic!("{error}") };
    assert!(kept_since >= 2 && kept_since < batches, "{kept_since}");
    assert!(store.changes_since(kept_since - 1, 10).is_err());
    assert_eq!(store.changes_since(kept_since, usize::MAX).unwrap().revision, batches);
    let expected =
        format!("changes since revision 0 are compacted, kept are those since {kept_since}");
    assert_eq!(store.changes_since(0, 10).unwrap_err().to_string(), expected);
}

fn compact_forgets_changes_and_keeps_entries(store: &dyn Store) {
    for key in ["a", "b", "c"] {
        put(store, key, "");
    }
    store.compact(2).unwrap();
    store.compact(2).unwrap();
    store.compact(1).unwrap();
    assert_eq!(keys(store, ""), ["a", "b", "c"]);
    let error = store.changes_since(1, 9).unwrap_err();
    assert!(matches!(error, Error::Compacted { asked: 1, kept_since: 2 }), "{error}");
    assert_eq!(told(&store.changes_since(2, 9).unwrap()), ["+c="]);
    assert_eq!(store.revision(), 3);
}

fn subscribers_see_the_revision_move(store: &dyn Store) {
    let mut early = store.subscribe();
    put(store, "a", "");
    put(store, "b", "");
    assert!(early.has_changed().unwrap());
    assert_eq!(*early.borrow_and_update(), 2);
    commit(store, Txn::new().delete("absent"));
    let refused = store.txn(&Txn::new().if_absent("a").put("c", "")).unwrap();
    assert!(!refused.committed());
    assert!(!early.has_changed().unwrap());
    assert_eq!(*store.subscribe().borrow(), 2);
}

fn a_lease_takes_its_keys_with_it(store: &dyn Store) {
    let lease = store.grant(1000, 50_000).unwrap();
    assert_eq!(store.next_expiry_ms(), Some(51_000));
    commit(store, Txn::new().put_leased("l/1", "", lease).put_leased("l/2", "", lease));
    put(store, "free", "");
    assert_eq!(store.get(b"l/1").unwrap().unwrap().lease, Some(lease));
    assert_eq!(store.expire(50_999).unwrap(), []);
    let before = store.revision();
    assert_eq!(store.expire(51_000).unwrap(), [lease]);
    assert_eq!(keys(store, ""), ["free"]);
    assert_eq!(told(&store.changes_since(before, 9).unwrap()), ["-l/1", "-l/2"]);
    assert!(store.revision() > before);
    assert_eq!(store.expire(99_000).unwrap(), []);
    assert_eq!(store.next_expiry_ms(), None);
}

fn keep_alive_puts_the_end_off(store: &dyn Store) {
    let lease = store.grant(100, 0).unwrap();
    commit(store, Txn::new().put_leased("a", "", lease));
    store.keep_alive(lease, 90).unwrap();
    assert_eq!(store.next_expiry_ms(), Some(190));
    assert_eq!(store.expire(100).unwrap(), []);
    assert_eq!(store.revision(), 1);
    assert_eq!(store.expire(190).unwrap(), [lease]);
    assert_eq!(keys(store, ""), [""; 0]);
}

fn a_later_put_frees_a_key_from_its_lease(store: &dyn Store) {
    let (one, two) = (store.grant(100, 0).unwrap(), store.grant(200, 0).unwrap());
    assert_ne!(one, two);
    let all = ["kept", "moved", "taken"];
    commit(store, all.iter().fold(Txn::new(), |txn, key| txn.put_leased(*key, "1", one)));
    commit(store, Txn::new().put("kept", "2").put_leased("moved", "2", two));
    assert_eq!(store.expire(100).unwrap(), [one]);
    assert_eq!(keys(store, ""), ["kept", "moved"]);
    assert_eq!(store.expire(200).unwrap(), [two]);
    assert_eq!(keys(store, ""), ["kept"]);
}

fn revoke_ends_at_once(store: &dyn Store) {
    let lease = store.grant(100, 0).unwrap();
    let other = store.grant(100, 0).unwrap();
    commit(store, Txn::new().put_leased("a", "", lease).put_leased("b", "", other));
    store.revoke(lease).unwrap();
    assert_eq!(keys(store, ""), ["b"]);
    assert_eq!(store.revision(), 2);
    store.revoke(lease).unwrap();
    assert_eq!(store.revision(), 2);
}

fn a_lease_that_is_gone_cannot_be_used(store: &dyn Store) {
    let lease = store.grant(100, 0).unwrap();
    store.revoke(lease).unwrap();
    let put = store.txn(&Txn::new().put_leased("a", "", lease));
    for error in [put.unwrap_err(), store.keep_alive(lease, 0).unwrap_err()] {
        assert_eq!(error.to_string(), format!("lease {lease} does not exist"));
    }
    let next = store.grant(100, 0).unwrap();
    assert!(next > lease, "a number is never given twice");
}

fn leases_have_limits(store: &dyn Store) {
    for ttl_ms in [0, LEASE_TTL_MS_MAX + 1, u64::MAX] {
        let error = store.grant(ttl_ms, 0).unwrap_err();
        assert!(matches!(error, Error::LeaseTtl { .. }), "{error}");
    }
    let lease = store.grant(LEASE_TTL_MS_MAX, u64::MAX).unwrap();
    assert_eq!(store.next_expiry_ms(), Some(u64::MAX));
    store.revoke(lease).unwrap();
}

fn two_leases_that_end_together(store: &dyn Store) {
    let (one, two) = (store.grant(5, 0).unwrap(), store.grant(5, 0).unwrap());
    commit(store, Txn::new().put_leased("a", "", one).put_leased("b", "", two));
    assert_eq!(store.expire(5).unwrap(), [one, two]);
    assert_eq!(keys(store, ""), [""; 0]);
}

fn threads_that_race_for_one_key(store: &dyn Store) {
    const THREADS: usize = 4;
    const ROUNDS: u64 = 5;
    put(store, "n", "0");
    let add_one = || {
        for _ in 0..ROUNDS {
            loop {
                let entry = store.get(b"n").unwrap().unwrap();
                let number: u64 = String::from_utf8(entry.value).unwrap().parse().unwrap();
                let txn = Txn::new().if_mod_revision("n", entry.mod_revision);
                let txn = txn.put("n", (number + 1).to_string());
                if store.txn(&txn).unwrap().committed() {
                    break;
                }
            }
        }
    };
    std::thread::scope(|scope| (0..THREADS).for_each(|_| drop(scope.spawn(add_one))));
    assert_eq!(store.get(b"n").unwrap().unwrap().value, b"20");
    assert_eq!(store.revision(), 21);
}
