//! The way of logs, exec and questions to who answers them: the connection of a child, or the
//! owner of a cluster's state, which hands them on.
//!
//! Two queues lead to the child. The shell's own (desired state) never waits and never
//! competes with the other one, on which clients put their input and wait when it is full;
//! the task that owns the connection empties the first one first.

mod inbox;

pub use inbox::Piece;

use crate::refusal::Refusal;
use inbox::Inbox;
use marram_protocol::id::ChildId;
use marram_protocol::v1::{
    CHUNK_BYTES_MAX, CREDIT_BYTES, Down, Output, STREAMS_MAX, StreamEnd, StreamFault, StreamId,
    StreamRequest, Up, input_cost,
};
use marram_tunnel::Streams;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::mpsc;

/// A way on which streams can be opened.
#[derive(Debug)]
pub struct Link {
    child: ChildId,
    clients: mpsc::Sender<Down>,
    streams: Mutex<Open>,
}

#[derive(Debug, Default)]
struct Open {
    last: u32,
    open: BTreeMap<StreamId, Arc<Inbox>>,
    closed: bool,
}

impl Link {
    /// Which child.
    pub fn child(&self) -> ChildId {
        self.child
    }

    /// Opens a stream, with as much credit as one may have.
    pub async fn open(self: &Arc<Self>, request: StreamRequest) -> Result<Stream, Refusal> {
        let (id, inbox) = self.register()?;
        let stream = Stream { id, link: self.clone(), inbox, owed: 0, ended: false };
        self.send(Down::StreamOpen { stream: id, request }).await?;
        self.send(Down::StreamCredit { stream: id, bytes: CREDIT_BYTES }).await?;
        Ok(stream)
    }

    async fn send(&self, message: Down) -> Result<(), Refusal> {
        self.clients.send(message).await.map_err(|_| self.gone())
    }

    fn register(&self) -> Result<(StreamId, Arc<Inbox>), Refusal> {
        let mut streams = self.lock();
        if streams.closed {
            return Err(self.gone());
        }
        if streams.open.len() >= STREAMS_MAX {
            let why = format!("{STREAMS_MAX} streams are open on cluster {} already", self.child);
            return Err(Refusal::Busy(why));
        }
        // Numbers are used again after four thousand million streams of one connection.
        while {
            streams.last = streams.last.wrapping_add(1);
            streams.open.contains_key(&StreamId(streams.last))
        } {}
        let (id, inbox) = (StreamId(streams.last), Arc::new(Inbox::default()));
        streams.open.insert(id, inbox.clone());
        Ok((id, inbox))
    }

    fn forget(&self, id: StreamId) -> bool {
        self.lock().open.remove(&id).is_some()
    }

    fn gone(&self) -> Refusal {
        Refusal::Busy(format!("cluster {} is not connected", self.child))
    }

