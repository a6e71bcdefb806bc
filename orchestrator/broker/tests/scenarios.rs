//! The standard's rules over real connections, each against this broker and against Mosquitto.

mod common;

use common::Target;
use common::client::{Client, Options, Received};

against_both!(
    messages_cross_versions_in_order,
    wildcards_select_and_unsubscribing_ends,
    a_will_follows_a_broken_connection_only,
    a_will_waits_its_delay_and_is_forgotten_on_return,
    retained_300_come_and_clear,
    a_session_resumes_with_500_messages,
    unacknowledged_messages_come_again,
    a_session_expires,
    messages_expire_in_queue_and_store,
    shared_subscriptions_split_the_messages,
    a_takeover_is_told,
    silence_is_cut_off_and_leaves_the_will,
    keep_alive_0_is_let_in,
    subscription_options_are_kept,
    properties_reach_the_receiver,
    a_nameless_client_gets_an_id,
    the_receive_maximum_is_kept,
    the_packet_size_is_kept,
    topic_aliases_are_resolved,
    what_breaks_the_standard_ends_the_connection,
);

async fn messages_cross_versions_in_order(target: &impl Target) {
    for (from_v5, to_v5) in [(true, true), (true, false), (false, true), (false, false)] {
        let mut to = Client::connect(target.port(), &Options::version(to_v5, "to")).await;
        assert_eq!(to.subscribe("t/+", 1).await, 1);
        let mut from = Client::connect(target.port(), &Options::version(from_v5, "from")).await;
        for qos in [0, 1] {
            for at in 0..50 {
                from.publish("t/x", at.to_string().as_bytes(), qos, false).await;
            }
            for at in 0..50 {
                let message = to.message().await;
                assert_eq!((message.topic.as_str(), message.qos), ("t/x", qos));
                assert_eq!(message.text(), at.to_string());
            }
        }
        to.disconnect().await;
        from.disconnect().await;
    }
}

async fn wildcards_select_and_unsubscribing_ends(target: &impl Target) {
    let mut client = Client::connect(target.port(), &Options::v5("a")).await;
    let table = [
        ("a/+/c", vec!["a/b/c", "a//c"]),
        ("a/#", vec!["a", "a/b", "a/b/c", "a//c"]),
        ("#", vec!["a", "a/b", "a/b/c", "a//c", "b"]),
        ("+", vec!["a", "b"]),
    ];
    for (filter, expected) in table {
        client.subscribe(filter, 0).await;
        for topic in ["a", "a/b", "a/b/c", "a//c", "b", "$x/b"] {
            client.publish(topic, b"x", 1, false).await;
        }
        let got: Vec<String> = client.pending().await.into_iter().map(|m| m.topic).collect();
        assert_eq!(got, expected, "{filter}");
        assert_eq!(client.unsubscribe(filter).await, 0);
        assert_eq!(client.unsubscribe(filter).await, 0x11, "no subscription existed");
        client.publish("a", b"x", 1, false).await;
        assert!(client.pending().await.is_empty());
    }
}

async fn a_will_follows_a_broken_connection_only(target: &impl Target) {
    let mut watcher = Client::connect(target.port(), &Options::v5("watcher")).await;
    watcher.subscribe("will/#", 1).await;
    for v5 in [true, false] {
        let options = Options::version(v5, "a");
        let options = |topic| options.clone().will(topic, "gone", 0);
        let clean = Client::connect(target.port(), &options("will/clean")).await;
        clean.disconnect().await;
        let broken = Client::connect(target.port(), &options("will/broken")).await;
        broken.abort();
        let will = watcher.message().await;
        assert_eq!((will.topic.as_str(), will.text().as_str()), ("will/broken", "gone"));
        assert!(watcher.pending().await.is_empty());
    }
    let mut asks =
        Client::connect(target.port(), &Options::v5("a").will("will/asked", "x", 0)).await;
    asks.send(0xE0, &[4]).await;
    assert_eq!(watcher.message().await.topic, "will/asked", "disconnect with will");
}

