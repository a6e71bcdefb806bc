//! Any bytes from two clients at the cluster's MQTT endpoint: it answers or hangs up.
//!
//! The first byte says how each begins (as it is, or after a proper CONNECT of version 5 or 3.1.1)
//! and the second where the first client's bytes end. Time is virtual, so waiting costs nothing.
#![no_main]

use libfuzzer_sys::fuzz_target;
use marram_broker::{AllowAll, Broker, Config, PeerIdentity};
use std::sync::Arc;
use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex, sink, split};
use tokio::runtime::Builder;

/// Persistent sessions, so that the second client meets what the first one left.
const CONNECT_5: &[u8] = b"\x10\x15\x00\x04MQTT\x05\x00\x00\x3c\x05\x11\x00\x00\x00\x3c\x00\x03fuz";
const CONNECT_311: &[u8] = b"\x10\x0f\x00\x04MQTT\x04\x00\x00\x3c\x00\x03fuz";

async fn client(broker: &Broker, opening: &[u8], bytes: &[u8]) {
    let (near, far) = duplex(64 * 1024);
    let (answers, mut requests) = split(near);
    let talk = async {
        // The broker may have hung up: then nobody takes the rest.
        let _sent = requests.write_all(opening).await;
        let _sent = requests.write_all(bytes).await;
        let _sent = requests.shutdown().await;
    };
    let listen = async {
        let _read = tokio::io::copy(&mut answers.take(1 << 20), &mut sink()).await;
    };
    tokio::join!(broker.serve_stream(far, PeerIdentity::Anonymous), talk, listen);
}

fn opening(choice: u8) -> &'static [u8] {
    match choice % 3 {
        0 => &[],
        1 => CONNECT_5,
        _ => CONNECT_311,
    }
}

fuzz_target!(|input: &[u8]| {
    let [openings, at, bytes @ ..] = input else { return };
    let (first, second) = bytes.split_at(usize::from(*at).min(bytes.len()));
    let runtime = Builder::new_current_thread().enable_time().start_paused(true).build();
    runtime.expect("a runtime without I/O can be made").block_on(async {
        let broker = Broker::new(Config::default(), Arc::new(AllowAll));
        client(&broker, opening(openings & 15), first).await;
        client(&broker, opening(openings >> 4), second).await;
    });
});
