//! A small piece of state in two files, written so that a cut of the power cannot harm it.
//!
//! Why apart: the node must start its last desired set with nobody there to ask, on cards
//! that lie about what they have written. This is all that it trusts its disk with, it knows
//! nothing of what the bytes mean, and it can be tested byte by byte.
//!
//! A directory holds two slots. Each is replaced by writing another file, `fsync`, renaming,
//! and `fsync` of the directory; a write replaces the older one, and [`Ledger::mirror`] makes
//! both the same again when there is time for it. A slot is a header and the bytes:
//!
//! ```text
//! "MRLG" | format u32 | sequence u64 | generation u64 | length u32 | crc u32 | bytes
//! ```
//!
//! all little-endian, the checksum over everything but itself. The sequence counts writes.
//!
//! Invariants:
//! - before a slot is touched, the other one holds the newest state that was acknowledged;
//! - when `append` returns, one slot holds what was written: a crash at any byte costs at most
//!   a write that was not acknowledged;
//! - when `mirror` returns, both do: a card that rots in either costs nothing;
//! - what is on disk already is not written again.

use std::fs::{self, DirBuilder, File, OpenOptions, TryLockError};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

#[cfg(test)]
mod tests;

/// The most that one ledger holds: 512 workloads with 8 KiB each. It is held in memory once
/// while it is read or written, on boards that have 64 MiB.
pub const LEDGER_BYTES_MAX: usize = 4 * 1024 * 1024;

/// The layout of a slot. The header up to the checksum stays as it is in every format.
pub const FORMAT: u32 = 1;

const MAGIC: &[u8; 4] = b"MRLG";
const HEADER_BYTES: usize = 32;
const CRC_AT: usize = 28;
const SLOTS: [&str; 2] = ["slot-0", "slot-1"];
/// The ledger holds what operators deploy, their secrets among it.
const FILE_MODE: u32 = 0o600;
const DIRECTORY_MODE: u32 = 0o700;

/// Why a ledger could not be read or written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LedgerError {
    /// More bytes than a ledger takes.
    #[error("{bytes} bytes are too many for a ledger, at most {LEDGER_BYTES_MAX} are allowed")]
    TooLong {
        /// How many there were.
        bytes: usize,
    },
    /// Both slots were written once and neither can be read: the state is lost. The caller
    /// must not take this for an empty one.
    #[error("both slots of {} are damaged: {first}; {second}", directory.display())]
    Damaged {
        /// Where.
        directory: PathBuf,
        /// What is wrong with the first slot.
        first: Damage,
        /// What is wrong with the second slot.
        second: Damage,
    },
    /// A newer version of this program wrote it.
    #[error("{} has format {found}, this program knows formats up to {FORMAT}", path.display())]
    FormatTooNew {
        /// The slot.
        path: PathBuf,
        /// Its format.
        found: u32,
    },
    /// Another process has the ledger open.
    #[error("{} is in use by another process", directory.display())]
    InUse {
        /// Where.
        directory: PathBuf,
    },
    /// The disk failed or is full. The ledger may be written again.
    #[error("{doing} {} failed", path.display())]
    Io {
        /// What was being done.
        doing: &'static str,
        /// With which file.
        path: PathBuf,
        /// Why it failed.
        #[source]
        source: io::Error,
    },
}

/// What is wrong with a slot.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Damage {
    /// Less than it says, or more.
    #[error("its length is wrong")]
    Length,
    /// Other bytes than were written.
    #[error("its checksum is wrong")]
    Checksum,
    /// It does not begin as a slot does.
    #[error("it is no slot of a ledger")]
    Magic,
    /// A write of this process did not come to its end.
    #[error("writing it failed")]
    Unfinished,
}

