//! The parsers on text of real machines, on text that is nearly right, and on any text.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::{Path, PathBuf};

use proptest::prelude::*;

use super::*;

#[test]
fn processor_time_leaves_idle_and_io_out() {
    let stat = "cpu  100 20 30 800 50 5 15 30 7 7\ncpu0 1 2 3 4 5 6 7 8 9 10\n";
    assert_eq!(cpu_ticks(stat), Some(CpuTicks { busy: 200, total: 1050 }));
    assert_eq!(cpu_ticks("cpu  1 2 3 4 5\n"), Some(CpuTicks { busy: 6, total: 15 }));
    for wrong in ["", "cpu  1 2 3 4", "cpu  1 2 x 4 5", "cpu0 1 2 3 4 5", "cpu 1 2 3 4 -5"] {
        assert_eq!(cpu_ticks(wrong), None, "{wrong:?}");
    }
}

#[test]
fn the_busy_share_is_of_the_time_between() {
    let ticks = |busy, total| CpuTicks { busy, total };
    assert_eq!(busy_permille(ticks(100, 1000), ticks(150, 1200)), Some(250));
    assert_eq!(busy_permille(ticks(100, 1000), ticks(99, 1100)), Some(0));
    assert_eq!(busy_permille(ticks(0, 0), ticks(200, 100)), Some(1000));
    assert_eq!(busy_permille(ticks(1, 5), ticks(1, 5)), None);
    assert_eq!(busy_permille(ticks(9, 90), ticks(1, 5)), None);
    assert_eq!(busy_permille(ticks(0, 0), ticks(u64::MAX, u64::MAX)), Some(1000));
}

#[test]
fn lists_of_processors_are_counted() {
    assert_eq!(count_list("0-3\n"), Some(4));
    assert_eq!(count_list("0"), Some(1));
    assert_eq!(count_list("0-3,5,8-15"), Some(13));
    for wrong in ["", "3-0", "0-4294967295", "a", "0-", "1,,2"] {
        assert_eq!(count_list(wrong), None, "{wrong:?}");
    }
}

#[test]
fn processors_have_a_name() {
    let name = |text| cpu_model(text).unwrap_or_default();
    assert_eq!(name("processor\t: 0\nmodel name\t: AMD EPYC\n"), "AMD EPYC");
    let pi4 = "processor\t: 0\nCPU implementer\t: 0x41\nCPU architecture: 8\nCPU part\t: 0xd08\n\
               \nprocessor\t: 1\nCPU implementer\t: 0x41\nCPU part\t: 0xd08\n";
    assert_eq!(name(pi4), "ARM Cortex-A72");
    let two_kinds = "CPU implementer\t: 0x41\nCPU part\t: 0xd05\n\
                     CPU implementer\t: 0x41\nCPU part\t: 0xd0b\n";
    assert_eq!(name(two_kinds), "ARM Cortex-A55 + ARM Cortex-A76");
    assert_eq!(name("CPU implementer : 0x4e\nCPU part : 0x004\n"), "NVIDIA Carmel");
    assert_eq!(name("CPU implementer : 0x51\nCPU part : 0x802\n"), "implementer 0x51 part 0x802");
    assert_eq!(name("hart : 0\nuarch : sifive,u74-mc\n"), "sifive,u74-mc");
    assert_eq!(cpu_model("model name :\n"), None);
}

#[test]
fn the_first_raspberry_pi_is_version_6_whatever_it_claims() {
    let pi1 = "model name\t: ARMv6-compatible processor rev 7 (v6l)\nCPU architecture: 7\n";
    assert_eq!(arm_version(pi1), Some(6));
    assert_eq!(arm_version("model name\t: ARMv7 Processor rev 4 (v7l)\n"), Some(7));
    assert_eq!(arm_version("CPU architecture: 8\n"), Some(8));
    assert_eq!(arm_version("model name: AMD EPYC\n"), None);
}

#[test]
fn load_is_in_thousandths() {
    let expected =
        Load { one_minute_milli: 520, five_minutes_milli: 1000, fifteen_minutes_milli: 12_070 };
    assert_eq!(load("0.52 1.00 12.07 3/345 6789\n"), Some(expected));
    for wrong in ["", "0.5 0.5", "-1 0 0", ". . .", "1e3 0 0", "0,5 1 1"] {
        assert_eq!(load(wrong), None, "{wrong:?}");
    }
}

