//! CPUs that a container has for itself.

use anyhow::{Context, Result};
use peapod_tests::{Cluster, wait};

use crate::ready;

fn pod(name: &str, cpu: &str) -> String {
    format!(
        "
apiVersion: v1
kind: Pod
metadata: {{name: {name}}}
spec:
  terminationGracePeriodSeconds: 0
  containers:
  - name: c
    image: busybox:test
    imagePullPolicy: Never
    command: [sleep, '10000']
    resources: {{requests: {{cpu: {cpu}, memory: 16Mi}}, limits: {{cpu: {cpu}, memory: 16Mi}}}}
---
"
    )
}

#[test]
fn whole_cpus_of_its_own() -> Result<()> {
    let online = std::fs::read_to_string("/sys/devices/system/cpu/online")?;
    let Some((_, last)) = online.trim().split_once('-') else {
        eprintln!("one CPU cannot be shared out: not tested");
        return Ok(());
    };
    let last: u32 = last.parse()?;
    let cluster = Cluster::prepare()?;
    let reserved = match last {
        1 => "0".to_owned(),
        _ => format!("0-{}", last - 1),
    };
    let settings = format!("cpuManagerPolicy: static\nreservedSystemCPUs: '{reserved}'\n");
    std::fs::write(cluster.data_dir().join("kubelet.yaml"), settings)?;
    cluster.start()?;
    cluster.load_busybox()?;
    assert_eq!(
        cluster.field("node", "{.items[0].status.allocatable.cpu}")?,
        "1"
    );
    let cpus = |pod: &str| -> Result<String> {
        let status = cluster
            .kubectl(&format!("exec {pod} -- cat /proc/1/status"))?
            .ok()?;
        let mut lines = status.lines();
        let line = lines.find_map(|line| line.strip_prefix("Cpus_allowed_list:"));
        Ok(line.context("no Cpus_allowed_list")?.trim().to_owned())
    };
    // Without anybody who has CPUs alone, all share all.
    cluster.apply(&pod("plain", "0"))?;
    ready(&cluster, "plain")?;
    assert_eq!(cpus("plain")?, format!("0-{last}"));

    // The one that asks for a whole CPU has it, and the other leaves it.
    cluster.apply(&pod("alone", "1"))?;
    ready(&cluster, "alone")?;
    assert_eq!(cpus("alone")?, last.to_string());
    assert_eq!(cpus("plain")?, reserved);

    // So it is after a restart of the agent, for those who come and after the end.
    cluster.crash()?;
    cluster.start()?;
    cluster.apply(&pod("late", "0"))?;
    ready(&cluster, "late")?;
    assert_eq!(cpus("late")?, reserved);
    assert_eq!(cpus("alone")?, last.to_string());
    cluster.kubectl("delete pod alone")?.ok()?;
    wait::until("the CPU to be shared again", || {
        Ok(cpus("plain")? == format!("0-{last}"))
    })
}
