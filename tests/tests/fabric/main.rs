//! A rack on one machine: nodes, leaves and spines in namespaces, which speak BGP.

mod basics;
mod drain;
mod failures;
