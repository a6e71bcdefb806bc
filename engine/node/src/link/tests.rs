//! The link against a real endpoint that goes away, refuses and comes back.

use super::*;
use marram_broker::{
    AllowAll, Authorizer, Broker, Config, ConnectRequest, ConnectionEvent, Identity, LocalClient,
    LocalItem, Qos, Reason, Refused,
};
use marram_protocol::v1::{StreamId, Telemetry};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use tokio::net::TcpListener;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

const NODE: ChildId = ChildId([7; 12]);

async fn soon<T>(what: &str, future: impl Future<Output = T>) -> T {
    let waited = tokio::time::timeout(Duration::from_secs(30), future).await;
    waited.unwrap_or_else(|_| panic!("waited in vain for {what}"))
}

/// An endpoint that can be stopped, so that another one takes its address.
struct Endpoint {
    address: SocketAddr,
    broker: Broker,
    watcher: LocalClient,
    stop: oneshot::Sender<()>,
    serving: JoinHandle<()>,
}

impl Endpoint {
    async fn start(address: SocketAddr, rule: Arc<dyn Authorizer>) -> Self {
        let listener = TcpListener::bind(address).await.unwrap();
        let address = listener.local_addr().unwrap();
        let broker = Broker::new(Config::default(), rule);
        let watcher = broker.local_with_events();
        watcher.subscribe(&["nodes/+/presence"]).unwrap();
        let (stop, stopped) = oneshot::channel::<()>();
        let serves = broker.clone();
        let serving = tokio::spawn(async move {
            serves.serve(listener, async { drop(stopped.await) }).await;
        });
        Self { address, broker, watcher, stop, serving }
    }

    async fn any(rule: Arc<dyn Authorizer>) -> Self {
        Self::start(([127, 0, 0, 1], 0).into(), rule).await
    }

    async fn stop(self) {
        drop(self.stop);
        soon("the endpoint's end", self.serving).await.unwrap();
    }

    /// The first presence of this kind.
    async fn presence(&mut self, wanted: bool) {
        soon("presence", async {
            loop {
                if let LocalItem::Message(message) = self.watcher.recv().await
                    && let Ok(Up::Presence { online, .. }) = Up::decode(&message.payload)
                    && online == wanted
                {
                    return;
                }
            }
        })
        .await;
    }

    async fn disconnected(&mut self) -> Reason {
        soon("a disconnection", async {
            loop {
                let item = self.watcher.recv().await;
                if let LocalItem::Event(ConnectionEvent::Disconnected { reason, .. }) = item {
                    return reason;
                }
            }
        })
        .await
    }
}

fn connect(address: SocketAddr) -> (Sender, mpsc::Receiver<LinkEvent>, JoinHandle<()>) {
    connect_by(&format!("cluster = 'mqtt://{address}'"))
}

/// By what stands in the configuration.
fn connect_by(text: &str) -> (Sender, mpsc::Receiver<LinkEvent>, JoinHandle<()>) {
    let config = toml::from_str(&format!("state_dir = '/nonexistent'\n{text}")).unwrap();
    let (link, sender) = Link::new(Way::open(&config, NODE, 5).unwrap(), NODE, 5).unwrap();
    let (events, receiver) = mpsc::channel(8);
    (sender, receiver, tokio::spawn(link.run(events)))
}

async fn up(events: &mut mpsc::Receiver<LinkEvent>) -> Option<ChildId> {
    let event = soon("the link", events.recv()).await;
    let Some(LinkEvent::Up(rather)) = event else { panic!("{event:?}") };
    rather
}

async fn down(events: &mut mpsc::Receiver<LinkEvent>) {
    let event = soon("the loss of the link", events.recv()).await;
    assert!(matches!(event, Some(LinkEvent::Down)), "{event:?}");
}

#[tokio::test]
async fn goodbye_is_heard_before_the_program_ends() {
    let mut endpoint = Endpoint::any(Arc::new(AllowAll)).await;
    let (sender, mut events, running) = connect(endpoint.address);
    up(&mut events).await;
    endpoint.presence(true).await;
    sender.goodbye(5, &mut events).await;
    running.abort();
    endpoint.presence(false).await;
    assert_eq!(endpoint.disconnected().await, Reason::Normal, "it left as it should");
    endpoint.stop().await;
}