async fn a_will_waits_its_delay_and_is_forgotten_on_return(target: &impl Target) {
    let mut watcher = Client::connect(target.port(), &Options::v5("watcher")).await;
    watcher.subscribe("will/#", 1).await;
    let options = Options::v5("a").lasting(false).will("will/a", "gone", 300);
    Client::connect(target.port(), &options).await.abort();
    let back = Client::connect(target.port(), &Options::v5("a").lasting(false)).await;
    assert!(back.session_present);
    back.disconnect().await;
    let options = Options::v5("b").lasting(false).will("will/b", "gone", 1);
    Client::connect(target.port(), &options).await.abort();
    assert!(watcher.pending().await.is_empty());
    assert_eq!(watcher.message().await.topic, "will/b");
}

async fn retained_300_come_and_clear(target: &impl Target) {
    let mut publisher = Client::connect(target.port(), &Options::v5("publisher")).await;
    for at in 0..300 {
        let topic = format!("ret/{at}");
        publisher.publish(&topic, b"old", 1, true).await;
        publisher.publish(&topic, at.to_string().as_bytes(), 1, true).await;
    }
    for v5 in [true, false] {
        let mut client = Client::connect(target.port(), &Options::version(v5, "a")).await;
        client.subscribe("ret/#", 1).await;
        let mut got = Vec::new();
        for _ in 0..300 {
            let message = client.message().await;
            assert!(message.retain && message.topic == format!("ret/{}", message.text()));
            got.push(message.topic);
        }
        got.sort();
        got.dedup();
        assert_eq!(got.len(), 300);
        client.disconnect().await;
    }
    for at in 0..300 {
        publisher.publish(&format!("ret/{at}"), b"", 1, true).await;
    }
    let mut late = Client::connect(target.port(), &Options::v5("late")).await;
    late.subscribe("ret/#", 1).await;
    assert!(late.pending().await.is_empty());
}

async fn a_session_resumes_with_500_messages(target: &impl Target) {
    let mut publisher = Client::connect(target.port(), &Options::v5("publisher")).await;
    for v5 in [true, false] {
        let options = Options::version(v5, "a");
        // A clean session of 3.1.1 would not outlive its connection.
        let mut client = Client::connect(target.port(), &options.clone().lasting(v5)).await;
        assert!(!client.session_present);
        client.subscribe("t", 1).await;
        client.disconnect().await;
        let mut client = Client::connect(target.port(), &options.clone().lasting(false)).await;
        assert!(client.session_present);
        client.publish("t", b"there", 1, false).await;
        assert_eq!(client.texts(1).await, ["there"], "still subscribed");
        client.abort();
        for at in 0..500 {
            publisher.publish("t", at.to_string().as_bytes(), 1, false).await;
        }
        publisher.publish("t", b"best effort", 0, false).await;
        let mut client = Client::connect(target.port(), &options.clone().lasting(false)).await;
        let got = client.texts(500).await;
        assert_eq!(got, (0..500).map(|at| at.to_string()).collect::<Vec<_>>());
        assert!(client.pending().await.is_empty());
        client.disconnect().await;
        let client = Client::connect(target.port(), &options).await;
        assert!(!client.session_present, "a clean start");
        client.disconnect().await;
    }
}

async fn unacknowledged_messages_come_again(target: &impl Target) {
    for v5 in [true, false] {
        let options = Options::version(v5, "a").lasting(false);
        let mut client = Client::connect(target.port(), &options).await;
        client.subscribe("t", 1).await;
        client.publish("t", b"1", 1, false).await;
        client.pending().await;
        // Published by another, so that the answer to the publish does not come in between.
        let mut publisher = Client::connect(target.port(), &Options::v5("publisher")).await;
        publisher.publish("t", b"2", 1, false).await;
        let Received::Publish(first) = client.receive().await else { panic!("no message") };
        assert!(!first.dup);
        client.abort();
        let mut client = Client::connect(target.port(), &options).await;
        let again = client.message().await;
        assert_eq!((again.text().as_str(), again.dup), ("2", true));
        assert_eq!(again.packet_id, first.packet_id);
        client.disconnect().await;
        let clean = Client::connect(target.port(), &Options::version(v5, "a")).await;
        clean.disconnect().await;
    }
}

