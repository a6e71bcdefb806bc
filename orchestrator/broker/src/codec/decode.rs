//! From bytes to [`Packet`], by way of the codec's parsers.
//!
//! What the codec leaves unchecked is checked here: the flags of the first byte, packet ids of 0,
//! the CONNECT flags, bytes left over behind a packet. Invariant: no input panics.

use std::sync::Arc;

use bytes::Bytes;
use mqtt_protocol_core::mqtt::packet::prelude::PropertyValueAccess;
use mqtt_protocol_core::mqtt::packet::{self as mqtt, Property, v3_1_1 as v3, v5_0 as v5};
use mqtt_protocol_core::mqtt::result_code::{DisconnectReasonCode, MqttError};

use super::{Connect, Filter, Packet, Publish, Qos, RetainHandling, Subscribe, Version, Will};
use crate::reason::Reason;

/// Packet types by the number in the first byte's upper half.
mod kind {
    pub(super) const CONNECT: u8 = 1;
    pub(super) const PUBLISH: u8 = 3;
    pub(super) const PUBACK: u8 = 4;
    pub(super) const PUBREL: u8 = 6;
    pub(super) const SUBSCRIBE: u8 = 8;
    pub(super) const UNSUBSCRIBE: u8 = 10;
    pub(super) const PINGREQ: u8 = 12;
    pub(super) const DISCONNECT: u8 = 14;
    pub(super) const AUTH: u8 = 15;
}

/// The first byte of a CONNECT.
pub(crate) const CONNECT_HEADER: u8 = kind::CONNECT << 4;

/// The first packet of a connection, which must be a CONNECT and says the version.
pub(crate) fn connect(header: u8, body: &[u8]) -> Result<Connect, Reason> {
    if header != CONNECT_HEADER {
        return Err(Reason::Protocol);
    }
    let (Some(name), Some(&level), Some(&flags)) = (body.get(..6), body.get(6), body.get(7)) else {
        return Err(Reason::Malformed);
    };
    if name != b"\0\x04MQTT" {
        return Err(Reason::UnsupportedVersion);
    }
    let will = flags & 0b100 != 0;
    let will_bits = flags & 0b11_1000;
    if flags & 1 != 0 || will_bits & 0b1_1000 == 0b1_1000 || (!will && will_bits != 0) {
        return Err(Reason::Malformed);
    }
    match level {
        4 => connect_v311(body),
        5 => connect_v5(body),
        _ => Err(Reason::UnsupportedVersion),
    }
}

fn connect_v311(body: &[u8]) -> Result<Connect, Reason> {
    let packet = whole(v3::Connect::parse, body)?;
    let will = packet.will_topic().map(|topic| Will {
        topic: topic.to_owned(),
        payload: Bytes::copy_from_slice(packet.will_payload().unwrap_or_default()),
        qos: packet.will_qos() as u8,
        retain: packet.will_retain(),
        delay_s: 0,
        expiry_s: None,
        properties: Box::default(),
    });
    Ok(Connect {
        version: Version::V311,
        client_id: packet.client_id().to_owned(),
        clean_start: packet.clean_session(),
        keep_alive_s: packet.keep_alive(),
        username: packet.user_name().map(str::to_owned),
        password: packet.password().map(<[u8]>::to_vec),
        will,
        session_expiry_s: packet.clean_session().then_some(0),
        receive_max: u16::MAX,
        packet_bytes_max: u32::MAX,
        auth_method: false,
    })
}

fn connect_v5(body: &[u8]) -> Result<Connect, Reason> {
    let packet = whole(v5::Connect::parse, body)?;
    let will = packet.will_topic().map(|topic| Will {
        topic: topic.to_owned(),
        payload: Bytes::copy_from_slice(packet.will_payload().unwrap_or_default()),
        qos: packet.will_qos() as u8,
        retain: packet.will_retain(),
        delay_s: number(packet.will_props(), |p| matches!(p, Property::WillDelayInterval(_)))
            .unwrap_or(0),
        expiry_s: expiry(packet.will_props()),
        properties: passed_on(packet.will_props()),
    });
    let mut connect = Connect {
        version: Version::V5,
        client_id: packet.client_id().to_owned(),
        clean_start: packet.clean_start(),
        keep_alive_s: packet.keep_alive(),
        username: packet.user_name().map(str::to_owned),
        password: packet.password().map(<[u8]>::to_vec),
        will,
        session_expiry_s: Some(0),
        receive_max: u16::MAX,
        packet_bytes_max: u32::MAX,
        auth_method: false,
    };
    for property in packet.props() {
        match property {
            Property::SessionExpiryInterval(p) => connect.session_expiry_s = Some(p.val()),
            Property::ReceiveMaximum(p) if p.val() == 0 => return Err(Reason::Protocol),
            Property::ReceiveMaximum(p) => connect.receive_max = p.val(),
            Property::MaximumPacketSize(p) if p.val() == 0 => return Err(Reason::Protocol),
            Property::MaximumPacketSize(p) => connect.packet_bytes_max = p.val(),
            Property::AuthenticationMethod(_) => connect.auth_method = true,
            _ => {}
        }
    }
    Ok(connect)
}

