//! What each packet of an open connection does.

use std::sync::Arc;

use super::{Endpoint, Hold, Open, Stage, Taken};
use crate::codec::{Packet, Publish, Qos, Subscribe, Version, encode};
use crate::core::{Ending, Message, Millis, Refusal, SubscribeInput, topic};
use crate::reason::Reason;

impl Endpoint {
    /// Takes one packet of an open connection. An error ends the connection.
    pub(super) fn take(
        &mut self,
        now: Millis,
        packet: Packet,
        len: usize,
    ) -> Result<Taken, Reason> {
        let Stage::Open(open) = &mut self.stage else { return Err(Reason::Protocol) };
        let (link, version) = (open.link, open.version);
        match packet {
            Packet::Publish(publish) => {
                if let Some(until) = open.quota.blocked_until(now) {
                    self.shared.with(|core| core.stats.throttled += 1);
                    return Ok(Taken::NotNow(Hold::Quota(until)));
                }
                return self.publish(now, publish, len);
            }
            Packet::Puback(packet_id) => self.shared.with(|core| core.acknowledge(link, packet_id)),
            Packet::Pubrel(packet_id) => {
                self.shared.with(|core| core.release_qos2(link, packet_id));
                encode::pubcomp(&mut self.outgoing, version, packet_id, Reason::Normal);
            }
            Packet::Subscribe(subscribe) => self.subscribe(now, &subscribe)?,
            Packet::Unsubscribe { packet_id, filters } => {
                let end = |filter: &String| self.shared.with(|core| core.unsubscribe(link, filter));
                let results: Vec<Reason> = filters.iter().map(end).collect();
                encode::unsuback(&mut self.outgoing, version, packet_id, &results);
            }
            Packet::Pingreq => encode::pingresp(&mut self.outgoing),
            Packet::Disconnect { with_will, session_expiry_s } => {
                let expiry_s = session_expiry_s;
                let ending = if with_will {
                    Ending::Will { expiry_s, reason: Reason::WithWill }
                } else {
                    Ending::Clean { expiry_s }
                };
                self.end(now, ending);
                return Err(Reason::Normal);
            }
        }
        Ok(Taken::Yes)
    }

    fn publish(&mut self, now: Millis, publish: Publish, len: usize) -> Result<Taken, Reason> {
        let Stage::Open(open) = &mut self.stage else { return Err(Reason::Protocol) };
        let (link, version) = (open.link, open.version);
        let (qos, packet_id) = (publish.qos, publish.packet_id);
        if qos == 2 && version == Version::V5 {
            return Err(Reason::Qos);
        }
        let aliases_max = self.shared.config.topic_aliases_max;
        let topic = resolve(open, publish.alias, &publish.topic, aliases_max)?;
        let new = qos < 2 || self.shared.with(|core| core.begin_qos2(link, packet_id))?;
        let allowed =
            !topic.starts_with('$') && self.shared.authorizer.publish(&open.identity, &topic);
        let outcome = if !new {
            Reason::Normal
        } else if !allowed {
            tracing::debug!(identity = open.identity.name(), %topic, "publish refused");
            self.shared.with(|core| core.stats.publishes_refused += 1);
            Reason::NotAuthorized
        } else {
            let message = Message {
                topic,
                payload: publish.payload,
                qos: if qos == 0 { Qos::AtMostOnce } else { Qos::AtLeastOnce },
                expires_at: publish.expiry_s.map(|seconds| now + u64::from(seconds) * 1000),
                properties: publish.properties,
            };
            let retain = publish.retain;
            match self.shared.with(|core| core.publish(now, Some(link), message, retain)) {
                Ok(0) => Reason::NoMatchingSubscribers,
                Ok(_) => Reason::Normal,
                Err(Refusal::Busy | Refusal::OwnQueue) => return Ok(Taken::NotNow(Hold::Room)),
                Err(Refusal::Retained) => Reason::Quota,
                // The core tells why when it is asked for the next packet.
                Err(Refusal::Gone) => return Ok(Taken::Yes),
            }
        };
        open.quota.charge(now, len);
        match qos {
            0 => {}
            1 => encode::puback(&mut self.outgoing, version, packet_id, outcome),
            _ => {
                if new {
                    self.shared.with(|core| core.hold_qos2(link, packet_id));
                }
                encode::pubrec(&mut self.outgoing, version, packet_id, outcome);
            }
        }
        Ok(Taken::Yes)
    }

    fn subscribe(&mut self, now: Millis, subscribe: &Subscribe) -> Result<(), Reason> {
        let Stage::Open(open) = &self.stage else { return Err(Reason::Protocol) };
        let (link, version) = (open.link, open.version);
        let mut results = Vec::with_capacity(subscribe.filters.len());
        for wanted in &subscribe.filters {
            let Some(parsed) = topic::parse_filter(&wanted.filter) else {
                results.push(Err(Reason::Filter));
                continue;
            };
            // The standard calls this combination a protocol error.
            if parsed.group.is_some() && wanted.no_local {
                return Err(Reason::Protocol);
            }
            if !self.shared.authorizer.subscribe(&open.identity, parsed.filter) {
                results.push(Err(Reason::NotAuthorized));
                continue;
            }
            let input = SubscribeInput {
                filter: &wanted.filter,
                qos: wanted.qos,
                no_local: wanted.no_local,
                retain_as_published: wanted.retain_as_published,
                retain_handling: wanted.retain_handling,
                id: subscribe.subscription_id,
            };
            results.push(self.shared.with(|core| core.subscribe(now, link, &input)));
        }
        encode::suback(&mut self.outgoing, version, subscribe.packet_id, &results);
        Ok(())
    }
}

/// The topic of a publish, its alias looked up or set.
fn resolve(
    open: &mut Open,
    alias: Option<u16>,
    topic: &str,
    aliases_max: u16,
) -> Result<Arc<str>, Reason> {
    let Some(alias) = alias else {
        return if topic::is_topic(topic) { Ok(topic.into()) } else { Err(Reason::Topic) };
    };
    if alias == 0 || alias > aliases_max {
        return Err(Reason::TopicAlias);
    }
    let at = usize::from(alias) - 1;
    if topic.is_empty() {
        return open.aliases.get(at).cloned().flatten().ok_or(Reason::TopicAlias);
    }
    if !topic::is_topic(topic) {
        return Err(Reason::Topic);
    }
    if open.aliases.len() <= at {
        open.aliases.resize(at + 1, None);
    }
    let topic: Arc<str> = topic.into();
    open.aliases[at] = Some(Arc::clone(&topic));
    Ok(topic)
}