/// What a ledger holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// The caller's number for it.
    pub generation: u64,
    /// The bytes.
    pub bytes: Vec<u8>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Head {
    sequence: u64,
    generation: u64,
    length: usize,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Slot {
    Absent,
    Damaged(Damage),
    Valid(Head),
}

impl Slot {
    fn head(self) -> Option<Head> {
        match self {
            Self::Valid(head) => Some(head),
            Self::Absent | Self::Damaged(_) => None,
        }
    }
}

/// A ledger that is open in this process only.
#[derive(Debug)]
pub struct Ledger {
    directory: PathBuf,
    /// Open for `fsync`, and locked so that there is no second writer.
    handle: File,
    slots: [Slot; 2],
    /// The highest that was ever tried, so that no two contents share one.
    sequence: u64,
    #[cfg(test)]
    crash: tests::Crash,
}

impl Ledger {
    /// Opens the ledger in `directory`, which is made if it is not there, and reads the newest
    /// state. `None` is a ledger to which no write was ever acknowledged.
    ///
    /// It writes nothing. If [`Ledger::damage`] tells of a slot, writing the record again
    /// mends it.
    pub fn open(directory: &Path) -> Result<(Self, Option<Record>), LedgerError> {
        let at = |doing| move |source| io_error(doing, directory, source);
        DirBuilder::new()
            .recursive(true)
            .mode(DIRECTORY_MODE)
            .create(directory)
            .map_err(at("creating"))?;
        let handle = File::open(directory).map_err(at("opening"))?;
        match handle.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                return Err(LedgerError::InUse { directory: directory.to_path_buf() });
            }
            Err(TryLockError::Error(source)) => return Err(at("locking")(source)),
        }
        let (first, first_bytes) = read_slot(&directory.join(SLOTS[0]))?;
        let (second, second_bytes) = read_slot(&directory.join(SLOTS[1]))?;
        if let (Slot::Damaged(first), Slot::Damaged(second)) = (first, second) {
            return Err(LedgerError::Damaged { directory: directory.to_path_buf(), first, second });
        }
        let ledger = Self {
            directory: directory.to_path_buf(),
            handle,
            slots: [first, second],
            sequence: newest([first, second]).map_or(0, |(_, head)| head.sequence),
            #[cfg(test)]
            crash: tests::Crash::default(),
        };
        let record = newest(ledger.slots).map(|(index, head)| Record {
            generation: head.generation,
            bytes: if index == 0 { first_bytes } else { second_bytes },
        });
        Ok((ledger, record))
    }

    /// What was wrong with each slot when it was opened, or since a write failed.
    pub fn damage(&self) -> impl Iterator<Item = (PathBuf, Damage)> {
        SLOTS.iter().zip(self.slots).filter_map(|(name, slot)| match slot {
            Slot::Damaged(damage) => Some((self.directory.join(name), damage)),
            Slot::Absent | Slot::Valid(_) => None,
        })
    }

    /// Makes `bytes` the content, durable in both slots when this returns: [`Ledger::append`]
    /// and [`Ledger::mirror`].
    ///
    /// # Errors
    /// After an error the ledger holds, and opens with, either what it held before or this.
    pub fn write(&mut self, generation: u64, bytes: &[u8]) -> Result<(), LedgerError> {
        self.append(generation, bytes)?;
        self.mirror()
    }

    /// Makes `bytes` the content, durable in one slot when this returns; the other slot keeps
    /// what was there before. The generation is kept beside and not judged. A slot that holds
    /// just this is left alone, so that writing the same again costs a read at most.
    ///
    /// # Errors
    /// After an error the ledger holds, and opens with, either what it held before or this.
    pub fn append(&mut self, generation: u64, bytes: &[u8]) -> Result<(), LedgerError> {
        if bytes.len() > LEDGER_BYTES_MAX {
            return Err(LedgerError::TooLong { bytes: bytes.len() });
        }
        if self.is_holding(generation, bytes) {
            return Ok(());
        }
        self.sequence = self.sequence.saturating_add(1);
        let head = Head { sequence: self.sequence, generation, length: bytes.len() };
        // The newest slot is left alone: until the other one is on disk it is all there is.
        let index = 1 - newest(self.slots).map_or(1, |(index, _)| index);
        self.store(index, &encode(head, bytes))?;
        self.slots[index] = Slot::Valid(head);
        Ok(())
    }

    /// Copies the newest slot over the other one, if that holds something else.
    ///
    /// # Errors
    /// The newest slot is as it was.
    pub fn mirror(&mut self) -> Result<(), LedgerError> {
        let Some((index, head)) = newest(self.slots) else { return Ok(()) };
        if self.slots[1 - index] == Slot::Valid(head) {
            return Ok(());
        }
        let path = self.directory.join(SLOTS[index]);
        let (found, bytes) = read_slot(&path)?;
        if found != Slot::Valid(head) {
            // It rots under our eyes; the next write goes to the other one, and saves what is.
            self.slots[index] = found;
            return Err(io_error("copying", &path, io::ErrorKind::InvalidData.into()));
        }
        self.store(1 - index, &encode(head, &bytes))?;
        self.slots[1 - index] = Slot::Valid(head);
        Ok(())
    }

    /// Whether the newest slot holds just these bytes.
    fn is_holding(&self, generation: u64, bytes: &[u8]) -> bool {
        let Some((index, head)) = newest(self.slots) else { return false };
        if head.generation != generation || head.length != bytes.len() {
            return false;
        }
        // Equal length says little and a checksum is no proof; reading costs no wear.
        let found = read_slot(&self.directory.join(SLOTS[index]));
        found.is_ok_and(|(slot, held)| slot == Slot::Valid(head) && held == bytes)
    }

    /// Replaces one slot.
    fn store(&mut self, index: usize, frame: &[u8]) -> Result<(), LedgerError> {
        let slot = self.directory.join(SLOTS[index]);
        let unfinished = slot.with_extension("new");
        let at = |doing| {
            let path = unfinished.clone();
            move |source| LedgerError::Io { doing, path, source }
        };
        self.slots[index] = Slot::Damaged(Damage::Unfinished);
        match fs::remove_file(&unfinished) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(at("removing")(error));
            }
            _ => {}
        }
        let mut file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(FILE_MODE)
            .open(&unfinished)
            .map_err(at("creating"))?;
        #[cfg(test)]
        self.crash.writing(&mut file, frame).map_err(at("writing"))?;
        file.write_all(frame).map_err(at("writing"))?;
        file.sync_all().map_err(at("syncing"))?;
        drop(file);
        #[cfg(test)]
        self.crash.step().map_err(at("renaming"))?;
        fs::rename(&unfinished, &slot).map_err(at("renaming"))?;
        #[cfg(test)]
        self.crash.step().map_err(at("syncing"))?;
        let synced = self.handle.sync_all();
        synced.map_err(|source| io_error("syncing", &self.directory, source))
    }
}

