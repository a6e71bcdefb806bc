//! Reads `text/event-stream`, however the network cut it.
//!
//! Why apart: the rules of the format (three kinds of line end, fields, comments, events of
//! several lines) are pure, and the cuts between reads are where a reader breaks.
//!
//! Invariant: holds at most [`EVENT_BYTES_MAX`] of an unfinished event.

use std::collections::VecDeque;

/// Longest event: an instance's object takes a few KiB; a megabyte is somebody else's stream.
pub(crate) const EVENT_BYTES_MAX: usize = 1024 * 1024;

/// One event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Event {
    /// Its `event:` field, or `message`.
    pub(crate) name: String,
    /// Its `data:` lines, joined by line breaks.
    pub(crate) data: String,
}

/// The event is longer than [`EVENT_BYTES_MAX`].
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("an event of the server is longer than {EVENT_BYTES_MAX} bytes")]
pub(crate) struct TooLong;

/// Turns bytes into events.
#[derive(Debug, Default)]
pub(crate) struct Parser {
    line: Vec<u8>,
    after_cr: bool,
    name: String,
    data: String,
    has_data: bool,
    ready: VecDeque<Event>,
}

impl Parser {
    /// Takes what a read returned.
    pub(crate) fn push(&mut self, bytes: &[u8]) -> Result<(), TooLong> {
        for byte in bytes {
            let follows_cr = std::mem::take(&mut self.after_cr);
            match byte {
                b'\n' if follows_cr => {}
                b'\n' => self.end_line(),
                b'\r' => {
                    self.end_line();
                    self.after_cr = true;
                }
                _ if self.line.len() + self.data.len() >= EVENT_BYTES_MAX => return Err(TooLong),
                _ => self.line.push(*byte),
            }
        }
        Ok(())
    }

    /// The next whole event.
    pub(crate) fn next(&mut self) -> Option<Event> {
        self.ready.pop_front()
    }

    fn end_line(&mut self) {
        let line = std::mem::take(&mut self.line);
        let line = String::from_utf8_lossy(&line);
        let line = line.strip_prefix('\u{feff}').unwrap_or(&line);
        if line.is_empty() {
            self.end_event();
            return;
        }
        let (field, value) = line.split_once(':').unwrap_or((line, ""));
        let value = value.strip_prefix(' ').unwrap_or(value);
        match field {
            "event" => value.clone_into(&mut self.name),
            "data" => {
                if self.has_data {
                    self.data.push('\n');
                }
                self.data.push_str(value);
                self.has_data = true;
            }
            // Comments (an empty field name), `id`, `retry`, and what later versions add.
            _ => {}
        }
    }

    fn end_event(&mut self) {
        let name = std::mem::take(&mut self.name);
        let data = std::mem::take(&mut self.data);
        if std::mem::take(&mut self.has_data) {
            let name = if name.is_empty() { "message".into() } else { name };
            self.ready.push_back(Event { name, data });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const STREAM: &str = ": hello\n\nevent: instance\ndata: {\"a\":\ndata:1}\n\nevent:ready\r\ndata\r\n\r\n\
        data: ä\r\rid: 7\nevent: gone\n\ndata: unfinished\n";

    fn all(cut: usize) -> Vec<(String, String)> {
        let mut parser = Parser::default();
        let mut events = Vec::new();
        for part in STREAM.as_bytes().chunks(cut) {
            parser.push(part).unwrap();
            while let Some(event) = parser.next() {
                events.push((event.name, event.data));
            }
        }
        events
    }

    #[test]
    fn any_cut_gives_the_same_events() {
        let expected = [("instance", "{\"a\":\n1}"), ("ready", ""), ("message", "ä")];
        let expected: Vec<_> =
            expected.iter().map(|(a, b)| ((*a).to_owned(), (*b).to_owned())).collect();
        for cut in 1..=STREAM.len() {
            assert_eq!(all(cut), expected, "cut every {cut} bytes");
        }
    }

    #[test]
    fn endless_events_are_refused() {
        let mut parser = Parser::default();
        let line = format!("data: {}\n", "x".repeat(1023));
        let mut pushed = 0;
        while parser.push(line.as_bytes()).is_ok() {
            pushed += line.len();
            assert!(pushed < 2 * EVENT_BYTES_MAX);
        }
        let mut parser = Parser::default();
        assert_eq!(parser.push(&vec![b'x'; EVENT_BYTES_MAX + 1]), Err(TooLong));
    }
}
