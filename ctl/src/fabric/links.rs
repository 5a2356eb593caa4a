//! Links, addresses and routes between namespaces, over rtnetlink. Everything is made only where
//! it is missing, so that a fabric that is there is kept as it is.

use std::fs::File;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::AsRawFd;

use anyhow::{Context, Result};
use futures::TryStreamExt;
use ipnet::IpNet;
use rtnetlink::packet_route::link::{InfoData, InfoKind, InfoVeth, LinkAttribute, LinkMessage};
use rtnetlink::{
    Error, Handle, LinkBridge, LinkMessageBuilder, LinkUnspec, LinkVeth, RouteMessageBuilder,
};
use tokio_util::task::AbortOnDropHandle;

use super::netns;

/// Links that are made here have numbers above this; those that the kernel numbers have lower ones.
const NUMBERED_FROM: u32 = 10_000;

/// A way to the links of one network namespace.
pub struct Links {
    handle: Handle,
    place: String,
    _connection: AbortOnDropHandle<()>,
}

// === impl Links ===

impl Links {
    /// Of the namespace that this process is in.
    pub fn here() -> Result<Self> {
        let (connection, handle, _) =
            rtnetlink::new_connection().context("cannot open a netlink socket")?;
        Ok(Self {
            handle,
            place: "this machine".to_owned(),
            _connection: AbortOnDropHandle::new(tokio::spawn(connection)),
        })
    }

    /// Of a pinned namespace.
    pub fn inside(namespace: &str) -> Result<Self> {
        let runtime = tokio::runtime::Handle::current();
        let (connection, handle, _) = netns::inside(namespace, || {
            let _reactor = runtime.enter();
            rtnetlink::new_connection()
        })?;
        Ok(Self {
            handle,
            place: namespace.to_owned(),
            _connection: AbortOnDropHandle::new(tokio::spawn(connection)),
        })
    }

    /// The index of a link; `None` when there is none of this name.
    pub async fn index(&self, name: &str) -> Result<Option<u32>> {
        let mut found = self
            .handle
            .link()
            .get()
            .match_name(name.to_owned())
            .execute();
        match found.try_next().await {
            Ok(link) => Ok(link.map(|link| link.header.index)),
            Err(Error::NetlinkError(error)) if error.raw_code() == -libc::ENODEV => Ok(None),
            Err(error) => Err(error).with_context(|| self.about("look for link", name)),
        }
    }

    async fn existing(&self, name: &str) -> Result<u32> {
        let index = self.index(name).await?;
        index.with_context(|| format!("{} has no link {name}", self.place))
    }

    /// A bridge, up.
    pub async fn ensure_bridge(&self, name: &str) -> Result<u32> {
        if self.index(name).await?.is_none() {
            let made = self.handle.link().add(LinkBridge::new(name).build());
            made.execute()
                .await
                .with_context(|| self.about("add bridge", name))?;
        }
        self.set_up(name).await
    }

    /// A veth pair, up at both ends: `name` here and `peer` in another namespace.
    pub async fn ensure_veth(&self, name: &str, peer: &str, other: &str) -> Result<()> {
        if self.index(name).await?.is_none() {
            let namespace = File::open(netns::path(other))
                .with_context(|| format!("cannot open the network namespace {other}"))?;
            let peer = LinkUnspec::new_with_name(peer)
                .setns_by_fd(namespace.as_raw_fd())
                .build();
            // Each namespace counts its links for itself. If both ends had the same number the kernel
            // would take them for no pair, and tell of a carrier up to a second late.
            let number = self.highest().await?.max(NUMBERED_FROM) + 1;
            let pair = LinkMessageBuilder::<LinkVeth>::new_with_info_kind(InfoKind::Veth)
                .name(name)
                .index(number)
                .set_info_data(InfoData::Veth(InfoVeth::Peer(peer)))
                .build();
            let made = self.handle.link().add(pair).execute().await;
            made.with_context(|| self.about("add link", name))?;
        }
        self.set_up(name).await?;
        Links::inside(other)?.set_up(peer).await.map(drop)
    }

    /// Makes a link a port of a bridge.
    pub async fn join(&self, name: &str, bridge: u32) -> Result<()> {
        let index = self.existing(name).await?;
        let port = LinkUnspec::new_with_index(index).controller(bridge).build();
        let set = self.handle.link().set(port).execute().await;
        set.with_context(|| self.about("join to the bridge link", name))
    }

    /// Sets a link up; gives its index.
    pub async fn set_up(&self, name: &str) -> Result<u32> {
        let index = self.existing(name).await?;
        let up = LinkUnspec::new_with_index(index).up().build();
        let set = self.handle.link().set(up).execute().await;
        set.with_context(|| self.about("set up link", name))?;
        Ok(index)
    }

    /// Gives a link an address.
    pub async fn ensure_address(&self, name: &str, address: IpNet) -> Result<()> {
        let index = self.existing(name).await?;
        let add = self
            .handle
            .address()
            .add(index, address.addr(), address.prefix_len());
        unless_there(add.execute().await).with_context(|| self.about("give an address to", name))
    }

    /// Everything of a range leaves by a gateway.
    pub async fn ensure_route(&self, destination: IpNet, gateway: IpAddr) -> Result<()> {
        let route = match (destination, gateway) {
            (IpNet::V4(net), IpAddr::V4(gateway)) => RouteMessageBuilder::<Ipv4Addr>::new()
                .destination_prefix(net.network(), net.prefix_len())
                .gateway(gateway)
                .build(),
            (IpNet::V6(net), IpAddr::V6(gateway)) => RouteMessageBuilder::<Ipv6Addr>::new()
                .destination_prefix(net.network(), net.prefix_len())
                .gateway(gateway)
                .build(),
            _ => anyhow::bail!("{destination} cannot be reached by {gateway}: another family"),
        };
        let added = self.handle.route().add(route).execute().await;
        unless_there(added).with_context(|| self.about("add a route to", &destination.to_string()))
    }

    /// Deletes a link; one that is not there is fine.
    pub async fn delete(&self, name: &str) -> Result<()> {
        let Some(index) = self.index(name).await? else {
            return Ok(());
        };
        match self.handle.link().del(index).execute().await {
            // Its other end went meanwhile, with the namespace that held it.
            Err(Error::NetlinkError(error)) if error.raw_code() == -libc::ENODEV => Ok(()),
            deleted => deleted.with_context(|| self.about("delete link", name)),
        }
    }

    /// The highest number of a link.
    async fn highest(&self) -> Result<u32> {
        let all = self.all().await?;
        Ok(all.iter().map(|link| link.header.index).max().unwrap_or(0))
    }

    async fn all(&self) -> Result<Vec<LinkMessage>> {
        let all = self.handle.link().get().execute().try_collect();
        all.await
            .with_context(|| format!("cannot list the links of {}", self.place))
    }

    /// Names of the links that begin so.
    pub async fn names(&self, prefix: &str) -> Result<Vec<String>> {
        let mut names = Vec::new();
        for link in self.all().await? {
            names.extend(link.attributes.into_iter().filter_map(|one| match one {
                LinkAttribute::IfName(name) if name.starts_with(prefix) => Some(name),
                _ => None,
            }));
        }
        Ok(names)
    }

    fn about(&self, what: &str, name: &str) -> String {
        format!("cannot {what} {name} in {}", self.place)
    }
}

fn unless_there(outcome: std::result::Result<(), Error>) -> std::result::Result<(), Error> {
    match outcome {
        Err(Error::NetlinkError(error)) if error.raw_code() == -libc::EEXIST => Ok(()),
        other => other,
    }
}
