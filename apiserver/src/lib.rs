//! The API server: one generic path for every kind.
//!
//! It owns the wire contract: the registry of kinds, the verbs, watch, authentication,
//! authorisation and admission, over the revisioned store. A request passes [`front`] (who asks,
//! within which bounds), then [`rest`] (decode, default, admit, validate, commit, encode once);
//! what is particular to a kind stands in its one file in [`registry::kinds`].
//!
//! It must not know the other parts of the system: they are its clients, over a socket or in
//! this process ([`ApiServer::client`]), with no other way in.

mod admission;
mod aggregation;
mod answer;
mod api;
pub mod audit;
pub mod auth;
mod body;
mod bootstrap;
mod components;
mod compress;
mod config;
mod connections;
mod crd;
mod deadline;
mod discovery;
mod etag;
mod expiry;
mod exposition;
mod flow;
mod front;
mod identity;
mod inside;
mod linger;
mod metrics;
mod openapi;
mod outbound;
mod paths;
pub mod pki;
mod placements;
mod pools;
mod proxy;
mod random;
pub mod registry;
mod remarks;
mod rest;
mod reviews;
mod seldom;
mod server;
pub mod snapshot;
mod status;
mod storage;
mod subresources;
mod trail;
mod usage;

pub use config::{Config, Engine, EtcdConfig, EtcdTls};
pub use server::{ApiServer, Error};
