//! What the broker's tests share: the two brokers they run against, and a client of their own.
//!
//! Every scenario runs against this broker and against Mosquitto with the same expectations, so
//! a wrong idea of the standard fails on one of them.

#![allow(dead_code, reason = "each test binary uses a part of it")]
#![allow(unreachable_pub, reason = "shared by several test binaries")]

pub mod client;

use std::path::PathBuf;
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use marram_broker::{AllowAll, Authorizer, Broker, Config};
use tempfile::TempDir;
use tokio::net::{TcpListener, TcpStream};
use tokio::process::{Child, Command};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

/// Longest wait for anything that must happen. Mosquitto looks at keep-alives and expiries every
/// few seconds only.
pub const DEADLINE: Duration = Duration::from_secs(30);

/// A broker under test.
pub trait Target: Sized {
    /// Starts it on a free port of the loopback.
    async fn start() -> Self;
    /// Where it listens.
    fn port(&self) -> u16;
}

/// This crate's broker, served in this process.
#[derive(Debug)]
pub struct Ours {
    pub broker: Broker,
    port: u16,
    stop: Option<oneshot::Sender<()>>,
    served: JoinHandle<()>,
}

impl Ours {
    pub async fn with(config: Config, authorizer: Arc<dyn Authorizer>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let port = listener.local_addr().expect("bound").port();
        let broker = Broker::new(config, authorizer);
        let (stop, stopped) = oneshot::channel::<()>();
        let serving = broker.clone();
        let served = tokio::spawn(async move {
            serving.serve(listener, async { drop(stopped.await) }).await;
        });
        Self { broker, port, stop: Some(stop), served }
    }

    /// Shuts it down and waits until it is.
    pub async fn stop(mut self) {
        drop(self.stop.take());
        tokio::time::timeout(DEADLINE, self.served).await.expect("shuts down").expect("no panic");
    }
}

impl Target for Ours {
    async fn start() -> Self {
        Self::with(Config::default(), Arc::new(AllowAll)).await
    }

    fn port(&self) -> u16 {
        self.port
    }
}

/// Mosquitto as the reference, in a process of its own that ends with the test.
#[derive(Debug)]
pub struct Mosquitto {
    port: u16,
    _process: Child,
    _directory: TempDir,
}

impl Target for Mosquitto {
    async fn start() -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        // The port may be taken by another process between here and Mosquitto's own bind.
        for _ in 0..20 {
            let port = {
                let probe = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
                probe.local_addr().expect("bound").port()
            };
            let file = directory.path().join("mosquitto.conf");
            let text = format!(
                "listener {port} 127.0.0.1\nallow_anonymous true\npersistence false\n\
                 set_tcp_nodelay true\nmax_packet_size 270336\nuser root\n"
            );
            std::fs::write(&file, text).expect("written");
            let mut process = Command::new(program("mosquitto"))
                .arg("-c")
                .arg(&file)
                .stdin(Stdio::null())
                .stdout(Stdio::null())
                .stderr(Stdio::null())
                .kill_on_drop(true)
                .spawn()
                .expect("mosquitto starts");
            let up = tokio::time::timeout(DEADLINE, listening(&mut process, port));
            if up.await.expect("mosquitto comes up or ends") {
                return Self { port, _process: process, _directory: directory };
            }
        }
        panic!("mosquitto found no free port");
    }

    fn port(&self) -> u16 {
        self.port
    }
}

/// Waits until the process listens; false if it ended instead.
async fn listening(process: &mut Child, port: u16) -> bool {
    loop {
        if TcpStream::connect(("127.0.0.1", port)).await.is_ok() {
            return process.try_wait().expect("a child").is_none();
        }
        if process.try_wait().expect("a child").is_some() {
            return false;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// A program of the packages mosquitto and mosquitto-clients.
pub fn program(name: &str) -> PathBuf {
    let places = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&places)
        .chain(["/usr/sbin".into(), "/usr/bin".into()])
        .map(|place| place.join(name))
        .find(|path| path.is_file())
        .unwrap_or_else(|| panic!("{name} is not installed; `make setup` installs it"))
}

/// A Python that has paho-mqtt.
pub fn paho_python() -> PathBuf {
    let named = std::env::var_os("MARRAM_PAHO_PYTHON").map(PathBuf::from);
    let root = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../..");
    let target = std::env::var_os("CARGO_TARGET_DIR").map_or(root.join("target"), PathBuf::from);
    let path = named.unwrap_or_else(|| target.join("venv/bin/python"));
    assert!(
        path.is_file(),
        "no Python with paho-mqtt at {}; `make setup` installs one, or name one in \
         MARRAM_PAHO_PYTHON",
        path.display()
    );
    path
}

/// Makes of each named scenario two tests: `ours::NAME` and `mosquitto::NAME`.
#[macro_export]
macro_rules! against_both {
    ($($scenario:ident),+ $(,)?) => {
        mod ours {
            use $crate::common::{Ours, Target};
            $(#[tokio::test]
            async fn $scenario() {
                super::$scenario(&Ours::start().await).await;
            })+
        }
        mod mosquitto {
            use $crate::common::{Mosquitto, Target};
            $(#[tokio::test]
            async fn $scenario() {
                super::$scenario(&Mosquitto::start().await).await;
            })+
        }
    };
}
