//! Cuts a stream of bytes into packets; looks at nothing but type and length.
//!
//! Apart from decoding because the length is judged before anything of the packet is kept.

use crate::reason::Reason;

/// One packet inside a buffer: first byte, body, and where the next one starts.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Frame<'a> {
    pub(crate) header: u8,
    pub(crate) body: &'a [u8],
    pub(crate) len: usize,
}

/// The first packet of `bytes`; none if it is not all there yet.
///
/// A packet longer than `bytes_max` is refused as soon as its length can be read.
pub(crate) fn first(bytes: &[u8], bytes_max: usize) -> Result<Option<Frame<'_>>, Reason> {
    let Some((&header, rest)) = bytes.split_first() else { return Ok(None) };
    let mut remaining = 0_usize;
    for (at, &byte) in rest.iter().take(4).enumerate() {
        remaining |= usize::from(byte & 0x7F) << (7 * at);
        if byte & 0x80 != 0 {
            continue;
        }
        // The standard wants the shortest form, and a zero in the last place is never it.
        if at > 0 && byte == 0 {
            return Err(Reason::Malformed);
        }
        let start = 2 + at;
        let len = start + remaining;
        if len > bytes_max {
            return Err(Reason::PacketTooLarge);
        }
        return Ok(bytes.get(start..len).map(|body| Frame { header, body, len }));
    }
    if rest.len() >= 4 { Err(Reason::Malformed) } else { Ok(None) }
}
