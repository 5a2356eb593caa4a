//! Neighbours that are known by the interface they are behind.

use peapod_bgp::speaker::Input;

use super::Router;
use crate::discovery::{self, Heard};

impl Router {
    /// Looks for unnumbered neighbours on all interfaces that carry packets.
    pub(super) fn discover(&mut self) {
        self.discover_on(None);
    }

    /// The same on one interface, or on all.
    pub(super) fn discover_on(&mut self, only: Option<&str>) {
        let wanted: Vec<String> = self
            .speaker
            .unnumbered()
            .map(|(_, interface)| interface.to_owned())
            .filter(|interface| only.is_none_or(|only| only == interface))
            .collect();
        for interface in wanted {
            let Some(index) = self
                .links
                .index(&interface)
                .filter(|_| self.links.is_up(&interface))
            else {
                continue;
            };
            let task = discovery::run(interface.clone(), index, self.heard.clone());
            if let Some(before) = self.discoveries.insert(interface, self.tasks.spawn(task)) {
                before.abort();
            }
        }
    }

    /// An unnumbered neighbour has made itself known.
    pub(super) fn heard(&mut self, heard: &Heard) {
        let found = self
            .speaker
            .unnumbered()
            .find(|(_, on)| *on == heard.interface);
        if let Some(peer) = found.map(|(peer, _)| peer) {
            let options = self.speaker.peer_options(peer);
            let key = options.and_then(|options| options.password.as_deref());
            let name = self.speaker.peer_name(peer);
            self.transport.sign(name, heard.address.into(), key);
            self.handle(Input::Located {
                peer,
                address: Some(heard.address.into()),
            });
            self.guard();
        }
    }
}
