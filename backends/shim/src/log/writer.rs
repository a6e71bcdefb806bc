//! The writing side of the log; used by the shim only.

use super::{END_MARK, Segment, segment_path, segments};
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

/// Number of files that a full log has. With four, dropping the oldest leaves three
/// quarters of what was asked for.
const SEGMENTS_MAX: u64 = 4;

/// Smallest segment: one block of a file system.
const SEGMENT_BYTES_MIN: u64 = 4096;

/// Smallest bound of a log; less is raised to it. Zero is not: it means "keep nothing".
pub const LOG_BYTES_MIN: u64 = SEGMENTS_MAX * SEGMENT_BYTES_MIN;

/// Appends to a log directory and keeps it within its bound.
#[derive(Debug)]
pub struct RotatedLog {
    dir: PathBuf,
    /// `None`: nothing is kept.
    current: Option<Current>,
}

#[derive(Debug)]
struct Current {
    file: File,
    segment: Segment,
    segment_bytes_max: u64,
    /// Starts of the older segments, oldest first.
    older: Vec<u64>,
}

impl RotatedLog {
    /// Opens the log in `dir`, made if absent, and goes on where it ended. Zero as
    /// `bytes_max` keeps nothing; see [`LOG_BYTES_MIN`] for small bounds.
    pub fn open(dir: &Path, bytes_max: u64) -> io::Result<Self> {
        fs::create_dir_all(dir)?;
        match fs::remove_file(dir.join(END_MARK)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        if bytes_max == 0 {
            return Ok(Self { dir: dir.to_path_buf(), current: None });
        }
        let mut older = segments(dir)?;
        let segment = older.pop().unwrap_or(Segment { start: 0, len: 0 });
        let mut current = Current {
            file: append_to(dir, segment.start)?,
            segment,
            segment_bytes_max: bytes_max.max(LOG_BYTES_MIN) / SEGMENTS_MAX,
            older: older.into_iter().map(|segment| segment.start).collect(),
        };
        // The bound may be smaller than the last time.
        current.drop_oldest(dir);
        Ok(Self { dir: dir.to_path_buf(), current: Some(current) })
    }

    /// Appends. On an error (a full disk) the bytes not yet written are lost, what was
    /// written is in its place and the next call goes on after it.
    pub fn write(&mut self, mut bytes: &[u8]) -> io::Result<()> {
        let Some(current) = &mut self.current else { return Ok(()) };
        while !bytes.is_empty() {
            if current.segment.len >= current.segment_bytes_max {
                current.rotate(&self.dir)?;
            }
            let room = current.segment_bytes_max - current.segment.len;
            let piece = usize::try_from(room).unwrap_or(usize::MAX).min(bytes.len());
            let written = match current.file.write(&bytes[..piece]) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(written) => written,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(error),
            };
            current.segment.len += written as u64;
            bytes = &bytes[written..];
        }
        Ok(())
    }

    /// Says that no more will come, so that readers who wait are let go.
    pub fn close(self) -> io::Result<()> {
        mark_ended(&self.dir)
    }
}

/// Says it for a writer that is gone.
pub fn mark_ended(dir: &Path) -> io::Result<()> {
    File::create(dir.join(END_MARK)).map(drop)
}

impl Current {
    fn rotate(&mut self, dir: &Path) -> io::Result<()> {
        let start = self.segment.start + self.segment.len;
        // Room first: the bound holds at every moment.
        self.older.push(self.segment.start);
        self.drop_oldest(dir);
        match append_to(dir, start) {
            Ok(file) => self.file = file,
            Err(error) => {
                self.older.pop();
                return Err(error);
            }
        }
        self.segment = Segment { start, len: 0 };
        Ok(())
    }

    /// Removes segments until there is room for a whole one beside them.
    fn drop_oldest(&mut self, dir: &Path) {
        let older_max = usize::try_from(SEGMENTS_MAX - 1).unwrap_or(usize::MAX);
        while self.older.len() > older_max {
            let oldest = self.older.remove(0);
            // A file that cannot be removed is on a file system that cannot be written to:
            // the next write tells.
            drop(fs::remove_file(segment_path(dir, oldest)));
        }
    }
}

fn append_to(dir: &Path, start: u64) -> io::Result<File> {
    OpenOptions::new().append(true).create(true).open(segment_path(dir, start))
}
