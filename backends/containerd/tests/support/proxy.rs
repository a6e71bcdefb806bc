//! A bad connection: forwards to a server, counts what comes back and cuts it now and then.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

#[derive(Debug)]
pub(crate) struct Proxy {
    pub(crate) port: u16,
    counters: Arc<Counters>,
    task: tokio::task::JoinHandle<()>,
}

#[derive(Debug)]
struct Counters {
    to: u16,
    /// A connection is cut after this many bytes towards the client.
    cut_after: AtomicU64,
    bytes: AtomicU64,
    cuts: AtomicU64,
}

impl Proxy {
    pub(crate) async fn start(to: u16, cut_after: u64) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let counters = Arc::new(Counters {
            to,
            cut_after: AtomicU64::new(cut_after),
            bytes: AtomicU64::new(0),
            cuts: AtomicU64::new(0),
        });
        let shared = counters.clone();
        let task = tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                tokio::spawn(forward(client, shared.clone()));
            }
        });
        Self { port, counters, task }
    }

    /// Bytes that went to the client so far.
    pub(crate) fn bytes(&self) -> u64 {
        self.counters.bytes.load(Ordering::Relaxed)
    }

    pub(crate) fn cuts(&self) -> u64 {
        self.counters.cuts.load(Ordering::Relaxed)
    }

    pub(crate) fn cut_after(&self, bytes: u64) {
        self.counters.cut_after.store(bytes, Ordering::Relaxed);
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn forward(client: TcpStream, counters: Arc<Counters>) {
    let Ok(server) = TcpStream::connect(("127.0.0.1", counters.to)).await else { return };
    let (mut from_client, mut to_client) = client.into_split();
    let (mut from_server, mut to_server) = server.into_split();
    let up = tokio::spawn(async move { tokio::io::copy(&mut from_client, &mut to_server).await });
    let mut room = vec![0; 16 * 1024];
    let mut passed = 0;
    while let Ok(read @ 1..) = from_server.read(&mut room).await {
        let left = counters.cut_after.load(Ordering::Relaxed).saturating_sub(passed);
        let piece = read.min(usize::try_from(left).unwrap_or(usize::MAX));
        passed += piece as u64;
        counters.bytes.fetch_add(piece as u64, Ordering::Relaxed);
        if to_client.write_all(&room[..piece]).await.is_err() {
            break;
        }
        if piece < read {
            counters.cuts.fetch_add(1, Ordering::Relaxed);
            break;
        }
    }
    up.abort();
}
