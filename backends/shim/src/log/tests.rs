//! Tests of writer and reader together: cursors, bounds, gaps and waiting.

use super::*;
use std::time::Duration;

fn line(number: usize) -> String {
    format!("line {number}\n")
}

fn all(dir: &Path, piece: usize) -> (u64, Vec<u8>) {
    let first = read(dir, 0, piece).unwrap();
    let (mut next, mut bytes) = (first.next, first.bytes);
    loop {
        let chunk = read(dir, next, piece).unwrap();
        if chunk.bytes.is_empty() {
            return (first.start, bytes);
        }
        assert_eq!(chunk.start, next);
        next = chunk.next;
        bytes.extend(chunk.bytes);
    }
}

#[test]
fn what_is_written_is_read_in_pieces_of_any_size() {
    let dir = tempfile::tempdir().unwrap();
    let mut log = RotatedLog::open(dir.path(), 1 << 20).unwrap();
    let text: String = (0..1000).map(line).collect();
    for piece in text.as_bytes().chunks(77) {
        log.write(piece).unwrap();
    }
    for piece in [1, 13, 5000, 1 << 20] {
        assert_eq!(all(dir.path(), piece), (0, text.clone().into_bytes()));
    }
    let beyond = read(dir.path(), 1 << 40, 10).unwrap();
    assert_eq!((beyond.start, beyond.bytes.len()), (text.len() as u64, 0));
}

#[test]
fn a_full_log_drops_its_oldest_and_cursors_stay_true() {
    let dir = tempfile::tempdir().unwrap();
    let bytes_max = 64 * 1024;
    let mut whole = Vec::new();
    let mut log = RotatedLog::open(dir.path(), bytes_max).unwrap();
    for number in 0..30_000 {
        log.write(line(number).as_bytes()).unwrap();
        whole.extend(line(number).into_bytes());
        if number % 1000 == 0 {
            let kept: u64 = segments(dir.path()).unwrap().iter().map(|s| s.len).sum();
            assert!(kept <= bytes_max, "{kept}");
        }
        if number == 15_000 {
            // A writer that goes on after another.
            log = RotatedLog::open(dir.path(), bytes_max).unwrap();
        }
    }
    let (start, bytes) = all(dir.path(), 1000);
    assert!(bytes.len() as u64 >= bytes_max / 2);
    assert_eq!(end(dir.path()).unwrap(), whole.len() as u64);
    assert!(bytes == whole[usize::try_from(start).unwrap()..]);
}

#[test]
fn a_torn_segment_is_a_gap_that_readers_step_over() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(segment_path(dir.path(), 0), b"0123").unwrap();
    std::fs::write(segment_path(dir.path(), 10), b"abc\ndef\n").unwrap();
    std::fs::write(dir.path().join("stranger"), b"not ours").unwrap();
    let first = read(dir.path(), 2, 100).unwrap();
    assert_eq!(first, Chunk { start: 2, next: 4, bytes: b"23".into() });
    let second = read(dir.path(), first.next, 100).unwrap();
    assert_eq!(second, Chunk { start: 10, next: 18, bytes: b"abc\ndef\n".into() });
    assert_eq!(tail(dir.path(), 1).unwrap(), 14);
    // A segment that is too long is cut where the next one begins.
    std::fs::write(segment_path(dir.path(), 0), b"0123456789XYZ").unwrap();
    assert_eq!(read(dir.path(), 0, 100).unwrap().bytes, b"0123456789abc\ndef\n");
}

#[test]
fn the_tail_is_found_across_segments() {
    let dir = tempfile::tempdir().unwrap();
    let mut log = RotatedLog::open(dir.path(), LOG_BYTES_MIN).unwrap();
    let text: String = (0..1000).map(line).collect();
    log.write(text.as_bytes()).unwrap();
    assert!(segments(dir.path()).unwrap().len() > 1);
    for lines in [0usize, 1, 2, 600, 999] {
        let from = tail(dir.path(), u32::try_from(lines).unwrap()).unwrap();
        let expected: String = (1000 - lines..1000).map(line).collect();
        assert_eq!(read(dir.path(), from, 1 << 20).unwrap().bytes, expected.into_bytes());
    }
    log.write(b"no newline yet").unwrap();
    let from = tail(dir.path(), 1).unwrap();
    assert_eq!(read(dir.path(), from, 100).unwrap().bytes, b"no newline yet");
    assert_eq!(tail(dir.path(), u32::MAX).unwrap(), read(dir.path(), 0, 1).unwrap().start);
}

#[test]
fn a_bound_of_zero_keeps_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let mut log = RotatedLog::open(dir.path(), 0).unwrap();
    log.write(b"gone").unwrap();
    log.close().unwrap();
    assert_eq!(end(dir.path()).unwrap(), 0);
    assert_eq!(tail(dir.path(), 5).unwrap(), 0);
    assert!(has_ended(dir.path()));
}

#[test]
fn waiting_ends_by_a_write_and_by_the_end() {
    let dir = tempfile::tempdir().unwrap();
    let mut log = RotatedLog::open(dir.path(), 1 << 20).unwrap();
    let watch = Watch::new(dir.path()).unwrap();
    assert!(!watch.wait(Duration::from_millis(1)).unwrap());
    log.write(b"x").unwrap();
    assert!(watch.wait(Duration::from_secs(10)).unwrap());
    assert!(!has_ended(dir.path()));
    log.close().unwrap();
    assert!(watch.wait(Duration::from_secs(10)).unwrap());
    assert!(has_ended(dir.path()));
    RotatedLog::open(dir.path(), 1 << 20).unwrap();
    assert!(!has_ended(dir.path()), "a writer that goes on takes the mark away");
}