    fn lock(&self) -> MutexGuard<'_, Open> {
        self.streams.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Streams for Link {
    /// A quarter of a MiB of the largest chunks.
    const QUEUE_MAX: usize = 16;

    fn new(child: ChildId, clients: mpsc::Sender<Down>) -> Self {
        Self { child, clients, streams: Mutex::default() }
    }

    fn deliver(&self, message: Up) -> Option<Up> {
        match message {
            Up::StreamData { stream, output, bytes } => {
                // A stream that is not there was closed by this side a moment ago.
                let inbox = self.lock().open.get(&stream).cloned();
                inbox.inspect(|inbox| inbox.put(output, bytes));
                None
            }
            Up::StreamEnd { stream, end } => {
                let inbox = self.lock().open.remove(&stream);
                inbox.inspect(|inbox| inbox.end(end));
                None
            }
            Up::StreamCredit { stream, bytes } => {
                let inbox = self.lock().open.get(&stream).cloned();
                inbox.inspect(|inbox| inbox.grant(bytes));
                None
            }
            other => Some(other),
        }
    }

    fn close(&self) {
        let mut streams = self.lock();
        streams.closed = true;
        for inbox in std::mem::take(&mut streams.open).into_values() {
            let why = "the connection to the cluster is gone".to_owned();
            inbox.end(StreamEnd::Fault(StreamFault::Unreachable, why));
        }
    }
}

/// An open stream. Dropping it closes it at the other end.
#[derive(Debug)]
pub struct Stream {
    id: StreamId,
    link: Arc<Link>,
    inbox: Arc<Inbox>,
    /// Taken by the client and not yet granted anew.
    owed: u32,
    ended: bool,
}

impl Stream {
    /// The next piece. By asking for it the client says that it is done with those before,
    /// and the child may send as much again. Cancel-safe.
    pub async fn next(&mut self) -> Piece {
        if !self.ended && self.owed >= CREDIT_BYTES / 4 {
            self.grant().await;
        }
        let waiting = self.inbox.next();
        let piece = waiting.await;
        match &piece {
            Piece::Data(_, bytes) => {
                let bytes = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
                self.owed = self.owed.saturating_add(bytes);
            }
            Piece::End(_) => self.ended = true,
        }
        piece
    }

    /// The way in; one at a time.
    pub fn input(&self) -> Inlet {
        Inlet { id: self.id, link: self.link.clone(), inbox: self.inbox.clone() }
    }

    async fn grant(&mut self) {
        let credit = Down::StreamCredit { stream: self.id, bytes: self.owed };
        // A place in the queue first: waiting for it can be given up without losing count.
        if let Ok(place) = self.link.clients.reserve().await {
            place.send(credit);
        }
        // Without a connection the inbox has its end already.
        self.owed = 0;
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        if !self.link.forget(self.id) {
            return;
        }
        // On the same queue as the opening, so that it cannot overtake it.
        let close = Down::StreamClose { stream: self.id };
        if let Err(mpsc::error::TrySendError::Full(close)) = self.link.clients.try_send(close) {
            let clients = self.link.clients.clone();
            tokio::spawn(async move {
                // An error says that the connection is gone, and the stream with it.
                drop(clients.send(close).await);
            });
        }
    }
}

/// The way in of a stream, apart from it so that both ways can be waited for at once.
#[derive(Debug)]
pub struct Inlet {
    id: StreamId,
    link: Arc<Link>,
    inbox: Arc<Inbox>,
}

impl Inlet {
    /// Sends the beginning of `bytes` as soon as the program takes it and the connection has
    /// room, and says how much that was. For ever while neither; cancel-safe.
    ///
    /// # Errors
    /// The connection is gone.
    pub async fn send(&self, bytes: &[u8]) -> Result<usize, Refusal> {
        let granted = self.inbox.granted().await;
        // A place in the queue last: what waits for a program holds no place of others.
        let place = self.link.clients.reserve().await.map_err(|_| self.link.gone())?;
        let count = bytes.len().min(CHUNK_BYTES_MAX).min(granted as usize);
        if count > 0 {
            self.inbox.spend(input_cost(count));
            let bytes = bytes[..count].to_vec();
            place.send(Down::StreamData { stream: self.id, bytes });
        }
        Ok(count)
    }

    /// There is no more.
    ///
    /// # Errors
    /// The connection is gone.
    pub async fn close(&self) -> Result<(), Refusal> {
        self.link.send(Down::StreamData { stream: self.id, bytes: Vec::new() }).await
    }

