//! A fabric of 750 racks of 16 nodes under four spines, in virtual time: what stands in whose
//! table, and what a spine's silent loss costs.
//!
//! Eight of the leaves are whole, and one of these has its 16 nodes as speakers: see
//! [`peapod_bgp::sim::fabric`] for why that says as much as all twelve thousand would.

use std::time::Instant;

use peapod_bgp::sim::fabric::{Fabric, Plan};

/// What BFD (3 × 100 ms) takes to see a silent loss, in milliseconds.
const DETECTION_MS: u64 = 300;
const WHOLE: u32 = 8;

/// The tables' sizes and the loss of a spine, as a table.
pub fn print() {
    println!(
        "fabric of 750 racks x 16 nodes under 4 spines, virtual time (4 spines, {WHOLE} leaves, 16 nodes whole)"
    );
    println!(
        "  routes of a leaf, a spine, a node; a spine falls silent: until no leaf uses it, routes"
    );
    println!("  that change on a leaf, CPU for them on a leaf");
    for (name, aggregate) in [
        ("a block of each node", false),
        ("a summary of each rack", true),
    ] {
        let plan = Plan {
            racks: 750,
            nodes: 16,
            spines: 4,
            whole: WHOLE,
            aggregate,
        };
        let start = Instant::now();
        let mut fabric = Fabric::new(plan);
        let built = start.elapsed();
        let sizes = fabric.sizes();
        let start = Instant::now();
        let loss = fabric.lose_spine(DETECTION_MS);
        let cpu = start.elapsed() / WHOLE;
        println!(
            "  {name:<24} leaf {:>6}  spine {:>6}  node {:>6}   {:>4} ms  {:>6} changes  {:>6.1} ms   \
             (simulated in {:.1} s)",
            sizes.leaf,
            sizes.spine,
            sizes.node,
            loss.converged_ms,
            loss.changes,
            cpu.as_secs_f64() * 1000.0,
            built.as_secs_f64()
        );
    }
    println!("  switch tables hold 10,000 to 512,000 routes");
}
