//! An API server alone, for trying it by hand and for measuring it:
//!
//! ```text
//! cargo run --example serve -- DIR 127.0.0.1:7443
//! kubectl --kubeconfig DIR/kubeconfig get namespaces
//! ```

use std::error::Error;

use peapod_apiserver::{ApiServer, Config};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let mut args = std::env::args().skip(1);
    let (Some(dir), Some(address)) = (args.next(), args.next()) else {
        return Err("usage: serve DIR ADDRESS:PORT".into());
    };
    let listener = TcpListener::bind(&address).await?;
    let server = ApiServer::start(Config::new(&dir)).await?;
    let kubeconfig = server.admin_kubeconfig(&format!("https://{}", listener.local_addr()?))?;
    let path = std::path::Path::new(&dir).join("kubeconfig");
    std::fs::write(&path, kubeconfig)?;
    println!("serving; the kubeconfig is {}", path.display());
    let stop = CancellationToken::new();
    let interrupt = stop.clone();
    let waiting = tokio::spawn(async move {
        if tokio::signal::ctrl_c().await.is_ok() {
            interrupt.cancel();
        }
    });
    server.serve(vec![listener], stop).await?;
    waiting.abort();
    Ok(())
}
