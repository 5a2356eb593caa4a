//! Sysctls of pods (`spec.securityContext.sysctls`).

/// Those that touch nobody but the pod, which upstream's documentation lists as the safe set, and
/// the minor version of Kubernetes since which pod security counts each as safe.
const SAFE: [(&str, u32); 13] = [
    ("kernel.shm_rmid_forced", 0),
    ("net.ipv4.ip_local_port_range", 0),
    ("net.ipv4.ip_local_reserved_ports", 27),
    ("net.ipv4.ip_unprivileged_port_start", 0),
    ("net.ipv4.ping_group_range", 0),
    ("net.ipv4.tcp_fin_timeout", 29),
    ("net.ipv4.tcp_keepalive_intvl", 29),
    ("net.ipv4.tcp_keepalive_probes", 29),
    ("net.ipv4.tcp_keepalive_time", 29),
    ("net.ipv4.tcp_notsent_lowat", 37),
    ("net.ipv4.tcp_rmem", 32),
    ("net.ipv4.tcp_syncookies", 0),
    ("net.ipv4.tcp_wmem", 32),
];

/// Whether any pod may set the sysctl of this name, its parts separated by dots.
pub fn is_safe(name: &str) -> bool {
    safe_since(name).is_some()
}

/// The minor version since which it is one that any pod may set; 0: it always was.
pub fn safe_since(name: &str) -> Option<u32> {
    let known = SAFE.iter().find(|(safe, _)| *safe == name);
    known.map(|(_, since)| *since)
}
