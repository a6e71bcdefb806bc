//! The whole cluster: opened, bound, run, ended.

use crate::bus::{Embedded, External};
use crate::config::{Children, Config, Mqtt, Network};
use crate::local::{COMMANDS_MAX, Counter, Socket};
use crate::parent::{self, Way};
use crate::shell::{ChildEvent, Inlets, Local, Shell};
use crate::storage::{self, StorageError};
use marram_orchestrator_core::RecordError;
use marram_protocol::id::ChildId;
use marram_rest::front::Gate;
use marram_rest::link::Link;
use marram_rest::server;
use marram_store::RedbStore;
use marram_tunnel::Streams;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use tokio::net::TcpListener;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinSet;

/// Messages of the parent that wait for the shell; the connection waits then.
const PARENT_EVENTS_MAX: usize = 64;

/// Messages of child clusters that wait for the shell; their connections wait then.
const CHILD_EVENTS_MAX: usize = 64;

/// Why a cluster cannot start or go on.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The state directory cannot be made.
    #[error("cannot make the state directory {}: {source}", path.display())]
    StateDir {
        /// Which.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The store failed, or holds what cannot be read.
    #[error(transparent)]
    Storage(#[from] StorageError),
    /// The core's records cannot be read.
    #[error(transparent)]
    Record(#[from] RecordError),
    /// Somebody else has the address, or it is not this machine's.
    #[error("cannot listen on {address} ({key}): {source}")]
    Listen {
        /// Which address.
        address: SocketAddr,
        /// Under which key of the configuration.
        key: &'static str,
        /// Why.
        source: std::io::Error,
    },
    /// Operators at this machine cannot be served.
    #[error("cannot listen on {} (socket): {source}", path.display())]
    Socket {
        /// Which file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The endpoint or the client for the broker cannot be set up.
    #[error("cannot set up MQTT: {0}")]
    Mqtt(String),
    /// No randomness.
    #[error("the system gives no random numbers: {0}")]
    Random(#[from] getrandom::Error),
}

/// What is known once the cluster serves.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ready {
    /// Where the embedded endpoint listens; `None` with a broker elsewhere.
    pub mqtt_listen: Option<SocketAddr>,
    /// Where child clusters connect; `None` if it takes none.
    pub children_listen: Option<SocketAddr>,
}

/// Runs a cluster until `stop`. `ready` is called once, when nodes can be heard.
pub async fn run(
    config: Config,
    ready: impl FnOnce(Ready) + Send,
    stop: impl Future<Output = ()>,
) -> Result<(), Error> {
    let path = config.state_dir.clone();
    std::fs::create_dir_all(&path).map_err(|source| Error::StateDir { path, source })?;
    let store =
        RedbStore::open(&config.state_dir.join("cluster.redb")).map_err(StorageError::Store)?;
    let id = storage::id(&store, draw_id()?)?;
    tracing::info!(%id, name = config.name, "this cluster");
    if config.network == Network::Any {
        tracing::warn!(
            "insecure_network: nobody proves who he is and nothing is encrypted; whoever reaches \
             these addresses can read and command everything"
        );
    }
    // Tasks end when this is dropped, which is when the shell has ended.
    let mut tasks = JoinSet::new();
    let rooted = Arc::new(AtomicBool::new(false));
    let (child_events, children_listen) = clusters(&config, &rooted, &mut tasks).await?;
    let (events, parent_events) = mpsc::channel(PARENT_EVENTS_MAX);
    let way = Way {
        own: id,
        parent: config.parent.clone(),
        network: config.network,
        state_dir: config.state_dir.clone(),
        rooted,
    };
    tasks.spawn(parent::keep(way, events));
    let inlets = Inlets { parent_events, child_events };
    let (local, _counter) = counter(&config, id)?;
    match &config.mqtt {
        Mqtt::Embedded(address) => {
            let (listener, bound) = bind(*address, "mqtt_listen").await?;
            let bus = Embedded::new().map_err(|error| Error::Mqtt(error.to_string()))?;
            let (end, ended) = oneshot::channel::<()>();
            // A sender that is dropped means the same as a word.
            let serving = tokio::spawn(bus.serve(listener, async { drop(ended.await) }));
            let listen = Ready { mqtt_listen: Some(bound), children_listen };
            let shell = Shell::open(&config, &listen, id, Box::new(store), bus, inlets, local)?;
            let result = shell.run(|| ready(listen), stop).await;
            drop(end);
            if let Err(error) = serving.await {
                tracing::error!(%error, "the endpoint's task failed");
            }
            result
        }
        Mqtt::Broker { host, port } => {
            let (bus, carrier) =
                External::new(id, host, *port).map_err(|error| Error::Mqtt(error.to_string()))?;
            tasks.spawn(carrier);
            let listen = Ready { mqtt_listen: None, children_listen };
            let shell = Shell::open(&config, &listen, id, Box::new(store), bus, inlets, local)?;
            shell.run(|| ready(listen), stop).await
        }
    }
}

impl Ready {
    /// Where child clusters reach this cluster, as others are told; empty if it takes none or
    /// listens on all addresses and was not told which of them others know.
    pub(crate) fn address(&self, config: &Config) -> String {
        match (&config.children, self.children_listen) {
            (Some(Children { url: Some(url), .. }), _) => url.clone(),
            (_, Some(bound)) if !bound.ip().is_unspecified() => format!("http://{bound}"),
            _ => String::new(),
        }
    }

    /// The same for nodes.
    pub(crate) fn node_address(&self, config: &Config) -> String {
        match (&config.mqtt_url, &config.mqtt, self.mqtt_listen) {
            (Some(url), ..) => url.clone(),
            (_, Mqtt::Broker { host, port }, _) if host.contains(':') => {
                format!("mqtt://[{host}]:{port}")
            }
            (_, Mqtt::Broker { host, port }, _) => format!("mqtt://{host}:{port}"),
            (.., Some(bound)) if !bound.ip().is_unspecified() => format!("mqtt://{bound}"),
            _ => String::new(),
        }
    }
}

/// Serves child clusters, if the cluster takes any: what they tell, and where they are served.
async fn clusters(
    config: &Config,
    rooted: &Arc<AtomicBool>,
    tasks: &mut JoinSet<()>,
) -> Result<(mpsc::Receiver<ChildEvent>, Option<SocketAddr>), Error> {
    let (sender, events) = mpsc::channel(CHILD_EVENTS_MAX);
    let Some(children) = &config.children else { return Ok((events, None)) };
    let (listener, bound) = bind(children.listen, "children.listen").await?;
    let (incoming, serving) =
        marram_tunnel::serve_while(listener, rooted.clone(), std::future::pending());
    tasks.spawn(async {
        if let Err(error) = serving.await {
            tracing::error!(%error, "child clusters cannot be served any more");
        }
    });
    tasks.spawn(marram_tunnel::serve_children(incoming, sender));
    Ok((events, Some(bound)))
}

/// Serves operators at this machine for as long as the second is kept.
fn counter(config: &Config, id: ChildId) -> Result<(Local, Option<Open>), Error> {
    let (commands, for_shell) = mpsc::channel(COMMANDS_MAX);
    let (streams, stream_orders) = mpsc::channel(Link::QUEUE_MAX);
    let local = Local::new(Arc::new(Link::new(id, streams)), stream_orders, for_shell);
    let Some(path) = &config.socket else { return Ok((local, None)) };
    let failed = |source| Error::Socket { path: path.clone(), source };
    let (socket, listener) = Socket::bind(path).map_err(failed)?;
    let (stop, stopping) = watch::channel(false);
    let router = Counter::new(commands, Gate::new(stopping.clone())).router();
    let mut serving = JoinSet::new();
    serving.spawn(server::serve(listener, router, stopping));
    Ok((local, Some(Open { _socket: socket, _stop: stop, _serving: serving })))
}

/// The counter while it is open.
struct Open {
    _socket: Socket,
    _stop: watch::Sender<bool>,
    _serving: JoinSet<()>,
}

async fn bind(address: SocketAddr, key: &'static str) -> Result<(TcpListener, SocketAddr), Error> {
    let failed = |source| Error::Listen { address, key, source };
    let listener = TcpListener::bind(address).await.map_err(failed)?;
    let bound = listener.local_addr().map_err(failed)?;
    Ok((listener, bound))
}

fn draw_id() -> Result<ChildId, Error> {
    let mut bytes = [0; 12];
    getrandom::fill(&mut bytes)?;
    Ok(ChildId(bytes))
}
