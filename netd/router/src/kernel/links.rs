//! The interfaces: their names, whether they carry packets, their addresses; and news of these.

use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;
use netlink_sys::{
    AsyncSocket, AsyncSocketExt, Socket, SocketAddr, TokioSocket, protocols::NETLINK_ROUTE,
};

use super::message::{
    self, Message, RTM_DELADDR, RTM_DELLINK, RTM_GETADDR, RTM_GETLINK, RTM_NEWADDR, RTM_NEWLINK,
};
use super::routes::each;

/// Multicast groups of news: links, IPv4 addresses, IPv6 addresses.
const GROUPS: [u32; 3] = [1, 5, 9];

/// An interface.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Link {
    /// Its name.
    pub name: String,
    /// Whether it carries packets.
    pub up: bool,
    /// Its addresses, each with the length of the prefix that is on the link.
    pub addresses: Vec<IpNet>,
}

/// The interfaces, by number.
#[derive(Clone, Debug, Default)]
pub struct Links {
    links: BTreeMap<u32, Link>,
}

/// Something that changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// A link has got or lost its carrier, or came or went.
    Carrier {
        /// Its name.
        name: String,
        /// Whether it carries packets.
        up: bool,
    },
    /// Addresses of a link are others now.
    Addresses {
        /// The link's name.
        name: String,
    },
}

/// Hears of changes.
pub struct Watch {
    socket: TokioSocket,
}

// === impl Links ===

impl Links {
    /// The interfaces as they are.
    ///
    /// # Errors
    /// If the kernel cannot be asked.
    pub fn read() -> io::Result<Self> {
        let mut socket = Socket::new(NETLINK_ROUTE)?;
        socket.bind_auto()?;
        socket.connect(&SocketAddr::new(0, 0))?;
        let mut links = Links::default();
        each(&socket, &message::dump(RTM_GETLINK, 0, 16), |message| {
            links.apply(message);
        })?;
        each(&socket, &message::dump(RTM_GETADDR, 0, 8), |message| {
            links.apply(message);
        })?;
        Ok(links)
    }

    /// Takes news in; what changed by it.
    fn apply(&mut self, message: &Message<'_>) -> Option<Change> {
        match message.kind {
            RTM_NEWLINK => {
                let (index, name, up) = message::link(message.body)?;
                let link = self.links.entry(index).or_default();
                let news = link.up != up || link.name != name;
                link.up = up;
                link.name.clone_from(&name);
                news.then_some(Change::Carrier { name, up })
            }
            RTM_DELLINK => {
                let (index, ..) = message::link(message.body)?;
                let link = self.links.remove(&index)?;
                Some(Change::Carrier {
                    name: link.name,
                    up: false,
                })
            }
            RTM_NEWADDR | RTM_DELADDR => {
                let (index, address) = message::link_address(message.body)?;
                let link = self.links.entry(index).or_default();
                let had = link.addresses.contains(&address);
                link.addresses.retain(|one| *one != address);
                if message.kind == RTM_NEWADDR {
                    link.addresses.push(address);
                }
                let news = had != (message.kind == RTM_NEWADDR);
                news.then(|| Change::Addresses {
                    name: link.name.clone(),
                })
            }
            _ => None,
        }
    }

    /// The number of an interface.
    pub fn index(&self, name: &str) -> Option<u32> {
        self.links
            .iter()
            .find(|(_, link)| link.name == name)
            .map(|(index, _)| *index)
    }

    /// The interface of a number.
    pub fn get(&self, index: u32) -> Option<&Link> {
        self.links.get(&index)
    }

    /// The interface that has an address.
    pub fn with_address(&self, address: IpAddr) -> Option<&Link> {
        self.links
            .values()
            .find(|link| link.addresses.iter().any(|one| one.addr() == address))
    }

    /// The interface that has the longest prefix with an address in it, and its number.
    pub fn reaching(&self, address: IpAddr) -> Option<(u32, &Link)> {
        let prefixes = self.links.iter().flat_map(|(number, link)| {
            let on_link = link.addresses.iter().filter(|one| one.contains(&address));
            on_link.map(move |one| (one.prefix_len(), (*number, link)))
        });
        let longest = prefixes.max_by_key(|(length, _)| *length);
        longest.map(|(_, found)| found)
    }

    /// Whether an interface is there and carries packets.
    pub fn is_up(&self, name: &str) -> bool {
        self.links.values().any(|link| link.name == name && link.up)
    }

    /// The names of all.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.links.values().map(|link| link.name.as_str())
    }
}

// === impl Link ===

impl Link {
    /// Whether another address is on this link.
    pub fn reaches(&self, address: IpAddr) -> bool {
        self.addresses.iter().any(|one| one.contains(&address))
    }

    /// Its first IPv4 address.
    pub fn ipv4(&self) -> Option<Ipv4Addr> {
        self.addresses.iter().find_map(|one| match one.addr() {
            IpAddr::V4(address) => Some(address),
            IpAddr::V6(_) => None,
        })
    }

    /// Its first global IPv6 address.
    pub fn ipv6(&self) -> Option<Ipv6Addr> {
        self.v6()
            .find(|address| !address.is_unicast_link_local() && !address.is_loopback())
    }

    /// Its link-local IPv6 address.
    pub fn link_local(&self) -> Option<Ipv6Addr> {
        self.v6().find(Ipv6Addr::is_unicast_link_local)
    }

    fn v6(&self) -> impl Iterator<Item = Ipv6Addr> + '_ {
        self.addresses.iter().filter_map(|one| match one.addr() {
            IpAddr::V6(address) => Some(address),
            IpAddr::V4(_) => None,
        })
    }
}

// === impl Watch ===

impl Watch {
    /// Listens for news. To be opened before [`Links::read`], so that none is missed.
    ///
    /// # Errors
    /// If there is no netlink socket to be had.
    pub fn open() -> io::Result<Self> {
        let mut socket = TokioSocket::new(NETLINK_ROUTE)?;
        socket.socket_mut().bind_auto()?;
        for group in GROUPS {
            socket.socket_mut().add_membership(group)?;
        }
        Ok(Watch { socket })
    }

    /// Waits for news and takes them in; what changed. After an overflow everything is read anew.
    ///
    /// # Errors
    /// If the kernel cannot be heard.
    pub async fn next(&mut self, links: &mut Links) -> io::Result<Vec<Change>> {
        match self.socket.recv_from_full().await {
            Ok((bytes, _)) => Ok(message::messages(&bytes)
                .filter_map(|message| links.apply(&message))
                .collect()),
            Err(error) if error.raw_os_error() == Some(libc::ENOBUFS) => {
                *links = Links::read()?;
                let all = links.links.values();
                Ok(all
                    .map(|link| Change::Carrier {
                        name: link.name.clone(),
                        up: link.up,
                    })
                    .collect())
            }
            Err(error) => Err(error),
        }
    }
}
