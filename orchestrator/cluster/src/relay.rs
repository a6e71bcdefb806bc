//! Logs, exec and questions: carries streams between who asks and the children.
//!
//! Who asks is the parent, or an operator at this cluster's own socket; each has numbers of
//! its own.
//!
//! ```text
//!  asker's number ◄──► stream ◄──► node and a number of our own
//!        credit ─────────────────────────► credit
//!        output ◄── pieces, at most what was granted ◄── output
//!        credit ◄───────────────────────── credit
//!         input ── pieces, at most what was granted ──► input
//! ```
//!
//! Pure: the shell hands in messages, sends what [`Relay::take_orders`] gives to children, and
//! takes output by [`Relay::next_output`] whenever there is room for it towards an asker.
//!
//! Invariants:
//! - no more than [`CREDIT_BYTES`] are held for a stream, and [`STREAMS_MAX`] streams are open
//!   for each asker;
//! - input is never held: what was granted goes on at once, and what was not ends the stream;
//! - a stream ends on both sides when either goes, and is told so once.

use marram_protocol::id::ChildId;
use marram_protocol::v1::{
    CHUNK_BYTES_MAX, CREDIT_BYTES, Down, Output, STREAMS_MAX, StreamEnd, StreamFault, StreamId,
    StreamRequest, Up, input_cost,
};
use std::collections::{BTreeMap, VecDeque};

/// Who opens streams.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Asker {
    /// The tier above.
    Parent,
    /// Somebody at this cluster's own socket.
    Local,
}

/// Names a stream: its number is unique for one asker only.
type Key = (Asker, StreamId);

/// Where the output of a stream comes from.
#[derive(Debug)]
pub(crate) enum Source {
    /// A child.
    Child(ChildId, StreamRequest),
    /// This cluster itself, and then a child.
    Both(Vec<u8>, ChildId, StreamRequest),
    /// This cluster itself, which has it all already.
    Own(Vec<u8>),
}

/// All open streams.
#[derive(Debug, Default)]
pub(crate) struct Relay {
    streams: BTreeMap<Key, Stream>,
    /// By child and our number there.
    by_child: BTreeMap<(ChildId, StreamId), Key>,
    last: u32,
    /// Streams that have something for their asker, each once, in turn.
    ready: BTreeMap<Asker, VecDeque<StreamId>>,
    orders: Vec<(ChildId, Down)>,
}

#[derive(Debug)]
struct Stream {
    /// `None` for this cluster's own.
    child: Option<(ChildId, StreamId)>,
    /// Output that was granted and not used.
    credit: u32,
    /// Input that the node granted: what the parent has not used, and what it has not been
    /// told of.
    input: u32,
    input_untold: u32,
    /// What this cluster itself says before a child does, and no credit was there for yet.
    first: Vec<u8>,
    pieces: VecDeque<(Output, Vec<u8>)>,
    bytes: usize,
    end: Option<StreamEnd>,
    /// It stands in `ready`.
    ready: bool,
}

impl Stream {
    /// Whether something may go to the asker now.
    fn has_output(&self) -> bool {
        if self.input_untold > 0 {
            return true;
        }
        match self.pieces.is_empty() {
            true => self.end.is_some() && self.first.is_empty(),
            // A node's output was paid for when it came, our own is when it goes.
            false => self.child.is_some() || self.credit > 0,
        }
    }

    fn put(&mut self, output: Output, bytes: Vec<u8>) {
        self.bytes += bytes.len();
        match self.pieces.back_mut() {
            Some((last, held))
                if *last == output && held.len() + bytes.len() <= CHUNK_BYTES_MAX =>
            {
                held.extend_from_slice(&bytes);
            }
            _ => self.pieces.push_back((output, bytes)),
        }
    }

    fn take(&mut self) -> Option<(Output, Vec<u8>)> {
        let (output, mut piece) = self.pieces.pop_front()?;
        if self.child.is_none() {
            let most = CHUNK_BYTES_MAX.min(usize::try_from(self.credit).unwrap_or(usize::MAX));
            if piece.len() > most {
                self.pieces.push_front((output, piece.split_off(most)));
            }
            self.credit = self.credit.saturating_sub(length(&piece));
        }
        self.bytes -= piece.len();
        Some((output, piece))
    }
}

