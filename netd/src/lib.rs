//! The network of one node: addresses, links, routes, service maps, DNS.
