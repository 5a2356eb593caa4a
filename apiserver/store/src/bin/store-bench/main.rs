//! Measures the store, and writes under observation for the tests of its durability.
//!
//! ```text
//! store-bench measure DIR [SECONDS]       commits/s and CPU per commit, by number of clients
//! store-bench acknowledge DIR CLIENTS     writes without end; each acknowledged write is a line
//!                                         "CLIENT COUNT REVISION" on stdout
//! ```

mod acknowledge;
mod measure;

use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

const USAGE: &str =
    "usage: store-bench measure DIR [SECONDS] | store-bench acknowledge DIR CLIENTS";

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    let outcome = match args.as_slice() {
        ["measure", dir] => run(measure::all(Path::new(dir), Duration::from_secs(3))),
        ["measure", dir, seconds] => match seconds.parse() {
            Ok(seconds) => run(measure::all(Path::new(dir), Duration::from_secs(seconds))),
            Err(_) => Err(USAGE.to_owned()),
        },
        ["acknowledge", dir, clients] => match clients.parse() {
            Ok(clients) => run(acknowledge::run(Path::new(dir), clients)),
            Err(_) => Err(USAGE.to_owned()),
        },
        _ => Err(USAGE.to_owned()),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            eprintln!("{why}");
            ExitCode::FAILURE
        }
    }
}

fn run(work: impl Future<Output = Result<(), String>>) -> Result<(), String> {
    let runtime = tokio::runtime::Runtime::new();
    runtime
        .map_err(|error| format!("cannot start a runtime: {error}"))?
        .block_on(work)
}
