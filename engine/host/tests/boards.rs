//! Whole machines, as trees of the files that they have.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;

use marram_host::{
    Architecture, CgroupMode, Fingerprint, GpuSample, GpuVendor, KvmDevice, Root, Sampler,
};
use tempfile::TempDir;

/// A tree of files; each line of `files` is `path = content`, with `\n` for a newline. A path
/// that comes again is continued.
fn board(files: &str) -> TempDir {
    let directory = tempfile::tempdir().unwrap();
    let mut whole = BTreeMap::<&str, String>::new();
    for line in files.lines().map(str::trim).filter(|line| !line.is_empty()) {
        let (path, content) = line.split_once(" = ").unwrap();
        let content = content.replace("\\n", "\n").replace("\\0", "\0");
        whole.entry(path).or_default().push_str(&content);
    }
    for (path, content) in whole {
        write(directory.path(), path, &content);
    }
    directory
}

fn write(directory: &Path, path: &str, content: &str) {
    let path = directory.join(path.trim_start_matches('/'));
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, content).unwrap();
}

fn link(directory: &Path, path: &str, target: &str) {
    let path = directory.join(path.trim_start_matches('/'));
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    symlink(target, path).unwrap();
}

fn read(directory: &TempDir) -> (Fingerprint, Sampler) {
    let root = Root::at(directory.path());
    (Fingerprint::read(&root, directory.path()), Sampler::new(&root, directory.path()))
}

const PI: &str = r"
/proc/cpuinfo = processor : 0\nCPU implementer : 0x41\nCPU architecture: 8\nCPU part : 0xd08\n
/proc/meminfo = MemTotal: 3884368 kB\nMemAvailable: 3400000 kB\nSwapTotal: 0 kB\nSwapFree: 0 kB\n
/proc/stat = cpu  100 0 100 1800 0 0 0 0 0 0\n
/proc/loadavg = 0.10 0.20 0.30 1/100 500\n
/proc/cmdline = console=tty1 cgroup_disable=memory quiet\n
/proc/cgroups = #subsys_name hierarchy num_cgroups enabled\ncpu 0 30 1\nmemory 0 30 0\n
/proc/self/mountinfo = 30 20 0:26 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n
/proc/self/cgroup = 0::/system.slice/marram-node.service\n
/proc/net/dev = head\n  lo: 9 0 0 0 0 0 0 0 9 0\n
/proc/net/dev = wlan0: 700 0 0 0 0 0 0 0 70 0\nveth1: 5 0 0 0 0 0 0 0 5 0\n
/proc/device-tree/model = Raspberry Pi 4 Model B Rev 1.4\0
/proc/sys/kernel/hostname = raspberrypi\n
/proc/sys/kernel/osrelease = 6.12.25+rpt-rpi-v8\n
/proc/sys/kernel/random/boot_id = 01234567-89ab-cdef-0123-456789abcdef\n
/etc/machine-id = 0123456789abcdef0123456789abcdef\n
/usr/lib/os-release = PRETTY_NAME='Debian GNU/Linux 12 (bookworm)'\n
/sys/devices/system/cpu/online = 0-3\n
/sys/fs/cgroup/cgroup.controllers = cpuset cpu io pids\n
/sys/fs/cgroup/system.slice/marram-node.service/cgroup.controllers = cpu pids\n
/sys/class/thermal/thermal_zone0/type = cpu-thermal\n
/sys/class/thermal/thermal_zone0/temp = 61322\n
/sys/devices/platform/soc/soc:firmware/get_throttled = 50005\n
/sys/class/net/wlan0/device/uevent = x
/sys/class/net/wlan0/address = dc:a6:32:00:00:01\n
/sys/class/net/wlan0/operstate = up\n
/sys/class/net/wlan0/speed = -1\n
/sys/class/net/veth1/speed = 10000\n
/sys/class/net/veth1/address = dc:a6:32:00:00:02\n
/sys/class/net/lo/address = 00:00:00:00:00:00\n
/sys/class/drm/card0/device/uevent = DRIVER=vc4-drm\nOF_COMPATIBLE_0=brcm,bcm2711-vc5\n
/sys/class/drm/card1/device/uevent = DRIVER=v3d\nOF_COMPATIBLE_0=brcm,2711-v3d\n
/sys/class/drm/card1/device/drm/renderD128/dev = 226:128
/sys/class/drm/card0-HDMI-A-1/status = connected
/sys/class/drm/version = drm 1.1.0
";

