//! `peapod cni`, or this binary under the name `peapod-cni`: the plugin as runtimes start it.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::io::{Read, Write};
use std::path::Path;
use std::process::ExitCode;

use peapod_api::cni::{Error, code};
use peapod_netd::cni;
use serde_json::{Value, json};

use crate::cli::single_threaded;

/// The plugin's name, which configurations have as their `type`.
const NAME: &str = "peapod-cni";
/// A configuration is shorter than this, with the list of a collection too.
const INPUT_MAX: u64 = 4 * 1024 * 1024;

/// Whether this process was started under the plugin's name.
pub fn is_named(program: Option<&OsStr>) -> bool {
    program.is_some_and(|program| Path::new(program).file_name() == Some(OsStr::new(NAME)))
}

/// Does what the environment asks for, and prints the result, or the error, as JSON.
pub fn run() -> ExitCode {
    let outcome = carry_out();
    let (printed, code) = match outcome {
        Ok(result) => (result, ExitCode::SUCCESS),
        Err(error) => (Some(json!(error)), ExitCode::FAILURE),
    };
    if let Some(printed) = printed
        && writeln!(std::io::stdout(), "{printed}").is_err()
    {
        return ExitCode::FAILURE;
    }
    code
}

fn carry_out() -> Result<Option<Value>, Error> {
    let failed = |what: &str, fault: String| {
        cni::request::error(code::IO, format!("cannot {what}: {fault}"))
    };
    let mut input = Vec::new();
    std::io::stdin()
        .take(INPUT_MAX)
        .read_to_end(&mut input)
        .map_err(|fault| failed("read the configuration", fault.to_string()))?;
    let env: BTreeMap<String, String> = std::env::vars_os()
        .filter_map(|(key, value)| Some((key.into_string().ok()?, value.into_string().ok()?)))
        .filter(|(key, _)| key.starts_with("CNI_"))
        .collect();
    let runtime =
        single_threaded().map_err(|fault| failed("start", crate::terminal::sentence(&fault)))?;
    runtime.block_on(cni::run(&env, &input))
}
