//! Where plugins register, and the task that follows each.

use std::fs;
use std::io;
use std::path::Path;
use std::sync::{Arc, Weak};

use parking_lot::Mutex;
use tokio::net::UnixListener;
use tokio::task::JoinSet;
use tokio_stream::wrappers::UnixListenerStream;
use tonic::transport::Server;
use tonic::{Request, Response, Status};

use super::api::registration_server::{Registration, RegistrationServer};
use super::api::{Empty, RegisterRequest};
use super::plugin::Plugin;
use super::{Devices, SOCKET, VERSION};

/// Most plugins at a time; each has a task.
const PLUGINS_MAX: usize = 256;
/// Longest name of a resource or a socket.
const NAME_MAX: usize = 255;

struct Registrar {
    devices: Weak<Devices>,
    followers: Mutex<JoinSet<()>>,
}

/// Serves registrations until it is dropped.
pub async fn run(devices: Arc<Devices>) {
    if let Err(error) = serve(&devices).await {
        let dir = devices.dir().display();
        tracing::error!(%dir, error, "device plugins cannot register");
    }
    std::future::pending().await
}

async fn serve(devices: &Arc<Devices>) -> Result<(), String> {
    let dir = devices.dir().to_path_buf();
    let listener = prepare(&dir).map_err(|error| error.to_string())?;
    let registrar = Registrar {
        devices: Arc::downgrade(devices),
        followers: Mutex::default(),
    };
    Server::builder()
        .add_service(RegistrationServer::new(registrar))
        .serve_with_incoming(UnixListenerStream::new(listener))
        .await
        .map_err(|error| error.to_string())
}

/// A fresh socket: plugins that see it appear register (again). Sockets of plugins that knew an agent
/// before this one go, as upstream's kubelet has it.
fn prepare(dir: &Path) -> io::Result<UnixListener> {
    fs::create_dir_all(dir)?;
    for entry in fs::read_dir(dir)?.flatten() {
        use std::os::unix::fs::FileTypeExt;
        if entry.file_type().is_ok_and(|kind| kind.is_socket()) {
            fs::remove_file(entry.path())?;
        }
    }
    UnixListener::bind(dir.join(SOCKET))
}

#[tonic::async_trait]
impl Registration for Registrar {
    async fn register(&self, request: Request<RegisterRequest>) -> Result<Response<Empty>, Status> {
        let request = request.into_inner();
        check(&request).map_err(Status::invalid_argument)?;
        let devices = self.devices.clone();
        let mut followers = self.followers.lock();
        while followers.try_join_next().is_some() {}
        if followers.len() >= PLUGINS_MAX {
            return Err(Status::resource_exhausted("too many device plugins"));
        }
        // A plugin may begin to serve only when it is registered.
        followers.spawn(async move {
            let resource = request.resource_name.clone();
            match follow(devices, request).await {
                Ok(()) => tracing::info!(resource, "a device plugin went away"),
                Err(error) => tracing::warn!(resource, error, "a device plugin is lost"),
            }
        });
        Ok(Response::new(Empty {}))
    }
}

fn check(request: &RegisterRequest) -> Result<(), String> {
    let (version, endpoint) = (&request.version, &request.endpoint);
    let resource = &request.resource_name;
    if version != VERSION {
        return Err(format!("the version is {version:?}, not {VERSION:?}"));
    }
    let plain = !endpoint.is_empty() && !endpoint.contains('/') && !endpoint.starts_with('.');
    if !plain || endpoint.len() > NAME_MAX {
        return Err(format!(
            "{endpoint:?} is no name of a socket beside {SOCKET}"
        ));
    }
    let domain = resource.split_once('/').map(|(domain, _)| domain);
    if !domain.is_some_and(|d| d.contains('.') && !d.ends_with("kubernetes.io"))
        || resource.len() > NAME_MAX
    {
        return Err(format!(
            "{resource:?} is no name of an extended resource, such as example.com/gpu"
        ));
    }
    Ok(())
}

/// Follows a plugin's devices until it goes.
async fn follow(devices: Weak<Devices>, request: RegisterRequest) -> Result<(), String> {
    let upgrade = || devices.upgrade().ok_or("the agent ends".to_owned());
    let socket = upgrade()?.dir().join(&request.endpoint);
    let plugin = Arc::new(Plugin::connect(&socket).await?);
    let resource = request.resource_name;
    let mut lists = plugin.list_and_watch().await?;
    upgrade()?.registered(&resource, plugin.clone());
    tracing::info!(resource, "a device plugin has come");
    let ended = loop {
        match lists.message().await {
            Ok(Some(list)) => {
                let all = list.devices.into_iter();
                let all = all.map(|device| (device.id, device.health == "Healthy"));
                upgrade()?.listed(&resource, all.collect()).await;
            }
            Ok(None) => break Ok(()),
            Err(status) => break Err(status.message().to_owned()),
        }
    };
    upgrade()?.gone(&resource, &plugin);
    ended
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bad_registrations_are_refused() {
        let request = |version: &str, endpoint: &str, resource: &str| RegisterRequest {
            version: version.into(),
            endpoint: endpoint.into(),
            resource_name: resource.into(),
            options: None,
        };
        assert_eq!(
            check(&request("v1beta1", "gpu.sock", "example.com/gpu")),
            Ok(())
        );
        for (version, endpoint, resource, said) in [
            ("v1", "gpu.sock", "example.com/gpu", "the version"),
            (
                "v1beta1",
                "../gpu.sock",
                "example.com/gpu",
                "no name of a socket",
            ),
            ("v1beta1", "", "example.com/gpu", "no name of a socket"),
            ("v1beta1", "gpu.sock", "cpu", "extended resource"),
            (
                "v1beta1",
                "gpu.sock",
                "kubernetes.io/gpu",
                "extended resource",
            ),
        ] {
            let error = check(&request(version, endpoint, resource)).unwrap_err();
            assert!(error.contains(said), "{error}");
        }
    }
}