/// Any packet after the first.
pub(crate) fn packet(version: Version, header: u8, body: &[u8]) -> Result<Packet, Reason> {
    let flags = header & 0x0F;
    let expected = match header >> 4 {
        kind::PUBLISH => flags,
        kind::PUBREL | kind::SUBSCRIBE | kind::UNSUBSCRIBE => 0b0010,
        _ => 0,
    };
    if flags != expected {
        return Err(Reason::Malformed);
    }
    match header >> 4 {
        kind::PUBLISH => publish(version, flags, body).map(Packet::Publish),
        kind::PUBACK => Ok(Packet::Puback(acknowledged(version, body, |b| {
            v5::Puback::parse(b).map(|(p, n)| (p.packet_id(), n))
        })?)),
        kind::PUBREL => Ok(Packet::Pubrel(acknowledged(version, body, |b| {
            v5::Pubrel::parse(b).map(|(p, n)| (p.packet_id(), n))
        })?)),
        kind::SUBSCRIBE => subscribe(version, body).map(Packet::Subscribe),
        kind::UNSUBSCRIBE => unsubscribe(version, body),
        kind::PINGREQ if body.is_empty() => Ok(Packet::Pingreq),
        kind::PINGREQ => Err(Reason::Malformed),
        kind::DISCONNECT => disconnect(version, body),
        // AUTH answers an authentication method, and no CONNECT that names one was let in.
        kind::CONNECT | kind::AUTH => Err(Reason::Protocol),
        _ => Err(Reason::Protocol),
    }
}

fn publish(version: Version, flags: u8, body: &[u8]) -> Result<Publish, Reason> {
    let qos = (flags >> 1) & 0b11;
    if qos == 3 || (qos == 0 && flags & 0b1000 != 0) {
        return Err(Reason::Malformed);
    }
    let retain = flags & 1 != 0;
    let data: Arc<[u8]> = Arc::from(body);
    let publish = match version {
        Version::V311 => {
            let packet = whole(|_| v3::Publish::parse(flags, Arc::clone(&data)), body)?;
            Publish {
                topic: packet.topic_name().to_owned(),
                alias: None,
                qos,
                packet_id: packet.packet_id().unwrap_or(0),
                retain,
                expiry_s: None,
                payload: Bytes::copy_from_slice(packet.payload().as_slice()),
                properties: Box::default(),
            }
        }
        Version::V5 => {
            let packet = whole(|_| v5::Publish::parse(flags, Arc::clone(&data)), body)?;
            let mut alias = None;
            for property in packet.props() {
                match property {
                    Property::TopicAlias(p) => alias = Some(p.val()),
                    Property::SubscriptionIdentifier(_) => return Err(Reason::Protocol),
                    _ => {}
                }
            }
            Publish {
                topic: packet.topic_name().to_owned(),
                alias,
                qos,
                packet_id: packet.packet_id().unwrap_or(0),
                retain,
                expiry_s: expiry(packet.props()),
                payload: Bytes::copy_from_slice(packet.payload().as_slice()),
                properties: passed_on(packet.props()),
            }
        }
    };
    if qos > 0 && publish.packet_id == 0 {
        return Err(Reason::Malformed);
    }
    Ok(publish)
}

/// The packet id of an acknowledgement. MQTT 5 may add a reason and properties to it.
fn acknowledged(
    version: Version,
    body: &[u8],
    parse: impl Fn(&[u8]) -> Result<(u16, usize), MqttError>,
) -> Result<u16, Reason> {
    let packet_id = match version {
        Version::V5 => whole(parse, body)?,
        Version::V311 => {
            <[u8; 2]>::try_from(body).map(u16::from_be_bytes).map_err(|_| Reason::Malformed)?
        }
    };
    some_id(packet_id)
}

