//! One connection's side of the protocol: bytes in, bytes out, and a deadline.
//!
//! Why apart from the task that moves the bytes: nothing here waits, so tests can feed it any
//! bytes at any time. It keeps a buffer only for the part of a packet that is still missing.
//!
//! ```text
//!   Waiting -- CONNECT accepted --> Open -- any Closed --> (task ends)
//!      +------ anything else, or the handshake's time is over ------+
//! ```
//!
//! Invariants:
//! - the core's session is told of the end exactly once, in whatever way the connection ends;
//! - a packet that cannot be taken now (quota, no room at an in-process client) stays in
//!   `incoming`, unread by anybody, and nothing behind it is looked at.

mod handshake;
mod packets;

#[cfg(test)]
mod tests;

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::Waker;

use crate::auth::{Identity, PeerIdentity};
use crate::codec::{Version, decode, encode, frame};
use crate::config::{CONNECT_BYTES_MAX, OUTGOING_BYTES_HIGH, WRITE_STALL_MS_MAX};
use crate::core::quota::Buckets;
use crate::core::{Ending, Link, Millis, Pull};
use crate::reason::Reason;
use crate::shared::Shared;

/// The connection is over; what had to be said is in the outgoing bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Closed(pub(crate) Reason);

/// One connection.
#[derive(Debug)]
pub(crate) struct Endpoint {
    shared: Arc<Shared>,
    peer: PeerIdentity,
    address: Option<SocketAddr>,
    stage: Stage,
    /// Received and not taken yet: an incomplete packet, or packets that have to wait.
    incoming: Vec<u8>,
    outgoing: Vec<u8>,
    /// How much of `outgoing` is written.
    written: usize,
    /// When the last byte could be written, or when waiting for that began.
    wrote_at: Millis,
    heard_at: Millis,
    hold: Option<Hold>,
    /// Counted among the open connections until the last packet is out.
    counted: bool,
    bytes_received: u64,
    bytes_sent: u64,
}

#[derive(Debug)]
enum Stage {
    Waiting { until: Millis },
    Open(Open),
    Over,
}

#[derive(Debug)]
struct Open {
    link: Link,
    version: Version,
    identity: Identity,
    keep_alive_ms: u64,
    quota: Buckets,
    /// Topics by alias - 1; empty until the first alias comes.
    aliases: Vec<Option<Arc<str>>>,
}

/// Why nothing is read at present.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Hold {
    /// Over its quota until then.
    Quota(Millis),
    /// An in-process client has no room; the core wakes us.
    Room,
}

/// Whether a packet was taken.
enum Taken {
    Yes,
    NotNow(Hold),
}

impl Endpoint {
    pub(crate) fn new(
        shared: Arc<Shared>,
        peer: PeerIdentity,
        address: Option<SocketAddr>,
        handshake_until: Millis,
    ) -> Self {
        let now = shared.now();
        Self {
            shared,
            peer,
            address,
            stage: Stage::Waiting { until: handshake_until },
            incoming: Vec::new(),
            outgoing: Vec::new(),
            written: 0,
            wrote_at: now,
            heard_at: now,
            hold: None,
            counted: false,
            bytes_received: 0,
            bytes_sent: 0,
        }
    }

    /// Bytes came from the client.
    pub(crate) fn receive(&mut self, now: Millis, bytes: &[u8]) -> Result<(), Closed> {
        self.heard_at = now;
        self.bytes_received += bytes.len() as u64;
        if self.incoming.is_empty() {
            let used = self.take_packets(now, bytes)?;
            if let Some(rest) = bytes.get(used..).filter(|rest| !rest.is_empty()) {
                self.incoming = rest.to_vec();
            }
            return Ok(());
        }
        self.incoming.extend_from_slice(bytes);
        self.take_waiting(now)
    }

