//! Interfaces: their counters, and their addresses as the kernel's netlink tells them.
//!
//! Why netlink: there is no file that says which IPv4 address belongs to which interface, and
//! the C library's call for it cannot be used without unsafe code.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Bytes that an interface has carried since it came up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Counters {
    /// Received.
    pub rx_bytes: u64,
    /// Sent.
    pub tx_bytes: u64,
}

/// `/proc/net/dev`: each interface with its counters, lines that make no sense left out.
pub fn interface_counters(net_dev: &str) -> impl Iterator<Item = (&str, Counters)> {
    net_dev.lines().filter_map(|line| {
        let (name, numbers) = line.rsplit_once(':')?;
        let mut numbers = numbers.split_ascii_whitespace();
        let rx_bytes = numbers.next()?.parse().ok()?;
        let tx_bytes = numbers.nth(7)?.parse().ok()?;
        Some((name.trim(), Counters { rx_bytes, tx_bytes }))
    })
}

const RTM_GETADDR: u16 = 22;
const RTM_NEWADDR: u16 = 20;
const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;
/// NLM_F_REQUEST and NLM_F_DUMP.
const REQUEST_DUMP: u16 = 0x301;
const IFA_ADDRESS: u16 = 1;
const IFA_LOCAL: u16 = 2;
const HEADER_BYTES: usize = 16;
const IFADDR_BYTES: usize = 8;
const AF_INET: u8 = 2;
const AF_INET6: u8 = 10;

/// The message that asks the kernel for all addresses.
pub fn address_request() -> [u8; HEADER_BYTES + IFADDR_BYTES] {
    let mut message = [0; HEADER_BYTES + IFADDR_BYTES];
    // Length, type, flags; sequence, port and the filter stay zero, which means all.
    message[..4].copy_from_slice(&24_u32.to_ne_bytes());
    message[4..6].copy_from_slice(&RTM_GETADDR.to_ne_bytes());
    message[6..8].copy_from_slice(&REQUEST_DUMP.to_ne_bytes());
    message
}

/// What one datagram of the kernel's answer holds.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Addresses {
    /// Index of the interface, and the address.
    pub list: Vec<(u32, IpAddr)>,
    /// Whether the answer ends here.
    pub done: bool,
}

/// The kernel refused, or the datagram is not one of its.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the kernel's answer about addresses is an error or malformed")]
pub struct AddressesError;

/// One datagram of the kernel's answer.
pub fn addresses(mut datagram: &[u8]) -> Result<Addresses, AddressesError> {
    let mut answer = Addresses::default();
    while !datagram.is_empty() {
        let length = u32_at(datagram, 0).ok_or(AddressesError)?;
        let length = usize::try_from(length).map_err(|_| AddressesError)?;
        let message = datagram.get(..length).ok_or(AddressesError)?;
        let body = message.get(HEADER_BYTES..).ok_or(AddressesError)?;
        match u16_at(message, 4).ok_or(AddressesError)? {
            NLMSG_ERROR => return Err(AddressesError),
            NLMSG_DONE => {
                answer.done = true;
                return Ok(answer);
            }
            RTM_NEWADDR => answer.list.extend(address(body)),
            _ => {}
        }
        datagram = datagram.get(length.next_multiple_of(4)..).unwrap_or_default();
    }
    Ok(answer)
}

fn address(body: &[u8]) -> Option<(u32, IpAddr)> {
    let family = *body.first()?;
    let index = u32_at(body, 4)?;
    let mut attributes = body.get(IFADDR_BYTES..)?;
    let mut found = None;
    while let (Some(length), Some(kind)) = (u16_at(attributes, 0), u16_at(attributes, 2)) {
        let length = usize::from(length);
        let value = attributes.get(4..length)?;
        // On a point-to-point link IFA_ADDRESS is the other end and IFA_LOCAL is ours.
        if kind == IFA_LOCAL || (kind == IFA_ADDRESS && found.is_none()) {
            found = ip(family, value).or(found);
        }
        attributes = attributes.get(length.next_multiple_of(4)..).unwrap_or_default();
    }
    Some((index, found?))
}

fn ip(family: u8, value: &[u8]) -> Option<IpAddr> {
    match family {
        AF_INET => Some(Ipv4Addr::from(<[u8; 4]>::try_from(value).ok()?).into()),
        AF_INET6 => Some(Ipv6Addr::from(<[u8; 16]>::try_from(value).ok()?).into()),
        _ => None,
    }
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    bytes.get(at..)?.first_chunk().copied().map(u16::from_ne_bytes)
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..)?.first_chunk().copied().map(u32::from_ne_bytes)
}
