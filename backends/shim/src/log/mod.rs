//! Output of a workload in a directory of rotated files.
//!
//! Why not one file: the oldest output must be dropped without rewriting the rest. Why no
//! frames, index or checksums: a cursor is the number of bytes written before a place since
//! the first start, and a segment's name is the cursor of its first byte, so that names and
//! lengths alone say everything and a torn write costs its own bytes only.
//!
//! ```text
//! DIR/00000000000000000000      raw bytes 0 ..
//! DIR/00000000000000262144      raw bytes 262144 ..      the newest is written to
//! DIR/end                       empty: the writer has seen the end of the output
//! ```
//!
//! A name is the cursor in twenty decimal digits. A segment that is shorter than the
//! distance to the next one's name (power was lost) leaves a gap that readers step over.
//! `end` is removed when a writer goes on with the directory.
//!
//! Invariants:
//! - one writer at a time; any number of readers, in any process, at any time;
//! - the segments together are never larger than the bound given to [`RotatedLog::open`];
//! - a cursor, once true, is true for ever or its bytes are gone.

mod reader;
mod watch;
mod writer;

pub use reader::{Chunk, end, has_ended, read, tail};
pub use watch::Watch;
pub use writer::{LOG_BYTES_MIN, RotatedLog, mark_ended};

use std::io;
use std::path::{Path, PathBuf};

/// Name of the mark that no more will come.
const END_MARK: &str = "end";

/// Digits of a segment's name: enough for every `u64`.
const NAME_DIGITS: usize = 20;

/// A file of the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Segment {
    /// Cursor of its first byte.
    start: u64,
    /// Its length now.
    len: u64,
}

fn segment_path(dir: &Path, start: u64) -> PathBuf {
    dir.join(format!("{start:0NAME_DIGITS$}"))
}

/// The segments in order; other files are not ours and are passed over.
fn segments(dir: &Path) -> io::Result<Vec<Segment>> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(dir)? {
        let entry = entry?;
        let name = entry.file_name();
        let Some(name) = name.to_str() else { continue };
        if name.len() != NAME_DIGITS || !name.bytes().all(|b| b.is_ascii_digit()) {
            continue;
        }
        let Ok(start) = name.parse() else { continue };
        match entry.metadata() {
            Ok(metadata) => found.push(Segment { start, len: metadata.len() }),
            // Rotated away while we looked.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
    }
    found.sort_unstable();
    Ok(found)
}

#[cfg(test)]
mod tests;
