//! Tasks that measure each other over loopback.

use super::*;
use marram_protocol::v1::EchoKey;

const PATIENCE: Duration = Duration::from_secs(40);

fn config(text: &str) -> Config {
    toml::from_str(&format!("state_dir = '/s'\n{text}")).unwrap()
}

fn summary(echo: &mut Echo) -> Summary {
    let mut summary = Summary::default();
    echo.describe(&mut summary);
    summary
}

/// Waits until what a node says of itself is as wanted.
async fn until_it_says(echo: &mut Echo, wanted: impl Fn(&Summary) -> bool) -> Summary {
    let waited = tokio::time::timeout(PATIENCE, async {
        loop {
            let summary = summary(echo);
            if wanted(&summary) {
                return summary;
            }
            echo.changed().await;
        }
    });
    waited.await.expect("it says so in time")
}

async fn listening(number: u8, tasks: &mut JoinSet<()>) -> (Echo, Peer) {
    let config = config("[coordinates]\nlisten = '127.0.0.1:0'");
    let mut echo = Echo::start(&config, ChildId([number; 12]), tasks);
    let said = until_it_says(&mut echo, |summary| !summary.echoes.is_empty()).await;
    (echo, said.echoes[0].clone())
}

fn peers(key: u128, peers: &[Peer]) -> Peers {
    Peers { key: EchoKey(key), peers: peers.to_vec() }
}

#[tokio::test]
async fn a_node_without_a_port_finds_its_place_by_those_that_answer() {
    let mut tasks = JoinSet::new();
    let (one, at_one) = listening(1, &mut tasks).await;
    let (two, at_two) = listening(2, &mut tasks).await;
    one.meet(peers(7, std::slice::from_ref(&at_two)));
    two.meet(peers(7, std::slice::from_ref(&at_one)));
    // Its own requests are asked in a row, so that the test need not wait for their pauses.
    let (tell, seen) = watch::channel(Seen::default());
    let mut asks = Task {
        prober: Prober::new(3),
        probes: true,
        answerer: Answerer::default(),
        wanted: None,
        told: None,
        listener: None,
        question: None,
        started: Instant::now(),
        tell,
    };
    asks.prober.meet(peers(7, &[at_one, at_two]));
    let found = tokio::time::timeout(PATIENCE, async {
        let mut answer: Buffer = [0; _];
        while seen.borrow().coordinate.is_none() {
            let question = asks.ask().await.expect("loopback is there");
            // An answer that is lost, as to a task that has not heard of its peers yet, is one
            // less.
            let wait = Duration::from_millis(200);
            let got = tokio::time::timeout(wait, receive(Some(&question), &mut answer)).await;
            if let Ok(Ok(length)) = got {
                asks.answered(asks.now_us(), answer.get(..length));
            }
        }
    });
    found.await.expect("it finds its place in time");
    let coordinate = seen.borrow().coordinate.unwrap();
    assert!(coordinate.x_us.abs() < 100_000, "loopback is no long way: {coordinate:?}");
}

#[tokio::test]
async fn only_who_knows_the_key_gets_an_answer() {
    let mut tasks = JoinSet::new();
    let (listens, at) = listening(1, &mut tasks).await;
    let address: SocketAddr = at.address.parse().unwrap();
    let question = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    question.connect(address).await.unwrap();
    let mut asks = Prober::new(1);
    asks.meet(peers(7, std::slice::from_ref(&at)));
    let right = asks.ask(0, 5).unwrap().bytes;
    let mut buffer: Buffer = [0; _];
    // Before the key is known, of wrong length, of another key: nothing comes back, and then
    // the right one is answered by as many bytes.
    question.send(&right).await.unwrap();
    listens.meet(peers(7, &[]));
    let answered = async {
        loop {
            question.send(&[1; 900]).await.unwrap();
            question.send(&right[..ECHO_BYTES - 1]).await.unwrap();
            question.send(&right).await.unwrap();
            let wait = Duration::from_millis(200);
            let got = tokio::time::timeout(wait, question.recv(&mut buffer)).await;
            if let Ok(Ok(length)) = got {
                return length;
            }
        }
    };
    let length = tokio::time::timeout(PATIENCE, answered).await.expect("it answers in time");
    assert_eq!(length, ECHO_BYTES);
    // What comes next is an answer to one of the right ones, or nothing.
    while let Ok(got) = question.try_recv(&mut buffer) {
        assert_eq!(got, ECHO_BYTES);
    }
}

#[tokio::test]
async fn a_port_that_is_taken_stops_nobody() {
    let taken = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let text = format!("[coordinates]\nlisten = '{}'", taken.local_addr().unwrap());
    let mut tasks = JoinSet::new();
    let mut echo = Echo::start(&config(&text), ChildId([1; 12]), &mut tasks);
    let quiet = tokio::time::timeout(Duration::from_millis(300), echo.changed()).await;
    assert!(quiet.is_err() && summary(&mut echo).echoes.is_empty());
    assert!(tasks.try_join_next().is_none(), "the task goes on");
}
