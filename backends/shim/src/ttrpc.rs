//! Questions to containerd's shim: ttrpc and protobuf, as far as two questions need them.
//!
//! Why not a library: those that there are bring a runtime or threads, and one marram-shim runs
//! beside every container.
//!
//! ```text
//! frame     length of the body u32, stream u32, kind u8, flags u8, body     (big-endian)
//! question  1 service, 2 method, 3 payload, 5 metadata { 1 key, 2 value }
//! answer    1 status { 1 code, 2 message }, 2 payload
//! ```
//!
//! Invariant: every parser is total. What a shim may answer is bounded.

use std::io;

/// Largest answer that is taken: what a task's state says is some hundred bytes.
const BODY_BYTES_MAX: usize = 64 * 1024;

/// Length of a frame's head.
const HEAD_BYTES: usize = 10;

/// Kinds of frames. The third holds data of streams, which are not used here.
const QUESTION: u8 = 1;
const ANSWER: u8 = 2;

/// How containerd's clients name the namespace that they mean.
const NAMESPACE_KEY: &[u8] = b"containerd-namespace-ttrpc";

/// Wire types of protobuf.
const NUMBER: u64 = 0;
const FIXED_64: u64 = 1;
const BYTES: u64 = 2;
const FIXED_32: u64 = 5;

/// What came back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Answer {
    /// The answer's message.
    Payload(Vec<u8>),
    /// A refusal, with gRPC's number for it.
    Refused(u64),
}

/// Appends a field that holds a number to a message.
fn number(message: &mut Vec<u8>, mut value: u64) {
    loop {
        let low = u8::try_from(value & 0x7f).unwrap_or_default();
        value >>= 7;
        if value == 0 {
            return message.push(low);
        }
        message.push(low | 0x80);
    }
}

/// Appends a field that holds bytes to a message.
pub(crate) fn put(message: &mut Vec<u8>, field: u64, bytes: &[u8]) {
    number(message, field << 3 | BYTES);
    number(message, bytes.len() as u64);
    message.extend_from_slice(bytes);
}

/// The frame of one question; `stream` is odd.
pub(crate) fn question(
    stream: u32,
    service: &str,
    method: &str,
    namespace: &str,
    payload: &[u8],
) -> Vec<u8> {
    let (mut body, mut pair) = (Vec::new(), Vec::new());
    put(&mut body, 1, service.as_bytes());
    put(&mut body, 2, method.as_bytes());
    put(&mut body, 3, payload);
    put(&mut pair, 1, NAMESPACE_KEY);
    put(&mut pair, 2, namespace.as_bytes());
    put(&mut body, 5, &pair);
    let mut frame = Vec::with_capacity(HEAD_BYTES + body.len());
    // Names and a path: far from the end of the type.
    frame.extend(u32::try_from(body.len()).unwrap_or(u32::MAX).to_be_bytes());
    frame.extend(stream.to_be_bytes());
    frame.extend([QUESTION, 0]);
    frame.extend(body);
    frame
}

/// Takes the answer on `stream` out of what was received; `None` if it is not whole yet.
///
/// # Errors
/// If what came is no answer that could be meant.
pub(crate) fn take_answer(received: &mut Vec<u8>, stream: u32) -> io::Result<Option<Answer>> {
    loop {
        let Some(head) = received.first_chunk::<HEAD_BYTES>() else { return Ok(None) };
        let [a, b, c, d, e, f, g, h, kind, _] = *head;
        let length = usize::try_from(u32::from_be_bytes([a, b, c, d])).unwrap_or(usize::MAX);
        let of = u32::from_be_bytes([e, f, g, h]);
        if length > BODY_BYTES_MAX {
            let why = format!("an answer of {length} bytes, at most {BODY_BYTES_MAX} are taken");
            return Err(io::Error::other(why));
        }
        if received.len() - HEAD_BYTES < length {
            return Ok(None);
        }
        let frame: Vec<u8> = received.drain(..HEAD_BYTES + length).collect();
        if (kind, of) == (ANSWER, stream) {
            return parse_answer(&frame[HEAD_BYTES..]).map(Some);
        }
    }
}

fn parse_answer(body: &[u8]) -> io::Result<Answer> {
    let message = Message::parse(body)?;
    let code = match message.bytes(1) {
        Some(status) => Message::parse(status)?.number(1),
        None => 0,
    };
    Ok(match code {
        0 => Answer::Payload(message.bytes(2).unwrap_or_default().to_vec()),
        code => Answer::Refused(code),
    })
}

/// The fields of a message; a later one goes over an earlier one.
#[derive(Debug)]
pub(crate) struct Message<'a>(Vec<(u64, Value<'a>)>);

#[derive(Debug, Clone, Copy)]
enum Value<'a> {
    Number(u64),
    Bytes(&'a [u8]),
}

