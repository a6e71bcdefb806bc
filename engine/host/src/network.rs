//! The machine's network interfaces and their addresses.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

use rustix::net::sockopt::{Timeout, set_socket_timeout};
use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, netlink, recv, sendto,
    socket_with,
};

use crate::parse;
use crate::root::Root;

/// Interfaces told of at most, those with hardware behind them first: a node with hundreds of
/// containers has as many virtual ones, which nobody wants to know of.
pub const INTERFACES_MAX: usize = 32;

/// The kernel answers at once; this only keeps a broken one from holding us up for ever.
const ANSWER_TIME_MAX: Duration = Duration::from_secs(1);

/// Datagrams of one answer at most: each holds some hundred addresses.
const DATAGRAMS_MAX: usize = 256;

/// One interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Interface {
    /// `eth0`, `wlan0`, …
    pub name: String,
    /// Its hardware address, if it has one.
    pub mac: Option<String>,
    /// Whether it can carry traffic now; `None` where the driver does not say.
    pub up: Option<bool>,
    /// Whether there is hardware behind it.
    pub physical: bool,
    /// How fast its link is, where the driver knows.
    pub speed_mbps: Option<u32>,
    /// Its addresses, in no order of importance.
    pub addresses: Vec<IpAddr>,
}

/// Every interface but the loopback one.
pub(crate) fn interfaces(root: &Root) -> Vec<Interface> {
    let mut by_index =
        if root.is_live() { addresses().unwrap_or_default() } else { BTreeMap::new() };
    let mut interfaces = Vec::new();
    for name in root.names("/sys/class/net") {
        let directory = format!("/sys/class/net/{name}");
        // 772 is the type of a loopback, whatever it is called.
        if name == "lo" || root.number(format!("{directory}/type")) == Some(772) {
            continue;
        }
        let index = root.number(format!("{directory}/ifindex"));
        let index = index.and_then(|index| u32::try_from(index).ok());
        let mac = root.line(format!("{directory}/address"));
        let up = match root.line(format!("{directory}/operstate")).as_deref() {
            Some("up") => Some(true),
            Some("unknown") | None => None,
            Some(_) => Some(false),
        };
        interfaces.push(Interface {
            mac: mac.filter(|mac| mac.len() == 17 && mac != "00:00:00:00:00:00"),
            up,
            physical: is_physical(root, &name),
            speed_mbps: speed_mbps(root, &directory),
            addresses: index.and_then(|index| by_index.remove(&index)).unwrap_or_default(),
            name,
        });
    }
    interfaces.sort_by_key(|interface| (!interface.physical, interface.addresses.is_empty()));
    interfaces.truncate(INTERFACES_MAX);
    interfaces
}

/// The driver says -1, 0 or nothing where it does not know or has no link.
fn speed_mbps(root: &Root, directory: &str) -> Option<u32> {
    let speed = u32::try_from(root.number(format!("{directory}/speed"))?).ok()?;
    (1..u32::MAX).contains(&speed).then_some(speed)
}

/// Whether there is hardware (or a hypervisor's idea of it) behind an interface.
pub(crate) fn is_physical(root: &Root, name: &str) -> bool {
    root.exists(format!("/sys/class/net/{name}/device"))
}

/// Asks the kernel for all addresses, by index of the interface.
fn addresses() -> Option<BTreeMap<u32, Vec<IpAddr>>> {
    let family = AddressFamily::NETLINK;
    let socket = socket_with(family, SocketType::RAW, SocketFlags::CLOEXEC, None).ok()?;
    set_socket_timeout(&socket, Timeout::Recv, Some(ANSWER_TIME_MAX)).ok()?;
    let kernel = netlink::SocketAddrNetlink::new(0, 0);
    sendto(&socket, &parse::address_request(), SendFlags::empty(), &kernel).ok()?;
    let mut by_index: BTreeMap<u32, Vec<IpAddr>> = BTreeMap::new();
    let mut buffer = vec![0; 32 * 1024];
    for _ in 0..DATAGRAMS_MAX {
        let (length, _) = recv(&socket, &mut buffer[..], RecvFlags::empty()).ok()?;
        let part = parse::addresses(buffer.get(..length)?).ok()?;
        for (index, address) in part.list {
            by_index.entry(index).or_default().push(address);
        }
        if part.done {
            return Some(by_index);
        }
    }
    None
}
