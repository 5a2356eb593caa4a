//! Sysctls of pods (`spec.securityContext.sysctls`).

/// Those that touch nobody but the pod, which upstream's documentation lists as the safe set.
const SAFE: [&str; 13] = [
    "kernel.shm_rmid_forced",
    "net.ipv4.ip_local_port_range",
    "net.ipv4.ip_local_reserved_ports",
    "net.ipv4.ip_unprivileged_port_start",
    "net.ipv4.ping_group_range",
    "net.ipv4.tcp_fin_timeout",
    "net.ipv4.tcp_keepalive_intvl",
    "net.ipv4.tcp_keepalive_probes",
    "net.ipv4.tcp_keepalive_time",
    "net.ipv4.tcp_notsent_lowat",
    "net.ipv4.tcp_rmem",
    "net.ipv4.tcp_syncookies",
    "net.ipv4.tcp_wmem",
];

/// Whether any pod may set the sysctl of this name, its parts separated by dots.
pub fn is_safe(name: &str) -> bool {
    SAFE.contains(&name)
}
