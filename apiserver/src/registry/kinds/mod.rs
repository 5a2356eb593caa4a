//! The kinds, a file each.

mod admission_registration;
mod api_service;
mod autoscaler;
mod bgp_config;
mod bgp_node;
mod bgp_peer;
mod bgp_policy;
pub mod certificates;
mod component_status;
mod config_map;
mod controller_revision;
mod cron_job;
mod custom_resource_definition;
mod daemon_set;
mod deployment;
mod dynamic_resources;
mod endpoint_slice;
mod endpoints;
mod event;
mod flow_control;
mod ip_block;
mod ip_pool;
mod job;
mod job_policies;
mod lease;
mod limits;
mod load_balancer;
mod metrics;
mod namespace;
mod networking;
mod node;
mod persistent_volume;
mod persistent_volume_claim;
mod placement;
mod pod;
mod pod_cells;
mod pod_disruption_budget;
mod pod_parts;
mod priority_class;
mod rbac;
mod replica_set;
mod reviews;
mod runtime_class;
mod secret;
mod service;
mod service_account;
mod stateful_set;
mod storage;
mod storage_class;
mod templates;
mod workload;

use std::sync::{Arc, LazyLock};

use peapod_api::quantity::Quantity;
use peapod_schema::graph::Graph;

use super::Kind;

/// Every kind that is served, in the order of discovery: core first.
pub fn all() -> Vec<Kind> {
    let mut kinds = vec![
        config_map::kind(),
        endpoints::kind(),
        event::kind(),
        namespace::kind(),
        node::kind(),
        persistent_volume::kind(),
        persistent_volume_claim::kind(),
        pod::kind(),
        secret::kind(),
        service::kind(),
        service_account::kind(),
        controller_revision::kind(),
        daemon_set::kind(),
        deployment::kind(),
        replica_set::kind(),
        stateful_set::kind(),
        cron_job::kind(),
        job::kind(),
        certificates::kind(),
        lease::kind(),
        event::kind_of_group(),
        endpoint_slice::kind(),
        priority_class::kind(),
        storage_class::kind(),
        bgp_config::kind(),
        bgp_node::kind(),
        bgp_peer::kind(),
        ip_block::kind(),
        ip_pool::kind(),
        placement::kind(),
        pod_disruption_budget::kind(),
        runtime_class::kind(),
        custom_resource_definition::kind(),
        api_service::kind(),
    ];
    for group in [
        autoscaler::kinds(),
        component_status::kinds(),
        dynamic_resources::kinds(),
        flow_control::kinds(),
        admission_registration::kinds(),
        limits::kinds(),
        load_balancer::kinds(),
        metrics::kinds(),
        templates::kinds(),
        networking::kinds(),
        rbac::kinds(),
        reviews::kinds(),
        storage::kinds(),
    ] {
        kinds.extend(group);
    }
    kinds
}

/// The canonical text of a quantity.
pub fn canonical_quantity(text: &str) -> Result<String, String> {
    let quantity: Result<Quantity, _> = text.parse();
    quantity
        .map(|quantity| quantity.to_text().0)
        .map_err(|fault| fault.to_string())
}

/// The shape of a kind of our own, which its Rust type has.
fn shape_of(definition: &impl serde::Serialize) -> serde_json::Value {
    let definition = serde_json::to_value(definition).unwrap_or_default();
    let schema = definition.pointer("/spec/versions/0/schema/openAPIV3Schema");
    schema.cloned().unwrap_or_default()
}

/// The shapes of all built-in types. They are the same for all registries.
pub fn graph() -> Arc<Graph> {
    static GRAPH: LazyLock<Arc<Graph>> = LazyLock::new(read_graph);
    GRAPH.clone()
}

fn read_graph() -> Arc<Graph> {
    let mut graph = peapod_schema::builtin::graph(canonical_quantity);
    bgp_config::add_shape(&mut graph);
    bgp_node::add_shape(&mut graph);
    bgp_peer::add_shape(&mut graph);
    ip_block::add_shape(&mut graph);
    ip_pool::add_shape(&mut graph);
    load_balancer::add_shapes(&mut graph);
    placement::add_shape(&mut graph);
    metrics::add_shapes(&mut graph);
    Arc::new(graph)
}
