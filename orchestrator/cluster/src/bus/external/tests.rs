//! The client against a broker that goes away, refuses and comes back.

use super::*;
use marram_broker::{
    AllowAll, Authorizer, Broker, Config, ConnectRequest, Identity, LocalClient, Refused,
};
use marram_protocol::topic::Leaf;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use tokio::net::TcpListener;
use tokio::sync::{oneshot, watch};
use tokio::task::JoinHandle;

const ID: ChildId = ChildId([5; 12]);

async fn soon<T>(what: &str, future: impl Future<Output = T>) -> T {
    let waited = tokio::time::timeout(Duration::from_secs(30), future).await;
    waited.unwrap_or_else(|_| panic!("waited in vain for {what}"))
}

struct Elsewhere {
    address: SocketAddr,
    node: LocalClient,
    stop: oneshot::Sender<()>,
    serving: JoinHandle<()>,
}

impl Elsewhere {
    async fn start(address: SocketAddr, rule: Arc<dyn Authorizer>) -> Self {
        let listener = TcpListener::bind(address).await.unwrap();
        let address = listener.local_addr().unwrap();
        let broker = Broker::new(Config::default(), rule);
        let node = broker.local();
        node.subscribe(&["nodes/+/desired"]).unwrap();
        let (stop, stopped) = oneshot::channel::<()>();
        let serving =
            tokio::spawn(
                async move { broker.serve(listener, async { drop(stopped.await) }).await },
            );
        Self { address, node, stop, serving }
    }

    async fn any(rule: Arc<dyn Authorizer>) -> Self {
        Self::start(([127, 0, 0, 1], 0).into(), rule).await
    }

    async fn stop(self) {
        drop(self.stop);
        soon("the broker's end", self.serving).await.unwrap();
    }
}

fn connect(address: SocketAddr) -> (External, JoinHandle<()>) {
    let (bus, carrier) = External::new(ID, &address.ip().to_string(), address.port()).unwrap();
    (bus, tokio::spawn(carrier))
}

#[tokio::test]
async fn a_full_queue_does_not_keep_the_cluster_deaf() {
    let broker = Elsewhere::any(Arc::new(AllowAll)).await;
    let address = broker.address;
    let (mut bus, _carrier) = connect(address);
    assert_eq!(soon("the broker", bus.next()).await, BusEvent::Up);
    broker.stop().await;
    assert_eq!(soon("its loss", bus.next()).await, BusEvent::Down);
    let topic = Topic { node: ChildId([1; 12]), leaf: Leaf::Desired };
    while bus.publish(topic, vec![1]).is_ok() {}
    let mut broker = Elsewhere::start(address, Arc::new(AllowAll)).await;
    assert_eq!(soon("the broker", bus.next()).await, BusEvent::Up);
    soon("what had waited", broker.node.recv()).await;
    broker.stop().await;
}

/// Lets nobody subscribe until told to.
#[derive(Debug, Default)]
struct Strict {
    open: AtomicBool,
    refused: watch::Sender<usize>,
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
async fn a_refused_subscription_is_asked_for_again() {
    let rule = Arc::new(Strict::default());
    let broker = Elsewhere::any(rule.clone()).await;
    let (mut bus, _carrier) = connect(broker.address);
    let mut refused = rule.refused.subscribe();
    let once = filters().count();
    soon("another attempt", refused.wait_for(|count| *count > once)).await.unwrap();
    rule.open.store(true, Ordering::SeqCst);
    assert_eq!(soon("the broker", bus.next()).await, BusEvent::Up);
    broker.stop().await;
}
