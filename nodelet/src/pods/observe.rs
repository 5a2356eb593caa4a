//! The runtime's words in the machine's.

use std::collections::HashMap;
use std::path::Path;

use crate::core::{Exit, ImageRef, Observed, ObservedState};
use crate::make::container::LABEL_IMAGE;
use crate::runtime::{self, Container, ContainerState, ExitReason};

/// Most of a termination message that is kept, bytes.
const MESSAGE_MAX: u64 = 4096;

/// How a container ended.
pub fn exit(id: &str, exit: &runtime::Exit) -> Exit {
    let reason = match exit.reason {
        ExitReason::StartError => Some("StartError".to_owned()),
        ExitReason::Unknown => Some("ContainerStatusUnknown".to_owned()),
        ExitReason::Exited | ExitReason::OomKilled => None,
    };
    Exit {
        id: id.to_owned(),
        code: exit.code,
        reason,
        oom: exit.reason == ExitReason::OomKilled,
        message: Some(exit.message.clone()).filter(|message| !message.is_empty()),
        started_at: exit.started_at,
        finished_at: exit.finished_at,
    }
}

/// A container that the runtime has.
pub fn container(container: &Container) -> Observed {
    let id = container.id.0.as_str();
    let state = match &container.state {
        ContainerState::Created => ObservedState::Created,
        ContainerState::Running { started_at, .. } => ObservedState::Running(*started_at),
        ContainerState::Exited(end) => ObservedState::Exited(exit(id, end)),
    };
    let spec_image = container
        .labels
        .get(LABEL_IMAGE)
        .unwrap_or(&container.image);
    Observed {
        container: container.name.clone(),
        id: id.to_owned(),
        attempt: container.attempt,
        spec_image: spec_image.clone(),
        image: ImageRef {
            name: container.image.clone(),
            id: container.image_ref.clone(),
        },
        state,
    }
}

/// Containers by the pod that they belong to.
pub fn by_pod(containers: &[Container]) -> HashMap<String, Vec<Observed>> {
    let mut pods: HashMap<String, Vec<Observed>> = HashMap::new();
    for each in containers {
        pods.entry(each.pod_uid.clone())
            .or_default()
            .push(container(each));
    }
    pods
}

/// What a container left as its termination message, if anything. Blocking.
pub fn message(path: &Path) -> Option<String> {
    use std::io::Read;
    let file = std::fs::File::open(path).ok()?;
    let mut bytes = Vec::new();
    file.take(MESSAGE_MAX).read_to_end(&mut bytes).ok()?;
    let text = String::from_utf8_lossy(&bytes).into_owned();
    (!text.is_empty()).then_some(text)
}

/// How much of a log stands in for a termination message: lines, and bytes.
const LOG_TAIL: (usize, usize) = (80, 2048);

/// The end of a container's log, for a container that left no message. Blocking.
pub fn log_tail(path: &Path) -> Option<String> {
    use std::io::{Read, Seek, SeekFrom};
    /// More than the lines that are kept take, with their times.
    const READ_MAX: u64 = 32 * 1024;
    let mut file = std::fs::File::open(path).ok()?;
    let size = file.metadata().ok()?.len();
    file.seek(SeekFrom::Start(size.saturating_sub(READ_MAX)))
        .ok()?;
    let mut bytes = Vec::new();
    file.take(READ_MAX).read_to_end(&mut bytes).ok()?;
    let text = tail_text(&String::from_utf8_lossy(&bytes));
    (!text.is_empty()).then_some(text)
}

/// The text of the last lines of a log in the CRI format (`TIME STREAM F|P TEXT`).
fn tail_text(log: &str) -> String {
    let mut text = String::new();
    let lines: Vec<&str> = log.lines().collect();
    for line in &lines[lines.len().saturating_sub(LOG_TAIL.0)..] {
        let mut parts = line.splitn(4, ' ');
        let (Some(flag), Some(content)) = (parts.nth(2), parts.next()) else {
            continue;
        };
        text.push_str(content);
        if flag != "P" {
            text.push('\n');
        }
    }
    let start = text.len().saturating_sub(LOG_TAIL.1);
    let start = (start..=text.len())
        .find(|&at| text.is_char_boundary(at))
        .unwrap_or(0);
    text.split_off(start)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_of_a_log() {
        let log = "t stdout P one \nt stdout F two\nbroken\nt stderr F three\n";
        assert_eq!(tail_text(log), "one two\nthree\n");
        let long = "t stdout F ".to_owned() + &"é".repeat(4000);
        assert!(tail_text(&long).len() <= LOG_TAIL.1);
    }
}
