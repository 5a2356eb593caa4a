//! A driver, as others ask it.

use std::sync::Arc;
use std::time::Duration;

use tonic::transport::Channel;
use tonic::{Code, Request};

use crate::{Error, Rpc};

/// A driver and the way to it. Cheap to clone; calls may overlap.
#[derive(Clone, Debug)]
pub struct Driver {
    name: Arc<str>,
    channel: Channel,
}

// === impl Driver ===

impl Driver {
    /// A driver of a name, which errors tell.
    pub fn new(name: &str, channel: Channel) -> Self {
        Self {
            name: name.into(),
            channel,
        }
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Asks it, and waits for as long as such a call may take.
    pub async fn call<R: Rpc>(&self, request: R) -> Result<R::Answer, Error> {
        self.call_within(request, R::DEADLINE).await
    }

    /// Asks it, and waits for so long. The driver is told how long that is.
    pub async fn call_within<R: Rpc>(
        &self,
        request: R,
        limit: Duration,
    ) -> Result<R::Answer, Error> {
        let volume = request.volume().to_owned();
        let fault = |code, message| Error {
            driver: self.name.to_string(),
            call: R::NAME,
            volume,
            code,
            message,
        };
        let mut request = Request::new(request);
        request.set_timeout(limit);
        let asked = R::send(self.channel.clone(), request);
        match tokio::time::timeout(limit, asked).await {
            Ok(Ok(answer)) => Ok(answer.into_inner()),
            Ok(Err(status)) => Err(fault(status.code(), words(&status))),
            Err(_) => {
                let message = format!("no answer within {limit:?}; does the driver hang?");
                Err(fault(Code::DeadlineExceeded, message))
            }
        }
    }
}

/// What the driver said; or, when it could not be asked, the innermost reason.
fn words(status: &tonic::Status) -> String {
    let mut source = std::error::Error::source(status);
    let mut innermost = None;
    while let Some(error) = source {
        innermost = Some(error.to_string());
        source = error.source();
    }
    match innermost {
        Some(reason) if !status.message().contains(&reason) => {
            format!("{}: {reason}", status.message())
        }
        _ => status.message().to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::connect;
    use crate::v1::identity_server::{Identity, IdentityServer};
    use crate::v1::*;
    use parking_lot::Mutex;
    use tokio::io::DuplexStream;
    use tokio::sync::mpsc;
    use tokio_stream::wrappers::ReceiverStream;
    use tonic::{Response, Status};

    /// Says its name, refuses to tell what it can, and never says how it is.
    struct Odd;

    #[tonic::async_trait]
    impl Identity for Odd {
        async fn get_plugin_info(
            &self,
            _: Request<GetPluginInfoRequest>,
        ) -> Result<Response<GetPluginInfoResponse>, Status> {
            Ok(Response::new(GetPluginInfoResponse {
                name: "odd.example.com".into(),
                ..GetPluginInfoResponse::default()
            }))
        }

        async fn get_plugin_capabilities(
            &self,
            _: Request<GetPluginCapabilitiesRequest>,
        ) -> Result<Response<GetPluginCapabilitiesResponse>, Status> {
            Err(Status::failed_precondition("no disk"))
        }

        async fn probe(&self, _: Request<ProbeRequest>) -> Result<Response<ProbeResponse>, Status> {
            std::future::pending().await
        }
    }

    /// A driver at the other end of streams in memory. The streams that are open are in the list.
    async fn odd() -> (Driver, Arc<Mutex<Vec<tokio::task::AbortHandle>>>) {
        let (streams, incoming) = mpsc::channel::<std::io::Result<DuplexStream>>(1);
        let server = tonic::transport::Server::builder()
            .add_service(IdentityServer::new(Odd))
            .serve_with_incoming(ReceiverStream::new(incoming));
        tokio::spawn(server);
        let carriers: Arc<Mutex<Vec<tokio::task::AbortHandle>>> = Arc::default();
        let list = carriers.clone();
        let dial = move || {
            let (near, mut carried) = tokio::io::duplex(1024);
            let (streams, list) = (streams.clone(), list.clone());
            async move {
                let (far, mut other) = tokio::io::duplex(1024);
                streams.send(Ok(far)).await.map_err(std::io::Error::other)?;
                let carry = tokio::spawn(async move {
                    let copied = tokio::io::copy_bidirectional(&mut carried, &mut other);
                    drop(copied.await);
                });
                list.lock().push(carry.abort_handle());
                Ok(near)
            }
        };
        let channel = connect::channel(dial).await.unwrap();
        (Driver::new("odd.example.com", channel), carriers)
    }

    #[tokio::test]
    async fn over_any_stream_and_over_another_when_it_breaks() {
        let (driver, carriers) = odd().await;
        let info = driver.call(GetPluginInfoRequest {}).await.unwrap();
        assert_eq!(info.name, driver.name());
        carriers
            .lock()
            .drain(..)
            .for_each(|carrier| carrier.abort());
        // The call that meets the broken stream may fail; one after it does not.
        while driver.call(GetPluginInfoRequest {}).await.is_err() {}
        assert!(!carriers.lock().is_empty());
    }

    #[tokio::test]
    async fn a_refusal_names_driver_and_call() {
        let (driver, _carriers) = odd().await;
        let error = driver
            .call(GetPluginCapabilitiesRequest {})
            .await
            .unwrap_err();
        assert_eq!(
            error.to_string(),
            "odd.example.com: GetPluginCapabilities: \
             rpc error: code = FailedPrecondition desc = no disk"
        );
        assert!(error.is_final());
    }

    #[tokio::test]
    async fn a_driver_that_hangs_is_given_up() {
        let (driver, _carriers) = odd().await;
        let asked = driver.call_within(ProbeRequest {}, Duration::from_millis(50));
        let error = asked.await.unwrap_err();
        assert!(!error.is_final(), "{error}");
        assert!(
            error.to_string().starts_with("odd.example.com: Probe: "),
            "{error}"
        );
    }

    #[tokio::test]
    async fn nothing_listens() {
        let path = std::path::Path::new("/nonexistent/csi.sock");
        let error = connect::socket("odd", path).await.unwrap_err();
        assert!(error.contains("/nonexistent/csi.sock"), "{error}");
        assert!(error.contains("No such file"), "{error}");
    }
}
