//! Runs probes and lifecycle hooks: asks a container something, once, within a time.
//!
//! When to ask, and what a row of answers means, is [`crate::core`]'s affair.

pub mod counts;
mod grpc;
mod http;
mod tcp;

use std::net::IpAddr;
use std::time::Duration;

use k8s_openapi::api::core::v1::{Container, LifecycleHandler, Pod, Probe};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use peapod_api::k8s_openapi;

use crate::core::{Outcome, ProbeKind, find_container};
use crate::pods::Context;
use crate::runtime::{self, ContainerId, EXEC_OUTPUT_MAX, Runtime};

/// Longest time for a hook, beyond which the end of the container comes anyway.
const HOOK_MAX: Duration = Duration::from_secs(3600);
/// How much of what a probe hears stands in its event, bytes.
const MESSAGE_MAX: usize = 1024;
/// How often a command is tried while the runtime does not answer.
const EXEC_ATTEMPTS: u32 = 3;

/// Why a container did not answer as asked.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Fault {
    /// It answered otherwise, or not in time.
    Answer(String),
    /// It could not be asked.
    NoAnswer(String),
}

impl From<String> for Fault {
    fn from(message: String) -> Self {
        Self::Answer(message)
    }
}

/// Runs probes and hooks.
pub struct Prober {
    http: http::Client,
    /// What came of the probes so far.
    pub counts: counts::Counts,
}

impl Prober {
    /// A prober.
    pub fn new() -> Result<Self, reqwest::Error> {
        Ok(Self {
            http: http::client()?,
            counts: counts::Counts::default(),
        })
    }

    /// Asks a container once.
    pub async fn probe(
        &self,
        context: &Context,
        pod: &Pod,
        ip: Option<IpAddr>,
        container: &str,
        id: &str,
        kind: ProbeKind,
    ) -> Outcome {
        let Some(container) = find_container(pod, container) else {
            return Outcome::Failure("the container is not in the pod any more".to_owned());
        };
        let probe = match kind {
            ProbeKind::Startup => container.startup_probe.as_ref(),
            ProbeKind::Liveness => container.liveness_probe.as_ref(),
            ProbeKind::Readiness => container.readiness_probe.as_ref(),
        };
        let Some(probe) = probe else {
            return Outcome::Success;
        };
        let _permit = context.limits.probes.acquire().await;
        let outcome = match self.ask(context, &container, ip, id, probe).await {
            Ok(None) => Outcome::Success,
            Ok(Some(message)) => Outcome::Warning(crop(message)),
            Err(Fault::Answer(message)) => Outcome::Failure(crop(message)),
            Err(Fault::NoAnswer(message)) => Outcome::Unknown(crop(message)),
        };
        self.counts.record(pod, &container.name, kind, &outcome);
        outcome
    }

    /// What there is to be told of the answer, if anything.
    async fn ask(
        &self,
        context: &Context,
        container: &Container,
        ip: Option<IpAddr>,
        id: &str,
        probe: &Probe,
    ) -> Result<Option<String>, Fault> {
        let seconds = probe.timeout_seconds.unwrap_or(1).max(1);
        let limit = Duration::from_secs(u64::from(seconds.unsigned_abs()));
        if let Some(exec) = &probe.exec {
            let command = exec.command.as_deref().unwrap_or_default();
            exec_probe(context.runtime.as_ref(), id, command, limit).await?;
            return Ok(None);
        }
        let no_address = || "the pod has no address yet".to_owned();
        if let Some(action) = &probe.http_get {
            let url = http::url(action, container, ip).ok_or_else(no_address)?;
            return Ok(http::get(&self.http, action, &url, limit).await?);
        }
        if let Some(action) = &probe.tcp_socket {
            let port = port(&action.port, container)?;
            let ip = ip.ok_or_else(no_address)?;
            tcp::connect(action.host.as_deref(), ip, port, limit).await?;
            return Ok(None);
        }
        if let Some(action) = &probe.grpc {
            let port = u16::try_from(action.port).map_err(|e| e.to_string())?;
            let address = (ip.ok_or_else(no_address)?, port).into();
            let service = action.service.as_deref().unwrap_or_default();
            grpc::check(address, service, limit).await?;
            return Ok(None);
        }
        Err("the probe asks nothing".to_owned().into())
    }

