//! Bounded output in memory, with the cursors of the contract.

use marram_backend_api::{Cursor, LogChunk};

/// What a workload has printed, the last `bytes_max` of it.
#[derive(Debug, Clone, Default)]
pub(crate) struct Output {
    start: u64,
    kept: Vec<u8>,
    bytes_max: usize,
}

impl Output {
    pub(crate) fn new(bytes_max: u64) -> Self {
        let bytes_max = usize::try_from(bytes_max).unwrap_or(usize::MAX);
        Self { start: 0, kept: Vec::new(), bytes_max }
    }

    pub(crate) fn push(&mut self, text: &str) {
        self.kept.extend_from_slice(text.as_bytes());
        let over = self.kept.len().saturating_sub(self.bytes_max);
        self.kept.drain(..over);
        self.start += over as u64;
    }

    pub(crate) fn end(&self) -> u64 {
        self.start + self.kept.len() as u64
    }

    pub(crate) fn read(&self, from: Cursor, bytes_max: usize) -> LogChunk {
        let start = from.0.clamp(self.start, self.end());
        let offset = usize::try_from(start - self.start).unwrap_or(self.kept.len());
        let rest = &self.kept[offset..];
        let bytes = rest[..rest.len().min(bytes_max)].to_vec();
        LogChunk { start: Cursor(start), next: Cursor(start + bytes.len() as u64), bytes }
    }

    pub(crate) fn tail(&self, lines: u32) -> Cursor {
        let mut wanted = lines;
        if wanted == 0 {
            return Cursor(self.end());
        }
        // The newline that ends the last line begins no line.
        let body = self.kept.strip_suffix(b"\n").unwrap_or(&self.kept);
        for (offset, _) in body.iter().enumerate().rev().filter(|(_, byte)| **byte == b'\n') {
            wanted -= 1;
            if wanted == 0 {
                return Cursor(self.start + offset as u64 + 1);
            }
        }
        Cursor(self.start)
    }
}