#[test]
fn a_raspberry_pi_with_its_memory_controller_off() {
    let directory = board(PI);
    let (found, mut sampler) = read(&directory);
    assert_eq!(found.hostname.as_deref(), Some("raspberrypi"));
    assert_eq!(found.board.as_deref(), Some("Raspberry Pi 4 Model B Rev 1.4"));
    assert_eq!(found.kernel.as_deref(), Some("6.12.25+rpt-rpi-v8"));
    assert_eq!(found.os_name.as_deref(), Some("Debian GNU/Linux 12 (bookworm)"));
    assert_eq!(found.cpu.model.as_deref(), Some("ARM Cortex-A72"));
    assert_eq!((found.cpu.threads, found.cpu.efficiency_threads), (Some(4), None));
    assert_eq!(found.memory_total_bytes, Some(3_884_368 * 1024));
    assert!(found.machine_id.is_some() && found.boot_id.is_some());
    assert_eq!(found.kvm, KvmDevice::Absent);

    assert_eq!(found.cgroups.mode, CgroupMode::V2);
    assert!(found.cgroups.usable("cpu") && found.cgroups.usable("pids"));
    assert!(found.cgroups.usable("freezer"));
    let why = |name| found.cgroups.controller(name).unwrap().unusable.clone().unwrap();
    assert_eq!(
        why("memory"),
        "memory is turned off by cgroup_disable=memory on the kernel's command line"
    );
    assert_eq!(
        why("io"),
        "io is not delegated to /sys/fs/cgroup/system.slice/marram-node.service \
         (systemd: Delegate=yes)"
    );

    let gpus: Vec<_> = found.gpus.iter().map(|gpu| (gpu.name.as_str(), gpu.vendor)).collect();
    assert_eq!(gpus, [("card1", GpuVendor::Broadcom)], "the screen part renders nothing");
    let names: Vec<_> = found.interfaces.iter().map(|i| (&*i.name, i.physical, i.up)).collect();
    assert_eq!(names, [("wlan0", true, Some(true)), ("veth1", false, None)]);
    assert_eq!(found.interfaces[0].mac.as_deref(), Some("dc:a6:32:00:00:01"));
    let speeds: Vec<_> = found.interfaces.iter().map(|i| i.speed_mbps).collect();
    assert_eq!(speeds, [None, Some(10_000)], "a wireless link has none");

    let sample = sampler.sample();
    assert_eq!(sample.temperature_max_millidegrees, Some(61_322));
    assert!(sample.throttling.unwrap().under_voltage());
    assert_eq!(sample.gpus, [GpuSample::default()]);
    let network = sample.network.unwrap();
    assert_eq!((network.rx_bytes, network.tx_bytes), (700, 70), "hardware only");
    assert_eq!(sample.pressures.cpu, None);
    assert_eq!(sample.load.unwrap().five_minutes_milli, 200);

    write(directory.path(), "/proc/stat", "cpu  150 0 150 2100 0 0 0 0 0 0\n");
    assert_eq!(sampler.sample().cpu_permille_since(&sample), Some(250));
    assert_eq!(sample.cpu_permille_since(&sample), None);
}

#[test]
fn a_jetson_of_each_release_shows_its_gpu() {
    for (place, name) in [
        ("/sys/devices/gpu.0", "gpu.0"),
        ("/sys/devices/platform/gpu.0", "gpu.0"),
        ("/sys/class/devfreq/17000000.ga10b/device", "device"),
        ("/sys/class/devfreq/57000000.gpu/device", "device"),
    ] {
        let directory = board(&format!(
            r"
            {place}/load = 437\n
            /sys/class/devfreq/13e10000.host1x/device/uevent = x
            /proc/device-tree/model = NVIDIA Jetson Orin Nano Developer Kit\0
            /proc/cpuinfo = CPU implementer : 0x41\nCPU part : 0xd42\n
            /sys/class/thermal/thermal_zone0/temp = 51000\n
            /sys/class/thermal/thermal_zone1/temp = -256000\n
            /sys/class/thermal/thermal_zone2/temp = 53500\n
            /sys/class/thermal/cooling_device0/temp = 99000\n
            /sys/class/drm/card0/device/uevent = DRIVER=tegra-host1x\n
            /sys/class/drm/card0/device/drm/renderD128/dev = 226:128
            "
        ));
        let (found, mut sampler) = read(&directory);
        assert_eq!(found.board.as_deref(), Some("NVIDIA Jetson Orin Nano Developer Kit"));
        assert_eq!(found.cpu.model.as_deref(), Some("ARM Cortex-A78AE"));
        let gpus: Vec<_> = found.gpus.iter().map(|gpu| (&*gpu.name, gpu.vendor)).collect();
        assert_eq!(gpus, [(name, GpuVendor::Nvidia)], "{place}");
        let sample = sampler.sample();
        assert_eq!(sample.gpus[0].load_permille, Some(437));
        assert_eq!(sample.temperature_max_millidegrees, Some(53_500));
    }
}

