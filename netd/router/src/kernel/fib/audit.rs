//! What may have been lost is looked at, and written again.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use ipnet::IpNet;
use peapod_bgp::Speaker;
use peapod_bgp::types::Family;
use serde::{Deserialize, Serialize};
use tokio::sync::oneshot;

use super::trouble::PATIENCE;
use super::{Fib, REMEMBERED, hops};
use crate::kernel::links::Links;
use crate::kernel::news::News;
use crate::kernel::routes::{Installed, fingerprint};

/// Wait after something that makes an audit necessary, so that one serves for several.
const AUDIT_DELAY: Duration = Duration::from_millis(200);
/// What the kernel has against what it should have.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Audit {
    /// Routes that should be there (the RIB's forwarding).
    pub wanted: usize,
    /// Routes of protocol bgp that are there (the FIB).
    pub installed: usize,
    /// Wanted and not there.
    pub missing: usize,
    /// There, with other next hops than wanted.
    pub different: usize,
    /// There and not wanted: of another daemon, or of a router before us.
    pub extra: usize,
    /// Refused by the kernel when last written.
    pub refused: usize,
}

// === impl Audit ===

impl Audit {
    /// Whether the kernel has exactly what it should.
    pub fn clean(&self) -> bool {
        self.missing + self.different + self.extra + self.refused == 0
    }
}

impl Fib {
    /// What the last audit found.
    pub fn last_audit(&self) -> Option<Audit> {
        self.last
    }

    /// Others touched our routes.
    pub fn heard(&mut self, news: Vec<News>) {
        let now = Instant::now();
        for one in news {
            match one {
                News::Route(prefix) if self.touched.len() < REMEMBERED => {
                    self.touched.insert(prefix);
                }
                News::Route(_) | News::Overflow => self.audit_wanted = true,
                News::Objects => {
                    self.installer.objects_touched();
                    self.audit_wanted = true;
                }
            }
        }
        if self.due.is_none() {
            self.due = Some(now + self.trouble.next(now));
        }
    }

    /// Has everything compared; the answer comes when that is done.
    pub fn ask_audit(&mut self, answer: oneshot::Sender<Audit>) {
        self.asked.push(answer);
        self.audit_wanted = true;
        self.due = Some(Instant::now());
    }

    pub(super) fn look_soon(&mut self) {
        self.audit_wanted = true;
        let soon = Instant::now() + AUDIT_DELAY;
        self.due = Some(self.due.map_or(soon, |due| due.min(soon)));
    }

    /// Sees to what is wrong, if it is time.
    pub fn tick(&mut self, speaker: &mut Speaker, links: &Links) {
        if self.due.is_none_or(|due| due > Instant::now()) {
            return;
        }
        if !self.installer.idle() || speaker.has_changes() {
            // What is under way first: it is not what an audit is after.
            self.due = Some(Instant::now() + PATIENCE[0]);
            return;
        }
        self.due = None;
        let again: Vec<IpNet> = std::mem::take(&mut self.touched)
            .into_iter()
            .chain(self.refused.keys().copied())
            .collect();
        self.retried.append(&mut self.refused);
        for prefix in again {
            speaker.change_again(&prefix);
        }
        self.install(speaker, links);
        if std::mem::take(&mut self.audit_wanted) {
            self.installer.read();
        }
    }

    /// Compares the kernel's routes with ours, and has written again what it has not.
    pub(super) fn compare(&mut self, kernel: &[Installed], speaker: &mut Speaker, links: &Links) {
        let mut left: HashMap<IpNet, u32> = kernel
            .iter()
            .map(|route| (route.prefix, route.hops))
            .collect();
        let mut audit = Audit {
            installed: kernel.len(),
            refused: self.refused.len() + self.retried.len(),
            ..Audit::default()
        };
        let mut wrong = Vec::new();
        for family in Family::SUPPORTED {
            for (prefix, next_hops) in speaker.forwarding(family) {
                let wanted = hops(next_hops, links, &self.reach);
                if wanted.is_empty() {
                    continue;
                }
                audit.wanted += 1;
                match left.remove(&prefix) {
                    Some(have) if have == fingerprint(&wanted) => continue,
                    Some(_) => audit.different += 1,
                    None => audit.missing += 1,
                }
                wrong.push(prefix);
            }
        }
        // Those of a router before us are not yet for us to judge.
        audit.extra = left
            .keys()
            .filter(|prefix| !self.leftover.contains(prefix))
            .count();
        if !wrong.is_empty() {
            tracing::info!(?audit, "writing routes again that the kernel has not");
        }
        for prefix in wrong {
            speaker.change_again(&prefix);
        }
        self.last = Some(audit);
        self.meter.audited(&audit);
        for asked in self.asked.drain(..) {
            // Who asked may be gone.
            let _ = asked.send(audit);
        }
    }
}
