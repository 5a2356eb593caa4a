//! Reads of the newest revision, of which each request may need one: one read is the answer for
//! everybody who asked before it began, and there is one at a time.

use std::sync::atomic::{AtomicU64, Ordering};

use tokio::sync::Mutex;

use super::members::Failure;
use crate::revision::Revision;

/// See the module's head.
#[derive(Debug, Default)]
pub(super) struct Fences {
    /// How many have asked.
    asked: AtomicU64,
    /// The last answer, and up to which of them it is for. Held while it is read anew.
    last: Mutex<Option<(u64, Result<Revision, Failure>)>>,
}

// === impl Fences ===

impl Fences {
    /// The newest revision by a read that begins after this call: by this one, or another's.
    pub async fn ask(
        &self,
        read: impl Future<Output = Result<Revision, Failure>>,
    ) -> Result<Revision, Failure> {
        let own = self.asked.fetch_add(1, Ordering::SeqCst) + 1;
        let mut last = self.last.lock().await;
        if let Some((up_to, answer)) = &*last
            && *up_to >= own
        {
            return answer.clone();
        }
        let up_to = self.asked.load(Ordering::SeqCst);
        let answer = read.await;
        *last = Some((up_to, answer.clone()));
        answer
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn who_asks_during_a_read_waits_for_the_next_one() {
        let fences = Fences::default();
        let reads = AtomicU64::new(0);
        let gate = tokio::sync::Semaphore::new(0);
        let read = async || {
            let number = reads.fetch_add(1, Ordering::SeqCst) + 1;
            gate.acquire().await.unwrap().forget();
            Ok(Revision(number))
        };
        let mut first = std::pin::pin!(fences.ask(read()));
        assert!(futures::poll!(&mut first).is_pending());
        // These have asked when the first read was under way already.
        let mut second = std::pin::pin!(fences.ask(read()));
        let mut third = std::pin::pin!(fences.ask(read()));
        assert!(futures::poll!(&mut second).is_pending());
        assert!(futures::poll!(&mut third).is_pending());
        gate.add_permits(2);
        assert_eq!(first.await, Ok(Revision(1)));
        assert_eq!(second.await, Ok(Revision(2)));
        assert_eq!(third.await, Ok(Revision(2)));
        assert_eq!(reads.load(Ordering::SeqCst), 2);
    }
}
