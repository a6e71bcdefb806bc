//! Tests of detection and counting, with the files of three kinds of host; and of limits on
//! a tree of plain files that stands in for version 2.

use super::*;
use detect::{Mounted, choose, mounted, own_v2};

const V1: &str = "\
31 23 0:28 / /sys/fs/cgroup rw,relatime - tmpfs tmpfs rw,mode=755
32 31 0:29 / /sys/fs/cgroup/cpu,cpuacct rw,relatime - cgroup cgroup rw,cpu,cpuacct
35 31 0:32 / /sys/fs/cgroup/memory rw,relatime - cgroup cgroup rw,memory
37 31 0:34 / /sys/fs/cgroup/freezer rw,relatime - cgroup cgroup rw,freezer
39 31 0:36 / /sys/fs/cgroup/pids rw,relatime - cgroup cgroup rw,pids
40 31 0:37 / /sys/fs/cgroup/systemd rw,relatime - cgroup cgroup rw,name=systemd
";
const HYBRID_TREE: &str = "41 31 0:38 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n";
const V2: &str = "30 23 0:26 / /sys/fs/cgroup rw,nosuid shared:9 - cgroup2 cgroup2 rw,nsdelegate\n";

#[test]
fn version_one_is_found_controller_by_controller() {
    let found = mounted(V1);
    assert_eq!(found.v1["cpu"], Path::new("/sys/fs/cgroup/cpu,cpuacct"));
    assert_eq!(found.v1["cpuacct"], found.v1["cpu"]);
    assert_eq!(found.v1.len(), 5, "the named tree of systemd is none of ours: {found:?}");
    assert_eq!(found.v2, None);
    let chosen = choose(found, "", None, None).unwrap();
    let group = chosen.group("a.0");
    assert_eq!(group.v1["memory"], Path::new("/sys/fs/cgroup/memory/marram/w-a.0"));
    assert_eq!(group.dirs().len(), 4, "controllers mounted together share a directory");
}

#[test]
fn the_empty_tree_of_a_hybrid_host_is_left_alone() {
    let found = mounted(&format!("{V1}{HYBRID_TREE}"));
    assert!(found.v2.is_some());
    let chosen = choose(found.clone(), "", None, None).unwrap();
    assert_eq!(chosen.v2, None);
    // A hybrid host whose process controller is on version 2.
    let mut mixed = found;
    mixed.v1.remove("pids");
    let chosen = choose(mixed, "pids", None, None).unwrap();
    let expected = Unified {
        from: "/sys/fs/cgroup/unified".into(),
        parent: "/sys/fs/cgroup/unified/marram".into(),
    };
    assert_eq!(chosen.v2, Some(expected));
}

#[test]
fn version_two_takes_a_delegated_group_unless_told_otherwise() {
    let found = mounted(V2);
    let own: PathBuf = "/sys/fs/cgroup/system.slice/marram-node.service".into();
    let all = "cpuset cpu io memory pids";
    let chosen = choose(found.clone(), all, None, Some(own.clone())).unwrap();
    assert_eq!(chosen.group("x").v2, Some(own.join("w-x")));
    let chosen = choose(found.clone(), all, Some(Path::new("/a/b")), Some(own)).unwrap();
    assert_eq!(chosen.group("x").v2, Some("/sys/fs/cgroup/a/b/w-x".into()));
    for bad in ["/a/../b", "/", ""] {
        assert!(choose(found.clone(), all, Some(Path::new(bad)), None).is_err(), "{bad:?}");
    }
    assert!(choose(found, "", None, None).is_err(), "a tree without controllers is of no use");
    assert!(choose(Mounted::default(), "", None, None).is_err());
}

#[test]
fn names_are_read_as_the_kernel_writes_them() {
    let line = "1 2 0:3 / /mnt/with\\040blank\\011tab rw - cgroup2 none rw";
    assert_eq!(mounted(line).v2, Some("/mnt/with blank\ttab".into()));
    assert_eq!(
        own_v2("4:memory:/x\n0::/system.slice/m.service\n").unwrap(),
        Path::new("system.slice/m.service")
    );
    assert_eq!(own_v2("4:memory:/x\n"), None);
    for strange in ["", " - ", "a - b", "1 2 3 4 5 - cgroup", "\\ \\9 - cgroup2"] {
        assert_eq!(mounted(strange), Mounted::default(), "{strange:?}");
    }
}

#[test]
fn io_is_summed_over_devices() {
    let v1 = "8:0 Read 10\n8:0 Write 20\n8:0 Total 30\n8:16 Read 1\nTotal 31\n";
    assert_eq!(counts::v1_io_bytes(v1), (11, 20));
    let v2 = "8:0 rbytes=10 wbytes=20 rios=1\n8:16 rbytes=1 wbytes=2\n";
    assert_eq!(counts::v2_io_bytes(v2), (11, 22));
}

/// A tree of plain files in place of the kernel's: shows what is written where.
#[test]
fn limits_on_version_two_are_these_values() {
    let root = tempfile::tempdir().unwrap();
    let dir = root.path().join("w-x");
    fs::create_dir(&dir).unwrap();
    let files = ["memory.max", "memory.swap.max", "memory.oom.group", "cpu.max", "pids.max"];
    for file in files {
        fs::write(dir.join(file), "").unwrap();
    }
    let group = Group { v1: BTreeMap::new(), v2: Some(dir.clone()) };
    let resources = Resources {
        memory_bytes_max: Some(1 << 20),
        cpu_millicores_max: Some(1500),
        pids_max: Some(7),
    };
    limit(&group, &resources).unwrap();
    let read = |file: &str| fs::read_to_string(dir.join(file)).unwrap();
    let written = files.map(read);
    assert_eq!(written, ["1048576", "0", "1", "150000 100000", "7"]);
    fs::write(dir.join("cpu.max"), "").unwrap();
    let little = Resources { cpu_millicores_max: Some(5), ..Resources::default() };
    limit(&group, &little).unwrap();
    assert_eq!(read("cpu.max"), "5000 1000000");
    assert!(has_file(&group, "memory", "memory.limit_in_bytes", "memory.max").is_ok());
    let missing = has_file(&group, "cpu", "cpu.cfs_quota_us", "cpu.none").unwrap_err();
    assert_eq!(missing, "this kernel's cgroups have no cpu.none");
}
