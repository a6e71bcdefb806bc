//! What the machine is called, what board it is, how warm it is.

/// The name of the system in `os-release`, for people.
pub fn os_pretty_name(os_release: &str) -> Option<String> {
    let value = |key: &str| {
        os_release.lines().rev().find_map(|line| line.trim().strip_prefix(key)?.strip_prefix('='))
    };
    // The last of equal keys counts, as for a shell; NAME is what the standard falls back to.
    let name = unquote(value("PRETTY_NAME").or_else(|| value("NAME"))?);
    (!name.is_empty()).then_some(name)
}

/// A value as a shell would read it: quotes around it, and backslashes in double quotes.
fn unquote(value: &str) -> String {
    let value = value.trim();
    if let Some(inner) = value.strip_prefix('\'').and_then(|inner| inner.strip_suffix('\'')) {
        return inner.to_owned();
    }
    let inner = value.strip_prefix('"').and_then(|inner| inner.strip_suffix('"'));
    let mut plain = String::new();
    let mut characters = inner.unwrap_or(value).chars();
    while let Some(character) = characters.next() {
        let character = if character == '\\' { characters.next() } else { Some(character) };
        plain.extend(character);
    }
    plain
}

/// A machine id or boot id: hexadecimal digits, dashes allowed, 32 without them. What an
/// image has before its first boot (`uninitialized`, or nothing) is no id.
pub fn board_id(text: &str) -> Option<String> {
    let text = text.trim();
    let digits = text.bytes().filter(|byte| *byte != b'-');
    let plausible = digits.clone().count() == 32
        && digits.clone().all(|byte| byte.is_ascii_hexdigit())
        && digits.clone().any(|byte| byte != b'0');
    plausible.then(|| text.to_ascii_lowercase())
}

/// A temperature file. Sensors that are off say -256 degrees and the like: that is no reading.
pub fn temperature_millidegrees(text: &str) -> Option<i32> {
    let temperature: i32 = text.trim().parse().ok()?;
    (-60_000..=200_000).contains(&temperature).then_some(temperature)
}

/// What a Raspberry Pi's firmware holds against its power supply and cooling.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Throttling {
    /// As the firmware gives it; 0 is well.
    pub bits: u32,
}

impl Throttling {
    /// The voltage is too low now.
    pub fn under_voltage(self) -> bool {
        self.bits & 1 != 0
    }

    /// The clock is held down now, for whichever reason.
    pub fn slowed_down(self) -> bool {
        self.bits & 0b1110 != 0
    }

    /// Any of it has happened since boot.
    pub fn since_boot(self) -> bool {
        self.bits & 0x000f_0000 != 0
    }
}

/// `get_throttled`: hexadecimal, with or without `0x`.
pub fn throttling(text: &str) -> Option<Throttling> {
    let text = text.trim();
    let digits = text.strip_prefix("0x").unwrap_or(text);
    if digits.starts_with('+') {
        return None;
    }
    u32::from_str_radix(digits, 16).ok().map(|bits| Throttling { bits })
}

/// A vendor or device id of PCI: `0x10de`.
pub fn pci_id(text: &str) -> Option<u16> {
    let digits = text.trim().strip_prefix("0x")?;
    digits.bytes().all(|byte| byte.is_ascii_hexdigit()).then_some(())?;
    u16::from_str_radix(digits, 16).ok()
}

/// Whether a name is an address on PCI, `0000:01:00.0`; in lower case, as sysfs writes it.
pub fn pci_address(name: &str) -> Option<String> {
    let shape = name.bytes().map(|byte| if byte.is_ascii_hexdigit() { b'x' } else { byte });
    shape.eq(b"xxxx:xx:xx.x".iter().copied()).then(|| name.to_ascii_lowercase())
}

/// The number of a card in `/sys/class/drm`; connectors (`card0-HDMI-A-1`) are no cards.
pub fn drm_card(name: &str) -> Option<u32> {
    let digits = name.strip_prefix("card")?;
    digits.bytes().all(|byte| byte.is_ascii_digit()).then_some(())?;
    digits.parse().ok()
}

/// A value of a `uevent` file.
pub fn uevent_value<'t>(uevent: &'t str, key: &str) -> Option<&'t str> {
    let value = uevent.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix('='));
    value.map(str::trim).filter(|value| !value.is_empty())
}

/// The model in `/proc/driver/nvidia/gpus/…/information`.
pub fn nvidia_model(information: &str) -> Option<String> {
    let model = information.lines().find_map(|line| line.strip_prefix("Model:"))?.trim();
    (!model.is_empty()).then(|| model.to_owned())
}