    /// Takes what it can of `incoming`.
    fn take_waiting(&mut self, now: Millis) -> Result<(), Closed> {
        let incoming = std::mem::take(&mut self.incoming);
        let used = self.take_packets(now, &incoming)?;
        if used == 0 {
            self.incoming = incoming;
        } else if used < incoming.len() {
            self.incoming = incoming[used..].to_vec();
        }
        Ok(())
    }

    /// Takes whole packets off the front; tells how many bytes they were.
    fn take_packets(&mut self, now: Millis, bytes: &[u8]) -> Result<usize, Closed> {
        let mut used = 0;
        while self.hold.is_none() {
            let rest = bytes.get(used..).unwrap_or_default();
            let bytes_max = match (&self.stage, rest.first()) {
                // Another protocol is told apart by its first byte, not waited for.
                (Stage::Waiting { .. }, Some(&first)) if first != decode::CONNECT_HEADER => {
                    return Err(self.fail(now, Reason::Protocol));
                }
                (Stage::Waiting { .. }, _) => CONNECT_BYTES_MAX,
                _ => self.shared.config.packet_bytes_max,
            };
            let frame = match frame::first(rest, bytes_max) {
                Ok(Some(frame)) => frame,
                Ok(None) => break,
                Err(reason) => return Err(self.fail(now, reason)),
            };
            match self.take_packet(now, &frame) {
                Ok(Taken::Yes) => used += frame.len,
                Ok(Taken::NotNow(hold)) => self.hold = Some(hold),
                Err(reason) => return Err(self.fail(now, reason)),
            }
        }
        Ok(used)
    }

    fn take_packet(&mut self, now: Millis, frame: &frame::Frame<'_>) -> Result<Taken, Reason> {
        match &self.stage {
            Stage::Waiting { .. } => {
                let connect = decode::connect(frame.header, frame.body).inspect_err(|&reason| {
                    // The only answer that a client of an unknown version can be given.
                    if reason == Reason::UnsupportedVersion {
                        encode::refused(&mut self.outgoing, Version::V311, reason);
                    }
                })?;
                self.open(now, connect)?;
                Ok(Taken::Yes)
            }
            Stage::Open(open) => {
                let packet = decode::packet(open.version, frame.header, frame.body)?;
                self.take(now, packet, frame.len)
            }
            Stage::Over => Err(Reason::Protocol),
        }
    }

    /// Fetches what the session has for the client, as far as there is room. With nothing left
    /// the waker is kept and called when there is more.
    pub(crate) fn fill(&mut self, now: Millis, waker: &Waker) -> Result<(), Closed> {
        let shared = Arc::clone(&self.shared);
        if let (Stage::Open(open), Some(Hold::Room)) = (&self.stage, self.hold) {
            // Before the attempt, so that room made right after it is not missed.
            shared.with_waker(Some((open.link, waker)), |_| ());
        }
        self.end_hold(now)?;
        let Stage::Open(open) = &self.stage else { return Ok(()) };
        let (link, version) = (open.link, open.version);
        let was_empty = self.outgoing.is_empty();
        let (received, sent) = (self.bytes_received, self.bytes_sent);
        (self.bytes_received, self.bytes_sent) = (0, 0);
        let outgoing = &mut self.outgoing;
        let written = self.written;
        let closed = shared.with_waker(Some((link, waker)), |core| {
            core.stats.bytes_received += received;
            core.stats.bytes_sent += sent;
            while outgoing.len() - written < OUTGOING_BYTES_HIGH {
                match core.pull(now, link) {
                    Pull::Send { pending, packet_id, dup } => {
                        let message = pending.outgoing(packet_id, dup, now);
                        encode::publish(outgoing, version, &message);
                    }
                    Pull::Event(_) => {}
                    Pull::Empty => break,
                    Pull::Closed(reason) => return Some(reason),
                }
            }
            None
        });
        if was_empty && !self.outgoing.is_empty() {
            self.wrote_at = now;
        }
        closed.map_or(Ok(()), |reason| Err(self.fail(now, reason)))
    }