async fn a_session_expires(target: &impl Target) {
    let mut watcher = Client::connect(target.port(), &Options::v5("watcher")).await;
    watcher.subscribe("will", 1).await;
    // A will that would wait longer than the session is published when the session ends.
    let options = Options::v5("a").will("will", "ended", 300);
    let options = Options { session_expiry_s: Some(1), ..options };
    let client = Client::connect(target.port(), &options).await;
    client.abort();
    assert_eq!(watcher.message().await.text(), "ended");
    let back = Client::connect(target.port(), &Options { clean: false, ..options }).await;
    assert!(!back.session_present);
}

async fn messages_expire_in_queue_and_store(target: &impl Target) {
    let mut away = Client::connect(target.port(), &Options::v5("away").lasting(true)).await;
    away.subscribe("t", 1).await;
    away.disconnect().await;
    let mut publisher = Client::connect(target.port(), &Options::v5("publisher")).await;
    let expiry = |seconds| [2, 0, 0, 0, seconds];
    publisher.publish_with("t", b"short", 1, false, &expiry(1)).await;
    publisher.publish_with("t", b"long", 1, false, &expiry(100)).await;
    publisher.publish_with("r", b"short", 1, true, &expiry(3)).await;
    // The retained one is seen to go; by then the queued one is long gone.
    loop {
        let mut probe = Client::connect(target.port(), &Options::v5("probe")).await;
        probe.subscribe("r", 1).await;
        let left = probe.pending().await.len();
        probe.disconnect().await;
        if left == 0 {
            break;
        }
    }
    let mut back = Client::connect(target.port(), &Options::v5("away").lasting(false)).await;
    let got = back.message().await;
    assert_eq!(got.text(), "long");
    assert!(matches!(got.properties[..], [2, 0, 0, 0, 90..=100]), "what is left of its time");
    assert!(back.pending().await.is_empty());
}

async fn shared_subscriptions_split_the_messages(target: &impl Target) {
    let mut members = Vec::new();
    for id in ["a", "b", "c"] {
        let mut member = Client::connect(target.port(), &Options::v5(id)).await;
        assert_eq!(member.subscribe("$share/group/t/#", 1).await, 1);
        members.push(member);
    }
    let mut publisher = Client::connect(target.port(), &Options::v5("publisher")).await;
    for at in 0..30 {
        publisher.publish("t/x", at.to_string().as_bytes(), 1, false).await;
    }
    let mut got = Vec::new();
    for member in &mut members {
        let texts: Vec<String> = member.pending().await.iter().map(|m| m.text()).collect();
        assert_eq!(texts.len(), 10, "equal shares");
        got.extend(texts);
    }
    got.sort_by_key(|text| text.parse::<u32>().expect("a number"));
    assert_eq!(got, (0..30).map(|at| at.to_string()).collect::<Vec<_>>());
    members.pop().expect("three").abort();
    members.pop().expect("two").disconnect().await;
    for _ in 0..6 {
        publisher.publish("t/x", b"x", 1, false).await;
    }
    assert!(members[0].texts(4).await.len() == 4, "the one that is left gets what comes");
}

