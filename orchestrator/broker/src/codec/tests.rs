//! Framing, decoding of what breaks the standard, and encoding read back by the codec.

use std::sync::Arc;

use mqtt_protocol_core::mqtt::packet::{PropertiesSize, Qos as CodecQos};
use mqtt_protocol_core::mqtt::packet::{v3_1_1 as v3, v5_0 as v5};
use proptest::prelude::*;

use super::{Packet, Qos, Version, decode, encode, frame};
use crate::reason::Reason;

#[test]
fn frames_are_cut_by_their_length() {
    let cut = |bytes: &[u8]| frame::first(bytes, 1000).map(|f| f.map(|f| (f.header, f.len)));
    assert_eq!(cut(&[]), Ok(None));
    assert_eq!(cut(&[0xC0]), Ok(None));
    assert_eq!(cut(&[0xC0, 0]), Ok(Some((0xC0, 2))));
    assert_eq!(cut(&[0xC0, 0, 0xC0]), Ok(Some((0xC0, 2))));
    assert_eq!(cut(&[0x30, 0x80, 1]), Ok(None));
    assert_eq!(cut(&[0x30, 0x80]), Ok(None));
    assert_eq!(cut(&[0x30, 0x80, 0]), Err(Reason::Malformed), "not the shortest form");
    assert_eq!(cut(&[0x30, 0xFF, 0x7F]), Err(Reason::PacketTooLarge), "before the body comes");
    assert_eq!(cut(&[0x30, 0xFF, 0xFF, 0xFF, 0xFF]), Err(Reason::Malformed));
}

#[test]
fn packets_that_break_the_standard_are_refused() {
    use Reason::{Malformed, Protocol};
    let table: &[(&str, Version, u8, &[u8], Reason)] = &[
        ("reserved flags", Version::V5, 0x82 & 0xF0, &[0, 1, 0, 0, 1, b'a', 0], Malformed),
        ("subscribe without filter", Version::V5, 0x82, &[0, 1, 0], Protocol),
        ("subscribe with packet id 0", Version::V5, 0x82, &[0, 0, 0, 0, 1, b'a', 0], Malformed),
        ("subscribe with qos 3", Version::V5, 0x82, &[0, 1, 0, 0, 1, b'a', 3], Malformed),
        ("5's options in 3.1.1", Version::V311, 0x82, &[0, 1, 0, 1, b'a', 4], Malformed),
        ("unsubscribe without filter", Version::V311, 0xA2, &[0, 1], Protocol),
        ("publish with qos 3", Version::V5, 0x36, &[0, 1, b'a', 0, 1, 0], Malformed),
        ("qos 0 with dup", Version::V5, 0x38, &[0, 1, b'a', 0], Malformed),
        ("publish with packet id 0", Version::V5, 0x32, &[0, 1, b'a', 0, 0, 0], Malformed),
        ("topic longer than the packet", Version::V5, 0x30, &[0, 9, b'a', 0], Malformed),
        ("topic that is no utf-8", Version::V5, 0x30, &[0, 1, 0xFF, 0], Malformed),
        ("a subscription id from a client", Version::V5, 0x30, &[0, 1, b'a', 2, 11, 1], Protocol),
        ("puback too long for 3.1.1", Version::V311, 0x40, &[0, 1, 0], Malformed),
        ("ping with a body", Version::V5, 0xC0, &[0], Malformed),
        ("a second connect", Version::V5, 0x10, &[], Protocol),
        ("a packet that only servers send", Version::V5, 0xD0, &[], Protocol),
        ("auth without a method", Version::V5, 0xF0, &[0x18], Protocol),
        ("disconnect with a body in 3.1.1", Version::V311, 0xE0, &[0], Malformed),
    ];
    for (name, version, header, body, expected) in table {
        let result = decode::packet(*version, *header, body).map(|_| ());
        assert_eq!(result, Err(*expected), "{name}");
    }
}

#[test]
fn connects_that_break_the_standard_are_refused() {
    let start = |level: u8, flags: u8| vec![0, 4, b'M', b'Q', b'T', b'T', level, flags, 0, 60];
    let id = [0, 1, b'a'];
    let v311 = |flags| [start(4, flags), id.to_vec()].concat();
    let table = [
        ("not a connect", 0x30, v311(2), Reason::Protocol),
        ("reserved flag", 0x10, v311(3), Reason::Malformed),
        ("will qos without will", 0x10, v311(0b1010), Reason::Malformed),
        ("will qos 3", 0x10, v311(0b1_1110), Reason::Malformed),
        ("will without topic", 0x10, v311(0b110), Reason::Malformed),
        ("version 3", 0x10, [start(3, 2), id.to_vec()].concat(), Reason::UnsupportedVersion),
        ("version 6", 0x10, [start(6, 2), id.to_vec()].concat(), Reason::UnsupportedVersion),
        ("another protocol", 0x10, b"GET / HTTP/1.1\r\n".to_vec(), Reason::UnsupportedVersion),
        ("too short", 0x10, vec![0, 4], Reason::Malformed),
        ("left-over bytes", 0x10, [v311(2), vec![0]].concat(), Reason::Malformed),
        (
            "receive maximum 0",
            0x10,
            [start(5, 2), vec![3, 33, 0, 0], id.to_vec()].concat(),
            Reason::Protocol,
        ),
    ];
    for (name, header, body, expected) in table {
        assert_eq!(decode::connect(header, &body).map(|_| ()), Err(expected), "{name}");
    }
    let good = decode::connect(0x10, &v311(2)).expect("valid");
    assert_eq!((good.client_id.as_str(), good.keep_alive_s, good.clean_start), ("a", 60, true));
}