impl Relay {
    /// Opens a stream. An error is its end, to be sent at once.
    pub(crate) fn open(&mut self, key: Key, source: Source) -> Result<(), StreamEnd> {
        let fault = |fault, why: String| Err(StreamEnd::Fault(fault, why));
        if self.streams.contains_key(&key) {
            return fault(StreamFault::Failed, format!("stream {} is open already", key.1.0));
        }
        if self.of(key.0).count() >= STREAMS_MAX {
            return fault(StreamFault::TooMany, format!("{STREAMS_MAX} streams are open already"));
        }
        let mut stream = Stream {
            child: None,
            credit: 0,
            input: 0,
            input_untold: 0,
            first: Vec::new(),
            pieces: VecDeque::new(),
            bytes: 0,
            end: None,
            ready: false,
        };
        match source {
            Source::Child(child, request) => {
                stream.child = Some(self.ask(key, child, request));
            }
            Source::Both(first, child, request) => {
                stream.first = first;
                stream.child = Some(self.ask(key, child, request));
            }
            Source::Own(bytes) => {
                for piece in bytes.chunks(CHUNK_BYTES_MAX) {
                    stream.put(Output::Stdout, piece.to_vec());
                }
                stream.end = Some(StreamEnd::Done);
            }
        }
        self.streams.insert(key, stream);
        self.queue(key);
        Ok(())
    }

    /// Opens a stream at a child, under a number of our own.
    fn ask(&mut self, key: Key, child: ChildId, request: StreamRequest) -> (ChildId, StreamId) {
        // Used again after four thousand million streams, when the first is long over.
        self.last = self.last.wrapping_add(1);
        let ours = StreamId(self.last);
        self.by_child.insert((child, ours), key);
        self.orders.push((child, Down::StreamOpen { stream: ours, request }));
        (child, ours)
    }

