//! Numbered and unnumbered, IPv4 and IPv6, with two leaves of each make.

use crate::rack::{BALANCER, Links, Make, Rack, Shape};

/// Both families over both leaves; one leaf's link is cut and mended; the service comes and goes.
fn speaks(make: Make, links: Links) {
    let rack = Rack::new(Shape {
        make,
        links,
        bfd: false,
        far: false,
    });
    rack.lab.set_link("leaf1", "node", false);
    rack.node_uses(&[2]);
    rack.lab.set_link("leaf1", "node", true);
    rack.complete();
    rack.node.endpoints(&[]);
    peapod_lab::eventually("nobody leads to the service", || {
        !rack.has(1, BALANCER) && !rack.has(2, BALANCER)
    });
    rack.node.endpoints(&[&rack.pod]);
    rack.complete();
}

#[test]
fn frr_numbered() {
    speaks(Make::Frr, Links::Numbered);
}

#[test]
fn frr_unnumbered() {
    speaks(Make::Frr, Links::Unnumbered);
}

#[test]
fn bird_numbered() {
    speaks(Make::Bird, Links::Numbered);
}

#[test]
fn bird_unnumbered() {
    speaks(Make::Bird, Links::Unnumbered);
}

#[test]
fn gobgp_numbered() {
    speaks(Make::GoBgp, Links::Numbered);
}

#[test]
fn gobgp_unnumbered() {
    speaks(Make::GoBgp, Links::Unnumbered);
}
