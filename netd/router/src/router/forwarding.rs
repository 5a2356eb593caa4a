//! The kernel's side: our routes there, its links, and what others do to them.

use peapod_bgp::speaker::Input;

use super::Router;
use crate::Error;
use crate::kernel::fib::Fib;
use crate::kernel::links::Change;
use crate::kernel::neighbors;
use crate::kernel::news::{News, RouteWatch};
use crate::kernel::reach::WayWatch;
use crate::kernel::routes::{BATCH, Done};

impl Router {
    /// Hears what others do to our routes.
    pub(super) fn route_watch(&self) -> Result<Option<RouteWatch>, Error> {
        let open = |fib: &Fib| RouteWatch::open(fib.port());
        Ok(self.fib.as_ref().map(open).transpose()?)
    }

    /// Hears that other ways to next hops there may be.
    pub(super) fn way_watch(&self) -> Result<Option<WayWatch>, Error> {
        let open = |_: &Fib| WayWatch::open();
        Ok(self.fib.as_ref().map(open).transpose()?)
    }

    /// Tells the speaker of the ways to next hops that it asked for. A router that installs nothing may
    /// not be on the way of packets: to it all are alike.
    pub(super) fn resolve(&mut self) {
        for address in std::mem::take(&mut self.unresolved) {
            if let Some(fib) = &mut self.fib {
                let metric = fib.follow(address);
                let way = Input::NextHop { address, metric };
                self.speaker.handle(way, self.now());
            }
        }
    }

    /// Tells it of those that are others now.
    pub(super) fn tell_of_ways(&mut self) {
        let moved = self.fib.as_mut().map(|fib| fib.moved(&self.speaker));
        for way in moved.into_iter().flatten() {
            let (address, metric) = (way.address, way.metric);
            tracing::debug!(%address, ?metric, "another way to a next hop");
            self.handle(Input::NextHop { address, metric });
        }
    }

    /// Somebody else's routes are others now.
    pub(super) fn doubt_ways(&mut self) {
        if let Some(fib) = &mut self.fib {
            fib.doubt_ways();
        }
    }

    /// Gives the kernel what changed, as fast as it takes it.
    pub(super) fn install(&mut self) {
        match &mut self.fib {
            Some(fib) => fib.install(&mut self.speaker, &self.links),
            // Nobody wants them.
            None => while !self.speaker.take_changes(BATCH).is_empty() {},
        }
    }

    pub(super) fn installed(&mut self, done: Done) {
        let Some(fib) = &mut self.fib else {
            return;
        };
        let before = fib.refusals();
        fib.done(done, &mut self.speaker, &self.links);
        if fib.refusals() != before {
            self.show_soon();
        }
    }

    pub(super) fn touched(&mut self, news: Vec<News>) {
        if let Some(fib) = self.fib.as_mut().filter(|_| !news.is_empty()) {
            fib.heard(news);
        }
    }

    /// Has the link-layer addresses of the neighbours on a link asked for that has come up.
    pub(super) fn ask_neighbors(&self, name: &str) {
        let Some(index) = self.links.index(name) else {
            return;
        };
        let reaches = |address| {
            self.links
                .get(index)
                .is_some_and(|link| link.reaches(address))
        };
        for peer in self.speaker.locations() {
            let here = peer
                .interface
                .map_or_else(|| reaches(peer.address), |on| on == name);
            if here && let Err(error) = neighbors::forget(index, peer.address) {
                tracing::debug!(interface = name, %error, "cannot have a neighbour asked for");
            }
        }
    }

    /// Links or addresses are others now.
    pub(super) fn changed(&mut self, changes: Vec<Change>) {
        if !changes.is_empty() {
            self.show_soon();
        }
        self.doubt_ways();
        for change in changes {
            let (Change::Carrier { name, .. } | Change::Addresses { name }) = &change;
            let index = self.links.index(name);
            if let Some(fib) = &mut self.fib {
                fib.link_changed(index);
            }
            if let Change::Carrier { name, up } = change {
                tracing::info!(interface = name, up, "carrier");
                if up {
                    self.discover_on(Some(&name));
                    self.ask_neighbors(&name);
                }
                self.handle(Input::Link {
                    interface: name,
                    up,
                });
            } else if let Change::Addresses { name } = change
                && self.links.is_up(&name)
            {
                // A link's own address may come after its carrier: nobody could be called before.
                self.discover_on(Some(&name));
                let (interface, up) = (name, true);
                self.handle(Input::Link { interface, up });
            }
        }
    }
}
