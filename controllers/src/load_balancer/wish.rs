//! What a Service of type LoadBalancer asks for. Pure.

use std::net::IpAddr;

use k8s_openapi::api::core::v1::Service;
use peapod_api::net::{
    ALLOW_SHARED_IP, LOAD_BALANCER_CLASS, LOAD_BALANCER_IPS, LOAD_BALANCER_POOL,
};

use super::choose::Wish;

/// Whether a Service's load balancer is ours to give.
pub fn is_ours(service: &Service) -> bool {
    let Some(spec) = &service.spec else {
        return false;
    };
    let class = spec.load_balancer_class.as_deref();
    service.metadata.deletion_timestamp.is_none()
        && spec.type_.as_deref() == Some("LoadBalancer")
        && class.is_none_or(|class| class == LOAD_BALANCER_CLASS)
}

/// What a Service asks for, or what of it cannot be read: a sentence for people.
pub fn of(service: &Service) -> Result<Wish, String> {
    let spec = service.spec.clone().unwrap_or_default();
    let families = spec.ip_families.unwrap_or_default();
    let mut families: Vec<bool> = families.iter().map(|family| family == "IPv4").collect();
    if families.is_empty() {
        families.push(true);
    }
    let annotation = |name: &str| {
        let annotations = service.metadata.annotations.as_ref();
        let text = annotations
            .and_then(|all| all.get(name))
            .map(|text| text.trim());
        text.filter(|text| !text.is_empty()).map(str::to_owned)
    };
    let asked = match annotation(LOAD_BALANCER_IPS) {
        Some(ips) => {
            addresses(&ips).map_err(|why| format!("annotation {LOAD_BALANCER_IPS}: {why}"))?
        }
        None => match spec.load_balancer_ip.filter(|ip| !ip.is_empty()) {
            Some(ip) => addresses(&ip).map_err(|why| format!("spec.loadBalancerIP: {why}"))?,
            None => Vec::new(),
        },
    };
    if let Some(ip) = asked.iter().find(|ip| !families.contains(&ip.is_ipv4())) {
        return Err(format!(
            "{ip} is of a family that spec.ipFamilies does not have"
        ));
    }
    let ports = spec.ports.unwrap_or_default();
    let ports = ports.iter().map(|port| {
        let protocol = port.protocol.as_deref().unwrap_or("TCP");
        format!("{protocol}/{}", port.port)
    });
    // Nodes announce an address while one of its services is answered there: with `Local` the others
    // that have it might not be.
    let local = spec.external_traffic_policy.as_deref() == Some("Local");
    Ok(Wish {
        families,
        ips: asked,
        pool: annotation(LOAD_BALANCER_POOL),
        sharing_key: annotation(ALLOW_SHARED_IP).filter(|_| !local),
        ports: ports.collect(),
    })
}

fn addresses(text: &str) -> Result<Vec<IpAddr>, String> {
    let mut found: Vec<IpAddr> = Vec::new();
    for text in text.split(',').map(str::trim) {
        let ip: IpAddr = text
            .parse()
            .map_err(|_| format!("{text:?} is no address"))?;
        if found.iter().any(|other| other.is_ipv4() == ip.is_ipv4()) {
            return Err(format!("{text:?} is the second address of its family"));
        }
        found.push(ip);
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn service(annotations: Value, spec: Value) -> Service {
        let service = json!({"metadata": {"name": "s", "annotations": annotations}, "spec": spec});
        serde_json::from_value(service).unwrap()
    }

    #[test]
    fn services_without_a_class_are_ours() {
        let ours = |spec: Value| is_ours(&service(json!({}), spec));
        assert!(ours(json!({"type": "LoadBalancer"})));
        assert!(ours(
            json!({"type": "LoadBalancer", "loadBalancerClass": "net.peapod.dev/bgp"})
        ));
        assert!(!ours(
            json!({"type": "LoadBalancer", "loadBalancerClass": "other.example/lb"})
        ));
        assert!(!ours(json!({"type": "ClusterIP"})));
    }

    #[test]
    fn what_is_asked_for_is_read() {
        let both = service(
            json!({LOAD_BALANCER_IPS: "192.0.2.1, 2001:db8::1", LOAD_BALANCER_POOL: "a", ALLOW_SHARED_IP: "k"}),
            json!({"ipFamilies": ["IPv6", "IPv4"], "loadBalancerIP": "192.0.2.9",
                "ports": [{"port": 53, "protocol": "UDP"}, {"port": 80}]}),
        );
        let wish = of(&both).unwrap();
        assert_eq!(wish.families, [false, true]);
        assert_eq!(
            wish.ips,
            ["192.0.2.1", "2001:db8::1"].map(|ip| ip.parse::<IpAddr>().unwrap())
        );
        assert_eq!(
            (wish.pool.as_deref(), wish.sharing_key.as_deref()),
            (Some("a"), Some("k"))
        );
        assert_eq!(
            wish.ports.into_iter().collect::<Vec<_>>(),
            ["TCP/80", "UDP/53"]
        );
        let field = of(&service(json!({}), json!({"loadBalancerIP": "192.0.2.9"}))).unwrap();
        assert_eq!(field.ips, ["192.0.2.9".parse::<IpAddr>().unwrap()]);
    }

    #[test]
    fn who_serves_locally_does_not_share() {
        let spec = json!({"externalTrafficPolicy": "Local"});
        let wish = of(&service(json!({ALLOW_SHARED_IP: "k"}), spec)).unwrap();
        assert_eq!(wish.sharing_key, None);
    }

    #[test]
    fn what_cannot_be_read_is_named() {
        let why = |ips: &str| of(&service(json!({LOAD_BALANCER_IPS: ips}), json!({}))).unwrap_err();
        assert_eq!(
            why("here"),
            "annotation net.peapod.dev/load-balancer-ips: \"here\" is no address"
        );
        assert!(why("192.0.2.1,192.0.2.2").contains("second address of its family"));
        assert!(why("2001:db8::1").contains("spec.ipFamilies"));
    }
}
