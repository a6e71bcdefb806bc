//! The broker's own counters as retained messages under `$SYS`, with the names that Mosquitto
//! gives them, so that the tools that watch brokers work.
//!
//! Kept up to date only while somebody is subscribed to them: an idle broker does nothing.

use bytes::Bytes;

use super::message::Message;
use super::{Core, Millis, Timer};
use crate::codec::Qos;
use crate::config::SYS_INTERVAL_MS;

impl Core {
    /// Publishes every value that changed and, with subscribers left, asks for the next time.
    pub(super) fn refresh_sys(&mut self, now: Millis) {
        let stats = self.snapshot();
        let values: [(&str, u64); 14] = [
            ("uptime", now / 1000),
            ("clients/connected", stats.connected as u64),
            ("clients/total", stats.sessions as u64),
            ("clients/expired", stats.sessions_expired),
            ("messages/received", stats.messages_received),
            ("messages/sent", stats.messages_sent),
            ("publish/messages/dropped", stats.messages_dropped),
            ("publish/messages/expired", stats.messages_expired),
            ("subscriptions/count", stats.subscriptions as u64),
            ("retained messages/count", stats.retained as u64),
            ("store/messages/bytes", stats.queued_bytes as u64),
            ("bytes/received", stats.bytes_received),
            ("bytes/sent", stats.bytes_sent),
            ("clients/throttled", stats.throttled),
        ];
        for (name, value) in values {
            let topic = format!("$SYS/broker/{name}");
            let payload = Bytes::from(value.to_string());
            if self.retained.next(&topic, None).is_some_and(|m| m.payload == payload) {
                continue;
            }
            let message = Message {
                topic: topic.into(),
                payload,
                qos: Qos::AtMostOnce,
                expires_at: None,
                properties: Box::default(),
            };
            self.publish_unasked(now, message, true);
        }
        if let Some(at) = self.sys_at.take() {
            self.timers.remove(&(at, Timer::Sys));
        }
        if self.sys_subscriptions > 0 {
            let at = now + SYS_INTERVAL_MS;
            self.sys_at = Some(at);
            self.timers.insert((at, Timer::Sys));
        }
    }
}
