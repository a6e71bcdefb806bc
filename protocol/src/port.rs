//! Port strings: `HOST[:CONTAINER][/tcp|/udp]`, joined by `;`, as in `"6080:80/tcp;53/udp"`.
//!
//! Form and defaults are Oakestra's: one number stands for both, the protocol is tcp.

use serde::{Deserialize, Serialize};
use std::fmt;

/// Mappings in one string; a service that needs more wants another way to be reached.
pub const MAPPINGS_MAX: usize = 64;

/// Transport of a mapping.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Transport {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
}

/// A port of the host that leads to a port of the workload.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct PortMapping {
    /// On the host, 1 to 65535.
    pub host: u16,
    /// In the workload, 1 to 65535.
    pub workload: u16,
    /// Protocol of both.
    pub transport: Transport,
}

/// Why a text is no port string.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PortError {
    /// A part is no mapping.
    #[error("{0:?} is no port mapping, write HOST[:CONTAINER][/tcp|/udp] joined by ';'")]
    Form(String),
    /// A number is no port.
    #[error("{0:?} is no port, a port is 1 to 65535")]
    Number(String),
    /// Two mappings take the same port of the host.
    #[error("host port {0} is mapped twice")]
    Twice(u16),
    /// Too many mappings.
    #[error("{0} port mappings, at most {MAPPINGS_MAX} are allowed")]
    TooMany(usize),
}

/// Parses a port string; an empty one maps nothing.
pub fn parse(text: &str) -> Result<Vec<PortMapping>, PortError> {
    if text.is_empty() {
        return Ok(Vec::new());
    }
    let count = text.split(';').count();
    if count > MAPPINGS_MAX {
        return Err(PortError::TooMany(count));
    }
    let mut mappings: Vec<PortMapping> = Vec::with_capacity(count);
    for part in text.split(';') {
        let mapping = parse_one(part)?;
        let taken =
            mappings.iter().any(|m| m.host == mapping.host && m.transport == mapping.transport);
        if taken {
            return Err(PortError::Twice(mapping.host));
        }
        mappings.push(mapping);
    }
    Ok(mappings)
}

fn parse_one(part: &str) -> Result<PortMapping, PortError> {
    let form = || PortError::Form(part.chars().take(32).collect());
    let (ports, transport) = match part.split_once('/') {
        None => (part, Transport::Tcp),
        Some((ports, "tcp")) => (ports, Transport::Tcp),
        Some((ports, "udp")) => (ports, Transport::Udp),
        Some(_) => return Err(form()),
    };
    let (host, workload) = ports.split_once(':').unwrap_or((ports, ports));
    let number = |text: &str| {
        if text.is_empty() || !text.bytes().all(|b| b.is_ascii_digit()) {
            return Err(form());
        }
        match text.parse::<u16>() {
            Ok(port) if port > 0 => Ok(port),
            _ => Err(PortError::Number(text.chars().take(32).collect())),
        }
    };
    Ok(PortMapping { host: number(host)?, workload: number(workload)?, transport })
}

impl fmt::Display for PortMapping {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let transport = match self.transport {
            Transport::Tcp => "tcp",
            Transport::Udp => "udp",
        };
        write!(f, "{}:{}/{transport}", self.host, self.workload)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use Transport::{Tcp, Udp};

    fn mapping(host: u16, workload: u16, transport: Transport) -> PortMapping {
        PortMapping { host, workload, transport }
    }

    #[test]
    fn the_forms_that_clients_write() {
        let table: &[(&str, &[PortMapping])] = &[
            ("", &[]),
            ("9080", &[mapping(9080, 9080, Tcp)]),
            ("6080:60/tcp", &[mapping(6080, 60, Tcp)]),
            ("53:53/udp;53:53/tcp", &[mapping(53, 53, Udp), mapping(53, 53, Tcp)]),
            ("6080:80/tcp;53/udp", &[mapping(6080, 80, Tcp), mapping(53, 53, Udp)]),
        ];
        for (text, expected) in table {
            assert_eq!(parse(text).as_deref(), Ok(*expected), "{text}");
        }
    }

    #[test]
    fn bad_strings_are_refused_with_the_part_that_is_wrong() {
        for bad in [";", "80;", "a", "80:", ":80", "80/", "80/sctp", "80:80:80", "+80", " 80", "-1"]
        {
            assert!(matches!(parse(bad), Err(PortError::Form(_))), "{bad} {:?}", parse(bad));
        }
        for bad in ["0", "65536", "80:0", "99999999999999999999"] {
            assert!(matches!(parse(bad), Err(PortError::Number(_))), "{bad}");
        }
        assert_eq!(parse("80:1;80:2"), Err(PortError::Twice(80)));
        let many = vec!["1"; 65].join(";");
        assert_eq!(parse(&many), Err(PortError::TooMany(65)));
    }

    proptest::proptest! {
        #[test]
        fn any_text_is_parsed_or_refused(text in ".*") {
            if let Ok(mappings) = parse(&text) {
                let again = mappings.iter().map(ToString::to_string).collect::<Vec<_>>().join(";");
                proptest::prop_assert_eq!(parse(&again), Ok(mappings));
            }
        }
    }
}
