//! The figures of the API server and the scheduler: `cargo bench --workspace --bench figures`.
//!
//! The server runs in a child process of its own, over TLS on loopback and on the disk of the
//! temporary directory (`TMPDIR`). Each figure gives the wall time as a client sees it and the CPU
//! time of the server process, kernel time included, which is the steady one on a shared machine,
//! beside what etcd takes for the like on the same disk in the same run.
//!
//! Names on the command line choose figures: `create get list schedule watch memory`.

mod child;
mod client;
mod cpu;
mod etcd;
mod figures;
mod load;
mod measure;
mod memory;
mod pods;
mod references;
mod requests;
mod schedule;
mod server;
mod table;
mod watches;

use std::process::ExitCode;

// The one that `peapod` uses.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let run = match arguments.first().map(String::as_str) {
        Some("--serve") => child::run(arguments.get(1).map(String::as_str).unwrap_or_default()),
        _ => {
            client::prefer_ciphers_of_go();
            figures::run(&arguments)
        }
    };
    match run {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("figures: {error:#}");
            ExitCode::FAILURE
        }
    }
}
