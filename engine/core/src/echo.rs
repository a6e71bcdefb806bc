//! Measures the way to other nodes by echo, and answers theirs.
//!
//! ```text
//!    byte 0     3    4       12           26     34
//!         |"mrE"|kind| nonce | coordinate | tag  |
//! ```
//!
//! Request and answer have one length, so an answer amplifies nothing. The tag is SipHash-2-4
//! of all before it under the tree's key: who does not know the key gets no answer, and an
//! answer that was not asked for, or was changed on the way, is worth nothing. What is
//! answered is bounded in number as well, since requests can be overheard and sent again with
//! a false sender.
//!
//! Why apart: sockets and clocks are the shell's; this decides whom to ask when, whom to
//! answer, and what to make of it.
//!
//! Invariant: one request is on its way at most, and each is worth one sample at most.

use crate::vivaldi::Vivaldi;
use marram_protocol::id::ChildId;
use marram_protocol::v1::{Coordinate, EchoKey, PEERS_MAX, Peers};
use std::collections::{BTreeMap, VecDeque};

/// Bytes of a request and of an answer.
pub const ECHO_BYTES: usize = 34;

/// Answers in a second, and at once after a pause. Sixty peers that are in a hurry ask less.
const ANSWERS_PER_S: u64 = 25;
const ANSWERS_AT_ONCE: u64 = 60;

/// Time between two requests: half of it to one and a half times as much, so that nodes do
/// not ask in step. One request and its answer are 124 bytes on the wire, so a node that asks
/// and is asked as often has a traffic of 17 bytes/s.
const PAUSE_MS: u64 = 15_000;

/// The same for a node that has just come and knows nothing yet.
const PAUSE_NEW_MS: u64 = 2_000;

/// Samples after which a node is no longer new.
const SAMPLES_NEW: u32 = 40;

/// Round trips remembered of a peer: the least of them is used, since whatever disturbs a
/// measurement makes it longer.
const TRIPS_MAX: usize = 4;

const MAGIC: [u8; 3] = *b"mrE";
const REQUEST: u8 = 1;
const ANSWER: u8 = 2;

/// A request to be sent, and to whom.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    /// `address:port` in UDP.
    pub address: String,
    /// The datagram.
    pub bytes: [u8; ECHO_BYTES],
}

/// A node that measures.
#[derive(Debug, Clone)]
pub struct Prober {
    key: EchoKey,
    peers: Vec<(ChildId, String)>,
    trips: BTreeMap<ChildId, VecDeque<u32>>,
    asked: Option<Asked>,
    place: Vivaldi,
}

#[derive(Debug, Clone, Copy)]
struct Asked {
    peer: ChildId,
    nonce: u64,
    at_us: u64,
}

impl Prober {
    /// A node that knows nobody yet.
    pub fn new(seed: u64) -> Self {
        Self {
            key: EchoKey::default(),
            peers: Vec::new(),
            trips: BTreeMap::new(),
            asked: None,
            place: Vivaldi::new(seed),
        }
    }

    /// Whom to measure from now on.
    pub fn meet(&mut self, peers: Peers) {
        self.key = peers.key;
        self.peers = peers.peers.into_iter().take(PEERS_MAX).map(|p| (p.id, p.address)).collect();
        self.trips.retain(|id, _| self.peers.iter().any(|(known, _)| known == id));
        self.asked = None;
    }

    /// Milliseconds until the next request, if there is anybody to ask. Never before the
    /// pause is over, so an answer that takes longer is not waited for.
    pub fn pause_ms(&self, random: u64) -> Option<u64> {
        if self.peers.is_empty() {
            return None;
        }
        let is_new = self.place.samples() < SAMPLES_NEW;
        let pause = if is_new { PAUSE_NEW_MS } else { PAUSE_MS };
        Some(pause / 2 + random % pause)
    }

    /// Asks one of the peers. `random` is new for every request.
    pub fn ask(&mut self, now_us: u64, random: u64) -> Option<Request> {
        let count = u64::try_from(self.peers.len()).ok()?;
        let index = usize::try_from((random >> 32).checked_rem(count)?).ok()?;
        let (peer, address) = self.peers.get(index)?.clone();
        self.asked = Some(Asked { peer, nonce: random, at_us: now_us });
        let bytes = seal(self.key, REQUEST, random, self.place.coordinate());
        Some(Request { address, bytes })
    }

    /// Takes what came back, and tells the node's coordinate if that is news for the cluster.
    pub fn answered(&mut self, now_us: u64, bytes: &[u8]) -> Option<Coordinate> {
        let asked = self.asked?;
        let (nonce, theirs) = open(self.key, ANSWER, bytes)?;
        if nonce != asked.nonce {
            return None;
        }
        self.asked = None;
        let trip = u32::try_from(now_us.saturating_sub(asked.at_us)).ok()?.max(1);
        let trips = self.trips.entry(asked.peer).or_default();
        trips.push_back(trip);
        if trips.len() > TRIPS_MAX {
            trips.pop_front();
        }
        let least = trips.iter().min().copied()?;
        // A peer that says absurd things is not learned from, and the next one is asked.
        self.place.learn(theirs, least).ok()?;
        self.place.news()
    }

    /// Where the node takes itself to be.
    pub fn coordinate(&self) -> Coordinate {
        self.place.coordinate()
    }

    /// The key in force.
    pub fn key(&self) -> EchoKey {
        self.key
    }
}

