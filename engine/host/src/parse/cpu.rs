//! Processors: what they are, how busy they are, and what waits for them.

use super::fixed_point;

/// Processor time since boot, in ticks of the kernel, over all processors.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct CpuTicks {
    /// All but idle and waiting for I/O. Time that a hypervisor took counts as busy: nobody
    /// here could use it.
    pub busy: u64,
    /// All.
    pub total: u64,
}

/// `/proc/stat`.
pub fn cpu_ticks(stat: &str) -> Option<CpuTicks> {
    let line = stat.lines().find_map(|line| line.strip_prefix("cpu "))?;
    let mut fields = [0_u64; 8];
    let mut seen = 0;
    for (field, text) in fields.iter_mut().zip(line.split_ascii_whitespace()) {
        *field = text.parse().ok()?;
        seen += 1;
    }
    // Up to iowait is as old as 2.5.41; what a kernel does not count is none.
    if seen < 5 {
        return None;
    }
    let [user, nice, system, idle, iowait, irq, softirq, steal] = fields;
    let sum = |parts: &[u64]| parts.iter().fold(0, |sum: u64, part| sum.saturating_add(*part));
    let busy = sum(&[user, nice, system, irq, softirq, steal]);
    Some(CpuTicks { busy, total: sum(&[busy, idle, iowait]) })
}

/// How busy all processors were between two readings; `None` if no time passed between them
/// or the second is older.
pub fn busy_permille(earlier: CpuTicks, later: CpuTicks) -> Option<u16> {
    let total = later.total.checked_sub(earlier.total).filter(|total| *total > 0)?;
    // The kernel may take back a tick of idle time, so busy may seem to go backwards.
    let busy = later.busy.saturating_sub(earlier.busy).min(total);
    let permille = u128::from(busy) * 1000 / u128::from(total);
    u16::try_from(permille).ok()
}

/// How many a list such as `0-3,5` names, as in `/sys/devices/system/cpu/online`.
pub fn count_list(list: &str) -> Option<u32> {
    let mut count = 0_u32;
    for part in list.trim().split(',') {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let (first, last): (u32, u32) = (first.parse().ok()?, last.parse().ok()?);
        count = count.checked_add(last.checked_sub(first)?.checked_add(1)?)?;
    }
    Some(count)
}

/// Values of a key of `/proc/cpuinfo`, one for each processor.
fn values<'t>(cpuinfo: &'t str, key: &'t str) -> impl Iterator<Item = &'t str> {
    cpuinfo.lines().filter_map(move |line| {
        let (found, value) = line.split_once(':')?;
        (found.trim() == key).then_some(value.trim()).filter(|value| !value.is_empty())
    })
}

fn hex(text: &str) -> Option<u32> {
    u32::from_str_radix(text.strip_prefix("0x")?, 16).ok()
}

/// The processor's name from `/proc/cpuinfo`. ARM kernels give numbers in place of a name; the
/// common ones are named here, others are told as they stand. Boards with two kinds of
/// processors name both.
pub fn cpu_model(cpuinfo: &str) -> Option<String> {
    let part_names = part_names(cpuinfo);
    if !part_names.is_empty() {
        return Some(part_names.join(" + "));
    }
    ["model name", "uarch", "cpu model", "Processor"]
        .into_iter()
        .find_map(|key| values(cpuinfo, key).next())
        .map(str::to_owned)
}

fn part_names(cpuinfo: &str) -> Vec<String> {
    let mut names: Vec<String> = Vec::new();
    let implementers = values(cpuinfo, "CPU implementer");
    for (implementer, part) in implementers.zip(values(cpuinfo, "CPU part")) {
        let name = match (hex(implementer), hex(part)) {
            (Some(0x41), Some(part)) => arm_part(part).map(|name| format!("ARM {name}")),
            (Some(0x4e), Some(0x003)) => Some("NVIDIA Denver 2".to_owned()),
            (Some(0x4e), Some(0x004)) => Some("NVIDIA Carmel".to_owned()),
            _ => None,
        };
        let name = name.unwrap_or_else(|| format!("implementer {implementer} part {part}"));
        if !names.contains(&name) {
            names.push(name);
        }
    }
    names
}

