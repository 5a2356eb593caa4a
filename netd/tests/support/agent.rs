//! An agent in a namespace: started, asked, and ended.

use std::future::Future;
use std::path::Path;
use std::sync::Arc;

use peapod_api::attach::{AttachError, AttachReply, AttachRequest, HostPort, PodNetwork, PodRef};
use peapod_netd::{Config, Netd};
use tokio_util::sync::CancellationToken;

use super::api::Api;
use super::{Namespace, PATIENCE};

/// An agent, its runtime, and what must outlive it.
pub struct Agent {
    state: tempfile::TempDir,
    here: Namespace,
    runtime: tokio::runtime::Runtime,
    netd: Option<Arc<Netd>>,
}

impl Agent {
    /// One that does not run yet.
    pub fn new(here: &Namespace) -> Self {
        let runtime = here.run(|| {
            let mut builder = tokio::runtime::Builder::new_multi_thread();
            builder.worker_threads(1).enable_all().build().unwrap()
        });
        Agent {
            state: tempfile::tempdir().unwrap(),
            here: here.clone(),
            runtime,
            netd: None,
        }
    }

    /// What nodes have in common; without DNS.
    pub fn config(&self, name: &str, ips: &[&str]) -> Config {
        let ranges = |texts: [&str; 2]| texts.map(|text| text.parse().unwrap()).to_vec();
        Config {
            node_name: name.to_owned(),
            node_ips: ips.iter().map(|ip| ip.parse().unwrap()).collect(),
            private_ips: Vec::new(),
            pod_cidrs: ranges(["10.244.0.0/16", "fd00:10:244::/56"]),
            service_cidrs: ranges(["10.96.0.0/16", "fd00:10:96::/112"]),
            dns: None,
            mtu: None,
            vxlan_port: 4789,
            bgp_socket: None,
            attach_socket: None,
            foreign_links: false,
            state_dir: self.state().to_owned(),
        }
    }

    /// Where it keeps what must outlive it.
    pub fn state(&self) -> &Path {
        self.state.path()
    }

    /// Ends it if it runs, and starts another.
    pub fn restart(&mut self, api: &Api, config: Config) {
        self.stop();
        // A client is made where its runtime is.
        let start = async { Netd::start(api.client(), config, CancellationToken::new()).await };
        let netd = self.block_on(start).unwrap();
        self.block_on(netd.ready()).unwrap();
        self.netd = Some(netd);
    }

    /// Ends it.
    pub fn stop(&mut self) {
        if let Some(netd) = self.netd.take() {
            self.block_on(netd.stop());
        }
    }

    pub fn netd(&self) -> Arc<Netd> {
        self.netd.clone().unwrap()
    }

    /// Everything runs on threads in the node's namespace, those that the runtime adds too.
    pub fn block_on<T: Send>(&self, work: impl Future<Output = T> + Send) -> T {
        self.here.run(|| {
            let timed = async { tokio::time::timeout(PATIENCE, work).await };
            self.runtime.block_on(timed).expect("not in time")
        })
    }

    pub fn attach(
        &self,
        pod: &PodRef,
        netns: &Namespace,
        host_ports: Vec<HostPort>,
    ) -> Result<AttachReply, AttachError> {
        let request = AttachRequest {
            pod: pod.clone(),
            netns: netns.path(),
            interface: None,
            host_ports,
        };
        let netd = self.netd();
        self.block_on(async move { netd.attach(request).await })
    }
}