/// Says how many more answers are allowed now.
#[derive(Debug, Clone)]
pub struct Answerer {
    left: u64,
    filled_ms: u64,
}

impl Default for Answerer {
    fn default() -> Self {
        Self { left: ANSWERS_AT_ONCE, filled_ms: 0 }
    }
}

impl Answerer {
    /// The answer to a datagram, if it deserves one.
    pub fn answer(
        &mut self,
        now_ms: u64,
        key: EchoKey,
        bytes: &[u8],
        own: Coordinate,
    ) -> Option<[u8; ECHO_BYTES]> {
        // Without a key from the cluster nobody is known.
        if key == EchoKey::default() {
            return None;
        }
        let (nonce, _) = open(key, REQUEST, bytes)?;
        let earned = now_ms.saturating_sub(self.filled_ms) * ANSWERS_PER_S / 1000;
        if earned > 0 {
            self.left = self.left.saturating_add(earned).min(ANSWERS_AT_ONCE);
            self.filled_ms = now_ms - now_ms % (1000 / ANSWERS_PER_S);
        }
        self.left = self.left.checked_sub(1)?;
        Some(seal(key, ANSWER, nonce, own))
    }
}

fn seal(key: EchoKey, kind: u8, nonce: u64, own: Coordinate) -> [u8; ECHO_BYTES] {
    let mut bytes = [0; ECHO_BYTES];
    let parts: [&[u8]; 7] = [
        &MAGIC,
        &[kind],
        &nonce.to_be_bytes(),
        &own.x_us.to_be_bytes(),
        &own.y_us.to_be_bytes(),
        &own.height_us.to_be_bytes(),
        &own.error_permille.to_be_bytes(),
    ];
    let body = parts.concat();
    let tag = siphash(key, &body).to_be_bytes();
    for (to, from) in bytes.iter_mut().zip(body.iter().chain(&tag)) {
        *to = *from;
    }
    bytes
}

/// Nonce and coordinate, if all is as it has to be.
fn open(key: EchoKey, kind: u8, bytes: &[u8]) -> Option<(u64, Coordinate)> {
    if bytes.len() != ECHO_BYTES {
        return None;
    }
    let (body, tag) = bytes.split_last_chunk::<8>()?;
    // Sixty-four bits that change with every nonce: a comparison that stops early helps
    // nobody to guess them over a network.
    if siphash(key, body) != u64::from_be_bytes(*tag) {
        return None;
    }
    let (magic, rest) = body.split_first_chunk::<3>()?;
    let (found, rest) = rest.split_first()?;
    if *magic != MAGIC || *found != kind {
        return None;
    }
    let (nonce, rest) = rest.split_first_chunk::<8>()?;
    let (x, rest) = rest.split_first_chunk::<4>()?;
    let (y, rest) = rest.split_first_chunk::<4>()?;
    let (height, rest) = rest.split_first_chunk::<4>()?;
    let (error, _) = rest.split_first_chunk::<2>()?;
    let coordinate = Coordinate {
        x_us: i32::from_be_bytes(*x),
        y_us: i32::from_be_bytes(*y),
        height_us: u32::from_be_bytes(*height),
        error_permille: u16::from_be_bytes(*error),
    };
    Some((u64::from_be_bytes(*nonce), coordinate))
}

/// SipHash-2-4 of Aumasson and Bernstein: a short tag that only holders of the key can make.
fn siphash(EchoKey(key): EchoKey, bytes: &[u8]) -> u64 {
    let half = |shift: u32| u64::try_from((key >> shift) & u128::from(u64::MAX)).unwrap_or(0);
    let (k0, k1) = (half(0), half(64));
    let mut v = [
        k0 ^ 0x736f_6d65_7073_6575,
        k1 ^ 0x646f_7261_6e64_6f6d,
        k0 ^ 0x6c79_6765_6e65_7261,
        k1 ^ 0x7465_6462_7974_6573,
    ];
    let mut chunks = bytes.chunks_exact(8);
    for chunk in &mut chunks {
        let word = chunk.iter().rev().fold(0, |word, byte| word << 8 | u64::from(*byte));
        absorb(&mut v, word);
    }
    let rest = chunks.remainder().iter().rev().fold(0, |word, byte| word << 8 | u64::from(*byte));
    let length = u64::try_from(bytes.len() % 256).unwrap_or(0);
    absorb(&mut v, length << 56 | rest);
    v[2] ^= 0xff;
    (0..4).for_each(|_| mix(&mut v));
    v[0] ^ v[1] ^ v[2] ^ v[3]
}

fn absorb(v: &mut [u64; 4], word: u64) {
    v[3] ^= word;
    mix(v);
    mix(v);
    v[0] ^= word;
}

fn mix(v: &mut [u64; 4]) {
    v[0] = v[0].wrapping_add(v[1]);
    v[2] = v[2].wrapping_add(v[3]);
    v[1] = v[1].rotate_left(13) ^ v[0];
    v[3] = v[3].rotate_left(16) ^ v[2];
    v[0] = v[0].rotate_left(32);
    v[2] = v[2].wrapping_add(v[1]);
    v[0] = v[0].wrapping_add(v[3]);
    v[1] = v[1].rotate_left(17) ^ v[2];
    v[3] = v[3].rotate_left(21) ^ v[0];
    v[2] = v[2].rotate_left(32);
}

#[cfg(test)]
mod tests;
