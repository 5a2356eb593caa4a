//! A BGP speaker that is asked for its tables: by its socket on this machine, or, of a node
//! elsewhere, through the API and the node's agent. For that one needs `get` of `nodes/proxy`.

use std::path::PathBuf;

use anyhow::{Context as _, Result, bail};
use peapod_router::control::{self, Request, ShownPeer, ShownRoute};
use serde::de::DeserializeOwned;

use super::Context;
use super::local;
use super::peers::unreachable;
use super::source::encoded;
use crate::client::Session;
use crate::roles::node::BGP_AGENT;

/// Where it is.
pub enum Speaker<'a> {
    /// Its control socket.
    Here(PathBuf),
    /// The node that it is of.
    At(&'a Session, String),
}

// === impl Speaker ===

impl<'a> Speaker<'a> {
    /// A node's; without a name that of the only node of this machine.
    pub fn of(context: &'a Context, name: Option<&str>) -> Result<Self> {
        let nodes = local::nodes(&context.instance)?;
        let here = match name {
            Some(name) => nodes.iter().find(|node| node.name == name),
            None => Some(local::node(&nodes, None)?),
        };
        let Some(node) = here else {
            return Ok(Self::At(
                &context.session,
                name.unwrap_or_default().to_owned(),
            ));
        };
        if !node.control.exists() {
            bail!(
                "node {} speaks no BGP (no socket at {}); make a BgpPeer that selects it",
                node.name,
                node.control.display()
            );
        }
        Ok(Self::Here(node.control.clone()))
    }

    /// Its neighbours.
    pub async fn peers(&self) -> Result<Vec<ShownPeer>> {
        match self {
            Self::Here(socket) => control::peers(socket).with_context(|| unreachable(socket)),
            Self::At(session, node) => ask(session, node, &Request::Peers).await,
        }
    }

    /// Its routes: all, or those received from or advertised to a neighbour.
    pub async fn routes(
        &self,
        received: Option<String>,
        advertised: Option<String>,
    ) -> Result<Vec<ShownRoute>> {
        match self {
            Self::Here(socket) => {
                control::routes(socket, received, advertised).with_context(|| unreachable(socket))
            }
            Self::At(session, node) => {
                let request = Request::Routes {
                    received,
                    advertised,
                };
                Ok(control::in_order(ask(session, node, &request).await?))
            }
        }
    }
}

async fn ask<T: DeserializeOwned>(
    session: &Session,
    node: &str,
    request: &Request,
) -> Result<Vec<T>> {
    let question = encoded(&serde_json::to_string(request)?);
    let path = format!("/api/v1/nodes/{node}/proxy/agents/{BGP_AGENT}?ask={question}");
    let request = http::Request::get(path).body(Vec::new())?;
    let answer = session.client().request_text(request).await;
    let answer = answer.map_err(crate::client::server_error).with_context(|| {
        format!("cannot ask the BGP speaker of node {node}; does the node speak BGP? (peapod net peers)")
    })?;
    control::read(answer.as_bytes())
        .with_context(|| format!("the BGP speaker of node {node} refuses"))
}