async fn a_takeover_is_told(target: &impl Target) {
    let options = Options::v5("a").lasting(false);
    let mut old = Client::connect(target.port(), &options).await;
    old.subscribe("t", 1).await;
    let mut new = Client::connect(target.port(), &options).await;
    assert!(new.session_present);
    assert!(matches!(old.farewell().await, None | Some(0x8E)));
    let mut other = Client::connect(target.port(), &Options::v5("other")).await;
    other.publish("t", b"1", 1, false).await;
    assert_eq!(new.texts(1).await, ["1"]);
    let old = Options::v311("b");
    let mut old = Client::connect(target.port(), &old).await;
    let new = Client::connect(target.port(), &Options::v5("b")).await;
    assert_eq!(old.receive().await, Received::End, "3.1.1 has no words for it");
    new.disconnect().await;
}

async fn silence_is_cut_off_and_leaves_the_will(target: &impl Target) {
    let mut watcher = Client::connect(target.port(), &Options::v5("watcher")).await;
    watcher.subscribe("will", 1).await;
    let options = Options::v5("a").will("will", "silent", 0);
    let mut silent = Client::connect(target.port(), &Options { keep_alive_s: 1, ..options }).await;
    assert!(matches!(silent.farewell().await, None | Some(0x8D)));
    assert_eq!(watcher.message().await.text(), "silent");
}

async fn keep_alive_0_is_let_in(target: &impl Target) {
    for v5 in [true, false] {
        let options = Options { keep_alive_s: 0, ..Options::version(v5, "a") };
        let mut client = Client::connect(target.port(), &options).await;
        client.subscribe("t", 1).await;
        client.publish("t", b"1", 1, false).await;
        assert_eq!(client.texts(1).await, ["1"]);
        client.disconnect().await;
    }
}

async fn subscription_options_are_kept(target: &impl Target) {
    let mut client = Client::connect(target.port(), &Options::v5("a")).await;
    let mut other = Client::connect(target.port(), &Options::v5("b")).await;
    client.publish("t", b"kept", 1, true).await;
    let (no_local, as_published, if_new, never) = (4, 8, 16, 32);
    client.subscribe("t", 1 | never | no_local | as_published).await;
    client.publish("t", b"own", 1, true).await;
    assert!(client.pending().await.is_empty());
    other.publish("t", b"1", 1, true).await;
    assert!(client.message().await.retain);
    client.unsubscribe("t").await;
    client.subscribe("t", 1 | if_new).await;
    assert_eq!(client.texts(1).await, ["1"]);
    other.publish("t", b"2", 1, true).await;
    assert!(!client.message().await.retain);
    client.subscribe("t", 1 | if_new).await;
    assert!(client.pending().await.is_empty(), "the subscription existed");
    client.subscribe("t", 1).await;
    assert_eq!(client.texts(1).await, ["2"], "retained again on every subscription");
}

async fn properties_reach_the_receiver(target: &impl Target) {
    let mut client = Client::connect(target.port(), &Options::v5("a")).await;
    // SUBSCRIBE with subscription identifier 7.
    client.send(0x82, &[0, 9, 2, 11, 7, 0, 1, b't', 1]).await;
    client.expect(0x90).await;
    // Payload format, content type "c", response topic "r", correlation "d", user property a=b.
    let properties = [
        [1, 1].as_slice(),
        &[3, 0, 1, b'c'],
        &[8, 0, 1, b'r'],
        &[9, 0, 1, b'd'],
        &[38, 0, 1, b'a', 0, 1, b'b'],
    ];
    client.publish_with("t", b"x", 1, false, &properties.concat()).await;
    let got = client.message().await;
    assert_eq!(got.properties.len(), properties.concat().len() + 2);
    for property in properties.iter().copied().chain([[11, 7].as_slice()]) {
        let found = got.properties.windows(property.len()).any(|part| part == property);
        assert!(found, "{property:?} in {:?}", got.properties);
    }
}

async fn a_nameless_client_gets_an_id(target: &impl Target) {
    let client = Client::connect(target.port(), &Options::v5("")).await;
    let at = client.properties.windows(3).position(|part| part[0] == 18 && part[1] == 0);
    assert!(at.is_some(), "an assigned id in {:?}", client.properties);
    client.disconnect().await;
    Client::connect(target.port(), &Options::v311("")).await.disconnect().await;
    let resumes = Options { clean: false, ..Options::v311("") };
    assert_eq!(Client::try_connect(target.port(), &resumes).await.err(), Some(2));
}