#[test]
fn a_pc_with_two_kinds_of_processors_and_two_cards() {
    let directory = board(
        r"
        /proc/cpuinfo = model name : 13th Gen Intel(R) Core(TM) i5-1340P\n
        /sys/devices/system/cpu/online = 0-15\n
        /sys/devices/cpu_atom/cpus = 8-15\n
        /sys/devices/cpu_core/cpus = 0-7\n
        /sys/class/dmi/id/sys_vendor = LENOVO\n
        /sys/class/dmi/id/product_name = 21HM\n
        /proc/pressure/cpu = some avg10=1.50 avg60=0.00 avg300=0.00 total=7\n
        /dev/kvm = x
        /sys/class/drm/card0/device/vendor = 0x8086\n
        /sys/class/drm/card0/device/device = 0xa7a0\n
        /sys/class/drm/card0/device/uevent = DRIVER=i915\nPCI_SLOT_NAME=0000:00:02.0\n
        /sys/class/drm/card0/device/drm/renderD128/dev = 226:128
        /sys/class/drm/card1/device/vendor = 0x1002\n
        /sys/class/drm/card1/device/gpu_busy_percent = 42\n
        /sys/class/drm/card1/device/mem_info_vram_total = 8589934592\n
        /sys/class/drm/card1/device/mem_info_vram_used = 1073741824\n
        /sys/class/drm/card1/device/drm/renderD129/dev = 226:129
        /sys/class/drm/card2/device/vendor = 0x1a03\n
        /sys/class/hwmon/hwmon0/name = coretemp\n
        /sys/class/hwmon/hwmon0/temp1_input = 44000\n
        /sys/class/hwmon/hwmon0/temp1_max = 100000\n
        /sys/class/hwmon/hwmon1/name = nvme\n
        /sys/class/hwmon/hwmon1/temp1_input = 70000\n
        ",
    );
    link(directory.path(), "/sys/class/drm/card1/device/driver", "../../../bus/drivers/amdgpu");
    let (found, mut sampler) = read(&directory);
    assert_eq!((found.cpu.threads, found.cpu.efficiency_threads), (Some(16), Some(8)));
    assert_eq!(found.board.as_deref(), Some("LENOVO 21HM"));
    assert_eq!(found.kvm, KvmDevice::Accessible);
    assert_eq!(found.gpus.len(), 2, "a server's screen chip is no GPU");
    assert_eq!(found.gpus[0].pci_address.as_deref(), Some("0000:00:02.0"));
    assert_eq!(found.gpus[0].pci_device_id, Some(0xa7a0));
    assert_eq!(found.gpus[1].driver.as_deref(), Some("amdgpu"));
    assert_eq!(found.gpus[1].memory_total_bytes, Some(8 << 30));
    let sample = sampler.sample();
    let busy = GpuSample { load_permille: Some(420), memory_used_bytes: Some(1 << 30) };
    assert_eq!(sample.gpus, [GpuSample::default(), busy]);
    assert_eq!(sample.temperature_max_millidegrees, Some(44_000), "the processor's, not a disk's");
    assert_eq!(sample.pressures.cpu.unwrap().some.ten_seconds_permille, 15);
    let models: Vec<_> = sampler.gpus().map(|gpu| gpu.vendor).collect();
    assert_eq!(models, [GpuVendor::Intel, GpuVendor::Amd]);
}

#[test]
fn nvidia_cards_with_and_without_a_screen_driver() {
    let directory = board(
        r"
        /proc/driver/nvidia/gpus/0000:01:00.0/information = Model: NVIDIA RTX A2000\nIRQ: 1\n
        /proc/driver/nvidia/gpus/0000:02:00.0/information = Model: NVIDIA H100\n
        /sys/bus/pci/devices/0000:02:00.0/vendor = 0x10de\n
        /sys/bus/pci/devices/0000:02:00.0/device = 0x2331\n
        /sys/class/drm/card0/device/vendor = 0x10de\n
        /sys/class/drm/card0/device/uevent = DRIVER=nvidia\nPCI_SLOT_NAME=0000:01:00.0\n
        /sys/class/drm/card0/device/drm/renderD128/dev = 226:128
        ",
    );
    let (found, _) = read(&directory);
    let gpus: Vec<_> = found.gpus.iter().map(|g| (&*g.name, g.model.as_deref())).collect();
    let expected = [("card0", Some("NVIDIA RTX A2000")), ("0000:02:00.0", Some("NVIDIA H100"))];
    assert_eq!(gpus, expected);
    assert_eq!(found.gpus[1].pci_device_id, Some(0x2331));
}