/// Cuts the one frame that `bytes` must be.
fn only(bytes: &[u8]) -> (u8, &[u8]) {
    let frame = frame::first(bytes, usize::MAX).expect("well-formed").expect("whole");
    assert_eq!(frame.len, bytes.len());
    (frame.header, frame.body)
}

#[test]
fn control_packets_are_read_back_by_the_codec() {
    let mut out = Vec::new();
    let welcome = encode::Welcome {
        session_present: true,
        session_expiry_s: 60,
        receive_max: 64,
        packet_bytes_max: 1000,
        topic_aliases_max: 16,
        assigned_client_id: Some("auto-1"),
    };
    encode::welcome(&mut out, Version::V5, &welcome);
    let (packet, used) = v5::Connack::parse(only(&out).1).expect("parses");
    assert!(packet.session_present() && used == only(&out).1.len());
    assert_eq!(packet.props().len(), 6);
    out.clear();
    let results = [Ok(Qos::AtLeastOnce), Err(Reason::NotAuthorized), Err(Reason::Filter)];
    encode::suback(&mut out, Version::V5, 7, &results);
    let (packet, _) = v5::Suback::parse(only(&out).1).expect("parses");
    assert_eq!((packet.packet_id(), packet.reason_codes().len()), (7, 3));
    out.clear();
    encode::suback(&mut out, Version::V311, 7, &results);
    let (packet, _) = v3::Suback::parse(only(&out).1).expect("parses");
    assert_eq!(packet.return_codes().len(), 3);
    out.clear();
    encode::unsuback(&mut out, Version::V5, 7, &[Reason::Normal, Reason::NoSubscriptionExisted]);
    let (packet, _) = v5::Unsuback::parse(only(&out).1).expect("parses");
    assert_eq!(packet.reason_codes().len(), 2);
    out.clear();
    encode::puback(&mut out, Version::V5, 7, Reason::Quota);
    let (packet, _) = v5::Puback::parse(only(&out).1).expect("parses");
    assert_eq!(packet.reason_code().map(|c| c as u8), Some(Reason::Quota.code()));
    out.clear();
    encode::disconnect(&mut out, Version::V5, Reason::TakenOver);
    let (packet, _) = v5::Disconnect::parse(only(&out).1).expect("parses");
    assert_eq!(packet.reason_code().map(|c| c as u8), Some(Reason::TakenOver.code()));
    out.clear();
    encode::disconnect(&mut out, Version::V311, Reason::TakenOver);
    assert!(out.is_empty(), "3.1.1 has no such packet from a server");
}

proptest! {
    #[test]
    fn a_publish_is_read_back_as_it_was_meant(
        topic in "[a-z/]{1,200}",
        payload in prop::collection::vec(any::<u8>(), 0..20_000),
        (at_least_once, retain, dup) in any::<(bool, bool, bool)>(),
        packet_id in 1..=u16::MAX,
        expiry_s in any::<Option<u32>>(),
        subscription_ids in prop::collection::vec(1..0x0FFF_FFFF_u32, 0..4),
        v5_wanted in any::<bool>(),
    ) {
        let qos = if at_least_once { Qos::AtLeastOnce } else { Qos::AtMostOnce };
        let dup = dup && at_least_once;
        let message = encode::Outgoing {
            topic: &topic, payload: &payload, qos, retain, dup, packet_id, expiry_s,
            subscription_ids: &subscription_ids, properties: &[1, 1],
        };
        let version = if v5_wanted { Version::V5 } else { Version::V311 };
        let mut out = Vec::new();
        encode::publish(&mut out, version, &message);
        prop_assert_eq!(out.len(), encode::publish_len(version, &message));
        let (header, body) = only(&out);
        let id = at_least_once.then_some(packet_id);
        let codec_qos = if at_least_once { CodecQos::AtLeastOnce } else { CodecQos::AtMostOnce };
        if v5_wanted {
            let (packet, _) = v5::Publish::parse(header & 0xF, Arc::from(body)).expect("parses");
            prop_assert_eq!(packet.topic_name(), topic.as_str());
            prop_assert_eq!(packet.payload().as_slice(), payload.as_slice());
            prop_assert_eq!(packet.qos(), codec_qos);
            prop_assert_eq!((packet.retain(), packet.dup()), (retain, dup));
            prop_assert_eq!(packet.packet_id(), id);
            let count = 1 + usize::from(expiry_s.is_some()) + subscription_ids.len();
            prop_assert_eq!(packet.props().len(), count);
            prop_assert!(packet.props().size() >= 2);
        } else {
            let (packet, _) = v3::Publish::parse(header & 0xF, Arc::from(body)).expect("parses");
            prop_assert_eq!(packet.topic_name(), topic.as_str());
            prop_assert_eq!(packet.payload().as_slice(), payload.as_slice());
            prop_assert_eq!(packet.packet_id(), id);
        }
    }

    #[test]
    fn no_bytes_make_the_decoder_panic(
        v5_wanted in any::<bool>(),
        header in any::<u8>(),
        body in prop::collection::vec(any::<u8>(), 0..200),
    ) {
        let version = if v5_wanted { Version::V5 } else { Version::V311 };
        match decode::packet(version, header, &body) {
            Ok(Packet::Publish(publish)) => prop_assert!(publish.payload.len() <= body.len()),
            Ok(Packet::Subscribe(subscribe)) => prop_assert!(!subscribe.filters.is_empty()),
            _ => {}
        }
        let level = if v5_wanted { 5 } else { 4 };
        let connect = [&[0, 4, b'M', b'Q', b'T', b'T', level], body.as_slice()].concat();
        if let Ok(connect) = decode::connect(0x10, &connect) {
            prop_assert_eq!(connect.version, version);
        }
    }
}