    /// The streams of one asker.
    fn of(&self, asker: Asker) -> impl Iterator<Item = Key> + '_ {
        let all = (asker, StreamId(0))..=(asker, StreamId(u32::MAX));
        self.streams.range(all).map(|(key, _)| *key)
    }

    /// Somebody says something about a stream. What comes for one that is over is dropped.
    pub(crate) fn asker_says(&mut self, asker: Asker, message: Down) {
        match message {
            Down::StreamData { stream, bytes } => self.input((asker, stream), bytes),
            Down::StreamResize { stream, rows, columns } => {
                let resize = |stream| Down::StreamResize { stream, rows, columns };
                self.order((asker, stream), resize);
            }
            Down::StreamCredit { stream, bytes } => self.grant((asker, stream), bytes),
            Down::StreamClose { stream } => self.close((asker, stream)),
            Down::StreamOpen { .. }
            | Down::Welcome { .. }
            | Down::Rejected { .. }
            | Down::Change { .. }
            | Down::Manifest { .. }
            | Down::Specs { .. }
            | Down::Kin(_)
            | Down::Disown(_)
            | Down::Operate { .. }
            | Down::Peers(_) => {}
        }
    }

    /// A node sends output.
    pub(crate) fn child_output(
        &mut self,
        child: ChildId,
        ours: StreamId,
        output: Output,
        bytes: Vec<u8>,
    ) {
        let Some(&key) = self.by_child.get(&(child, ours)) else { return };
        let Some(stream) = self.streams.get_mut(&key) else { return };
        if length(&bytes) > stream.credit || bytes.len() > CHUNK_BYTES_MAX {
            let why = "the node sent more output than was granted".to_owned();
            self.break_off(child, ours, StreamFault::Failed, why);
            return;
        }
        stream.credit -= length(&bytes);
        if !bytes.is_empty() {
            stream.put(output, bytes);
        }
        self.queue(key);
    }

    /// A node takes more input.
    pub(crate) fn child_credit(&mut self, child: ChildId, ours: StreamId, bytes: u32) {
        let Some(&key) = self.by_child.get(&(child, ours)) else { return };
        let Some(stream) = self.streams.get_mut(&key) else { return };
        // No more is on its way than this, whatever the node says.
        let room = CREDIT_BYTES.saturating_sub(stream.input.saturating_add(stream.input_untold));
        stream.input_untold += bytes.min(room);
        self.queue(key);
    }

    /// A node ends a stream.
    pub(crate) fn child_end(&mut self, child: ChildId, ours: StreamId, end: StreamEnd) {
        let Some(key) = self.by_child.remove(&(child, ours)) else { return };
        if let Some(stream) = self.streams.get_mut(&key) {
            stream.end = Some(end);
            stream.input_untold = 0;
        }
        self.queue(key);
    }

    /// The way to a node is gone, and with it its streams.
    pub(crate) fn child_gone(&mut self, child: ChildId) {
        let all = (child, StreamId(0))..=(child, StreamId(u32::MAX));
        let ours: Vec<StreamId> = self.by_child.range(all).map(|((_, ours), _)| *ours).collect();
        for ours in ours {
            let why = "the connection to the node is gone".to_owned();
            self.child_end(child, ours, StreamEnd::Fault(StreamFault::Unreachable, why));
        }
    }

    /// A stream cannot go on; the node is told to stop.
    pub(crate) fn break_off(
        &mut self,
        child: ChildId,
        ours: StreamId,
        fault: StreamFault,
        why: String,
    ) {
        if self.by_child.contains_key(&(child, ours)) {
            self.orders.push((child, Down::StreamClose { stream: ours }));
            self.child_end(child, ours, StreamEnd::Fault(fault, why));
        }
    }

    /// Who asked is gone: nobody listens to its streams.
    pub(crate) fn asker_gone(&mut self, asker: Asker) {
        for key in self.of(asker).collect::<Vec<_>>() {
            self.close(key);
        }
        self.ready.remove(&asker);
    }

    /// Whether [`Relay::next_output`] has something.
    pub(crate) fn has_output(&self, asker: Asker) -> bool {
        self.ready.get(&asker).is_some_and(|ready| !ready.is_empty())
    }

    /// The next message for an asker; streams take turns.
    pub(crate) fn next_output(&mut self, asker: Asker) -> Option<Up> {
        while let Some(id) = self.ready.get_mut(&asker).and_then(VecDeque::pop_front) {
            let key = (asker, id);
            let Some(stream) = self.streams.get_mut(&key) else { continue };
            stream.ready = false;
            let bytes = std::mem::take(&mut stream.input_untold);
            if bytes > 0 {
                stream.input += bytes;
                self.queue(key);
                return Some(Up::StreamCredit { stream: id, bytes });
            }
            if let Some((output, bytes)) = stream.take() {
                self.queue(key);
                return Some(Up::StreamData { stream: id, output, bytes });
            }
            if let Some(end) = stream.end.take_if(|_| stream.first.is_empty()) {
                self.streams.remove(&key);
                return Some(Up::StreamEnd { stream: id, end });
            }
        }
        None
    }

    /// What nodes are to be told, in order.
    pub(crate) fn take_orders(&mut self) -> Vec<(ChildId, Down)> {
        std::mem::take(&mut self.orders)
    }

    fn order(&mut self, key: Key, message: impl FnOnce(StreamId) -> Down) {
        let child = self.streams.get(&key).filter(|s| s.end.is_none()).and_then(|s| s.child);
        if let Some((child, ours)) = child {
            self.orders.push((child, message(ours)));
        }
    }

    fn input(&mut self, key: Key, bytes: Vec<u8>) {
        let Some(stream) = self.streams.get_mut(&key).filter(|s| s.end.is_none()) else { return };
        let Some((child, ours)) = stream.child else { return };
        let cost = input_cost(bytes.len());
        if cost > stream.input || bytes.len() > CHUNK_BYTES_MAX {
            let why = format!("{cost} bytes of input came, {} were granted", stream.input);
            return self.break_off(child, ours, StreamFault::TooMany, why);
        }
        stream.input -= cost;
        self.orders.push((child, Down::StreamData { stream: ours, bytes }));
    }

    fn grant(&mut self, key: Key, bytes: u32) {
        let Some(stream) = self.streams.get_mut(&key) else { return };
        // A parent grants anew what it has taken; more than that is not held here for it.
        let held = match stream.child {
            Some(_) => u32::try_from(stream.bytes).unwrap_or(u32::MAX),
            None => 0,
        };
        let room = CREDIT_BYTES.saturating_sub(stream.credit.saturating_add(held));
        let mut bytes = bytes.min(room);
        // What is said here goes first, and is paid for first.
        let most = usize::try_from(bytes).unwrap_or(usize::MAX);
        let rest = stream.first.split_off(stream.first.len().min(most));
        for piece in std::mem::replace(&mut stream.first, rest).chunks(CHUNK_BYTES_MAX) {
            bytes = bytes.saturating_sub(length(piece));
            stream.put(Output::Stdout, piece.to_vec());
        }
        stream.credit += bytes;
        if bytes > 0 {
            self.order(key, |stream| Down::StreamCredit { stream, bytes });
        }
        self.queue(key);
    }

    fn close(&mut self, key: Key) {
        let Some(stream) = self.streams.remove(&key) else { return };
        if let Some((child, ours)) = stream.child
            && self.by_child.remove(&(child, ours)).is_some()
        {
            self.orders.push((child, Down::StreamClose { stream: ours }));
        }
    }

    fn queue(&mut self, key: Key) {
        let Some(stream) = self.streams.get_mut(&key) else { return };
        if !stream.ready && stream.has_output() {
            stream.ready = true;
            self.ready.entry(key.0).or_default().push_back(key.1);
        }
    }
}

fn length(bytes: &[u8]) -> u32 {
    u32::try_from(bytes.len()).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests;
