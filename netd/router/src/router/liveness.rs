//! Which neighbours BFD watches, and what it says of them.

use peapod_bfd::State;
use peapod_bgp::config::Bfd;
use peapod_bgp::rib::PeerId;
use peapod_bgp::speaker::Input;

use super::Router;
use crate::bfd;
use crate::transport::socket_address;

/// A neighbour that BFD watches.
#[derive(Clone, Copy, Debug)]
pub(super) struct Watched {
    /// As it was last asked to.
    settings: Bfd,
    /// What it last said.
    state: Option<State>,
}

impl Router {
    /// Has BFD watch a neighbour, if that is wanted.
    pub(super) fn watch(&mut self, peer: PeerId) {
        let Some(settings) = self
            .speaker
            .peer_options(peer)
            .and_then(|options| options.bfd)
        else {
            return;
        };
        let Some(endpoint) = self.speaker.peer_endpoint(peer) else {
            return;
        };
        let index = endpoint
            .interface
            .as_deref()
            .and_then(|name| self.links.index(name));
        let remote = socket_address(endpoint.remote, peapod_bfd::CONTROL_PORT, index);
        let command = bfd::Command::Watch {
            peer,
            local: endpoint.local,
            remote,
            settings,
        };
        // If the task could not start, that was said.
        let _ = self.bfd.send(command);
        let state = None;
        let watched = self.watched.entry(peer);
        watched.or_insert(Watched { settings, state }).settings = settings;
    }

    /// Ends BFD with neighbours that are gone or are not to be watched any more, and begins it with
    /// those that are, or are to be watched otherwise, and have a session; others are watched when
    /// they have one.
    pub(super) fn watch_as_configured(&mut self) {
        let settings = |peer| {
            self.speaker
                .peer_options(peer)
                .and_then(|options| options.bfd)
        };
        let known = self.watched.iter();
        let other = known.filter(|(peer, watched)| settings(**peer) != Some(watched.settings));
        for peer in other.map(|(peer, _)| *peer).collect::<Vec<_>>() {
            self.watched.remove(&peer);
            let _ = self.bfd.send(bfd::Command::Forget { peer });
            self.show_soon();
        }
        for peer in self.speaker.peers() {
            if !self.watched.contains_key(&peer.id) {
                self.watch(peer.id);
            }
        }
    }

    /// What BFD last said of a neighbour.
    pub(super) fn bfd_state(&self, peer: PeerId) -> Option<State> {
        self.watched.get(&peer).and_then(|watched| watched.state)
    }

    /// BFD has news of a neighbour.
    pub(super) fn reported(&mut self, report: bfd::Report) {
        // It may have been said before the session was ended.
        let Some(watched) = self.watched.get_mut(&report.peer) else {
            return;
        };
        watched.state = Some(report.state);
        self.show_soon();
        if report.failed {
            if let (Some(fib), Some(at)) = (&mut self.fib, self.speaker.peer_endpoint(report.peer))
            {
                fib.fail(at.remote, at.interface.as_deref(), &self.links);
            }
            self.handle(Input::BfdDown { peer: report.peer });
        }
    }
}
