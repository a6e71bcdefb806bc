//! Crashes at every byte of a write, rot of every bit, and the rules of reading.

use std::os::unix::fs::{MetadataExt, PermissionsExt};

use proptest::prelude::*;
use tempfile::TempDir;

use super::*;

/// Ends a write early, as a cut of the power would: after so many bytes and steps.
#[derive(Debug, Default)]
pub(super) struct Crash {
    left: Option<usize>,
}

impl Crash {
    fn spend(&mut self, wanted: usize) -> usize {
        let granted = self.left.map_or(wanted, |left| left.min(wanted));
        self.left = self.left.map(|left| left - granted);
        granted
    }

    /// Writes what is granted of the frame, and fails if that is not all of it.
    pub(super) fn writing(&mut self, file: &mut File, frame: &[u8]) -> io::Result<()> {
        let granted = self.spend(frame.len());
        if granted == frame.len() {
            return Ok(());
        }
        file.write_all(&frame[..granted])?;
        Err(io::Error::other("the power is gone"))
    }

    pub(super) fn step(&mut self) -> io::Result<()> {
        if self.spend(1) == 1 { Ok(()) } else { Err(io::Error::other("the power is gone")) }
    }
}

fn record(generation: u64, bytes: &[u8]) -> Record {
    Record { generation, bytes: bytes.to_vec() }
}

fn open(directory: &TempDir) -> (Ledger, Option<Record>) {
    Ledger::open(directory.path()).unwrap()
}

/// A ledger that was written as told and closed.
fn written(records: &[Record]) -> TempDir {
    let directory = tempfile::tempdir().unwrap();
    let mut ledger = open(&directory).0;
    for record in records {
        ledger.write(record.generation, &record.bytes).unwrap();
    }
    directory
}

fn slot(directory: &TempDir, index: usize) -> PathBuf {
    directory.path().join(SLOTS[index])
}

#[test]
fn the_checksum_is_the_usual_one() {
    assert_eq!(crc32(&[b"1234", b"56789"]), 0xcbf4_3926);
    assert_eq!(crc32(&[]), 0);
}

#[test]
fn a_new_ledger_is_empty_and_a_written_one_is_not() {
    let directory = written(&[]);
    assert_eq!(open(&directory).1, None);
    let directory = written(&[record(1, b"one"), record(2, b""), record(3, b"three")]);
    let (ledger, found) = open(&directory);
    assert_eq!(found, Some(record(3, b"three")));
    assert_eq!(ledger.damage().count(), 0);
    assert_eq!(fs::read(slot(&directory, 0)).unwrap(), fs::read(slot(&directory, 1)).unwrap());
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!((mode(&slot(&directory, 0)), mode(&slot(&directory, 1))), (0o600, 0o600));
    assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 2, "nothing is left behind");
}

#[test]
fn the_last_write_counts_whatever_its_generation() {
    let directory = written(&[record(9, b"nine"), record(3, b"three"), record(3, b"again")]);
    assert_eq!(open(&directory).1, Some(record(3, b"again")));
}

#[test]
fn the_directory_is_made_for_its_owner_only() {
    let directory = tempfile::tempdir().unwrap();
    let deep = directory.path().join("state/ledger");
    let (mut ledger, found) = Ledger::open(&deep).unwrap();
    assert_eq!(found, None);
    ledger.write(1, b"x").unwrap();
    assert_eq!(fs::metadata(&deep).unwrap().permissions().mode() & 0o777, 0o700);
}

#[test]
fn what_is_there_is_not_written_again() {
    let directory = written(&[record(1, b"same")]);
    let stamp = || [0, 1].map(|index| fs::metadata(slot(&directory, index)).unwrap().ino());
    let before = stamp();
    let (mut ledger, _) = open(&directory);
    for _ in 0..3 {
        ledger.write(1, b"same").unwrap();
    }
    assert_eq!(stamp(), before);
    ledger.write(1, b"sama").unwrap();
    assert_ne!(stamp(), before);
    let before = stamp();
    ledger.write(2, b"sama").unwrap();
    assert_ne!(stamp(), before, "a new generation is news");
}

#[test]
fn one_copy_is_enough_and_the_second_makes_it_safe_from_rot() {
    let directory = TempDir::new().unwrap();
    let (mut ledger, _) = open(&directory);
    ledger.append(1, b"one").unwrap();
    ledger.append(2, b"two").unwrap();
    ledger.append(2, b"two").unwrap();
    drop(ledger);
    let (mut ledger, found) = open(&directory);
    assert_eq!(found, Some(record(2, b"two")));
    let newest = (0..2).find(|i| fs::read(slot(&directory, *i)).unwrap().ends_with(b"two"));
    let newest = newest.unwrap();
    assert!(fs::read(slot(&directory, 1 - newest)).unwrap().ends_with(b"one"));
    ledger.mirror().unwrap();
    drop(ledger);
    fs::write(slot(&directory, newest), b"rot").unwrap();
    assert_eq!(open(&directory).1, Some(record(2, b"two")));
}