fn io_error(doing: &'static str, path: &Path, source: io::Error) -> LedgerError {
    LedgerError::Io { doing, path: path.to_path_buf(), source }
}

/// The slot with the highest sequence.
fn newest(slots: [Slot; 2]) -> Option<(usize, Head)> {
    let valid = slots.into_iter().enumerate().filter_map(|(i, slot)| Some((i, slot.head()?)));
    valid.max_by_key(|(_, head)| head.sequence)
}

fn encode(head: Head, bytes: &[u8]) -> Vec<u8> {
    let length = u32::try_from(head.length).expect("LEDGER_BYTES_MAX fits in 32 bits");
    let mut frame = Vec::with_capacity(HEADER_BYTES + bytes.len());
    frame.extend_from_slice(MAGIC);
    frame.extend_from_slice(&FORMAT.to_le_bytes());
    frame.extend_from_slice(&head.sequence.to_le_bytes());
    frame.extend_from_slice(&head.generation.to_le_bytes());
    frame.extend_from_slice(&length.to_le_bytes());
    let checksum = crc32(&[&frame, bytes]);
    frame.extend_from_slice(&checksum.to_le_bytes());
    frame.extend_from_slice(bytes);
    frame
}

/// A slot and its bytes. An error only where the disk fails or the format is too new.
fn read_slot(path: &Path) -> Result<(Slot, Vec<u8>), LedgerError> {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return Ok((Slot::Absent, Vec::new()));
        }
        Err(error) => return Err(io_error("opening", path, error)),
    };
    let mut bytes = Vec::new();
    let limit = u64::try_from(HEADER_BYTES + LEDGER_BYTES_MAX + 1).unwrap_or(u64::MAX);
    match file.take(limit).read_to_end(&mut bytes) {
        Ok(_) => {}
        // A sector that cannot be read is damage like any other: the second copy is for that.
        Err(_) => return Ok((Slot::Damaged(Damage::Length), Vec::new())),
    }
    match decode(&bytes) {
        Ok((FORMAT, head)) => {
            bytes.drain(..HEADER_BYTES);
            Ok((Slot::Valid(head), bytes))
        }
        Ok((found, _)) => Err(LedgerError::FormatTooNew { path: path.to_path_buf(), found }),
        Err(damage) => Ok((Slot::Damaged(damage), Vec::new())),
    }
}

/// The format and head of a slot whose checksum is right.
fn decode(slot: &[u8]) -> Result<(u32, Head), Damage> {
    let (header, bytes) = slot.split_first_chunk::<HEADER_BYTES>().ok_or(Damage::Length)?;
    if !header.starts_with(MAGIC) {
        return Err(Damage::Magic);
    }
    let length = usize::try_from(u32_at(header, 24)).map_err(|_| Damage::Length)?;
    if length != bytes.len() || length > LEDGER_BYTES_MAX {
        return Err(Damage::Length);
    }
    if crc32(&[&header[..CRC_AT], bytes]) != u32_at(header, CRC_AT) {
        return Err(Damage::Checksum);
    }
    let head = Head { sequence: u64_at(header, 8), generation: u64_at(header, 16), length };
    Ok((u32_at(header, 4), head))
}

fn u32_at(header: &[u8; HEADER_BYTES], at: usize) -> u32 {
    let bytes = header[at..].first_chunk().expect("the header is longer than that");
    u32::from_le_bytes(*bytes)
}

fn u64_at(header: &[u8; HEADER_BYTES], at: usize) -> u64 {
    let bytes = header[at..].first_chunk().expect("the header is longer than that");
    u64::from_le_bytes(*bytes)
}

/// CRC-32 as in Ethernet and gzip, for each byte what eight steps of its polynomial make of
/// it. Enough against accidents, which is all that a file of our own needs.
const CRC_TABLE: [u32; 256] = {
    let mut table = [0; 256];
    let mut byte: u32 = 0;
    while byte < 256 {
        let mut crc = byte;
        let mut bit = 0;
        while bit < 8 {
            crc = if crc & 1 == 1 { 0xedb8_8320 ^ (crc >> 1) } else { crc >> 1 };
            bit += 1;
        }
        table[byte as usize] = crc;
        byte += 1;
    }
    table
};

fn crc32(parts: &[&[u8]]) -> u32 {
    let step = |crc: u32, byte: &u8| {
        let [low, ..] = crc.to_le_bytes();
        CRC_TABLE[usize::from(low ^ byte)] ^ (crc >> 8)
    };
    !parts.iter().flat_map(|part| part.iter()).fold(u32::MAX, step)
}
