//! The machine that the tests run on, whichever it is: what must be true of any.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::path::Path;
use std::time::{Duration, Instant};

use marram_host::{Fingerprint, Root, Sampler};

#[test]
fn this_machine_has_what_every_machine_has() {
    let found = Fingerprint::read(&Root::host(), Path::new("/tmp"));
    assert!(!found.hostname.as_deref().unwrap().contains('\n'));
    assert!(found.kernel.is_some() && found.boot_id.is_some());
    assert!((1..=4096).contains(&found.cpu.threads.unwrap()));
    assert!(found.memory_total_bytes.unwrap() > 16 << 20);
    let disk = found.state_disk.unwrap();
    assert!(disk.total_bytes >= disk.free_bytes && disk.total_bytes > 0);
    assert_eq!(found.cgroups.controllers.len(), 6);
    assert!(found.interfaces.iter().all(|interface| interface.name != "lo"));
    assert!(found.facts().iter().any(|(name, _)| *name == "architecture"));
}

#[test]
fn the_kernel_tells_the_addresses() {
    // Every address that a route to the outside would use belongs to some interface; without
    // such a route there is nothing to compare.
    let socket = std::net::UdpSocket::bind("0.0.0.0:0").unwrap();
    if socket.connect("192.0.2.1:9").is_err() {
        return;
    }
    let ours = socket.local_addr().unwrap().ip();
    let found = Fingerprint::read(&Root::host(), Path::new("/tmp"));
    let all: Vec<_> = found.interfaces.into_iter().flat_map(|i| i.addresses).collect();
    assert!(ours.is_loopback() || all.contains(&ours), "{ours} is not among {all:?}");
}

#[test]
fn samples_of_this_machine_are_plausible_and_move() {
    let mut sampler = Sampler::new(&Root::host(), Path::new("/tmp"));
    let first = sampler.sample();
    let memory = first.memory.unwrap();
    assert!(memory.available_bytes <= memory.total_bytes);
    assert!(first.load.is_some() && first.state_disk.is_some() && first.network.is_some());

    let deadline = Instant::now() + Duration::from_secs(10);
    let mut samples = 0_u32;
    let permille = loop {
        assert!(Instant::now() < deadline, "the kernel counted no tick in ten seconds");
        samples += 1;
        if let Some(permille) = sampler.sample().cpu_permille_since(&first) {
            break permille;
        }
    };
    assert!(permille <= 1000);
    assert!(samples < 100_000, "a sample cannot be that fast");
}
