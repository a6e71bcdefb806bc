//! From decisions to bytes, appended to a connection's outgoing buffer.
//!
//! Apart from the codec's builders, which make several buffers per packet. Invariant, held by a
//! property test: what is written here the codec's parsers read back as it was meant.

use super::{Qos, Version};
use crate::reason::Reason;

/// What a PUBLISH to a client carries.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Outgoing<'a> {
    pub(crate) topic: &'a str,
    pub(crate) payload: &'a [u8],
    pub(crate) qos: Qos,
    pub(crate) retain: bool,
    pub(crate) dup: bool,
    /// Written for QoS 1 only.
    pub(crate) packet_id: u16,
    pub(crate) expiry_s: Option<u32>,
    pub(crate) subscription_ids: &'a [u32],
    /// Encoded properties of the message itself.
    pub(crate) properties: &'a [u8],
}

/// What CONNACK tells an MQTT 5 client that was let in.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Welcome<'a> {
    pub(crate) session_present: bool,
    pub(crate) session_expiry_s: u32,
    pub(crate) receive_max: u16,
    pub(crate) packet_bytes_max: u32,
    pub(crate) topic_aliases_max: u16,
    /// Set if the broker made the id up.
    pub(crate) assigned_client_id: Option<&'a str>,
}

const CONNACK: u8 = 0x20;
const PUBLISH: u8 = 0x30;
const PUBACK: u8 = 0x40;
const PUBREC: u8 = 0x50;
const PUBCOMP: u8 = 0x70;
const SUBACK: u8 = 0x90;
const UNSUBACK: u8 = 0xB0;
const PINGRESP: u8 = 0xD0;
const DISCONNECT: u8 = 0xE0;

/// Property identifiers that are written here.
mod property {
    pub(super) const MESSAGE_EXPIRY: u8 = 2;
    pub(super) const SUBSCRIPTION_ID: u8 = 11;
    pub(super) const SESSION_EXPIRY: u8 = 17;
    pub(super) const ASSIGNED_CLIENT_ID: u8 = 18;
    pub(super) const RECEIVE_MAX: u8 = 33;
    pub(super) const TOPIC_ALIAS_MAX: u8 = 34;
    pub(super) const QOS_MAX: u8 = 36;
    pub(super) const PACKET_BYTES_MAX: u8 = 39;
}

/// Length of a PUBLISH in this version, header included.
pub(crate) fn publish_len(version: Version, message: &Outgoing<'_>) -> usize {
    let remaining = publish_remaining(version, message);
    1 + varint_len(remaining) + remaining
}

fn publish_remaining(version: Version, message: &Outgoing<'_>) -> usize {
    let packet_id = if message.qos == Qos::AtLeastOnce { 2 } else { 0 };
    let properties = match version {
        Version::V311 => 0,
        Version::V5 => {
            let len = publish_properties_len(message);
            varint_len(len) + len
        }
    };
    2 + message.topic.len() + packet_id + properties + message.payload.len()
}

fn publish_properties_len(message: &Outgoing<'_>) -> usize {
    let expiry = if message.expiry_s.is_some() { 5 } else { 0 };
    let ids: usize = message.subscription_ids.iter().map(|&id| 1 + varint_len(id as usize)).sum();
    expiry + ids + message.properties.len()
}

/// A PUBLISH.
pub(crate) fn publish(out: &mut Vec<u8>, version: Version, message: &Outgoing<'_>) {
    let qos = message.qos as u8;
    let remaining = publish_remaining(version, message);
    out.reserve(5 + remaining);
    out.push(PUBLISH | u8::from(message.dup) << 3 | qos << 1 | u8::from(message.retain));
    varint(out, remaining);
    text(out, message.topic);
    if message.qos == Qos::AtLeastOnce {
        out.extend(message.packet_id.to_be_bytes());
    }
    if version == Version::V5 {
        varint(out, publish_properties_len(message));
        if let Some(seconds) = message.expiry_s {
            out.push(property::MESSAGE_EXPIRY);
            out.extend(seconds.to_be_bytes());
        }
        for &id in message.subscription_ids {
            out.push(property::SUBSCRIPTION_ID);
            varint(out, id as usize);
        }
        out.extend_from_slice(message.properties);
    }
    out.extend_from_slice(message.payload);
}