async fn the_receive_maximum_is_kept(target: &impl Target) {
    let options = Options { receive_max: Some(2), ..Options::v5("a") };
    let mut client = Client::connect(target.port(), &options).await;
    client.subscribe("t", 1).await;
    let mut publisher = Client::connect(target.port(), &Options::v5("publisher")).await;
    for at in 1..=4_u8 {
        publisher.publish("t", &[at], 1, false).await;
    }
    let mut got = Vec::new();
    for _ in 0..2 {
        client.send(0xC0, &[]).await;
        loop {
            match client.receive().await {
                Received::Publish(message) => got.push(message),
                Received::Other(0xD0, _) => break,
                other => panic!("unexpected: {other:?}"),
            }
        }
    }
    assert_eq!(got.iter().map(|m| m.payload[0]).collect::<Vec<_>>(), [1, 2]);
    client.acknowledge(&got[0]).await;
    assert_eq!(client.message().await.payload, [3]);
    assert_eq!(client.message().await.payload, [4]);
}

async fn the_packet_size_is_kept(target: &impl Target) {
    let options = Options { packet_bytes_max: Some(100), ..Options::v5("a") };
    let mut client = Client::connect(target.port(), &options).await;
    client.subscribe("t", 1).await;
    let mut publisher = Client::connect(target.port(), &Options::v5("publisher")).await;
    publisher.publish("t", &[b'x'; 200], 1, false).await;
    publisher.publish("t", b"fits", 1, false).await;
    assert_eq!(client.texts(1).await, ["fits"]);
}

async fn topic_aliases_are_resolved(target: &impl Target) {
    let mut client = Client::connect(target.port(), &Options::v5("a")).await;
    client.subscribe("t/#", 1).await;
    client.publish_with("t/1", b"set", 1, false, &[35, 0, 3]).await;
    client.publish_with("", b"used", 1, false, &[35, 0, 3]).await;
    client.publish_with("t/2", b"changed", 1, false, &[35, 0, 3]).await;
    client.publish_with("", b"used again", 1, false, &[35, 0, 3]).await;
    for (topic, text) in
        [("t/1", "set"), ("t/1", "used"), ("t/2", "changed"), ("t/2", "used again")]
    {
        let message = client.message().await;
        assert_eq!((message.topic.as_str(), message.text().as_str()), (topic, text));
    }
    let mut other = Client::connect(target.port(), &Options::v5("b")).await;
    other.send(0x30, &[0, 0, 3, 35, 0, 1, b'x']).await;
    assert!(matches!(other.receive().await, Received::Other(0xE0, _)), "never set");
    assert_eq!(other.receive().await, Received::End);
}

async fn what_breaks_the_standard_ends_the_connection(target: &impl Target) {
    let table: [(&str, u8, &[u8]); 5] = [
        ("a second connect", 0x10, &[0, 4, b'M', b'Q', b'T', b'T', 5, 2, 0, 60, 0, 0, 0]),
        ("subscribe without filter", 0x82, &[0, 1, 0]),
        ("a wildcard in a topic", 0x30, &[0, 1, b'#', 0, b'x']),
        ("qos 3", 0x36, &[0, 1, b't', 0, 1, 0, b'x']),
        ("reserved bits", 0x80, &[0, 1, 0, 0, 1, b'a', 0]),
    ];
    for (name, header, body) in table {
        let mut client = Client::connect(target.port(), &Options::v5("a")).await;
        client.send(header, body).await;
        client.farewell().await;
        let next = Client::connect(target.port(), &Options::v5("a")).await;
        assert!(!next.session_present, "{name}");
        next.disconnect().await;
    }
}
