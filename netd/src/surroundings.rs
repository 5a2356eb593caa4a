//! What else on the machine meddles with the network and cannot be helped from here: said in
//! words, with the remedy.
//!
//! Firewalls in nftables are [`crate::host_firewall`]'s: there the remedy can be applied.

use std::fs;
use std::path::Path;
use std::process::Command;

use crate::links::alias::PREFIX;

/// Tables of legacy iptables that are loaded in this network namespace, a name on each line.
const LEGACY_TABLES: &str = "/proc/net/ip_tables_names";
/// There while systemd-networkd runs.
const NETWORKD_STATE: &str = "/run/systemd/netif/state";
/// Where networkd's settings are; files of the later ones win, and drop-ins over all.
const NETWORKD_CONF: [&str; 4] = [
    "/usr/lib/systemd/networkd.conf",
    "/usr/local/lib/systemd/networkd.conf",
    "/run/systemd/networkd.conf",
    "/etc/systemd/networkd.conf",
];

/// Looks at this machine. Blocks.
pub(crate) fn look() -> Vec<String> {
    let filter = fs::read_to_string(LEGACY_TABLES).unwrap_or_default();
    let mut warnings = Vec::new();
    // Without its filter table legacy iptables drops nothing; asking it would load the table.
    if filter.lines().any(|table| table == "filter") {
        let listed = Command::new("iptables-legacy").args(["-w", "-S"]).output();
        let rules = listed.map(|output| String::from_utf8_lossy(&output.stdout).into_owned());
        warnings.extend(legacy(&rules.unwrap_or_default()));
    }
    if Path::new(NETWORKD_STATE).exists() {
        warnings.extend(networkd(&networkd_settings()));
    }
    warnings
}

/// What the rules of `iptables-legacy -S` do to pods' packets. Chains of a hook must all accept,
/// so nothing in nftables can undo a drop of theirs.
fn legacy(rules: &str) -> Vec<String> {
    let lines: Vec<&str> = rules.lines().map(str::trim).collect();
    let ways: [(&str, &[&str]); 2] = [("FORWARD", &["-i", "-o"]), ("INPUT", &["-i"])];
    let dropping = ways
        .into_iter()
        .filter(|(chain, _)| lines.contains(&format!("-P {chain} DROP").as_str()));
    dropping
        .filter_map(|(chain, directions)| {
            let accept = |way: &&str| format!("{chain} {way} {PREFIX}+ -j ACCEPT");
            let missing: Vec<String> = directions
                .iter()
                .map(accept)
                .filter(|rule| !lines.contains(&format!("-A {rule}").as_str()))
                .map(|rule| format!("`iptables-legacy -I {rule}`"))
                .collect();
            (!missing.is_empty()).then(|| {
                format!(
                    "legacy iptables drops pods' packets (policy of {chain}), and nftables cannot \
                     override it; run {}",
                    missing.join(" and ")
                )
            })
        })
        .collect()
}

/// Every settings file of networkd, in the order in which they apply.
fn networkd_settings() -> String {
    let mut text = String::new();
    for conf in NETWORKD_CONF {
        text += &fs::read_to_string(conf).unwrap_or_default();
        text.push('\n');
    }
    for conf in NETWORKD_CONF {
        let entries = fs::read_dir(format!("{conf}.d")).into_iter().flatten();
        let mut files: Vec<_> = entries.flatten().map(|entry| entry.path()).collect();
        files.retain(|path| path.extension().is_some_and(|end| end == "conf"));
        files.sort();
        for path in files {
            text += &fs::read_to_string(path).unwrap_or_default();
            text.push('\n');
        }
    }
    text
}

/// Whether networkd would remove routes that it did not make, by its settings.
fn networkd(settings: &str) -> Option<String> {
    let mut manages = settings.lines().filter_map(|line| {
        let (key, value) = line.trim().split_once('=')?;
        (key.trim() == "ManageForeignRoutes").then(|| value.trim().to_ascii_lowercase())
    });
    let off = manages
        .next_back()
        .is_some_and(|value| matches!(value.as_str(), "no" | "false" | "off" | "0" | "n" | "f"));
    (!off).then(|| {
        "systemd-networkd removes routes that it did not make when it restarts, those to pods too; \
         set ManageForeignRoutes=no in the [Network] section of /etc/systemd/networkd.conf and \
         restart it"
            .to_owned()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn legacy_iptables_that_drops_is_told_with_the_remedy() {
        assert_eq!(legacy("-P INPUT ACCEPT\n-P FORWARD ACCEPT\n"), [""; 0]);
        let told = legacy("-P INPUT ACCEPT\n-P FORWARD DROP\n-N DOCKER\n");
        assert_eq!(told.len(), 1);
        assert!(
            told[0].contains("`iptables-legacy -I FORWARD -i pea+ -j ACCEPT` and")
                && told[0].contains("`iptables-legacy -I FORWARD -o pea+ -j ACCEPT`"),
            "{told:?}"
        );
        let remedied = "-P INPUT DROP\n-P FORWARD DROP\n-A FORWARD -i pea+ -j ACCEPT\n\
                        -A FORWARD -o pea+ -j ACCEPT\n";
        let told = legacy(remedied);
        assert!(told.len() == 1 && told[0].contains("INPUT"), "{told:?}");
    }

    #[test]
    fn networkd_that_keeps_to_its_own_routes_is_no_trouble() {
        assert!(networkd("").is_some());
        assert!(networkd("[Network]\n#ManageForeignRoutes=no\n").is_some());
        assert!(networkd("[Network]\nManageForeignRoutes=no\n").is_none());
        let overridden = "ManageForeignRoutes=no\n[Network]\nManageForeignRoutes = yes\n";
        assert!(
            networkd(overridden)
                .unwrap()
                .contains("ManageForeignRoutes=no")
        );
    }
}
