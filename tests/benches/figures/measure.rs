//! What some work took: of the server, of the clients, and of whatever else the machine did
//! meanwhile, without which no figure of a shared machine can be judged.

use std::time::{Duration, Instant};

use crate::cpu;
use crate::server::Server;

/// What some work took.
#[derive(Clone, Copy, Debug)]
pub struct Took {
    /// On the clock.
    pub wall: Duration,
    /// CPU time of the server's process, user and system.
    pub server: Duration,
    /// CPU time of this process, the clients'.
    pub client: Duration,
    /// How many cores others kept busy meanwhile.
    pub foreign: f64,
}

/// Runs `work` and takes the times.
pub fn measure(
    server: &mut Server,
    work: impl FnOnce(&mut Server) -> anyhow::Result<()>,
) -> anyhow::Result<Took> {
    let (before, own, all) = (server.cpu()?, cpu::of_this_process()?, cpu::of_all()?);
    let began = Instant::now();
    work(server)?;
    let wall = began.elapsed();
    let server = server.cpu()?.saturating_sub(before);
    let client = cpu::of_this_process()?.saturating_sub(own);
    let all = cpu::of_all()?.saturating_sub(all);
    let foreign = all.saturating_sub(server + client);
    Ok(Took {
        wall,
        server,
        client,
        foreign: foreign.as_secs_f64() / wall.as_secs_f64().max(1e-9),
    })
}

/// How many cores there are.
pub fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}