#[test]
fn too_many_bytes_are_refused_and_the_most_are_taken() {
    let directory = written(&[record(1, b"old")]);
    let (mut ledger, _) = open(&directory);
    let error = ledger.write(2, &vec![0; LEDGER_BYTES_MAX + 1]).unwrap_err();
    assert_eq!(
        error.to_string(),
        "4194305 bytes are too many for a ledger, at most 4194304 are allowed"
    );
    let most = vec![5; LEDGER_BYTES_MAX];
    ledger.write(2, &most).unwrap();
    drop(ledger);
    assert_eq!(open(&directory).1, Some(record(2, &most)));
}

#[test]
fn a_second_process_is_refused() {
    let directory = written(&[record(1, b"x")]);
    let (ledger, _) = open(&directory);
    let error = Ledger::open(directory.path()).unwrap_err();
    assert!(matches!(error, LedgerError::InUse { .. }), "{error}");
    drop(ledger);
    open(&directory);
}

/// Crashes the write of `new` over `old` after `budget` bytes and steps, and opens again.
/// Says whether the write was acknowledged, and what was found.
fn crash(old: Option<&Record>, new: &Record, budget: usize) -> (bool, Option<Record>) {
    let directory = written(old.map(std::slice::from_ref).unwrap_or_default());
    let (mut ledger, found) = open(&directory);
    assert_eq!(found.as_ref(), old);
    ledger.crash.left = Some(budget);
    let acknowledged = ledger.write(new.generation, &new.bytes).is_ok();
    drop(ledger);
    let (mut ledger, found) = open(&directory);
    // Whatever happened, the next write works and mends everything.
    ledger.write(77, b"after").unwrap();
    assert_eq!(ledger.damage().count(), 0);
    drop(ledger);
    assert_eq!(open(&directory).1, Some(record(77, b"after")));
    (acknowledged, found)
}

#[test]
fn a_crash_at_any_byte_leaves_the_old_or_the_new() {
    let old = record(1, b"the old state");
    let new = record(2, b"the new one, a bit longer");
    for old in [None, Some(&old)] {
        let mut seen_old = 0;
        for budget in 0.. {
            let (acknowledged, found) = crash(old, &new, budget);
            if acknowledged {
                assert_eq!(found.as_ref(), Some(&new));
                // Two slots, and for each a rename and a sync of the directory.
                assert_eq!(budget, 2 * (HEADER_BYTES + new.bytes.len() + 2));
                break;
            }
            if found.as_ref() == old {
                seen_old += 1;
            } else {
                assert_eq!(found.as_ref(), Some(&new), "after {budget}");
            }
        }
        // The old state is given up with the first rename and not before.
        assert_eq!(seen_old, HEADER_BYTES + new.bytes.len() + 1);
    }
}

#[test]
fn a_slot_torn_by_a_disk_that_lies_costs_only_the_unacknowledged() {
    let (old, new) = (record(1, b"the old state"), record(2, b"new"));
    let after = written(&[old.clone(), new.clone()]);
    let frame = fs::read(slot(&after, 0)).unwrap();
    for cut in 0..frame.len() {
        // The first slot was renamed before its bytes were there.
        let directory = written(std::slice::from_ref(&old));
        fs::write(slot(&directory, 0), &frame[..cut]).unwrap();
        let (ledger, found) = open(&directory);
        assert_eq!(found.as_ref(), Some(&old));
        assert_eq!(ledger.damage().count(), 1);
        drop(ledger);
        // The second was, after the first had been written whole.
        fs::write(slot(&directory, 0), &frame).unwrap();
        fs::write(slot(&directory, 1), &frame[..cut]).unwrap();
        assert_eq!(open(&directory).1.as_ref(), Some(&new));
    }
    // A first write ever, of which nothing was acknowledged.
    let directory = written(&[]);
    fs::write(slot(&directory, 0), &frame[..40.min(frame.len() - 1)]).unwrap();
    assert_eq!(open(&directory).1, None);
}