#[test]
fn pressure_is_in_thousandths() {
    let text = "some avg10=6.43 avg60=100.00 avg300=7.79 total=121360223\n\
                full avg10=0.09 avg60=0.10 avg300=0.00 total=5\n";
    let some = Stall { ten_seconds_permille: 64, one_minute_permille: 1000, total_us: 121_360_223 };
    let full = Stall { ten_seconds_permille: 0, one_minute_permille: 1, total_us: 5 };
    assert_eq!(pressure(text), Some(Pressure { some, full: Some(full) }));
    let old = text.lines().next().unwrap();
    assert_eq!(pressure(old), Some(Pressure { some, full: None }));
    assert_eq!(pressure("full avg10=0.09 avg60=0.10 total=5"), None);
}

#[test]
fn memory_is_in_bytes() {
    let text = "MemTotal:       24684092 kB\nMemFree:        23359060 kB\n\
                MemAvailable:   24268648 kB\nSwapTotal:      2048 kB\nSwapFree:  1024 kB\n";
    let found = memory(text).unwrap();
    assert_eq!(found.total_bytes, 24_684_092 * 1024);
    assert_eq!(found.used_bytes(), (24_684_092 - 24_268_648) * 1024);
    assert_eq!((found.swap_total_bytes, found.swap_free_bytes), (2048 * 1024, 1024 * 1024));
    assert_eq!(memory("MemTotal: 5 kB\nMemFree: 3 kB\n"), None);
    assert_eq!(memory("MemTotal: 5\nMemAvailable: 3 kB\n"), None);
    assert_eq!(memory("MemTotal: 99999999999999999999 kB\nMemAvailable: 3 kB\n"), None);
}

#[test]
fn interfaces_are_counted() {
    let text = "Inter-|   Receive    |  Transmit\n face |bytes packets|bytes\n\
                \x20   lo:    3193   29 0 0 0 0 0 0     3194   29 0\n\
                \x20 eth0: 165717429 8272 0 0 0 0 0 0 760438 5878 0\n\
                \x20 broken: 1\n\
                eth0:1:7 0 0 0 0 0 0 0 8 0\n";
    let found: Vec<_> = interface_counters(text).collect();
    let row = |name, rx_bytes, tx_bytes| (name, Counters { rx_bytes, tx_bytes });
    assert_eq!(
        found,
        [row("lo", 3193, 3194), row("eth0", 165_717_429, 760_438), row("eth0:1", 7, 8)]
    );
}

/// A message of the kernel's answer.
fn message(kind: u16, body: &[u8]) -> Vec<u8> {
    let length = u32::try_from(16 + body.len()).unwrap();
    let mut bytes = length.to_ne_bytes().to_vec();
    bytes.extend(kind.to_ne_bytes());
    bytes.extend([0; 10]);
    bytes.extend(body);
    bytes.resize(bytes.len().next_multiple_of(4), 0);
    bytes
}

fn attribute(kind: u16, value: &[u8]) -> Vec<u8> {
    let length = u16::try_from(4 + value.len()).unwrap();
    let mut bytes = [length.to_ne_bytes(), kind.to_ne_bytes()].concat();
    bytes.extend(value);
    bytes.resize(bytes.len().next_multiple_of(4), 0);
    bytes
}

fn new_address(family: u8, index: u32, attributes: &[Vec<u8>]) -> Vec<u8> {
    let mut body = vec![family, 24, 0, 0];
    body.extend(index.to_ne_bytes());
    body.extend(attributes.concat());
    message(20, &body)
}