/// CONNACK for a client that was let in.
pub(crate) fn welcome(out: &mut Vec<u8>, version: Version, welcome: &Welcome<'_>) {
    let present = u8::from(welcome.session_present);
    if version == Version::V311 {
        out.extend([CONNACK, 2, present, 0]);
        return;
    }
    let mut properties = Vec::with_capacity(64);
    properties.push(property::SESSION_EXPIRY);
    properties.extend(welcome.session_expiry_s.to_be_bytes());
    properties.push(property::RECEIVE_MAX);
    properties.extend(welcome.receive_max.to_be_bytes());
    properties.extend([property::QOS_MAX, 1]);
    properties.push(property::PACKET_BYTES_MAX);
    properties.extend(welcome.packet_bytes_max.to_be_bytes());
    properties.push(property::TOPIC_ALIAS_MAX);
    properties.extend(welcome.topic_aliases_max.to_be_bytes());
    if let Some(id) = welcome.assigned_client_id {
        properties.push(property::ASSIGNED_CLIENT_ID);
        text(&mut properties, id);
    }
    out.push(CONNACK);
    varint(out, 2 + varint_len(properties.len()) + properties.len());
    out.extend([present, 0]);
    varint(out, properties.len());
    out.append(&mut properties);
}

/// CONNACK for a client that was not let in.
pub(crate) fn refused(out: &mut Vec<u8>, version: Version, reason: Reason) {
    match version {
        Version::V311 => out.extend([CONNACK, 2, 0, reason.connect_return_code()]),
        Version::V5 => out.extend([CONNACK, 3, 0, reason.code(), 0]),
    }
}

/// PUBACK. 3.1.1 knows no reasons: whatever became of the message, it is acknowledged.
pub(crate) fn puback(out: &mut Vec<u8>, version: Version, packet_id: u16, reason: Reason) {
    acknowledge(out, PUBACK, version, packet_id, reason);
}

/// PUBREC.
pub(crate) fn pubrec(out: &mut Vec<u8>, version: Version, packet_id: u16, reason: Reason) {
    acknowledge(out, PUBREC, version, packet_id, reason);
}

/// PUBCOMP.
pub(crate) fn pubcomp(out: &mut Vec<u8>, version: Version, packet_id: u16, reason: Reason) {
    acknowledge(out, PUBCOMP, version, packet_id, reason);
}

fn acknowledge(out: &mut Vec<u8>, header: u8, version: Version, packet_id: u16, reason: Reason) {
    let [high, low] = packet_id.to_be_bytes();
    if version == Version::V311 || reason == Reason::Normal {
        out.extend([header, 2, high, low]);
    } else {
        out.extend([header, 3, high, low, reason.code()]);
    }
}

/// SUBACK: per filter the granted QoS or why not.
pub(crate) fn suback(
    out: &mut Vec<u8>,
    version: Version,
    packet_id: u16,
    results: &[Result<Qos, Reason>],
) {
    let code = |result: &Result<Qos, Reason>| match (result, version) {
        (Ok(qos), _) => *qos as u8,
        (Err(_), Version::V311) => 0x80,
        (Err(reason), Version::V5) => reason.code(),
    };
    list(out, SUBACK, version, packet_id, results.iter().map(code));
}

/// UNSUBACK; 3.1.1 has no list in it.
pub(crate) fn unsuback(out: &mut Vec<u8>, version: Version, packet_id: u16, results: &[Reason]) {
    match version {
        Version::V5 => list(out, UNSUBACK, version, packet_id, results.iter().map(|r| r.code())),
        Version::V311 => acknowledge(out, UNSUBACK, version, packet_id, Reason::Normal),
    }
}

fn list(
    out: &mut Vec<u8>,
    header: u8,
    version: Version,
    packet_id: u16,
    codes: impl ExactSizeIterator<Item = u8>,
) {
    let properties = usize::from(version == Version::V5);
    out.push(header);
    varint(out, 2 + properties + codes.len());
    out.extend(packet_id.to_be_bytes());
    if version == Version::V5 {
        out.push(0);
    }
    out.extend(codes);
}

/// PINGRESP.
pub(crate) fn pingresp(out: &mut Vec<u8>) {
    out.extend([PINGRESP, 0]);
}

/// DISCONNECT, which only MQTT 5 lets a server send.
pub(crate) fn disconnect(out: &mut Vec<u8>, version: Version, reason: Reason) {
    if version == Version::V5 {
        out.extend([DISCONNECT, 1, reason.code()]);
    }
}

/// A string behind its length. Callers hold strings that are bounded far below 64 KiB.
fn text(out: &mut Vec<u8>, text: &str) {
    let len = u16::try_from(text.len()).expect("topics and client ids are bounded by a limit");
    out.extend(len.to_be_bytes());
    out.extend_from_slice(text.as_bytes());
}

fn varint(out: &mut Vec<u8>, mut value: usize) {
    loop {
        let [low, ..] = value.to_le_bytes();
        value >>= 7;
        if value == 0 {
            out.push(low & 0x7F);
            return;
        }
        out.push(low | 0x80);
    }
}

fn varint_len(value: usize) -> usize {
    match value {
        0..=0x7F => 1,
        0x80..=0x3FFF => 2,
        0x4000..=0x1F_FFFF => 3,
        _ => 4,
    }
}
