//! What is written is read back; anything else is an error.

use super::*;
use crate::decisions::Verdict;
use marram_protocol::id::ServiceId;
use marram_protocol::v1::ServiceSpec;
use proptest::prelude::*;

fn decided(times: u32) -> VecDeque<Decision> {
    let verdict = Verdict::Refused { by: "a".into(), reason: "b".into() };
    (0..times % 3).map(|_| Decision { unix_ms: 5, times, verdict: verdict.clone() }).collect()
}

fn instance_record() -> impl Strategy<Value = InstanceRecord> {
    let name = "[a-z]{0,20}";
    let parts =
        (any::<[u8; 12]>(), any::<u32>(), name, any::<[Option<[u8; 12]>; 2]>(), any::<[bool; 3]>());
    parts.prop_map(
        |(service, number, name, [placed, leaving], [removing, handed_back, stopping])| {
            InstanceRecord {
                workload: Workload {
                    instance: InstanceId { service: ServiceId(service), number },
                    revision: number,
                    spec: ServiceSpec {
                        image: name.clone(),
                        args: vec![name.clone()],
                        ..Default::default()
                    },
                    name,
                },
                placed: placed.map(ChildId),
                removing,
                handed_back,
                leaving: leaving.map(ChildId),
                claimed: leaving.is_some() && number % 2 == 0,
                stopping,
                decisions: decided(number),
            }
        },
    )
}

proptest! {
    #[test]
    fn an_instance_comes_back_as_it_was(record in instance_record()) {
        let key = Key::Instance(record.workload.instance);
        let read = decode(&key.encode(), &encode(&record));
        prop_assert_eq!(read, Ok((key, Record::Instance(Box::new(record)))));
    }

    #[test]
    fn the_others_come_back_as_they_were(
        id in any::<[u8; 12]>(),
        name in ".{0,30}",
        number in any::<u64>(),
        is_node in any::<bool>(),
    ) {
        let kind = if is_node { ChildKind::Node } else { ChildKind::Cluster };
        let key = Key::Child(ChildId(id));
        let site = Site { labels: vec![name.clone()], address: name.clone(), ..Site::default() };
        let (cordoned, draining, guest) = (is_node, !is_node, number % 2 == 0);
        let record = ChildRecord { name, kind, number, cordoned, draining, guest, site };
        prop_assert_eq!(decode(&key.encode(), &encode(&record)), Ok((key, Record::Child(record))));
        let released = BTreeSet::from([ChildId(id)]);
        let tier = TierRecord { cordoned: is_node, first_number: number, released };
        prop_assert_eq!(decode(&Key::Tier.encode(), &encode(&tier)), Ok((Key::Tier, Record::Tier(tier))));
        let read = decode(&Key::Epoch.encode(), &encode(&number));
        prop_assert_eq!(read, Ok((Key::Epoch, Record::Epoch(number))));
        let generation = Generation { epoch: number, number: 3 };
        let read = decode(&Key::Parent.encode(), &encode(&generation));
        prop_assert_eq!(read, Ok((Key::Parent, Record::Parent(generation))));
    }

    #[test]
    fn damaged_records_are_errors_or_other_records(
        record in instance_record(),
        at in any::<prop::sample::Index>(),
        byte in any::<u8>(),
        cut in any::<prop::sample::Index>(),
    ) {
        let key = Key::Instance(record.workload.instance).encode();
        let mut value = encode(&record);
        let end = cut.index(value.len());
        prop_assert!(decode(&key, &value[..end]).is_err(), "a part is no record");
        let longer = [value.as_slice(), &[0]].concat();
        prop_assert!(decode(&key, &longer).is_err(), "nor is a record and more");
        let index = at.index(value.len());
        value[index] = byte;
        let read = decode(&key, &value);
        prop_assert!(read.is_ok() || !read.unwrap_err().to_string().is_empty());
    }

    #[test]
    fn random_bytes_never_panic(
        key in prop::collection::vec(any::<u8>(), 0..20),
        value in prop::collection::vec(any::<u8>(), 0..200),
    ) {
        let same = decode(&key, &value) == decode(&key, &value);
        prop_assert!(same);
        for name in [b'e', b'p', b'c', b'i'] {
            let key: Vec<u8> = std::iter::once(name).chain(key.iter().copied()).collect();
            let body: Vec<u8> = std::iter::once(VERSION).chain(value.iter().copied()).collect();
            prop_assert_eq!(decode(&key, &body), decode(&key, &body));
        }
    }
}

#[test]
fn errors_name_the_record() {
    let unknown = decode(b"x1", &[1]).unwrap_err().to_string();
    assert_eq!(unknown, "unknown record [78, 31]");
    let version = decode(b"e", &[9, 1]).unwrap_err().to_string();
    assert_eq!(version, "record [65] has layout Some(9), known is 2");
    let empty = decode(b"e", &[]).unwrap_err().to_string();
    assert_eq!(empty, "record [65] has layout None, known is 2");
    let damaged = decode(b"e", &[VERSION]).unwrap_err().to_string();
    assert!(damaged.starts_with("record [65] is damaged: "), "{damaged}");
}
