//! The tests' CSI driver as a process: `peapod-test-csi NAME NODE POOL KUBELET`.

use anyhow::{Context, Result};
use peapod_tests::csi::{Options, serve};

#[tokio::main]
async fn main() -> Result<()> {
    let mut args = std::env::args().skip(1);
    let mut next = |what: &'static str| args.next().context(what);
    serve(Options {
        name: next("the name of the driver")?,
        node: next("the name of the node")?,
        pool: next("the folder of the volumes")?.into(),
        kubelet: next("the folder that stands for /var/lib/kubelet")?.into(),
    })
    .await
}