#[test]
fn big_and_little_processors_of_a_board() {
    let directory = board(
        r"
        /sys/devices/system/cpu/online = 0-3\n
        /sys/devices/system/cpu/cpu0/cpu_capacity = 414\n
        /sys/devices/system/cpu/cpu1/cpu_capacity = 414\n
        /sys/devices/system/cpu/cpu2/cpu_capacity = 1024\n
        /sys/devices/system/cpu/cpu3/cpu_capacity = 1024\n
        ",
    );
    assert_eq!(read(&directory).0.cpu.efficiency_threads, Some(2));
}

const HYBRID: &str = r"
/proc/self/mountinfo = 1 1 0:1 / /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu\n
/proc/self/mountinfo = 2 1 0:2 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n
/proc/self/mountinfo = 3 1 0:3 / /sys/fs/cgroup/blkio rw - cgroup cgroup rw,blkio\n
/proc/self/mountinfo = 4 1 0:4 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n
/proc/self/cgroup = 3:memory:/box/a\n2:cpu:/../escape\n0::/\n
/proc/cgroups = cpu 1 1 1\nmemory 2 1 1\nblkio 3 1 1\ncpuset 0 1 1\npids 0 1 0\n
/sys/fs/cgroup/unified/cgroup.controllers =  \n
/sys/fs/cgroup/memory/box/a/tasks = 1\n
/sys/fs/cgroup/escape/tasks = 1\n
/sys/fs/cgroup/cpu/tasks = 1\n
/sys/fs/cgroup/blkio/tasks = 1\n
";

#[test]
fn cgroups_of_both_versions() {
    let directory = board(HYBRID);
    let (found, _) = read(&directory);
    let cgroups = &found.cgroups;
    assert_eq!((cgroups.mode, cgroups.mode.as_str()), (CgroupMode::Hybrid, "hybrid"));
    assert_eq!(cgroups.v2_mount.as_deref(), Some(Path::new("/sys/fs/cgroup/unified")));
    let directory_of = |name| cgroups.controller(name).unwrap().directory.clone().unwrap();
    assert_eq!(directory_of("memory"), Path::new("/sys/fs/cgroup/memory/box/a"));
    assert_eq!(directory_of("cpu"), Path::new("/sys/fs/cgroup/cpu"), "never above its mount");
    assert_eq!(directory_of("io"), Path::new("/sys/fs/cgroup/blkio"));
    let why = |name| cgroups.controller(name).unwrap().unusable.clone().unwrap();
    assert_eq!(why("cpuset"), "cpuset is mounted in no cgroup tree");
    assert_eq!(
        why("pids"),
        "pids is turned off in the kernel (cgroup_enable=pids on its command line turns it on)"
    );
    let facts = found.facts();
    let fact = |name| facts.iter().find(|(found, _)| *found == name).map(|(_, v)| v.as_str());
    assert_eq!(fact("cgroups"), Some("hybrid"));
    assert!(fact("cgroups_unusable").unwrap().ends_with("; cpuset is mounted in no cgroup tree"));
}

#[test]
fn only_version_1_and_none_at_all() {
    let only_v1 = HYBRID.replace("- cgroup2 cgroup2", "- tmpfs tmpfs");
    assert_eq!(read(&board(&only_v1)).0.cgroups.mode, CgroupMode::V1);
    let (found, mut sampler) = read(&board(""));
    assert_eq!(found.cgroups.mode, CgroupMode::None);
    let reasons = found.cgroups.controllers.iter().map(|c| c.unusable.clone().unwrap());
    assert!(reasons.into_iter().all(|why| why == "no cgroup file system is mounted"));
    // A machine without any of the files is still a machine.
    assert_eq!((found.cpu.threads, found.cpu.model, found.board), (None, None, None));
    assert!(found.gpus.is_empty() && found.interfaces.is_empty());
    let sample = sampler.sample();
    assert_eq!((sample.cpu_ticks, sample.memory, sample.network), (None, None, None));
}

#[test]
fn architectures_have_the_names_of_images() {
    let of = |name, cpuinfo| {
        let found = Architecture::of(name, cpuinfo);
        format!("{}{}", found.name, found.variant.unwrap_or_default())
    };
    assert_eq!(of("x86_64", "model name: ARMv7 in a strange shop"), "amd64");
    assert_eq!(of("aarch64", "CPU architecture: 8"), "arm64v8");
    assert_eq!(of("arm", "CPU architecture: 8"), "armv7");
    assert_eq!(of("arm", "model name : ARMv6-compatible processor rev 7 (v6l)"), "armv6");
    assert_eq!(of("riscv64", ""), "riscv64");
}

#[test]
fn the_state_directory_need_not_be_there_yet() {
    let directory = board("");
    let root = Root::at(directory.path());
    let found = Fingerprint::read(&root, &directory.path().join("not/yet"));
    assert!(found.state_disk.unwrap().total_bytes > 0);
}