impl<'a> Message<'a> {
    pub(crate) fn parse(mut rest: &'a [u8]) -> io::Result<Self> {
        let mut fields = Vec::new();
        while !rest.is_empty() {
            let field = field(&mut rest);
            let (key, value) = field.ok_or_else(|| io::Error::other("no protobuf message"))?;
            fields.extend(value.map(|value| (key, value)));
        }
        Ok(Self(fields))
    }

    /// A number; protobuf leaves out zero.
    pub(crate) fn number(&self, field: u64) -> u64 {
        let found = self.0.iter().rev().find(|(key, _)| *key == field);
        match found {
            Some((_, Value::Number(number))) => *number,
            _ => 0,
        }
    }

    /// A text or a message inside.
    pub(crate) fn bytes(&self, field: u64) -> Option<&'a [u8]> {
        let found = self.0.iter().rev().find(|(key, _)| *key == field);
        match found {
            Some((_, Value::Bytes(bytes))) => Some(bytes),
            _ => None,
        }
    }
}

/// Takes one field off the front; its value is `None` if it is of a type that is not needed.
fn field<'a>(rest: &mut &'a [u8]) -> Option<(u64, Option<Value<'a>>)> {
    let tag = varint(rest)?;
    let value = match tag & 7 {
        NUMBER => Some(Value::Number(varint(rest)?)),
        BYTES => {
            let length = usize::try_from(varint(rest)?).ok()?;
            Some(Value::Bytes(skip(rest, length)?))
        }
        FIXED_64 => skip(rest, 8).map(|_| None)?,
        FIXED_32 => skip(rest, 4).map(|_| None)?,
        _ => return None,
    };
    Some((tag >> 3, value))
}

fn skip<'a>(rest: &mut &'a [u8], length: usize) -> Option<&'a [u8]> {
    let (taken, left) = rest.split_at_checked(length)?;
    *rest = left;
    Some(taken)
}

fn varint(rest: &mut &[u8]) -> Option<u64> {
    let mut value = 0;
    for shift in (0..u64::BITS).step_by(7) {
        let (byte, left) = rest.split_first()?;
        *rest = left;
        value |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Some(value);
        }
    }
    None
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// A shim's answer as one frame.
    pub(crate) fn answer(stream: u32, code: u8, payload: &[u8]) -> Vec<u8> {
        let mut body = Vec::new();
        if code != 0 {
            put(&mut body, 1, &[1 << 3, code]);
        }
        put(&mut body, 2, payload);
        let mut frame = u32::try_from(body.len()).unwrap().to_be_bytes().to_vec();
        frame.extend(stream.to_be_bytes());
        frame.extend([ANSWER, 0]);
        frame.extend(body);
        frame
    }

    #[test]
    fn a_question_is_these_bytes() {
        let frame = question(3, "s", "m", "n", &[0xaa]);
        let metadata =
            [&[0x2a, 31, 0x0a, 26][..], b"containerd-namespace-ttrpc", &[0x12, 1, b'n']].concat();
        let body =
            [&[0x0a, 1, b's', 0x12, 1, b'm', 0x1a, 1, 0xaa][..], metadata.as_slice()].concat();
        assert_eq!(frame[..10], [0, 0, 0, 42, 0, 0, 0, 3, 1, 0]);
        assert_eq!(frame[10..], body);
    }

    #[test]
    fn answers_come_in_pieces_and_among_others() {
        let mut all = answer(1, 0, b"old");
        all.extend(answer(3, 0, b"new"));
        let mut received = Vec::new();
        for (index, byte) in all.iter().enumerate() {
            received.push(*byte);
            let taken = take_answer(&mut received, 3).unwrap();
            let last = index + 1 == all.len();
            assert_eq!(taken, last.then(|| Answer::Payload(b"new".to_vec())), "{index}");
        }
        assert!(received.is_empty());
        let mut refused = answer(3, 5, b"");
        assert_eq!(take_answer(&mut refused, 3).unwrap(), Some(Answer::Refused(5)));
    }

    #[test]
    fn nothing_that_comes_is_too_strange() {
        let mut huge = vec![0xff; HEAD_BYTES];
        assert!(take_answer(&mut huge, 1).is_err());
        for bad in [&[0x0a][..], &[0x0a, 5, 1], &[0xff; 11], &[0x0b], &[0x09, 1], &[0x0d]] {
            assert!(Message::parse(bad).is_err(), "{bad:?}");
        }
        let good = Message::parse(&[0x08, 0x96, 1, 0x12, 1, 7, 0x1d, 0, 0, 0, 0]).unwrap();
        assert_eq!((good.number(1), good.bytes(2)), (150, Some(&[7][..])));
        assert_eq!((good.number(2), good.bytes(1), good.number(9)), (0, None, 0));
    }
}
