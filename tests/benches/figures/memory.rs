//! What pods take in memory.

use std::time::{Duration, Instant};

use tokio::runtime::Runtime;

use crate::load;
use crate::measure::measure;
use crate::pods::Size;
use crate::table::{Figure, Table};

/// How long the server may take to give back what it needed for the writes only.
const SETTLE: Duration = Duration::from_secs(15);

/// Creates pods on a server of its own, and looks at its resident memory on the way.
pub fn run(runtime: &Runtime, table: &mut Table) -> anyhow::Result<()> {
    let mut server = crate::figures::start(runtime)?;
    let empty = server.resident()?;
    let mut there = 0;
    for (count, must) in [(10_000, "150 MB"), (100_000, "1 GB")] {
        let clients = runtime.block_on(load::clients(server.target()))?;
        let took = measure(&mut server, |_| {
            let created = load::create_pods(clients, Size::Usual, there, count - there);
            runtime.block_on(created)
        })?;
        there = count;
        let busy = server.resident()?;
        let settled = settled(&server)?;
        table.add(Figure {
            name: format!("resident memory, {count} pods"),
            must,
            seen: format!("{} MB", settled / 1_000_000),
            neighbour: String::new(),
            foreign: took.foreign,
            beside: format!(
                "{} MB after the last write; {} MB without pods",
                busy / 1_000_000,
                empty / 1_000_000
            ),
        });
    }
    Ok(())
}

/// The memory of a server that has nothing to do.
fn settled(server: &crate::server::Server) -> anyhow::Result<u64> {
    let began = Instant::now();
    let mut least = server.resident()?;
    while began.elapsed() < SETTLE {
        std::thread::sleep(Duration::from_millis(500));
        least = least.min(server.resident()?);
    }
    Ok(least)
}