#[tokio::test]
async fn a_full_queue_does_not_keep_the_link_down() {
    let endpoint = Endpoint::any(Arc::new(AllowAll)).await;
    let address = endpoint.address;
    let (sender, mut events, _running) = connect(address);
    up(&mut events).await;
    endpoint.stop().await;
    down(&mut events).await;
    let late = Up::Telemetry(Telemetry::default());
    while sender.try_send(&late).is_ok() {}
    let endpoint = Endpoint::start(address, Arc::new(AllowAll)).await;
    up(&mut events).await;
    endpoint.stop().await;
}

/// Lets nobody subscribe until told to.
#[derive(Debug, Default)]
struct Strict {
    open: AtomicBool,
    refused: tokio::sync::watch::Sender<u32>,
}

impl Authorizer for Strict {
    fn connect(&self, request: &ConnectRequest<'_>) -> Result<Identity, Refused> {
        AllowAll.connect(request)
    }

    fn publish(&self, _: &Identity, _: &str) -> bool {
        true
    }

    fn subscribe(&self, _: &Identity, _: &str) -> bool {
        let open = self.open.load(Ordering::SeqCst);
        if !open {
            self.refused.send_modify(|count| *count += 1);
        }
        open
    }
}

#[tokio::test]
async fn a_refused_subscription_is_no_link_and_is_asked_for_again() {
    let rule = Arc::new(Strict::default());
    let endpoint = Endpoint::any(rule.clone()).await;
    let (_sender, mut events, _running) = connect(endpoint.address);
    // Each attempt has two filters.
    let mut refused = rule.refused.subscribe();
    soon("another attempt", refused.wait_for(|count| *count > 2)).await.unwrap();
    assert!(events.try_recv().is_err(), "nothing can be heard, so it is not up");
    rule.open.store(true, Ordering::SeqCst);
    up(&mut events).await;
    endpoint.stop().await;
}

#[tokio::test]
async fn a_cluster_that_stays_away_is_replaced_and_gone_back_to() {
    let mut first = Endpoint::any(Arc::new(AllowAll)).await;
    let mut second = Endpoint::any(Arc::new(AllowAll)).await;
    let address = first.address;
    let (sender, mut events, _running) = connect_by(&format!(
        "[cluster]\nurl = 'mqtt://{address}'\nalternates = ['mqtt://{}']\n\
         failover_patience_s = 1\nfailback_hysteresis_s = 1",
        second.address
    ));
    assert_eq!(up(&mut events).await, None);
    first.presence(true).await;
    first.stop().await;
    down(&mut events).await;
    sender.try_send(&Up::Telemetry(Telemetry::default())).unwrap();
    assert_eq!(up(&mut events).await, Some(ChildId::default()), "nobody has said who it is");
    second.presence(true).await;
    let welcome = Down::Welcome { epoch: 1, unix_ms: 0 }.encode().unwrap();
    let topic = Topic { node: NODE, leaf: Leaf::Desired }.to_string();
    second.broker.try_publish(&topic, welcome.into(), Qos::AtLeastOnce, false, None).unwrap();
    assert!(matches!(soon("welcome", events.recv()).await, Some(LinkEvent::Desired(_))));
    let mut first = Endpoint::start(address, Arc::new(AllowAll)).await;
    down(&mut events).await;
    assert_eq!(up(&mut events).await, None);
    first.presence(true).await;
    first.stop().await;
    second.stop().await;
}

#[tokio::test]
async fn what_waited_at_the_broker_is_desired_state_and_no_stream() {
    let stream = StreamId(1);
    let late = Down::StreamClose { stream };
    let desired = Down::Rejected { reason: "x".into() };
    let mut endpoint = Endpoint::any(Arc::new(AllowAll)).await;
    let (_sender, mut events, _running) = connect(endpoint.address);
    up(&mut events).await;
    let tell = |leaf, message: &Down| {
        let topic = Topic { node: NODE, leaf }.to_string();
        let bytes = message.encode().unwrap().into();
        let said = endpoint.broker.try_publish(&topic, bytes, Qos::AtLeastOnce, false, None);
        said.unwrap();
    };
    tell(Leaf::StreamIn, &late);
    let heard = soon("a stream's message", events.recv()).await;
    assert!(matches!(heard, Some(LinkEvent::Stream(_))), "{heard:?}");
    assert!(endpoint.broker.disconnect(&client_id(NODE), Reason::Busy));
    tell(Leaf::StreamIn, &late);
    tell(Leaf::Desired, &desired);
    down(&mut events).await;
    endpoint.disconnected().await;
    let heard = soon("what waited", events.recv()).await;
    assert!(matches!(heard, Some(LinkEvent::Desired(_))), "{heard:?}");
    up(&mut events).await;
    endpoint.stop().await;
}
