//! What is wrong with a configuration, and in which field.

use std::collections::BTreeSet;
use std::fmt;

use super::{Config, NeighborOptions, RemoteAs, Timers};

/// A value that cannot be right.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub struct Fault {
    /// Path of the field, such as `neighbors[2].timers.holdSeconds`.
    pub field: String,
    /// What is wrong, and what would be right.
    pub reason: String,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.field, self.reason)
    }
}

fn fault(field: impl Into<String>, reason: impl Into<String>) -> Fault {
    Fault {
        field: field.into(),
        reason: reason.into(),
    }
}

impl Config {
    /// The first thing that is wrong with the values, if any.
    pub fn check(&self) -> Result<(), Fault> {
        if self.asn == 0 || self.asn == u32::MAX {
            return Err(fault("asn", "must be between 1 and 4294967294"));
        }
        if self.router_id.is_unspecified() {
            return Err(fault("routerId", "must not be 0.0.0.0"));
        }
        if !(1..=64).contains(&self.selection.multipath) {
            return Err(fault("selection.multipath", "must be between 1 and 64"));
        }
        if self.graceful_restart.restart_seconds > 4095 {
            return Err(fault(
                "gracefulRestart.restartSeconds",
                "must be at most 4095",
            ));
        }
        for (name, policy) in &self.policies {
            if let Some((place, reason)) = policy.fault() {
                return Err(fault(format!("policies.{name}.{place}"), reason));
            }
        }
        for prefix in &self.announce {
            if prefix.trunc() != *prefix {
                let right = prefix.trunc();
                return Err(fault(
                    "announce",
                    format!("{prefix} has host bits; write {right}"),
                ));
            }
        }
        self.check_neighbors()
    }

    fn check_neighbors(&self) -> Result<(), Fault> {
        let mut names = BTreeSet::new();
        for (at, neighbor) in self.neighbors.iter().enumerate() {
            let path = format!("neighbors[{at}]");
            if neighbor.address.is_none() && neighbor.interface.is_none() {
                return Err(fault(path, "needs an address or an interface"));
            }
            if !names.insert(neighbor.name()) {
                return Err(fault(path, format!("{} is there twice", neighbor.name())));
            }
            self.check_options(&path, &neighbor.options)?;
        }
        for (at, range) in self.ranges.iter().enumerate() {
            self.check_options(&format!("ranges[{at}]"), &range.options)?;
        }
        Ok(())
    }

    fn check_options(&self, path: &str, options: &NeighborOptions) -> Result<(), Fault> {
        let of = |field: &str| format!("{path}.{field}");
        if let Some(name) = options.unknown.keys().next() {
            return Err(fault(of(name), "there is no such field"));
        }
        if options.remote_as == RemoteAs::Number(0) {
            return Err(fault(of("remoteAs"), "must not be 0"));
        }
        for (field, name) in [("import", &options.import), ("export", &options.export)] {
            if let Some(name) = name
                && !self.policies.contains_key(name)
            {
                return Err(fault(of(field), format!("there is no policy `{name}`")));
            }
        }
        let external = options.external(self.asn);
        if options.route_reflector_client && external {
            return Err(fault(
                of("routeReflectorClient"),
                "only an iBGP neighbour can be one",
            ));
        }
        if options.role.is_some() && !external {
            return Err(fault(of("role"), "only an eBGP neighbour has one"));
        }
        if options.ttl_security.is_some() && options.multihop.is_some() {
            return Err(fault(of("ttlSecurity"), "excludes multihop"));
        }
        if options
            .password
            .as_ref()
            .is_some_and(|key| key.is_empty() || key.len() > 80)
        {
            return Err(fault(of("password"), "must have 1 to 80 bytes"));
        }
        if options
            .bfd
            .is_some_and(|bfd| bfd.interval_ms < 10 || bfd.multiplier == 0)
        {
            return Err(fault(
                of("bfd"),
                "intervalMs must be at least 10, multiplier not 0",
            ));
        }
        if options.max_prefixes.is_some_and(|max| max.limit == 0) {
            return Err(fault(of("maxPrefixes.limit"), "must not be 0"));
        }
        check_timers(path, &options.timers)
    }
}

fn check_timers(path: &str, timers: &Timers) -> Result<(), Fault> {
    let of = |field: &str| format!("{path}.timers.{field}");
    if matches!(timers.hold_seconds, 1 | 2) {
        return Err(fault(of("holdSeconds"), "must be 0 or at least 3"));
    }
    if timers.connect_retry_seconds == 0 {
        return Err(fault(of("connectRetrySeconds"), "must not be 0"));
    }
    if timers
        .keepalive_seconds
        .is_some_and(|keep| keep == 0 || keep > timers.hold_seconds)
    {
        return Err(fault(
            of("keepaliveSeconds"),
            "must be between 1 and holdSeconds",
        ));
    }
    Ok(())
}
