//! Killed at any moment, the store has everything that it acknowledged.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Stdio};

use crate::common::*;
use peapod_store::{Key, Resource, Revision, Scope};

const CLIENTS: usize = 16;

/// How often to kill: `ROUNDS`, for longer runs.
pub fn rounds(default: usize) -> usize {
    std::env::var("ROUNDS")
        .ok()
        .and_then(|rounds| rounds.parse().ok())
        .unwrap_or(default)
}

/// A process that writes and tells what was acknowledged.
pub struct Writer {
    pub child: Child,
    lines: BufReader<ChildStdout>,
}

/// What was acknowledged: each client's last count, with its revision.
#[derive(Debug, Default)]
pub struct Acknowledged {
    last: BTreeMap<usize, (u64, Revision)>,
    highest: Revision,
}

// === impl Writer ===

impl Writer {
    pub fn start(dir: &Path) -> Self {
        let mut child = Command::new(env!("CARGO_BIN_EXE_store-bench"))
            .args(["acknowledge", dir.to_str().unwrap(), &CLIENTS.to_string()])
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap());
        Self { child, lines }
    }

    /// Reads the next acknowledgement; false at the end of what the writer said.
    pub fn read(&mut self, acknowledged: &mut Acknowledged) -> bool {
        let mut line = String::new();
        self.lines.read_line(&mut line).unwrap();
        if !line.ends_with('\n') {
            return false;
        }
        let mut numbers = line
            .split_whitespace()
            .map(|number| number.parse::<u64>().unwrap());
        let mut next = || numbers.next().unwrap();
        let (client, count, revision) = (next() as usize, next(), Revision(next()));
        let before = acknowledged.last.insert(client, (count, revision));
        assert!(
            before.is_none_or(|(c, r)| c < count && r < revision),
            "{line}: was {before:?}"
        );
        acknowledged.highest = acknowledged.highest.max(revision);
        true
    }

    /// Kills it as `kill -9` does, and reads what it still had said.
    pub fn kill(mut self, acknowledged: &mut Acknowledged) {
        self.child.kill().unwrap();
        while self.read(acknowledged) {}
        self.child.wait().unwrap();
    }
}

// === impl Acknowledged ===

impl Acknowledged {
    /// Opens the store in `dir` and checks that all of it is there; returns its revision.
    pub async fn verify(&mut self, dir: &Path) -> Revision {
        let (store, recovery) = sled_store(dir).await;
        assert_eq!(recovery, None);
        assert!(store.revision() >= self.highest);
        let pods = store.snapshot(&pods());
        let claims = store.snapshot(&Resource::new("claims", "count").unwrap());
        let mut held: Vec<&str> = claims
            .range(Scope::All, None)
            .map(|entry| entry.key.name())
            .collect();
        for (client, (count, revision)) in &mut self.last {
            let key = Key::new(format!("/core/pods/crash/{client}")).unwrap();
            let entry = pods.get(&key).expect("a key that was acknowledged");
            let value = std::str::from_utf8(&entry.value).unwrap();
            assert!(
                value.ends_with(&format!(" rv={}", entry.modified)),
                "{value}"
            );
            let there: u64 = value.split(' ').next().unwrap().parse().unwrap();
            // One more may have been under way.
            assert!(
                there == *count || there == *count + 1,
                "{client}: {there}, not {count}"
            );
            assert!(
                there > *count || entry.modified == *revision,
                "{client} at another revision"
            );
            (*count, *revision) = (there, entry.modified);
            // All or nothing: exactly the claim that went with this write.
            let claim = format!("{client}-{there}");
            let at = held
                .iter()
                .position(|name| *name == claim)
                .expect("its claim");
            held.swap_remove(at);
        }
        let unknown = pods.len() - self.last.len();
        assert_eq!(held.len(), unknown, "claims of nobody: {held:?}");
        self.highest = store.revision();
        store.close().await;
        self.highest
    }
}

#[tokio::test]
async fn killed_again_and_again_while_writing_nothing_acknowledged_is_lost() {
    let dir = tempfile::tempdir().unwrap();
    let mut acknowledged = Acknowledged::default();
    for round in 0..rounds(8) {
        let before = acknowledged.highest;
        let mut writer = Writer::start(dir.path());
        // From just started to well under way, and not always the same.
        for _ in 0..1 + round * 97 % 900 {
            assert!(writer.read(&mut acknowledged), "the writer ended by itself");
        }
        writer.kill(&mut acknowledged);
        let after = acknowledged.verify(dir.path()).await;
        assert!(after > before);
        resumes(dir.path(), before, after).await;
    }
}

/// A watch from before the kill goes on without a gap.
async fn resumes(dir: &Path, before: Revision, after: Revision) {
    let (store, _) = sled_store(dir).await;
    let mut watch = store.watch(all_pods(), before).unwrap();
    for revision in before.0 + 1..=after.0 {
        assert_eq!(watch.next().await.unwrap().revision, Revision(revision));
    }
    store.close().await;
}
