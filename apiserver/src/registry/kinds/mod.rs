//! The kinds, a file each.

mod config_map;
mod ip_block;
mod namespace;
mod pod;
mod stored;

use std::sync::Arc;

use peapod_api::quantity::Quantity;
use peapod_schema::graph::Graph;

use super::Kind;

/// Every kind that is served, in the order of discovery: core first.
pub fn all() -> Vec<Kind> {
    let mut kinds = vec![config_map::kind(), namespace::kind(), pod::kind()];
    stored::add(&mut kinds);
    kinds.push(ip_block::kind());
    kinds
}

/// The shapes of all built-in types.
pub fn graph() -> Arc<Graph> {
    let canonical = |text: &str| {
        let quantity: Result<Quantity, _> = text.parse();
        quantity
            .map(|quantity| quantity.to_text().0)
            .map_err(|fault| fault.to_string())
    };
    let mut graph = peapod_schema::builtin::graph(canonical);
    ip_block::shape(&mut graph);
    Arc::new(graph)
}