#[test]
fn every_single_bit_that_flips_is_noticed_and_mended() {
    let kept = record(5, b"kept");
    let directory = written(std::slice::from_ref(&kept));
    let frame = fs::read(slot(&directory, 0)).unwrap();
    for bit in 0..frame.len() * 8 {
        let mut harmed = frame.clone();
        harmed[bit / 8] ^= 1 << (bit % 8);
        for index in [0, 1] {
            fs::write(slot(&directory, index), &harmed).unwrap();
            let (mut ledger, found) = open(&directory);
            assert_eq!(found.as_ref(), Some(&kept), "bit {bit}");
            assert_eq!(ledger.damage().count(), 1, "bit {bit}");
            ledger.write(kept.generation, &kept.bytes).unwrap();
            assert_eq!(ledger.damage().count(), 0);
            assert_eq!(fs::read(slot(&directory, index)).unwrap(), frame);
        }
    }
}

#[test]
fn a_ledger_lost_in_both_slots_is_an_error_and_not_empty() {
    let directory = written(&[record(5, b"kept")]);
    let frame = fs::read(slot(&directory, 0)).unwrap();
    fs::write(slot(&directory, 0), &frame[..frame.len() - 1]).unwrap();
    fs::write(slot(&directory, 1), vec![b'x'; frame.len()]).unwrap();
    let error = Ledger::open(directory.path()).unwrap_err().to_string();
    let directory = directory.path().display();
    assert_eq!(
        error,
        format!(
            "both slots of {directory} are damaged: its length is wrong; it is no slot of a ledger"
        )
    );
}

#[test]
fn a_newer_format_is_refused() {
    let directory = written(&[record(5, b"kept")]);
    let mut frame = fs::read(slot(&directory, 1)).unwrap();
    frame[4..8].copy_from_slice(&2_u32.to_le_bytes());
    let checksum = crc32(&[&frame[..CRC_AT], &frame[HEADER_BYTES..]]);
    frame[CRC_AT..HEADER_BYTES].copy_from_slice(&checksum.to_le_bytes());
    fs::write(slot(&directory, 1), &frame).unwrap();
    let error = Ledger::open(directory.path()).unwrap_err();
    assert!(matches!(error, LedgerError::FormatTooNew { found: 2, .. }), "{error}");
    assert_eq!(fs::read(slot(&directory, 1)).unwrap(), frame);
}

#[test]
fn a_write_that_failed_can_be_tried_again() {
    let (old, new) = (record(1, b"old"), record(2, b"new"));
    for budget in 0..2 * (HEADER_BYTES + new.bytes.len() + 2) {
        let directory = written(std::slice::from_ref(&old));
        let (mut ledger, _) = open(&directory);
        ledger.crash.left = Some(budget);
        ledger.write(2, b"new").unwrap_err();
        assert_eq!(ledger.damage().next().unwrap().1, Damage::Unfinished);
        ledger.crash.left = None;
        // Back to the old one, which a half-written new one must not outlive.
        ledger.write(1, b"old").unwrap();
        drop(ledger);
        assert_eq!(open(&directory).1.as_ref(), Some(&old), "after {budget}");
    }
}

proptest! {
    #[test]
    fn any_run_of_writes_and_crashes_keeps_what_was_acknowledged(
        writes in proptest::collection::vec(
            (0_u64..4, proptest::collection::vec(any::<u8>(), 0..60), 0_usize..260, any::<bool>()),
            1..8,
        ),
    ) {
        let directory = written(&[]);
        let (mut ledger, _) = open(&directory);
        let mut acknowledged: Option<Record> = None;
        let mut tried: Vec<Record> = Vec::new();
        for (generation, bytes, budget, reopen) in writes {
            let new = Record { generation, bytes };
            ledger.crash.left = Some(budget);
            tried.push(new.clone());
            if ledger.write(new.generation, &new.bytes).is_ok() {
                acknowledged = Some(new);
                tried.clear();
            } else if reopen {
                drop(ledger);
                let (again, found) = open(&directory);
                ledger = again;
                let fine = found == acknowledged
                    || found.as_ref().is_some_and(|found| tried.contains(found));
                prop_assert!(fine, "{found:?} is neither {acknowledged:?} nor of {tried:?}");
                // What was found is what there is from now on.
                if found != acknowledged {
                    acknowledged = found;
                    tried.clear();
                }
            }
        }
    }

    #[test]
    fn any_bytes_in_a_slot_are_judged_without_panic(
        bytes in proptest::collection::vec(any::<u8>(), 0..100),
        length in any::<u32>(),
    ) {
        decode(&bytes).ok();
        let mut frame = encode(Head { sequence: 1, generation: 1, length: bytes.len() }, &bytes);
        frame[24..28].copy_from_slice(&length.to_le_bytes());
        decode(&frame).ok();
    }
}
