//! Prints what an idle connection costs the broker in memory, for 1 000 and 10 000 of them.
//!
//! `cargo run --release -p marram-broker --example idle_connections [COUNT ...]`
//!
//! Every measurement has a broker process of its own, so that none starts on memory that an
//! earlier one left, and a second process holds the clients, so that only the broker's memory is
//! counted. Two kinds of clients: bare ones (a CONNECT, nothing more) and such as a node is (a
//! session that lasts, a will, two subscriptions, a retained presence). PSS is what counts against
//! the budgets; the sockets' kernel memory is in no figure.
//!
//! Bounded: at most [`COUNT_MAX`] clients, each measurement at most [`DEADLINE`].

#![allow(clippy::print_stdout, reason = "printing is what it is for")]

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use marram_broker::{AllowAll, Broker, Config};
use rustix::process::{Resource, getrlimit, setrlimit};
use tokio::net::TcpListener;

type Failure = Box<dyn std::error::Error>;

/// What one loopback address offers in ephemeral ports is about 28 000.
const COUNT_MAX: usize = 25_000;

const DEADLINE: Duration = Duration::from_secs(120);

/// Descriptors beside the connections: standard streams, the listener, the runtime's own.
const DESCRIPTORS_SPARE: u64 = 64;

fn main() -> Result<(), Failure> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match words[..] {
        ["measure", kind, count] => measure(kind, count.parse()?),
        ["hold", kind, port, count] => hold(kind, port.parse()?, count.parse()?),
        _ => {
            let counts = if words.is_empty() { vec!["1000", "10000"] } else { words };
            println!("clients  kind  broker PSS before -> after   bytes each   connected in");
            for count in counts {
                for kind in ["bare", "node"] {
                    let status = again(&["measure", kind, count])?.wait()?;
                    if !status.success() {
                        return Err(format!("measuring {count} {kind} clients: {status}").into());
                    }
                }
            }
            Ok(())
        }
    }
}

/// Starts this program in another part.
fn again(arguments: &[&str]) -> io::Result<Child> {
    Command::new(std::env::current_exe()?).args(arguments).stdin(Stdio::piped()).spawn()
}

/// The broker's process.
fn measure(kind: &str, count: usize) -> Result<(), Failure> {
    let count = allowed(count)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let port = listener.local_addr()?.port();
        let bounds = Config::default();
        let config = Config { connections_max: COUNT_MAX, sessions_max: COUNT_MAX, ..bounds };
        let broker = Broker::new(config, Arc::new(AllowAll));
        let (done, finished) = tokio::sync::oneshot::channel::<()>();
        let serving = broker.serve(listener, async { drop(finished.await) });
        let measuring = async {
            // One client first: what is built once is no cost of a connection.
            let mut warm_up = Holder::start(kind, port, 1)?;
            wait_for(&broker, 1).await?;
            warm_up.end()?;
            wait_for(&broker, 0).await?;
            let before_kib = pss_kib()?;
            let began = Instant::now();
            let mut holder = Holder::start(kind, port, count)?;
            wait_for(&broker, count).await?;
            let (took, after_kib) = (began.elapsed(), pss_kib()?);
            let each = (after_kib.saturating_sub(before_kib)) * 1024 / count;
            println!(
                "{count:>7}  {kind}  {before_kib:>8} KiB -> {after_kib:>7} KiB   {each:>10}   \
                 {took:>10.1?}"
            );
            holder.end()?;
            drop(done);
            Ok::<(), Failure>(())
        };
        let ((), result) = tokio::join!(serving, measuring);
        result
    })
}

