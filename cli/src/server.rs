//! Where the root is, and whether it is safe to speak to it.
//!
//! Why apart: the rule that a password or a token never crosses a network in the clear has to
//! hold in one place, before anything is sent.
//!
//! Invariant: a [`Server`] is always `http` to a loopback address, until encryption exists.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use crate::error::Error;

/// Where a root listens unless told otherwise.
pub(crate) const DEFAULT: &str = "http://127.0.0.1:10000";

/// Port of the root when the address names none.
const PORT: u16 = 10_000;

/// An address that may be sent secrets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Server {
    address: SocketAddr,
}

impl Server {
    /// Stands in URLs for a cluster of this machine, which is reached by its socket.
    pub(crate) const HERE: Self =
        Self { address: SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), PORT) };

    /// Reads `http://HOST:PORT`, with or without the scheme, the port and a slash at the end.
    pub(crate) fn parse(given: &str) -> Result<Self, Error> {
        let wrong = |why: &str| {
            Error::Usage(format!("the server is written http://127.0.0.1:10000, {why}: `{given}`"))
        };
        if given.starts_with("https://") {
            return Err(Error::Refused(format!(
                "encryption is not built yet, so marram speaks http on this machine only; \
                 refused: {given}"
            )));
        }
        let rest = given.strip_prefix("http://").unwrap_or(given);
        let rest = rest.strip_suffix('/').unwrap_or(rest);
        if rest.is_empty() || rest.contains(['/', '?', '#', '@']) || rest.contains("://") {
            return Err(wrong("with no path and no user"));
        }
        let (host, port) = split_port(rest).ok_or_else(|| wrong("with a port from 1 to 65535"))?;
        let ip = match host.parse::<IpAddr>() {
            Ok(ip) => ip,
            // Not resolved: whatever the resolver says, the name means this machine.
            Err(_) if host.eq_ignore_ascii_case("localhost") => Ipv4Addr::LOCALHOST.into(),
            Err(_) => return Err(not_loopback(given)),
        };
        if !ip.is_loopback() {
            return Err(not_loopback(given));
        }
        Ok(Self { address: SocketAddr::new(ip, port) })
    }

    /// The socket address.
    pub(crate) fn address(self) -> SocketAddr {
        self.address
    }
}

fn not_loopback(given: &str) -> Error {
    Error::Refused(format!(
        "no password or token is sent over http to another machine, and encryption is not built \
         yet; only 127.0.0.1, ::1 and localhost are allowed, refused: {given}"
    ))
}

/// Host and port; `None` if the port is none. Brackets of an IPv6 address are taken off.
fn split_port(text: &str) -> Option<(&str, u16)> {
    let (host, port) = match text.strip_prefix('[') {
        Some(rest) => {
            let (host, rest) = rest.split_once(']')?;
            (host, if rest.is_empty() { None } else { Some(rest.strip_prefix(':')?) })
        }
        None => match text.split_once(':') {
            Some((host, port)) => (host, Some(port)),
            None => (text, None),
        },
    };
    let port = match port {
        None => PORT,
        Some(port) => port.parse().ok().filter(|port| *port != 0)?,
    };
    Some((host, port))
}

/// The base of every URL, and the key of the login in the configuration.
impl fmt::Display for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "http://{}", self.address)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn forms_of_this_machine_are_read() {
        for (text, shown) in [
            ("http://127.0.0.1:10000", "http://127.0.0.1:10000"),
            ("http://127.0.0.1:10000/", "http://127.0.0.1:10000"),
            ("127.0.0.1:8080", "http://127.0.0.1:8080"),
            ("localhost", "http://127.0.0.1:10000"),
            ("http://LocalHost:1", "http://127.0.0.1:1"),
            ("http://[::1]:80", "http://[::1]:80"),
            ("[::1]", "http://[::1]:10000"),
            ("127.9.9.9", "http://127.9.9.9:10000"),
        ] {
            assert_eq!(Server::parse(text).unwrap().to_string(), shown, "{text}");
        }
    }

    #[test]
    fn other_machines_are_refused() {
        for text in [
            "http://10.0.0.1:10000",
            "http://0.0.0.0:10000",
            "http://example.org",
            "127.0.0.1.example.org",
            "localhost.example.org:80",
            "http://[::2]:80",
            "http://[::ffff:127.0.0.1]:80",
            "https://127.0.0.1",
        ] {
            let error = Server::parse(text).unwrap_err();
            assert_eq!(error.code(), 3, "{text}: {error}");
            assert!(error.to_string().contains(text), "{error}");
        }
    }

    #[test]
    fn what_is_no_address_is_a_usage_error() {
        for text in [
            "",
            "http://",
            "ftp://127.0.0.1",
            "http://a:b@127.0.0.1",
            "http://127.0.0.1/x",
            "127.0.0.1:0",
            "127.0.0.1:65536",
            "127.0.0.1:",
            "[::1",
            "[::1]x",
        ] {
            assert_eq!(Server::parse(text).unwrap_err().code(), 2, "{text}");
        }
    }
}
