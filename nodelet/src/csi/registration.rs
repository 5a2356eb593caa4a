//! Hears of drivers: whatever serves the plugin registration API on a socket in
//! `plugins_registry/` is asked who it is. A socket that is made anew is a driver that was started
//! anew; one that goes takes its driver out.

use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use peapod_csi::connect;
use peapod_csi::registration::registration_client::RegistrationClient;
use peapod_csi::registration::{InfoRequest, PluginInfo, RegistrationStatus};
use tokio::task::JoinSet;
use tokio::time::Instant;
use tonic::Request;

use super::Drivers;
use super::driver::Registered;
use crate::dir_watch::Watch;

/// What a driver of CSI calls itself.
const KIND: &str = "CSIPlugin";
/// Most sockets that are looked at; more are ignored.
const SOCKETS_MAX: usize = 256;
/// Longest time for a plugin to answer.
const ANSWER: Duration = Duration::from_secs(10);
/// First and longest wait before a socket that did not answer is asked again.
const AGAIN: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(30));

/// Which file a socket is: a new one of the same name is another.
type Identity = (u64, i64, i64);
/// The sockets of the folder.
type Sockets = BTreeMap<PathBuf, Identity>;

/// What is known of a socket.
struct Known {
    identity: Identity,
    failures: u32,
    state: State,
}

enum State {
    Asked,
    AskAt(Instant),
    Driver(String, Arc<Registered>),
    /// Not a driver of CSI.
    Other,
}

/// What one socket answered.
struct Answer {
    socket: PathBuf,
    identity: Identity,
    outcome: Result<Option<(String, Arc<Registered>)>, String>,
}

/// Hears of drivers for ever.
pub async fn run(drivers: Arc<Drivers>) {
    let dir = drivers.layout.registry();
    let watched = fs::create_dir_all(&dir).and_then(|()| Watch::new(&dir));
    let mut watch = match watched {
        Ok(watch) => watch,
        Err(error) => {
            tracing::error!(dir = %dir.display(), %error, "CSI drivers cannot register");
            return std::future::pending().await;
        }
    };
    let mut registry = Registry {
        drivers,
        known: HashMap::new(),
        asking: JoinSet::new(),
    };
    loop {
        match look(&dir) {
            Ok(sockets) => registry.follow(sockets),
            Err(error) => {
                tracing::warn!(dir = %dir.display(), %error, "cannot look for CSI drivers")
            }
        }
        let due = registry.due();
        tokio::select! {
            changed = watch.changed() => if let Err(error) = changed {
                tracing::error!(dir = %dir.display(), %error, "new CSI drivers are not noticed");
                return std::future::pending().await;
            },
            Some(Ok(answer)) = registry.asking.join_next() => registry.answered(answer),
            () = super::sleep(due) => {}
        }
    }
}

fn look(dir: &Path) -> io::Result<Sockets> {
    let mut sockets = Sockets::new();
    for entry in fs::read_dir(dir)?.take(SOCKETS_MAX) {
        let entry = entry?;
        let Ok(meta) = entry.metadata() else { continue };
        let hidden = entry.file_name().as_encoded_bytes().starts_with(b".");
        if meta.file_type().is_socket() && !hidden {
            sockets.insert(entry.path(), (meta.ino(), meta.ctime(), meta.ctime_nsec()));
        }
    }
    Ok(sockets)
}

struct Registry {
    drivers: Arc<Drivers>,
    known: HashMap<PathBuf, Known>,
    asking: JoinSet<Answer>,
}

// === impl Registry ===

impl Registry {
    /// Lets go of what is gone, and asks what is new or due.
    fn follow(&mut self, sockets: Sockets) {
        let drivers = &self.drivers;
        self.known.retain(|path, known| {
            let stays = sockets.get(path) == Some(&known.identity);
            if !stays && let State::Driver(name, registered) = &known.state {
                tracing::info!(driver = name, "a CSI driver went away");
                drivers.remove(name, registered);
            }
            stays
        });
        let now = Instant::now();
        for (path, identity) in sockets {
            let known = self.known.entry(path.clone()).or_insert(Known {
                identity,
                failures: 0,
                state: State::AskAt(now),
            });
            if matches!(known.state, State::AskAt(at) if at <= now) {
                known.state = State::Asked;
                let drivers = self.drivers.clone();
                self.asking.spawn(async move {
                    let outcome = ask(&drivers, &path).await;
                    Answer {
                        socket: path,
                        identity,
                        outcome,
                    }
                });
            }
        }
        let all = self.known.values();
        let settled = |known: &Known| matches!(known.state, State::Driver(..) | State::Other);
        self.drivers.settle(all.clone().all(settled));
    }

