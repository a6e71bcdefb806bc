//! The reading side of the log: functions of a directory, no state.
//!
//! Why no reader object: a cursor is the whole state, and it is the client's.

use super::{END_MARK, Segment, segment_path, segments};
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::path::Path;

/// How often a read starts over when the writer rotates under it. Each turn needs a whole
/// segment to be written in between.
const TURNS_MAX: u32 = 8;

/// Step of the search for lines from the end.
const BLOCK_BYTES: u64 = 8192;

/// A piece of a log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Chunk {
    /// Where it begins; later than asked for if that is gone, earlier only if that place
    /// was never reached.
    pub start: u64,
    /// Where the next read goes on.
    pub next: u64,
    /// The bytes between.
    pub bytes: Vec<u8>,
}

/// Up to `bytes_max` bytes from the cursor `from`; empty at the end.
pub fn read(dir: &Path, from: u64, bytes_max: usize) -> io::Result<Chunk> {
    again_if_rotated(|| read_once(dir, from, bytes_max))
}

/// Cursor of the end: the number of bytes written so far.
pub fn end(dir: &Path) -> io::Result<u64> {
    Ok(end_of(&segments(dir)?))
}

/// Whether the writer has said that no more will come.
pub fn has_ended(dir: &Path) -> bool {
    dir.join(END_MARK).exists()
}

/// Cursor of the place `lines` lines before the end, or the oldest that is kept. A last
/// line without its newline counts.
pub fn tail(dir: &Path, lines: u32) -> io::Result<u64> {
    again_if_rotated(|| tail_once(dir, lines))
}

fn again_if_rotated<T>(mut attempt: impl FnMut() -> io::Result<T>) -> io::Result<T> {
    let mut turns = 0;
    loop {
        match attempt() {
            Err(error) if error.kind() == io::ErrorKind::NotFound && turns < TURNS_MAX => {
                turns += 1
            }
            other => return other,
        }
    }
}

fn end_of(all: &[Segment]) -> u64 {
    all.last().map_or(0, |last| last.start.saturating_add(last.len))
}

/// Lengths cut to the beginning of the next segment, whatever happened to the files.
fn bounded(mut all: Vec<Segment>) -> Vec<Segment> {
    for index in 1..all.len() {
        let room = all[index].start - all[index - 1].start;
        all[index - 1].len = all[index - 1].len.min(room);
    }
    all
}

fn read_once(dir: &Path, from: u64, bytes_max: usize) -> io::Result<Chunk> {
    let all = bounded(segments(dir)?);
    let end = end_of(&all);
    let first_after = all.iter().find(|segment| segment.start + segment.len > from);
    let Some(first) = first_after else {
        return Ok(Chunk { start: end, next: end, bytes: Vec::new() });
    };
    let start = from.max(first.start);
    let mut bytes = Vec::new();
    let mut next = start;
    for segment in all.iter().filter(|segment| segment.start + segment.len > start) {
        let inside = next >= segment.start && next < segment.start + segment.len;
        let room = bytes_max - bytes.len();
        // A gap ends the piece: its bytes would not be where their cursor says.
        if room == 0 || !inside {
            break;
        }
        let wanted = (segment.start + segment.len - next).min(room as u64);
        let mut file = File::open(segment_path(dir, segment.start))?;
        file.seek(SeekFrom::Start(next - segment.start))?;
        let read = file.take(wanted).read_to_end(&mut bytes)?;
        next += read as u64;
        if (read as u64) < wanted {
            break;
        }
    }
    Ok(Chunk { start, next, bytes })
}

fn tail_once(dir: &Path, lines: u32) -> io::Result<u64> {
    let all = bounded(segments(dir)?);
    let end = end_of(&all);
    if lines == 0 {
        return Ok(end);
    }
    let mut newlines = 0;
    for segment in all.iter().rev() {
        let mut file = File::open(segment_path(dir, segment.start))?;
        let mut upto = segment.len;
        while upto > 0 {
            let from = upto.saturating_sub(BLOCK_BYTES);
            file.seek(SeekFrom::Start(from))?;
            let mut block = Vec::new();
            (&mut file).take(upto - from).read_to_end(&mut block)?;
            for (offset, _) in block.iter().enumerate().rev().filter(|(_, byte)| **byte == b'\n') {
                let after = segment.start + from + offset as u64 + 1;
                // The newline that ends the last line begins no line.
                if after == end {
                    continue;
                }
                newlines += 1;
                if newlines == lines {
                    return Ok(after);
                }
            }
            upto = from;
        }
    }
    Ok(all.first().map_or(0, |segment| segment.start))
}
