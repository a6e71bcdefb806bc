//! The core under virtual time: rules one by one, and random histories against invariants.

mod property;
mod rules;

use std::sync::Arc;

use bytes::Bytes;

use super::{ConnectInput, Core, Link, Message, Millis, Pending, Pull, SubscribeInput};
use crate::codec::{Qos, RetainHandling, Version};
use crate::config::Config;

/// A core with a clock to turn by hand.
struct Bench {
    core: Core,
    now: Millis,
}

impl Bench {
    fn new(limits: Config) -> Self {
        Self { core: Core::new(limits), now: 1_000 }
    }

    fn pass(&mut self, seconds: u64) {
        self.now += seconds * 1000;
        self.core.handle_timeout(self.now);
    }

    fn connect(&mut self, id: &str, clean_start: bool, expiry_s: u32) -> (Link, bool) {
        self.connect_with(input(id, clean_start, expiry_s))
    }

    fn connect_with(&mut self, input: ConnectInput) -> (Link, bool) {
        let connected = self.core.connect(self.now, input).expect("let in");
        (connected.link, connected.session_present)
    }

    fn subscribe(&mut self, link: Link, filter: &str) {
        let input = subscription(filter);
        self.core.subscribe(self.now, link, &input).expect("subscribed");
    }

    fn publish(&mut self, topic: &str, payload: &str, retain: bool) -> usize {
        let message = message(topic, payload, None);
        self.core.publish(self.now, None, message, retain).expect("taken")
    }

    fn pull(&mut self, link: Link) -> Pull {
        self.core.pull(self.now, link)
    }

    /// Everything there is, acknowledged.
    fn drain(&mut self, link: Link) -> Vec<String> {
        self.drain_pending(link).into_iter().map(|p| text(&p)).collect()
    }

    fn drain_pending(&mut self, link: Link) -> Vec<Pending> {
        let mut got = Vec::new();
        while let Pull::Send { pending, packet_id, .. } = self.pull(link) {
            got.push(pending);
            self.core.acknowledge(link, packet_id);
        }
        got
    }
}

fn text(pending: &Pending) -> String {
    String::from_utf8_lossy(&pending.message.payload).into_owned()
}

fn input(id: &str, clean_start: bool, expiry_s: u32) -> ConnectInput {
    ConnectInput {
        client_id: id.into(),
        owner: "owner".into(),
        version: Version::V5,
        clean_start,
        expiry_s,
        window: 10,
        packet_bytes_max: u32::MAX,
        will: None,
    }
}

fn subscription(filter: &str) -> SubscribeInput<'_> {
    SubscribeInput {
        filter,
        qos: Qos::AtLeastOnce,
        no_local: false,
        retain_as_published: false,
        retain_handling: RetainHandling::Always,
        id: 0,
    }
}

fn message(topic: &str, payload: &str, expires_at: Option<Millis>) -> Message {
    Message {
        topic: Arc::from(topic),
        payload: Bytes::copy_from_slice(payload.as_bytes()),
        qos: Qos::AtLeastOnce,
        expires_at,
        properties: Box::default(),
    }
}
