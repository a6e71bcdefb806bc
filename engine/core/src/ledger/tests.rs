//! What is written is read back; anything else is an error.

use super::*;
use marram_protocol::id::ServiceId;
use marram_protocol::v1::ServiceSpec;
use proptest::prelude::*;

fn entry() -> impl Strategy<Value = Entry> {
    let handle = prop::option::of((any::<u16>(), prop::collection::vec(any::<u8>(), 0..20)));
    let held = prop::option::of(("[a-z]{0,10}", any::<u64>(), handle));
    let endings = vec![Ending::None, Ending::Completed, Ending::Dead, Ending::Refused];
    let exits = vec![
        None,
        Some(ExitCause::Code(-1)),
        Some(ExitCause::Signal(9)),
        Some(ExitCause::OutOfMemory),
        Some(ExitCause::Lost),
    ];
    (
        (any::<[u8; 12]>(), any::<u32>(), any::<bool>(), ".{0,20}"),
        (held, prop::sample::select(endings), any::<u32>(), prop::sample::select(exits)),
    )
        .prop_map(|((service, number, is_desired, name), (held, ending, restarts, exit))| {
            let instance = InstanceId { service: ServiceId(service), number };
            let spec = ServiceSpec { image: name.clone(), ..ServiceSpec::default() };
            let workload = Workload { instance, revision: number, name, spec };
            Entry {
                instance,
                desired: is_desired.then_some(workload),
                held: held.map(|(backend, digest, handle)| HeldEntry { backend, digest, handle }),
                ending,
                restarts,
                exit,
            }
        })
}

fn ledger() -> impl Strategy<Value = Ledger> {
    let parts = (any::<u64>(), any::<[u64; 2]>(), prop::collection::vec(entry(), 0..5));
    parts.prop_map(|(writes, [epoch, number], entries)| Ledger {
        writes,
        generation: Generation { epoch, number },
        tree: epoch,
        entries,
    })
}

proptest! {
    #[test]
    fn a_ledger_comes_back_as_it_was(ledger in ledger()) {
        prop_assert_eq!(Ledger::decode(&ledger.encode()), Ok(ledger));
    }

    #[test]
    fn damaged_ledgers_are_errors_or_other_ledgers(
        ledger in ledger(),
        at in any::<prop::sample::Index>(),
        byte in any::<u8>(),
        cut in any::<prop::sample::Index>(),
    ) {
        let mut bytes = ledger.encode();
        prop_assert!(Ledger::decode(&bytes[..cut.index(bytes.len())]).is_err());
        prop_assert!(Ledger::decode(&[bytes.as_slice(), &[0]].concat()).is_err());
        let index = at.index(bytes.len());
        bytes[index] = byte;
        let read = Ledger::decode(&bytes);
        prop_assert!(read.is_ok() || !read.unwrap_err().to_string().is_empty());
    }

    #[test]
    fn random_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        let body: Vec<u8> = std::iter::once(VERSION).chain(bytes.iter().copied()).collect();
        for bytes in [&bytes, &body] {
            prop_assert_eq!(Ledger::decode(bytes), Ledger::decode(bytes));
        }
    }
}

#[test]
fn errors_say_what_is_known() {
    let unknown = Ledger::decode(&[9, 1, 2]).unwrap_err().to_string();
    assert_eq!(unknown, "the ledger has layout Some(9), known is 2");
    assert_eq!(Ledger::decode(&[]), Err(LedgerError::Version(None)));
    let damaged = Ledger::decode(&[VERSION]).unwrap_err().to_string();
    assert!(damaged.starts_with("the ledger is damaged: "), "{damaged}");
}
