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
    let (link, sender) = Link::new((address.ip().to_string(), address.port()), NODE, 5).unwrap();
    let (events, receiver) = mpsc::channel(8);
    (sender, receiver, tokio::spawn(link.run(events)))
}

async fn up(events: &mut mpsc::Receiver<LinkEvent>) {
    let event = soon("the link", events.recv()).await;
    assert!(matches!(event, Some(LinkEvent::Up)), "{event:?}");
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

#[test]
fn a_link_that_does_not_last_is_tried_ever_more_slowly() {
    // Two nodes with one id end each other's connection as soon as it is there.
    let mut pace = Pace::new(1);
    let mut waits = Vec::new();
    for _ in 0..12 {
        pace.up(Duration::ZERO);
        waits.push(pace.lost(Duration::from_millis(10)));
    }
    let long = Duration::from_millis(BACKOFF_MAX_MS / 2);
    assert!(waits[0] < Duration::from_secs(1) && waits[11] >= long, "{waits:?}");
    pace.up(Duration::ZERO);
    assert!(pace.lost(WELL_AFTER) < Duration::from_secs(1), "it was well, so this is a first one");
    assert!(pace.lost(Duration::ZERO) < Duration::from_secs(2));
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