/// Parts of ARM that boards have which Marram is meant for.
fn arm_part(part: u32) -> Option<&'static str> {
    Some(match part {
        0xb76 => "ARM1176",
        0xc05 => "Cortex-A5",
        0xc07 => "Cortex-A7",
        0xc08 => "Cortex-A8",
        0xc09 => "Cortex-A9",
        0xc0e => "Cortex-A17",
        0xc0f => "Cortex-A15",
        0xd03 => "Cortex-A53",
        0xd04 => "Cortex-A35",
        0xd05 => "Cortex-A55",
        0xd07 => "Cortex-A57",
        0xd08 => "Cortex-A72",
        0xd09 => "Cortex-A73",
        0xd0a => "Cortex-A75",
        0xd0b => "Cortex-A76",
        0xd0c => "Neoverse-N1",
        0xd0d => "Cortex-A77",
        0xd40 => "Neoverse-V1",
        0xd41 => "Cortex-A78",
        0xd42 => "Cortex-A78AE",
        0xd49 => "Neoverse-N2",
        0xd4f => "Neoverse-V2",
        _ => return None,
    })
}

/// The version of the ARM architecture that `/proc/cpuinfo` tells: 6, 7, 8.
pub fn arm_version(cpuinfo: &str) -> Option<u8> {
    // The first Raspberry Pi claims "CPU architecture: 7" but is "ARMv6-compatible (v6l)".
    let from_name = || {
        let name = ["model name", "Processor"]
            .into_iter()
            .find_map(|key| values(cpuinfo, key).find(|name| name.starts_with("ARMv")))?;
        let digits = name.strip_prefix("ARMv")?;
        let end = digits.find(|c: char| !c.is_ascii_digit()).unwrap_or(digits.len());
        digits.get(..end)?.parse().ok()
    };
    from_name().or_else(|| values(cpuinfo, "CPU architecture").next()?.parse().ok())
}

/// Load averages in thousandths.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Load {
    /// Of one minute.
    pub one_minute_milli: u64,
    /// Of five minutes.
    pub five_minutes_milli: u64,
    /// Of fifteen minutes.
    pub fifteen_minutes_milli: u64,
}

/// `/proc/loadavg`.
pub fn load(loadavg: &str) -> Option<Load> {
    let mut fields = loadavg.split_ascii_whitespace().map(|field| fixed_point(field, 3));
    Some(Load {
        one_minute_milli: fields.next()??,
        five_minutes_milli: fields.next()??,
        fifteen_minutes_milli: fields.next()??,
    })
}

/// A line of pressure stall information.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Stall {
    /// Share of the last ten seconds.
    pub ten_seconds_permille: u16,
    /// Share of the last minute.
    pub one_minute_permille: u16,
    /// Since boot, in microseconds.
    pub total_us: u64,
}

/// Pressure of one resource.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Pressure {
    /// Some task waited.
    pub some: Stall,
    /// Every task waited; kernels before 5.13 don't tell it of processors.
    pub full: Option<Stall>,
}

/// A file of `/proc/pressure`, or a cgroup's `*.pressure`.
pub fn pressure(text: &str) -> Option<Pressure> {
    let stall = |which: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(which))?;
        let field = |name: &str| {
            line.split_ascii_whitespace().find_map(|f| f.strip_prefix(name)?.strip_prefix('='))
        };
        let permille = |name| u16::try_from(fixed_point(field(name)?, 1)?.min(1000)).ok();
        Some(Stall {
            ten_seconds_permille: permille("avg10")?,
            one_minute_permille: permille("avg60")?,
            total_us: field("total")?.parse().ok()?,
        })
    };
    Some(Pressure { some: stall("some ")?, full: stall("full ") })
}