    /// Runs a hook to its end.
    pub async fn hook(
        &self,
        context: &Context,
        container: &Container,
        ip: Option<IpAddr>,
        id: &str,
        handler: &LifecycleHandler,
    ) -> Result<(), String> {
        if let Some(exec) = &handler.exec {
            let command = exec.command.as_deref().unwrap_or_default();
            let id = ContainerId(id.to_owned());
            let output = context.runtime.exec_sync(&id, command, HOOK_MAX).await;
            let output = output.map_err(|e| e.to_string())?;
            return match output.code {
                0 => Ok(()),
                code => Err(format!(
                    "command {command:?} exited with {code}: {}",
                    printed(&output.stdout, &output.stderr)
                )),
            };
        }
        if let Some(action) = &handler.http_get {
            let url = http::url(action, container, ip).ok_or("the pod has no address yet")?;
            let answered = http::get(&self.http, action, &url, HOOK_MAX).await;
            return answered.map(drop);
        }
        if let Some(sleep) = &handler.sleep {
            let seconds = u64::try_from(sleep.seconds).unwrap_or(0);
            tokio::time::sleep(Duration::from_secs(seconds).min(HOOK_MAX)).await;
        }
        Ok(())
    }
}

/// Asks by a command. Only its exit code and its time are an answer: what goes wrong with running it
/// is the node's affair, and must not restart the container.
async fn exec_probe(
    runtime: &dyn Runtime,
    id: &str,
    command: &[String],
    limit: Duration,
) -> Result<(), Fault> {
    let id = ContainerId(id.to_owned());
    let mut attempt = 1;
    loop {
        return match runtime.exec_sync(&id, command, limit).await {
            Ok(output) if output.code == 0 => Ok(()),
            Ok(output) => Err(Fault::Answer(printed(&output.stdout, &output.stderr))),
            Err(runtime::Error::Timeout { .. }) => Err(Fault::Answer(format!(
                "command timed out: {command:?} timed out after {}s",
                limit.as_secs()
            ))),
            Err(runtime::Error::Unavailable(_)) if attempt < EXEC_ATTEMPTS => {
                attempt += 1;
                continue;
            }
            Err(error) => Err(Fault::NoAnswer(error.to_string())),
        };
    }
}

fn printed(stdout: &[u8], stderr: &[u8]) -> String {
    let both = [stdout, stderr].concat();
    String::from_utf8_lossy(&both[..both.len().min(EXEC_OUTPUT_MAX)]).into_owned()
}

fn crop(mut message: String) -> String {
    if message.len() > MESSAGE_MAX {
        let end = (0..=MESSAGE_MAX)
            .rev()
            .find(|&at| message.is_char_boundary(at));
        message.truncate(end.unwrap_or(0));
    }
    message
}

/// A port by number, or by the name that the container gives it.
fn port(port: &IntOrString, container: &Container) -> Result<u16, String> {
    let number = match port {
        IntOrString::Int(number) => Some(*number),
        IntOrString::String(name) => {
            let named = container.ports.iter().flatten();
            let mut named = named.filter(|port| port.name.as_deref() == Some(name));
            named
                .next()
                .map(|port| port.container_port)
                .or_else(|| name.parse().ok())
        }
    };
    let number = number
        .and_then(|number| u16::try_from(number).ok())
        .filter(|&n| n > 0);
    number.ok_or_else(|| format!("the container has no port {port:?}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_command_that_cannot_be_run_is_no_answer() {
        let runtime = crate::runtime::hollow::Hollow::new(jiff::Timestamp::now);
        let command = ["true".to_owned()];
        let asked = exec_probe(&runtime, "gone", &command, Duration::from_secs(1)).await;
        assert!(matches!(asked, Err(Fault::NoAnswer(_))), "{asked:?}");
    }

    #[test]
    fn ports_by_number_and_name() {
        let container: Container = serde_json::from_value(serde_json::json!({
            "name": "a", "ports": [{"name": "web", "containerPort": 8080}]}))
        .unwrap();
        let named = |name: &str| port(&IntOrString::String(name.into()), &container);
        assert_eq!(port(&IntOrString::Int(80), &container), Ok(80));
        assert_eq!(named("web"), Ok(8080));
        assert_eq!(named("81"), Ok(81));
        assert!(named("none").is_err());
        assert!(port(&IntOrString::Int(70_000), &container).is_err());
    }
}
