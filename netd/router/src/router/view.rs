//! How the router is, for those who look in.

use std::collections::BTreeSet;

use peapod_bgp::rib::PeerId;
use peapod_bgp::speaker::Scope;
use peapod_bgp::types::Family;
use tokio::sync::oneshot;

use super::Router;
use crate::control::{self, Cursor, Page, Question, Request, ShownPeer, ShownRoute};
use crate::kernel::fib::{Fib, Refusals};

/// Routes in a page of an answer.
const PAGE: usize = 512;

/// How a router is.
#[derive(Clone, Debug, Default)]
pub struct RouterView {
    /// Its sessions.
    pub peers: Vec<ShownPeer>,
    /// What the kernel refuses.
    pub refusals: Refusals,
    /// The interfaces behind which its neighbours are.
    pub links: BTreeSet<String>,
}

impl Router {
    pub(super) fn answer(&mut self, question: Question) {
        if let (Request::Audit, Some(fib)) = (&question.request, &mut self.fib) {
            let (answer, audited) = oneshot::channel();
            fib.ask_audit(answer);
            self.tasks
                .spawn(control::answer_audit(audited, question.answer));
            return;
        }
        let page = match self.page(&question.request, question.from) {
            Ok((lines, next)) => Page {
                lines: Ok(lines),
                next,
            },
            Err(error) => Page {
                lines: Err(error),
                next: None,
            },
        };
        // Who asked may be gone.
        let _ = question.answer.send(page);
    }

    pub(super) fn page(
        &self,
        request: &Request,
        from: Cursor,
    ) -> Result<(Vec<String>, Option<Cursor>), String> {
        let scope = match request {
            Request::Peers => return self.peers().map(|lines| (lines, None)),
            Request::Audit => {
                return Err("this router installs nothing (install: false)".to_owned());
            }
            Request::Routes {
                received: Some(name),
                ..
            } => Scope::Received(self.peer(name)?),
            Request::Routes {
                advertised: Some(name),
                ..
            } => Scope::Advertised(self.peer(name)?),
            Request::Routes { .. } => Scope::All,
        };
        let Some(family) = Family::SUPPORTED.get(from.0) else {
            return Ok((Vec::new(), None));
        };
        let (views, next) = self.speaker.routes_page(*family, scope, from.1, PAGE);
        let lines = views.into_iter().map(|route| {
            let refusal = self.fib.as_ref().and_then(|fib| fib.refusal(&route.prefix));
            let kernel_error = refusal.map(ToString::to_string);
            serde_json::to_string(&ShownRoute {
                route,
                kernel_error,
            })
        });
        let lines = lines
            .collect::<Result<_, _>>()
            .map_err(|error| error.to_string())?;
        Ok((
            lines,
            Some(next.map_or((from.0 + 1, 0), |slot| (from.0, slot))),
        ))
    }

    pub(super) fn peers(&self) -> Result<Vec<String>, String> {
        let lines = self.sessions().into_iter();
        lines
            .map(|shown| serde_json::to_string(&shown).map_err(|error| error.to_string()))
            .collect()
    }

    pub(super) fn view(&self) -> RouterView {
        RouterView {
            peers: self.sessions(),
            refusals: self.fib.as_ref().map(Fib::refusals).unwrap_or_default(),
            links: self.neighbor_links(),
        }
    }

    /// The interfaces of unnumbered neighbours and those that share a prefix with a numbered one,
    /// whether or not there is a session; for a neighbour behind others, those of their sessions.
    pub(super) fn neighbor_links(&self) -> BTreeSet<String> {
        let configured = self.config.neighbors.iter().filter_map(|neighbor| {
            match (&neighbor.interface, neighbor.address) {
                (Some(interface), _) => Some(interface.clone()),
                (None, address) => Some(self.links.reaching(address?)?.1.name.clone()),
            }
        });
        let peers = self.speaker.peers().into_iter();
        let ends = peers.filter_map(|peer| self.speaker.peer_endpoint(peer.id));
        let sessions =
            ends.filter_map(|end| Some(self.links.with_address(end.local)?.name.clone()));
        let sessions = sessions.filter(|name| name != "lo");
        configured.chain(sessions).collect()
    }

    /// The neighbours, with what BFD says of them.
    pub(super) fn sessions(&self) -> Vec<ShownPeer> {
        let peers = self.speaker.peers().into_iter();
        peers
            .map(|peer| ShownPeer {
                bfd: self.bfd_state(peer.id).map(|state| state.to_string()),
                peer,
            })
            .collect()
    }

    pub(super) fn peer(&self, name: &str) -> Result<PeerId, String> {
        self.speaker
            .peer_named(name)
            .ok_or_else(|| format!("there is no neighbour {name}"))
    }
}
