//! A router whose configuration changes while it works.

use std::sync::Arc;

use peapod_lab::{Lab, eventually};
use peapod_router::kernel::fib::NoMeter;
use peapod_router::{RouterConfig, RouterView, Seat, run_seated};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

const BFD: &str = "bfd: {intervalMs: 100, multiplier: 3}";

fn config(asn: u32, neighbors: &str) -> RouterConfig {
    let text = format!(
        "asn: {asn}\nrouterId: 192.0.2.{}\nneighbors: [{neighbors}]\n",
        asn % 10
    );
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("router.yaml");
    std::fs::write(&path, text).unwrap();
    RouterConfig::read(&path).unwrap()
}

fn neighbor(address: &str, more: &str) -> String {
    format!(
        "{{address: {address}, remoteAs: external, timers: {{connectRetrySeconds: 1}}, {more}}}"
    )
}

/// What BFD watches follows the configuration: a session that nobody asks for any more ends, and
/// the neighbour is told, so that it takes the silence for no failure.
#[test]
fn bfd_ends_with_the_neighbour_that_is_not_to_be_watched() {
    let mut lab = Lab::new();
    lab.link(("a", "10.0.0.1/24"), ("b", "10.0.0.2/24"));
    let peer = neighbor("10.0.0.1", BFD);
    lab.router(
        "b",
        &format!("asn: 65002\nrouterId: 192.0.2.2\nneighbors: [{peer}]"),
    );
    let watched = config(65001, &neighbor("10.0.0.2", BFD));
    let (tell, told) = watch::channel(watched.clone());
    let (show, shown) = watch::channel(RouterView::default());
    let stop = CancellationToken::new();
    let token = stop.clone();
    let running = lab.spawn_in("a", move || {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        let seat = Seat {
            config: told,
            view: show,
            meter: Arc::new(NoMeter),
        };
        runtime.block_on(run_seated(seat, token)).unwrap();
    });
    let bfd_at_b = || lab.shown("b", "10.0.0.1").and_then(|shown| shown.bfd);
    let bfd_at_a = || {
        let view = shown.borrow();
        view.peers.first().and_then(|shown| shown.bfd.clone())
    };
    lab.bfd_up("b", "10.0.0.1");
    eventually("a has the link of its neighbour", || {
        shown.borrow().links.iter().eq(["to-b"])
    });

    // Without BFD the session with b goes on, and b hears nothing that would keep BFD up.
    let established = || lab.peer("b", "10.0.0.1").unwrap().established;
    let before = established();
    tell.send(config(65001, &neighbor("10.0.0.2", ""))).unwrap();
    eventually("b is told", || bfd_at_b().as_deref() == Some("Down"));
    eventually("a does not show it", || bfd_at_a().is_none());
    lab.established("b", "10.0.0.1");
    assert_eq!(established(), before, "BFD's end is no failure");

    tell.send(watched).unwrap();
    lab.bfd_up("b", "10.0.0.1");
    assert_eq!(established(), before, "nor is its beginning");
    tell.send(config(65001, "")).unwrap();
    eventually("b is told again", || bfd_at_b().as_deref() == Some("Down"));
    eventually("a has no neighbour", || shown.borrow().links.is_empty());
    stop.cancel();
    running.join().unwrap();
}
