//! Tells the binary of which commit it is, and links it small, where rustc links by lld unless told
//! otherwise; other linkers do not know the options.

use std::process::Command;

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    tell_commit();
    let is = |name: &str, value: &str| std::env::var(name).is_ok_and(|found| found == value);
    let by_lld = is("CARGO_CFG_TARGET_OS", "linux")
        && is("CARGO_CFG_TARGET_ENV", "gnu")
        && is("CARGO_CFG_TARGET_ARCH", "x86_64");
    if !by_lld || !is("PROFILE", "release") {
        return;
    }
    // Functions that compile to the same code are kept once: generic code is compiled in each
    // crate that uses it.
    println!("cargo::rustc-link-arg-bins=-Wl,--icf=all");
    // It is loaded where it is linked for, as Go's programs are: adjusting its addresses at each start would
    // cost time, and 2 MB in each of its processes (node, shim, log writer, plugins). The price: where its own
    // code lies is known; libraries, stacks and heaps lie at random addresses all the same.
    println!("cargo::rustc-link-arg-bins=-no-pie");
}

/// `PEAPOD_GIT_COMMIT`: the commit; empty where the source is not in a repository.
fn tell_commit() {
    let commit = git(&["rev-parse", "HEAD"]).unwrap_or_default();
    println!("cargo::rustc-env=PEAPOD_GIT_COMMIT={commit}");
    // It is written whenever the commit that is checked out changes.
    if let Some(log) = git(&["rev-parse", "--git-path", "logs/HEAD"]) {
        println!("cargo::rerun-if-changed={log}");
    }
}

fn git(args: &[&str]) -> Option<String> {
    let output = Command::new("git").args(args).output().ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    output.status.success().then(|| text.trim().to_owned())
}
