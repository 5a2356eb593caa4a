//! The router's figures, each beside what must be reached and, where there are such, FRR, BIRD and
//! GoBGP in the same run: `cargo bench -p peapod-router --bench figures`, as root.
//!
//! `figures tables|outages|flaps|fabric` prints some of them only. All work in network namespaces
//! of their own. What else the machine was busy with stands beside each figure, in cores.

mod fabric;
mod outages;
mod tables;

use std::path::Path;

fn main() {
    let mut arguments = std::env::args().skip(1).filter(|word| word != "--bench");
    let first = arguments.next();
    if first.as_deref() == Some("--router") {
        let file = arguments.next().expect("a file");
        return tables::route(Path::new(&file));
    }
    let wanted = |name: &str| first.as_deref().is_none_or(|only| only == name);
    if wanted("tables") {
        tables::print();
    }
    if wanted("outages") {
        outages::print();
    }
    if wanted("flaps") {
        outages::flaps();
    }
    if wanted("fabric") {
        fabric::print();
    }
}