    fn answered(&mut self, answer: Answer) {
        let known = self.known.get_mut(&answer.socket);
        let Some(known) = known.filter(|known| known.identity == answer.identity) else {
            return;
        };
        let socket = answer.socket.display();
        known.state = match answer.outcome {
            Ok(Some((name, registered))) => {
                tracing::info!(driver = name, "a CSI driver has come");
                self.drivers.add(&name, registered.clone());
                State::Driver(name, registered)
            }
            Ok(None) => State::Other,
            Err(error) => {
                // A socket is there a moment before somebody listens on it.
                match known.failures {
                    0 => tracing::debug!(%socket, error, "a plugin does not register"),
                    _ => tracing::warn!(%socket, error, "a plugin does not register; asking again"),
                }
                let wait = AGAIN.0 * 2_u32.pow(known.failures.min(16));
                known.failures += 1;
                State::AskAt(Instant::now() + wait.min(AGAIN.1))
            }
        };
    }

    /// How long it is until a socket is to be asked again.
    fn due(&self) -> Option<Duration> {
        let times = self.known.values().filter_map(|known| match known.state {
            State::AskAt(at) => Some(at),
            _ => None,
        });
        let next = times.min();
        next.map(|at| at.saturating_duration_since(Instant::now()))
    }
}

/// Asks a socket who serves there, and tells it what came of that.
async fn ask(
    drivers: &Drivers,
    socket: &Path,
) -> Result<Option<(String, Arc<Registered>)>, String> {
    let channel = connect::socket_channel(socket).await?;
    let mut plugin = RegistrationClient::new(channel);
    let info = plugin.get_info(timed(InfoRequest {})).await;
    let info = info.map_err(|status| format!("GetInfo: {}", status.message()))?;
    let info = info.into_inner();
    if info.r#type != KIND {
        tracing::debug!(socket = %socket.display(), kind = info.r#type, "no CSI driver");
        return Ok(None);
    }
    let outcome = match check(&info) {
        Ok(()) => {
            let endpoint = match info.endpoint.as_str() {
                "" => socket,
                endpoint => Path::new(endpoint),
            };
            Registered::ask(&drivers.layout, &info.name, endpoint).await
        }
        Err(refusal) => Err(refusal),
    };
    let told = plugin.notify_registration_status(timed(RegistrationStatus {
        plugin_registered: outcome.is_ok(),
        error: outcome.as_ref().err().cloned().unwrap_or_default(),
    }));
    if let Err(status) = told.await {
        tracing::debug!(driver = info.name, %status, "a driver was not told that it is registered");
    }
    outcome.map(|registered| Some((info.name, Arc::new(registered))))
}

fn timed<T>(message: T) -> Request<T> {
    let mut request = Request::new(message);
    request.set_timeout(ANSWER);
    request
}

/// A driver's name is part of paths and of objects of the API.
fn check(info: &PluginInfo) -> Result<(), String> {
    let name = &info.name;
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'.';
    let ends = |byte: Option<u8>| byte.is_some_and(|byte| byte.is_ascii_alphanumeric());
    let bytes = name.as_bytes();
    let named = ends(bytes.first().copied()) && ends(bytes.last().copied());
    if !named || !name.bytes().all(plain) || name.len() > 63 {
        return Err(format!(
            "{name:?} is no name of a CSI driver: up to 63 letters, digits, dashes and dots"
        ));
    }
    let versions = &info.supported_versions;
    let first = |version: &String| {
        let version = version.trim_start_matches('v');
        version.split('.').next() == Some("1")
    };
    match versions.iter().any(first) {
        true => Ok(()),
        false => Err(format!(
            "CSI driver {name} speaks versions {versions:?}, not 1.x"
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bad_registrations_are_refused() {
        let info = |name: &str, version: &str| PluginInfo {
            r#type: KIND.into(),
            name: name.into(),
            endpoint: String::new(),
            supported_versions: vec![version.into()],
        };
        assert_eq!(check(&info("disk.example.com", "1.0.0")), Ok(()));
        assert_eq!(check(&info("disk.example.com", "v1.5")), Ok(()));
        for (name, version, said) in [
            ("disk.example.com", "0.3.0", "not 1.x"),
            ("../disk", "1.0.0", "no name"),
            ("a/b", "1.0.0", "no name"),
            ("", "1.0.0", "no name"),
            (".", "1.0.0", "no name"),
        ] {
            let error = check(&info(name, version)).unwrap_err();
            assert!(error.contains(said), "{error}");
        }
    }
}