#[test]
fn addresses_come_with_their_interface() {
    let v6 = Ipv6Addr::LOCALHOST;
    let datagram = [
        new_address(2, 3, &[attribute(1, &[10, 0, 0, 9]), attribute(2, &[10, 0, 0, 1])]),
        new_address(2, 4, &[attribute(2, &[10, 0, 0, 2]), attribute(1, &[10, 0, 0, 9])]),
        new_address(10, 5, &[attribute(3, b"eth0\0"), attribute(1, &v6.octets())]),
        new_address(7, 6, &[attribute(1, &[1, 2, 3, 4])]),
        new_address(2, 7, &[attribute(1, &[1, 2, 3])]),
    ]
    .concat();
    let found = addresses(&datagram).unwrap();
    let v4 = |last| IpAddr::from(Ipv4Addr::new(10, 0, 0, last));
    assert_eq!(found.list, [(3, v4(1)), (4, v4(2)), (5, v6.into())]);
    assert!(!found.done);
    assert!(addresses(&[datagram, message(3, &[0; 4])].concat()).unwrap().done);
}

#[test]
fn an_answer_that_is_cut_or_an_error_is_refused() {
    let whole = new_address(2, 3, &[attribute(1, &[10, 0, 0, 9])]);
    for cut in 1..whole.len() {
        assert_eq!(addresses(&whole[..cut]), Err(AddressesError), "{cut}");
    }
    assert_eq!(addresses(&message(2, &[1, 0, 0, 0])), Err(AddressesError));
    assert_eq!(addresses(&[0; 16]), Err(AddressesError));
    assert_eq!(address_request().len(), 24);
}

#[test]
fn mounts_of_both_versions_are_found() {
    let text = "\
31 23 0:28 / /sys/fs/cgroup rw,relatime - tmpfs tmpfs rw,mode=755
32 31 0:29 / /sys/fs/cgroup/cpu,cpuacct rw,relatime shared:9 - cgroup cgroup rw,cpu,cpuacct
40 31 0:37 / /sys/fs/cgroup/systemd rw - cgroup cgroup rw,xattr,name=systemd
41 31 0:38 / /sys/fs/cgroup/my\\040place rw,relatime - cgroup2 cgroup2 rw,nsdelegate
42 31 0:38 / /elsewhere rw - cgroup2 cgroup2 rw
nonsense
";
    let found = cgroup_mounts(text);
    assert_eq!(found.v2, Some(PathBuf::from("/sys/fs/cgroup/my place")));
    let names: Vec<_> = found.v1.keys().map(String::as_str).collect();
    assert_eq!(names, ["cpu", "cpuacct", "name=systemd"]);
    assert_eq!(found.v1["cpu"], Path::new("/sys/fs/cgroup/cpu,cpuacct"));
}

#[test]
fn own_cgroups_and_enabled_controllers() {
    let own = own_cgroups("4:memory:/a/b\n2:cpu,cpuacct:/\n0::/user.slice/x:y\nbroken\n");
    assert_eq!(own["memory"], "/a/b");
    assert_eq!(own["cpuacct"], "/");
    assert_eq!(own[""], "/user.slice/x:y");
    let enabled = controllers_enabled(
        "#subsys_name\thierarchy\tnum_cgroups\tenabled\nmemory\t0\t1\t0\ncpu\t1\t1\t1\nodd\n",
    );
    assert_eq!((enabled["memory"], enabled["cpu"], enabled.len()), (false, true, 2));
}

#[test]
fn systems_have_names() {
    let name = |text| os_pretty_name(text).unwrap_or_default();
    assert_eq!(name("NAME=x\nPRETTY_NAME=\"Debian GNU/Linux 12\"\n"), "Debian GNU/Linux 12");
    assert_eq!(name("PRETTY_NAME='It''s'\n"), "It''s");
    assert_eq!(name("PRETTY_NAME=\"a \\\"b\\\" \\$c\"\n"), "a \"b\" $c");
    assert_eq!(name("PRETTY_NAME=one\nPRETTY_NAME=two\n"), "two");
    assert_eq!(name("NAME=Poky\n"), "Poky");
    for none in ["", "PRETTY_NAME=\n", "PRETTY_NAMES=x\n", "PRETTY_NAME=\"\"\n"] {
        assert_eq!(os_pretty_name(none), None, "{none:?}");
    }
}

#[test]
fn ids_are_whole_or_none() {
    let id = "0123456789abcdef0123456789ABCDEF\n";
    assert_eq!(board_id(id).unwrap(), "0123456789abcdef0123456789abcdef");
    assert!(board_id("01234567-89ab-cdef-0123-456789abcdef").is_some());
    for none in ["", "uninitialized", "00000000000000000000000000000000", "0123456789abcdef"] {
        assert_eq!(board_id(none), None, "{none:?}");
    }
}

