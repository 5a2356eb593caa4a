//! The `peapod` binary: the command line, `up`, and the entry of every role.
//!
//! It owns how people meet Peapod: arguments, progress, tables, sentences about what went wrong
//! and what to do. It wires the parts together and decides nothing that they decide.

mod allocator;
mod cli;
mod client;
mod cni;
mod fabric;
mod footprint;
mod image;
mod instance;
mod net;
mod roles;
mod router;
mod snapshot;
mod terminal;

use std::io::Write as _;
use std::process::ExitCode;

use clap::Parser;

fn main() -> ExitCode {
    if cni::is_named(std::env::args_os().next().as_deref()) {
        return cni::run();
    }
    let cli = cli::Cli::parse();
    match cli::run(cli) {
        Ok(code) => code,
        Err(error) => {
            // Where this goes may be full, too.
            let _ = writeln!(std::io::stderr(), "error: {}", terminal::sentence(&error));
            ExitCode::FAILURE
        }
    }
}
