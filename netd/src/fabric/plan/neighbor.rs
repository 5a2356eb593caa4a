//! A neighbour of a `BgpPeer`, as the speaker knows it.

use std::net::IpAddr;

use peapod_api::net::{AsPlan, BgpPeerAs, BgpPeerSpec};
use peapod_bgp::config::{
    AddPath, Bfd, LocalAs, MaxPrefixes, Neighbor, NeighborOptions, RemoteAs, Timers,
};
use peapod_bgp::policy::Policy;
use peapod_bgp::types::{Family, Role};

use super::{EXPORT, IMPORT, OWN};
use crate::fabric::policy;
use crate::fabric::secrets::Secrets;

/// Without the password that is wanted there is no session at all.
pub(super) fn protect(
    options: &mut NeighborOptions,
    spec: &BgpPeerSpec,
    secrets: &Secrets,
) -> Result<(), String> {
    let Some(auth) = &spec.auth else {
        return Ok(());
    };
    let password = secrets.password(&auth.secret_ref);
    options.shutdown = password.is_err();
    options.password = Some(password?);
    Ok(())
}

/// The policies of one peer, by name.
pub(super) fn policies_of(
    peer: &str,
    spec: &BgpPeerSpec,
    tags: &[String],
) -> Result<Vec<(String, Policy)>, String> {
    let named = |direction: &str, policy: Result<Policy, String>| match policy {
        Ok(policy) => Ok((format!("{direction}{peer}"), policy)),
        Err(why) => Err(format!("spec.{}: {why}", direction.trim_end_matches('-'))),
    };
    let import = spec.import.as_ref().map(policy::import);
    let export = spec.export.as_ref();
    let export = export.map(|given| policy::export(Some(given), tags));
    let import = import.map(|policy| named(IMPORT, policy));
    let export = export.map(|policy| named(EXPORT, policy));
    import.into_iter().chain(export).collect()
}

pub(super) fn neighbor(spec: &BgpPeerSpec, plan: &AsPlan) -> Result<Neighbor, String> {
    let remote_as = match &spec.remote_as {
        BgpPeerAs::Number(number) => RemoteAs::Number(*number),
        BgpPeerAs::Text(text) => match text.as_str() {
            "external" => RemoteAs::External,
            "internal" => RemoteAs::Internal,
            other => RemoteAs::Number(other.parse().map_err(|_| format!("{other:?} is no AS"))?),
        },
    };
    let address = spec.address.as_ref().map(|text| {
        let parsed = text.parse::<IpAddr>();
        parsed.map_err(|_| format!("{text:?} is no address"))
    });
    Ok(Neighbor {
        address: address.transpose()?,
        interface: spec.interface.clone(),
        options: options(spec, remote_as, plan)?,
    })
}

fn options(
    spec: &BgpPeerSpec,
    remote_as: RemoteAs,
    plan: &AsPlan,
) -> Result<NeighborOptions, String> {
    let mut options = NeighborOptions::new(remote_as);
    options.port = spec.port.unwrap_or(options.port);
    options.passive = spec.passive;
    options.ttl_security = spec.ttl_security;
    options.multihop = spec.multihop;
    options.bfd = spec.bfd.as_ref().map(|given| {
        let usual = Bfd::default();
        Bfd {
            interval_ms: given.interval_ms.unwrap_or(usual.interval_ms),
            multiplier: given.multiplier.unwrap_or(usual.multiplier),
        }
    });
    if let Some(given) = &spec.timers {
        let usual = Timers::default();
        options.timers = Timers {
            hold_seconds: given.hold_seconds.unwrap_or(usual.hold_seconds),
            keepalive_seconds: given.keepalive_seconds,
            connect_retry_seconds: given
                .connect_retry_seconds
                .unwrap_or(usual.connect_retry_seconds),
            ..usual
        };
    }
    options.max_prefixes = spec.max_prefixes.map(|limit| MaxPrefixes {
        limit,
        restart_seconds: None,
        warning_only: false,
    });
    for name in &spec.families {
        let known = Family::SUPPORTED.into_iter();
        let family = known.clone().find(|family| family.to_string() == *name);
        options
            .families
            .push(family.ok_or_else(|| format!("{name:?} is no address family"))?);
    }
    options.export = Some(OWN.to_owned());
    // Other nodes of our own AS are behind the neighbour.
    let shared = plan.per_node.is_none();
    options.allowas_in = spec.allowas_in.unwrap_or(shared.into());
    options.local_as = spec.local_as.as_ref().map(|given| LocalAs {
        asn: given.asn,
        no_prepend: given.no_prepend,
        replace_as: given.replace_as,
    });
    options.role = spec.role.as_deref().map(role).transpose()?;
    options.strict_role = spec.strict_role;
    options.add_path = AddPath {
        receive: spec.add_path.as_ref().is_some_and(|given| given.receive),
        send: 0,
    };
    Ok(options)
}

fn role(name: &str) -> Result<Role, String> {
    let known = Role::REGISTERED
        .iter()
        .find(|role| role.to_string() == name);
    known.copied().ok_or_else(|| format!("{name:?} is no role"))
}