#[test]
fn small_numbers_of_sysfs() {
    assert_eq!(temperature_millidegrees("48312\n"), Some(48_312));
    assert_eq!(temperature_millidegrees("-256000"), None);
    assert_eq!(temperature_millidegrees("hot"), None);
    let found = throttling("50005\n").unwrap();
    assert!(found.under_voltage() && found.slowed_down() && found.since_boot());
    let past = throttling("0x50000").unwrap();
    assert!(!past.under_voltage() && !past.slowed_down() && past.since_boot());
    assert_eq!(throttling("+5"), None);
    assert_eq!(pci_id("0x10de\n"), Some(0x10de));
    assert_eq!((pci_id("10de"), pci_id("0x10de0"), pci_id("0x+1")), (None, None, None));
    assert_eq!(pci_address("0000:01:00.0").as_deref(), Some("0000:01:00.0"));
    assert_eq!((pci_address("gpu.0"), pci_address("0000:01:00.00")), (None, None));
    assert_eq!(
        (drm_card("card12"), drm_card("card0-DP-1"), drm_card("card")),
        (Some(12), None, None)
    );
    assert_eq!(uevent_value("DRIVER=v3d\nMODALIAS=\n", "DRIVER"), Some("v3d"));
    assert_eq!(uevent_value("DRIVER=v3d\nMODALIAS=\n", "MODALIAS"), None);
    assert_eq!(nvidia_model("Model: \t\t NVIDIA H100\nIRQ: 5\n").as_deref(), Some("NVIDIA H100"));
}

/// Text that looks like the kernel's: its words, with numbers of any size.
fn likely_text() -> impl Strategy<Value = String> {
    let word = prop_oneof![
        any::<u64>().prop_map(|number| number.to_string()),
        proptest::sample::select(vec![
            "cpu ",
            "cpu",
            "some ",
            "full ",
            "avg10=",
            "avg60=",
            "total=",
            ":",
            ": ",
            ",",
            "-",
            " - ",
            "/",
            "\\040",
            "\\777",
            "\\",
            "cgroup",
            "cgroup2",
            "MemTotal:",
            "kB",
            "\n",
            " ",
            ".",
            "0x",
            "=",
            "\"",
            "'",
            "PRETTY_NAME=",
            "CPU part",
            "CPU implementer",
            "ARMv",
            "Model:",
            "card",
            "\0",
            "é",
            "DRIVER=",
        ])
        .prop_map(str::to_owned),
    ];
    proptest::collection::vec(word, 0..40).prop_map(|words| words.concat())
}

fn parse_all(text: &str) {
    cpu_ticks(text);
    count_list(text);
    cpu_model(text);
    arm_version(text);
    load(text);
    pressure(text);
    memory(text);
    interface_counters(text).for_each(drop);
    addresses(text.as_bytes()).ok();
    cgroup_mounts(text);
    own_cgroups(text);
    controllers_enabled(text);
    os_pretty_name(text);
    board_id(text);
    temperature_millidegrees(text);
    throttling(text);
    pci_id(text);
    pci_address(text);
    drm_card(text);
    uevent_value(text, "DRIVER");
    nvidia_model(text);
}

proptest! {
    #[test]
    fn no_text_makes_a_parser_panic(text in any::<String>(), likely in likely_text()) {
        parse_all(&text);
        parse_all(&likely);
    }

    #[test]
    fn no_datagram_makes_the_parser_panic(
        bytes in proptest::collection::vec(any::<u8>(), 0..200),
        kind in 0_u16..30,
        body in proptest::collection::vec(0_u8..12, 0..60),
    ) {
        addresses(&bytes).ok();
        addresses(&message(kind, &body)).ok();
    }

    #[test]
    fn a_busy_share_is_a_share(a in any::<(u64, u64)>(), b in any::<(u64, u64)>()) {
        let earlier = CpuTicks { busy: a.0, total: a.1 };
        let share = busy_permille(earlier, CpuTicks { busy: b.0, total: b.1 });
        prop_assert!(share.is_none_or(|share| share <= 1000));
    }
}
