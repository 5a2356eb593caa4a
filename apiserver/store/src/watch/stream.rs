//! The reader's end of a watch.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use futures::Stream;
use thiserror::Error;

use super::feed::Feed;
use super::hub::{Mode, Watcher};
use crate::entry::{Event, Meta};
use crate::history::Compacted;
use crate::revision::Revision;

/// Why a watch came to its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum WatchEnd {
    /// The reader was so slow that events it had not read left the history.
    #[error("the watch fell behind: {0}")]
    Behind(#[from] Compacted),
    /// The store was closed.
    #[error("the store is closed")]
    Closed,
}

/// A stream of events. Dropping it ends the watch.
///
/// After an error it yields nothing more.
#[derive(Debug)]
pub struct Watch<M: Meta> {
    feed: Arc<Feed<M>>,
    watcher: Arc<Watcher<M>>,
    /// Taken from the mailbox or the history, and not yet read.
    ready: VecDeque<Arc<Event<M>>>,
    /// What [`Watch::progress`] last knew.
    progress: Revision,
    ended: bool,
}

// === impl Watch ===

impl<M: Meta> Watch<M> {
    pub(crate) fn new(feed: Arc<Feed<M>>, watcher: Arc<Watcher<M>>) -> Self {
        let progress = watcher.after;
        Self {
            feed,
            watcher,
            ready: VecDeque::new(),
            progress,
            ended: false,
        }
    }

    /// The next event.
    ///
    /// # Errors
    /// [`WatchEnd`] when there will be none; the watch must then be dropped.
    pub async fn next(&mut self) -> Result<Arc<Event<M>>, WatchEnd> {
        std::future::poll_fn(|cx| self.poll_event(cx)).await
    }

    /// A revision up to which every matching event has been read: what a bookmark may say. It is
    /// the present one if there is nothing left to read.
    pub fn progress(&mut self) -> Revision {
        if self.ready.is_empty() {
            let present = self.feed.progress(&self.watcher);
            self.progress = self.progress.max(present.unwrap_or_default());
        }
        self.progress
    }

    /// Whether events are at hand that [`Self::next_ready`] gives.
    pub fn has_ready(&self) -> bool {
        !self.ready.is_empty()
    }

    /// The next of the events that came together with the one that was read last; `None` when
    /// there are no more of those. Takes no lock, and wakes nobody.
    pub fn next_ready(&mut self) -> Option<Arc<Event<M>>> {
        let event = self.ready.pop_front()?;
        self.note(event.revision);
        Some(event)
    }

    /// The next event, or a promise to wake `cx` for it.
    pub fn poll_event(&mut self, cx: &mut Context<'_>) -> Poll<Result<Arc<Event<M>>, WatchEnd>> {
        loop {
            if let Some(event) = self.next_ready() {
                return Poll::Ready(Ok(event));
            }
            match self.take_queue(cx) {
                None => return Poll::Pending,
                Some(Mode::Live) => {}
                Some(Mode::Closed) => return Poll::Ready(Err(WatchEnd::Closed)),
                Some(Mode::Behind(position)) => match self.feed.replay(&self.watcher, position) {
                    Ok(missed) => self.ready.extend(missed),
                    Err(compacted) => return Poll::Ready(Err(compacted.into())),
                },
            }
        }
    }

    /// Empties the mailbox. `None` means that there is nothing, and that `cx` will be woken.
    fn take_queue(&mut self, cx: &mut Context<'_>) -> Option<Mode> {
        let mut mailbox = self.watcher.mailbox.lock();
        self.ready
            .extend(mailbox.queue.drain(..).map(|(_, event)| event));
        if self.ready.is_empty() && mailbox.mode == Mode::Live {
            mailbox.waker = Some(cx.waker().clone());
            return None;
        }
        // What was queued is read first, whatever the mode has become.
        Some(if self.ready.is_empty() {
            mailbox.mode
        } else {
            Mode::Live
        })
    }

    /// Having read an event, everything before its revision has been read; of its own revision
    /// there may be more.
    fn note(&mut self, revision: Revision) {
        self.progress = self.progress.max(Revision(revision.0 - 1));
    }
}

impl<M: Meta> Stream for Watch<M> {
    type Item = Result<Arc<Event<M>>, WatchEnd>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        if self.ended {
            return Poll::Ready(None);
        }
        let event = std::task::ready!(self.poll_event(cx));
        self.ended = event.is_err();
        Poll::Ready(Some(event))
    }
}

impl<M: Meta> Drop for Watch<M> {
    fn drop(&mut self) {
        self.feed.unwatch(&self.watcher);
    }
}