fn subscribe(version: Version, body: &[u8]) -> Result<Subscribe, Reason> {
    let (packet_id, subscription_id, entries) = match version {
        Version::V311 => {
            let packet = whole(v3::Subscribe::parse, body)?;
            (packet.packet_id(), 0, packet.entries().clone())
        }
        Version::V5 => {
            let packet = whole(v5::Subscribe::parse, body)?;
            let mut id = 0;
            for property in packet.props() {
                if let Property::SubscriptionIdentifier(p) = property {
                    id = p.val();
                    if id == 0 {
                        return Err(Reason::Protocol);
                    }
                }
            }
            (packet.packet_id(), id, packet.entries().clone())
        }
    };
    let filters = entries.iter().map(|entry| filter(version, entry)).collect::<Result<_, _>>()?;
    Ok(Subscribe { packet_id: some_id(packet_id)?, subscription_id, filters })
}

fn filter(version: Version, entry: &mqtt::SubEntry) -> Result<Filter, Reason> {
    let options = entry.sub_opts();
    let [bits] = *options.to_buffer();
    // In 3.1.1 everything but the QoS is reserved.
    if version == Version::V311 && bits & 0b1111_1100 != 0 {
        return Err(Reason::Malformed);
    }
    Ok(Filter {
        filter: entry.topic_filter().to_owned(),
        qos: if bits & 0b11 == 0 { Qos::AtMostOnce } else { Qos::AtLeastOnce },
        no_local: options.nl(),
        retain_as_published: options.rap(),
        retain_handling: match options.rh() {
            mqtt::RetainHandling::SendRetained => RetainHandling::Always,
            mqtt::RetainHandling::SendRetainedIfNotExists => RetainHandling::IfNew,
            mqtt::RetainHandling::DoNotSendRetained => RetainHandling::Never,
        },
    })
}

fn unsubscribe(version: Version, body: &[u8]) -> Result<Packet, Reason> {
    let (packet_id, entries) = match version {
        Version::V311 => {
            let packet = whole(v3::Unsubscribe::parse, body)?;
            (packet.packet_id(), packet.entries().clone())
        }
        Version::V5 => {
            let packet = whole(v5::Unsubscribe::parse, body)?;
            (packet.packet_id(), packet.entries().clone())
        }
    };
    let filters = entries.iter().map(|entry| entry.as_str().to_owned()).collect();
    Ok(Packet::Unsubscribe { packet_id: some_id(packet_id)?, filters })
}

fn disconnect(version: Version, body: &[u8]) -> Result<Packet, Reason> {
    if version == Version::V311 {
        let clean = Packet::Disconnect { with_will: false, session_expiry_s: None };
        return if body.is_empty() { Ok(clean) } else { Err(Reason::Malformed) };
    }
    let packet = whole(v5::Disconnect::parse, body)?;
    let normal =
        matches!(packet.reason_code(), None | Some(DisconnectReasonCode::NormalDisconnection));
    let session_expiry_s = packet
        .props()
        .as_ref()
        .and_then(|props| number(props, |p| matches!(p, Property::SessionExpiryInterval(_))));
    Ok(Packet::Disconnect { with_will: !normal, session_expiry_s })
}

/// Runs a parser and insists that it used the whole body.
fn whole<T>(
    parse: impl FnOnce(&[u8]) -> Result<(T, usize), MqttError>,
    body: &[u8],
) -> Result<T, Reason> {
    match parse(body) {
        Ok((packet, used)) if used == body.len() => Ok(packet),
        Ok(_) => Err(Reason::Malformed),
        Err(MqttError::ProtocolError) => Err(Reason::Protocol),
        Err(_) => Err(Reason::Malformed),
    }
}

fn some_id(packet_id: u16) -> Result<u16, Reason> {
    if packet_id == 0 { Err(Reason::Malformed) } else { Ok(packet_id) }
}

fn expiry(properties: &[Property]) -> Option<u32> {
    number(properties, |p| matches!(p, Property::MessageExpiryInterval(_)))
}

fn number(properties: &[Property], wanted: impl Fn(&Property) -> bool) -> Option<u32> {
    properties.iter().find(|p| wanted(p)).and_then(PropertyValueAccess::as_u32)
}

/// The properties that belong to the message itself and reach its receivers unchanged.
fn passed_on(properties: &[Property]) -> Box<[u8]> {
    let mut bytes = Vec::new();
    for property in properties {
        match property {
            Property::PayloadFormatIndicator(_)
            | Property::ContentType(_)
            | Property::ResponseTopic(_)
            | Property::CorrelationData(_)
            | Property::UserProperty(_) => bytes.extend(property.to_continuous_buffer()),
            _ => {}
        }
    }
    bytes.into_boxed_slice()
}
