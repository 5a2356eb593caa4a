//! systemd's login manager: it tells before the machine goes down, and waits for who asked it to.
//! <https://systemd.io/INHIBITOR_LOCKS>

use std::time::Duration;

use futures::{Stream, StreamExt};
use zbus::proxy::CacheProperties;
use zbus::{Connection, OwnedFd, Proxy};

const NAME: &str = "org.freedesktop.login1";
const PATH: &str = "/org/freedesktop/login1";
const INTERFACE: &str = "org.freedesktop.login1.Manager";

/// A connection to it.
pub struct Logind {
    manager: Proxy<'static>,
}

/// While it is held the machine waits, up to [`Logind::longest`].
#[derive(Debug)]
pub struct Inhibitor(#[expect(dead_code, reason = "held for its end")] OwnedFd);

impl Logind {
    /// Connects over the system's bus.
    ///
    /// # Errors
    /// When there is no bus, or no login manager on it.
    pub async fn connect() -> zbus::Result<Self> {
        let connection = Connection::system().await?;
        let manager = zbus::proxy::Builder::new(&connection)
            .destination(NAME)
            .path(PATH)
            .interface(INTERFACE)
            .cache_properties(CacheProperties::No)
            .build()
            .await?;
        Ok(Self { manager })
    }

    /// How long a shutdown may be delayed.
    ///
    /// # Errors
    /// When it does not say.
    pub async fn longest(&self) -> zbus::Result<Duration> {
        let micros: u64 = self.manager.get_property("InhibitDelayMaxUSec").await?;
        Ok(Duration::from_micros(micros))
    }

    /// Has it wait at the next shutdown.
    ///
    /// # Errors
    /// When it refuses.
    pub async fn inhibit(&self) -> zbus::Result<Inhibitor> {
        let words = ("shutdown", "peapod", "Pods end in order", "delay");
        self.manager.call("Inhibit", &words).await.map(Inhibitor)
    }

    /// True when the machine is about to go down, false when that was called off; ends with the connection.
    ///
    /// # Errors
    /// When it cannot be listened to.
    pub async fn shutdowns(&self) -> zbus::Result<impl Stream<Item = bool> + use<>> {
        let signals = self.manager.receive_signal("PrepareForShutdown").await?;
        Ok(signals.filter_map(async |signal| signal.body().deserialize().ok()))
    }
}