/// Waits until so many clients are connected and have said all they say.
async fn wait_for(broker: &Broker, count: usize) -> Result<(), Failure> {
    let until = Instant::now() + DEADLINE;
    while broker.stats().connected != count {
        if Instant::now() > until {
            let connected = broker.stats().connected;
            return Err(format!("{connected} of {count} clients after {DEADLINE:?}").into());
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    Ok(())
}

/// Raises the limit of descriptors as far as the system lets us; tells how many clients fit.
fn allowed(count: usize) -> Result<usize, Failure> {
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    setrlimit(Resource::Nofile, limit)?;
    let descriptors = limit.current.unwrap_or(u64::MAX).saturating_sub(DESCRIPTORS_SPARE);
    let possible = usize::try_from(descriptors).unwrap_or(usize::MAX).min(COUNT_MAX);
    if possible < count {
        println!("only {possible} of {count} clients are possible under the limit of descriptors");
    }
    Ok(count.min(possible))
}

/// The process that holds the clients; it ends when its standard input does.
struct Holder {
    process: Child,
    input: Option<ChildStdin>,
}

impl Holder {
    fn start(kind: &str, port: u16, count: usize) -> io::Result<Self> {
        let mut process = again(&["hold", kind, &port.to_string(), &count.to_string()])?;
        let input = process.stdin.take();
        Ok(Self { process, input })
    }

    fn end(&mut self) -> Result<(), Failure> {
        drop(self.input.take());
        let status = self.process.wait()?;
        if status.success() { Ok(()) } else { Err(format!("the clients: {status}").into()) }
    }
}

fn pss_kib() -> Result<usize, Failure> {
    for line in BufReader::new(std::fs::File::open("/proc/self/smaps_rollup")?).lines() {
        let line = line?;
        if let Some(rest) = line.strip_prefix("Pss:") {
            return Ok(rest.trim_end_matches("kB").trim().parse()?);
        }
    }
    Err("no Pss in /proc/self/smaps_rollup".into())
}

/// The clients' process: opens its connections one by one and keeps them.
fn hold(kind: &str, port: u16, count: usize) -> Result<(), Failure> {
    let count = allowed(count)?;
    let mut sockets = Vec::with_capacity(count);
    for at in 0..count {
        let mut socket = TcpStream::connect(("127.0.0.1", port))?;
        socket.set_read_timeout(Some(DEADLINE))?;
        let id = format!("node-{at:032}");
        let (packets, answer) = if kind == "node" { node(&id) } else { bare(&id) };
        socket.write_all(&packets)?;
        socket.read_exact(&mut vec![0; answer])?;
        sockets.push(socket);
    }
    io::stdin().read_to_end(&mut Vec::new())?;
    Ok(())
}

/// CONNECT of 3.1.1 with a clean session; answered by a CONNACK of 4 bytes.
fn bare(id: &str) -> (Vec<u8>, usize) {
    let body = [text("MQTT"), vec![4, 2, 0, 0], text(id)].concat();
    (packet(0x10, &body), 4)
}

/// A lasting session with a retained will, two subscriptions and a retained presence.
fn node(id: &str) -> (Vec<u8>, usize) {
    let presence = format!("nodes/{id}/presence");
    let connect = [text("MQTT"), vec![4, 0b10_1100, 0, 0], text(id), text(&presence), text("0")];
    let filters = [format!("nodes/{id}/desired/#"), format!("nodes/{id}/control/#")];
    let subscribe = [vec![0, 1], text(&filters[0]), vec![1], text(&filters[1]), vec![1]];
    let publish = [text(&presence), vec![0, 2, b'1']];
    let packets = [
        packet(0x10, &connect.concat()),
        packet(0x82, &subscribe.concat()),
        packet(0x33, &publish.concat()),
    ];
    (packets.concat(), 4 + 6 + 4)
}

fn packet(header: u8, body: &[u8]) -> Vec<u8> {
    let (low, high) = (body.len() % 128, body.len() / 128);
    let byte = |part: usize| u8::try_from(part).unwrap_or(0x7F);
    let length = if high == 0 { vec![byte(low)] } else { vec![byte(low) | 0x80, byte(high)] };
    [vec![header], length, body.to_vec()].concat()
}

fn text(text: &str) -> Vec<u8> {
    [vec![0, u8::try_from(text.len()).unwrap_or(0xFF)], text.as_bytes().to_vec()].concat()
}