    /// Looks whether what was held back can go on now.
    fn end_hold(&mut self, now: Millis) -> Result<(), Closed> {
        match self.hold {
            None => return Ok(()),
            Some(Hold::Quota(until)) if now < until => return Ok(()),
            Some(_) => {}
        }
        self.hold = None;
        // The client was not listened to, so its silence does not count.
        self.heard_at = now;
        self.take_waiting(now)
    }

    /// Bytes to write; empty if none.
    pub(crate) fn output(&self) -> &[u8] {
        self.outgoing.get(self.written..).unwrap_or_default()
    }

    /// Some of the output was written.
    pub(crate) fn wrote(&mut self, now: Millis, count: usize) {
        self.written += count;
        self.wrote_at = now;
        self.bytes_sent += count as u64;
        if self.written >= self.outgoing.len() {
            // An idle connection holds no buffer.
            self.outgoing = Vec::new();
            self.written = 0;
        }
    }

    /// Whether bytes are wanted from the client now.
    pub(crate) fn wants_input(&self) -> bool {
        self.hold.is_none() && self.output().len() < OUTGOING_BYTES_HIGH
    }

    /// When [`Endpoint::handle_timeout`] is due.
    pub(crate) fn poll_timeout(&self) -> Option<Millis> {
        let stall = (!self.output().is_empty()).then(|| self.wrote_at + WRITE_STALL_MS_MAX);
        let other = match (&self.stage, self.hold) {
            (Stage::Waiting { until }, _) => Some(*until),
            (_, Some(Hold::Quota(until))) => Some(until),
            (Stage::Open(open), None) if open.keep_alive_ms > 0 && self.wants_input() => {
                Some(self.heard_at + open.keep_alive_ms)
            }
            _ => None,
        };
        stall.into_iter().chain(other).min()
    }

    /// Does what is due.
    pub(crate) fn handle_timeout(&mut self, now: Millis) -> Result<(), Closed> {
        if self.poll_timeout().is_none_or(|at| at > now) {
            return Ok(());
        }
        let stalled = !self.output().is_empty() && now >= self.wrote_at + WRITE_STALL_MS_MAX;
        match (&self.stage, self.hold) {
            _ if stalled => Err(self.fail(now, Reason::Lost)),
            (_, Some(_)) => Ok(()),
            (Stage::Waiting { .. }, None) => Err(self.fail(now, Reason::Lost)),
            (_, None) => Err(self.fail(now, Reason::KeepAlive)),
        }
    }

    /// The transport is gone.
    pub(crate) fn lost(&mut self, now: Millis) -> Closed {
        self.end(now, Ending::Will { expiry_s: None, reason: Reason::Lost });
        Closed(Reason::Lost)
    }

    /// Ends the connection from this side and leaves the last packet in the output.
    fn fail(&mut self, now: Millis, reason: Reason) -> Closed {
        match &self.stage {
            Stage::Open(open) if reason != Reason::Lost => {
                encode::disconnect(&mut self.outgoing, open.version, reason);
            }
            _ => {}
        }
        self.end(now, Ending::Will { expiry_s: None, reason });
        Closed(reason)
    }

    fn end(&mut self, now: Millis, ending: Ending) {
        if let Stage::Open(open) = std::mem::replace(&mut self.stage, Stage::Over) {
            let (received, sent) = (self.bytes_received, self.bytes_sent);
            self.shared.with(|core| {
                core.stats.bytes_received += received;
                core.stats.bytes_sent += sent;
                core.disconnect(now, open.link, ending);
            });
        }
    }
}

impl Drop for Endpoint {
    /// A task that is aborted takes its connection off the session as well.
    fn drop(&mut self) {
        let now = self.shared.now();
        self.lost(now);
        if self.counted {
            self.shared.open.fetch_sub(1, Ordering::Relaxed);
        }
    }
}
