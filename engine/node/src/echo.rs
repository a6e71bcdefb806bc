//! Sockets and clock of the echo that finds out where this node is in the net.
//!
//! A task of its own: a request is asked from a socket that lives until its answer or the next
//! request, and requests of others are answered only where the operator has named an address.
//! Whom to ask, what to answer and what to make of it is `marram-engine-core`'s matter.

use crate::config::Config;
use crate::shell::{random, until};
use marram_engine_core::echo::{Answerer, ECHO_BYTES, Prober, Request};
use marram_protocol::id::ChildId;
use marram_protocol::v1::{Coordinate, Peer, Peers, Summary};
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;
use tokio::net::UdpSocket;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::Instant;

/// Until an address is tried again that could not be had: at the start of a board the network
/// may come later than the engine.
const LISTEN_AGAIN: Duration = Duration::from_secs(30);

/// What the task has found out.
#[derive(Debug, Clone, Copy, Default)]
struct Seen {
    coordinate: Option<Coordinate>,
    /// Where requests are answered.
    listens: Option<SocketAddr>,
}

/// The task, for the shell.
#[derive(Debug)]
pub(crate) struct Echo {
    node: ChildId,
    peers: watch::Sender<Peers>,
    seen: watch::Receiver<Seen>,
}

impl Echo {
    /// Starts the task, which ends with `background`.
    pub(crate) fn start(config: &Config, node: ChildId, background: &mut JoinSet<()>) -> Self {
        let (peers, asked) = watch::channel(Peers::default());
        let (tell, seen) = watch::channel(Seen::default());
        let started = Instant::now();
        let task = Task {
            // Nodes that start alike must not move alike, and ids differ.
            prober: Prober::new(node.0.iter().fold(0, |seed, byte| seed << 5 ^ u64::from(*byte))),
            probes: config.coordinates.probe,
            answerer: Answerer::default(),
            wanted: config.coordinates.listen,
            told: config.echo_ip(),
            listener: None,
            question: None,
            started,
            tell,
        };
        background.spawn(task.run(asked));
        Self { node, peers, seen }
    }

    /// Whom to measure.
    pub(crate) fn meet(&self, peers: Peers) {
        self.peers.send_replace(peers);
    }

    /// Waits until [`Echo::describe`] has something else to say.
    pub(crate) async fn changed(&mut self) {
        if self.seen.changed().await.is_err() {
            std::future::pending::<()>().await;
        }
    }

    /// Writes down where the node is, and where it answers.
    pub(crate) fn describe(&mut self, summary: &mut Summary) {
        let seen = *self.seen.borrow_and_update();
        summary.coordinate = seen.coordinate;
        let peer = |at: SocketAddr| Peer { id: self.node, address: at.to_string() };
        summary.echoes = seen.listens.map(peer).into_iter().collect();
    }
}

struct Task {
    prober: Prober,
    probes: bool,
    answerer: Answerer,
    /// Where to listen, and under which address others reach that.
    wanted: Option<SocketAddr>,
    told: Option<IpAddr>,
    listener: Option<UdpSocket>,
    /// The socket of the request that is on its way.
    question: Option<UdpSocket>,
    started: Instant,
    tell: watch::Sender<Seen>,
}

/// Room for one byte more than is right, so that longer datagrams are seen to be wrong.
type Buffer = [u8; ECHO_BYTES + 1];