    /// The client's terminal has another size.
    ///
    /// # Errors
    /// The connection is gone.
    pub async fn resize(&self, rows: u16, columns: u16) -> Result<(), Refusal> {
        self.link.send(Down::StreamResize { stream: self.id, rows, columns }).await
    }
}

/// Everything a stream says on one output, up to a limit and a moment.
///
/// # Errors
/// What the stream ended with, if not well.
pub async fn collect(
    stream: Stream,
    bytes_max: usize,
    until: tokio::time::Instant,
) -> Result<Vec<u8>, Refusal> {
    let (all, end) = collect_some(stream, bytes_max, until).await;
    end.map(|()| all)
}

/// What a stream says on one output, up to a limit and a moment, and how it ended.
pub async fn collect_some(
    mut stream: Stream,
    bytes_max: usize,
    until: tokio::time::Instant,
) -> (Vec<u8>, Result<(), Refusal>) {
    let mut all = Vec::new();
    loop {
        let piece = match tokio::time::timeout_at(until, stream.next()).await {
            Ok(piece) => piece,
            Err(_) => return (all, Err(Refusal::Busy("it did not answer in time".to_owned()))),
        };
        match piece {
            Piece::Data(Output::Stderr, _) => {}
            Piece::Data(Output::Stdout, bytes) => {
                if all.len().saturating_add(bytes.len()) > bytes_max {
                    let why = format!("the answer has more than {bytes_max} bytes");
                    return (all, Err(Refusal::Busy(why)));
                }
                all.extend_from_slice(&bytes);
            }
            Piece::End(StreamEnd::Done | StreamEnd::Exited(_)) => return (all, Ok(())),
            Piece::End(StreamEnd::Fault(fault, why)) => return (all, Err(refusal(fault, &why))),
        }
    }
}

/// The last bytes of what a stream says until a moment, whatever became of it.
pub async fn last_bytes(mut stream: Stream, keep: usize, until: tokio::time::Instant) -> Vec<u8> {
    let mut kept = Vec::new();
    while let Ok(Piece::Data(_, bytes)) = tokio::time::timeout_at(until, stream.next()).await {
        kept.extend_from_slice(&bytes);
        kept.drain(..kept.len().saturating_sub(keep));
    }
    kept
}

/// A stream's fault as a client hears it.
pub fn refusal(fault: StreamFault, why: &str) -> Refusal {
    match fault {
        StreamFault::NotFound => Refusal::Absent(why.to_owned()),
        StreamFault::Unsupported => Refusal::NotImplemented(why.to_owned()),
        StreamFault::Unreachable | StreamFault::TooMany => Refusal::Busy(why.to_owned()),
        StreamFault::Failed => Refusal::Internal(why.to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn link() -> (Arc<Link>, mpsc::Receiver<Down>) {
        let (clients, queue) = mpsc::channel(Link::QUEUE_MAX);
        (Arc::new(Link::new(ChildId([1; 12]), clients)), queue)
    }

    fn block_on<T>(future: impl Future<Output = T>) -> T {
        let mut builder = tokio::runtime::Builder::new_current_thread();
        builder.enable_all().build().unwrap().block_on(future)
    }

    #[test]
    fn a_stream_is_opened_granted_fed_and_closed_in_order() {
        block_on(async {
            let (link, mut queue) = link();
            let mut stream = link.open(StreamRequest::Children).await.unwrap();
            let id = StreamId(1);
            let data = |n| Up::StreamData { stream: id, output: Output::Stdout, bytes: vec![0; n] };
            for _ in 0..2 {
                assert_eq!(link.deliver(data(10_000)), None);
                assert!(matches!(stream.next().await, Piece::Data(Output::Stdout, _)));
            }
            assert_eq!(link.deliver(data(1)), None);
            assert!(matches!(stream.next().await, Piece::Data(..)));
            let input = stream.input();
            assert_eq!(link.deliver(Up::StreamCredit { stream: id, bytes: 20_000 }), None);
            let long = [b'x'; 30_000];
            assert_eq!(input.send(&long).await.unwrap(), CHUNK_BYTES_MAX);
            let rest = 20_000 - CHUNK_BYTES_MAX;
            assert_eq!(input.send(&long).await.unwrap(), rest);
            let now = std::time::Duration::ZERO;
            let more = tokio::time::timeout(now, input.send(&long)).await;
            assert!(more.is_err(), "no more was granted");
            input.close().await.unwrap();
            drop(stream);
            let over = Up::StreamCredit { stream: id, bytes: 1 };
            assert_eq!(link.deliver(over), None, "a grant for a closed stream is dropped");
            let mut sent = Vec::new();
            while let Ok(message) = queue.try_recv() {
                sent.push(message);
            }
            assert_eq!(
                sent,
                [
                    Down::StreamOpen { stream: id, request: StreamRequest::Children },
                    Down::StreamCredit { stream: id, bytes: CREDIT_BYTES },
                    Down::StreamCredit { stream: id, bytes: 20_000 },
                    Down::StreamData { stream: id, bytes: vec![b'x'; CHUNK_BYTES_MAX] },
                    Down::StreamData { stream: id, bytes: vec![b'x'; rest] },
                    Down::StreamData { stream: id, bytes: vec![] },
                    Down::StreamClose { stream: id },
                ]
            );
            assert_eq!(link.deliver(data(1)), None, "output of a closed stream is dropped");
        });
    }

    #[test]
    fn a_lost_connection_ends_streams_and_opens_no_more() {
        block_on(async {
            let (link, _queue) = link();
            let mut stream = link.open(StreamRequest::Children).await.unwrap();
            link.close();
            let Piece::End(StreamEnd::Fault(fault, _)) = stream.next().await else { panic!() };
            assert_eq!(fault, StreamFault::Unreachable);
            assert_eq!(link.open(StreamRequest::Children).await.unwrap_err().status(), 503);
        });
    }

    #[test]
    fn streams_are_limited_and_messages_about_other_things_pass() {
        block_on(async {
            let (link, mut queue) = link();
            let drain = tokio::spawn(async move { while queue.recv().await.is_some() {} });
            let mut open = Vec::new();
            for _ in 0..STREAMS_MAX {
                open.push(link.open(StreamRequest::Children).await.unwrap());
            }
            assert_eq!(link.open(StreamRequest::Children).await.unwrap_err().status(), 503);
            open.pop();
            open.push(link.open(StreamRequest::Children).await.unwrap());
            let other = Up::Presence { online: true, incarnation: 1 };
            assert_eq!(link.deliver(other.clone()), Some(other));
            drop((open, link));
            drain.await.unwrap();
        });
    }

    #[test]
    fn collecting_stops_at_its_limits() {
        block_on(async {
            let (link, mut queue) = link();
            let drain = tokio::spawn(async move { while queue.recv().await.is_some() {} });
            let soon = tokio::time::Instant::now() + std::time::Duration::from_secs(10);
            let stream = link.open(StreamRequest::Children).await.unwrap();
            let data = |id, bytes: &[u8]| {
                let (stream, output) = (StreamId(id), Output::Stdout);
                link.deliver(Up::StreamData { stream, output, bytes: bytes.to_vec() });
            };
            data(1, b"{}\n");
            link.deliver(Up::StreamEnd { stream: StreamId(1), end: StreamEnd::Done });
            assert_eq!(collect(stream, 100, soon).await.unwrap(), b"{}\n");
            let stream = link.open(StreamRequest::Children).await.unwrap();
            data(2, b"0123456789");
            data(2, b"ab");
            link.deliver(Up::StreamEnd { stream: StreamId(2), end: StreamEnd::Done });
            assert_eq!(last_bytes(stream, 4, soon).await, b"89ab");
            let stream = link.open(StreamRequest::Children).await.unwrap();
            data(3, &[0; 101]);
            assert_eq!(collect(stream, 100, soon).await.unwrap_err().status(), 503);
            let stream = link.open(StreamRequest::Children).await.unwrap();
            let late = collect(stream, 100, tokio::time::Instant::now()).await;
            assert_eq!(late.unwrap_err().status(), 503);
            drop(link);
            drain.await.unwrap();
        });
    }
}
