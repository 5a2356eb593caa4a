//! The controllers over the API server, in one process; a hollow agent runs the pods.

mod at_rest;
mod autoscaler;
mod budget;
mod csi;
mod endpoints;
mod frame;
mod load_balancer;
mod namespace;
mod node;
mod quota;
mod rollout;
mod service;
mod volumes;
mod workloads;