impl Task {
    async fn run(mut self, mut peers: watch::Receiver<Peers>) {
        let mut ask_at = None;
        let mut listen_at = self.wanted.map(|_| self.started);
        let (mut request, mut answer): (Buffer, Buffer) = ([0; _], [0; _]);
        loop {
            tokio::select! {
                changed = peers.changed() => {
                    if changed.is_err() {
                        return;
                    }
                    self.prober.meet(peers.borrow_and_update().clone());
                    self.question = None;
                    ask_at = self.pause();
                }
                () = until(ask_at) => {
                    self.question = self.ask().await;
                    ask_at = self.pause();
                }
                length = receive(self.question.as_ref(), &mut answer) => {
                    // Taken before anything else is done: the time is what counts.
                    let now_us = self.now_us();
                    match length {
                        Ok(length) => self.answered(now_us, answer.get(..length)),
                        // Nobody listens there; the next one is asked when it is time.
                        Err(_) => self.question = None,
                    }
                }
                from = receive_from(self.listener.as_ref(), &mut request) => match from {
                    Ok((length, from)) => self.asked(request.get(..length), from),
                    Err(error) => {
                        tracing::warn!(%error, "echo requests cannot be received");
                        self.listener = None;
                        listen_at = Some(Instant::now() + LISTEN_AGAIN);
                    }
                },
                () = until(listen_at) => {
                    let first = listen_at == Some(self.started);
                    listen_at = self.listen(first).await;
                }
            }
        }
    }

    fn now_us(&self) -> u64 {
        u64::try_from(self.started.elapsed().as_micros()).unwrap_or(u64::MAX)
    }

    fn pause(&self) -> Option<Instant> {
        if !self.probes {
            return None;
        }
        // Without random bytes nothing else of this node works either.
        let pause_ms = self.prober.pause_ms(random().unwrap_or(0))?;
        Some(Instant::now() + Duration::from_millis(pause_ms))
    }

    async fn ask(&mut self) -> Option<UdpSocket> {
        let Request { address, bytes } = self.prober.ask(self.now_us(), random().ok()?)?;
        // Clusters hand on what nodes have said; what is no address is not asked.
        let peer: SocketAddr = address.parse().ok()?;
        let any: IpAddr = match peer {
            SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
            SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
        };
        let asked = async {
            let socket = UdpSocket::bind((any, 0)).await?;
            socket.connect(peer).await?;
            socket.send(&bytes).await?;
            io::Result::Ok(socket)
        };
        asked.await.inspect_err(|error| tracing::debug!(%peer, %error, "no echo request")).ok()
    }

    fn answered(&mut self, now_us: u64, bytes: Option<&[u8]>) {
        let news = self.prober.answered(now_us, bytes.unwrap_or_default());
        if let Some(coordinate) = news {
            self.tell.send_modify(|seen| seen.coordinate = Some(coordinate));
        }
    }

    fn asked(&mut self, bytes: Option<&[u8]>, from: SocketAddr) {
        let now_ms = self.now_us() / 1000;
        let (key, own) = (self.prober.key(), self.prober.coordinate());
        let answer = self.answerer.answer(now_ms, key, bytes.unwrap_or_default(), own);
        if let (Some(answer), Some(listener)) = (answer, &self.listener)
            && let Err(error) = listener.try_send_to(&answer, from)
        {
            tracing::debug!(%from, %error, "no echo answer");
        }
    }

    /// Opens the port, and says when to try again if that fails.
    async fn listen(&mut self, first: bool) -> Option<Instant> {
        let wanted = self.wanted?;
        let bound = async {
            let socket = UdpSocket::bind(wanted).await?;
            let at = socket.local_addr()?;
            io::Result::Ok((socket, at))
        };
        match bound.await {
            Ok((socket, at)) => {
                self.listener = Some(socket);
                let at = SocketAddr::new(self.told.unwrap_or(at.ip()), at.port());
                tracing::info!(%at, "answering echo requests of other nodes");
                self.tell.send_modify(|seen| seen.listens = Some(at));
                None
            }
            Err(error) => {
                if first {
                    tracing::warn!(%wanted, %error, "cannot answer echo requests yet");
                }
                Some(Instant::now() + LISTEN_AGAIN)
            }
        }
    }
}

async fn receive(socket: Option<&UdpSocket>, buffer: &mut Buffer) -> io::Result<usize> {
    match socket {
        Some(socket) => socket.recv(buffer).await,
        None => std::future::pending().await,
    }
}

async fn receive_from(
    socket: Option<&UdpSocket>,
    buffer: &mut Buffer,
) -> io::Result<(usize, SocketAddr)> {
    match socket {
        Some(socket) => socket.recv_from(buffer).await,
        None => std::future::pending().await,
    }
}

#[cfg(test)]
mod tests;
