//! A future that hardly ever ends, beside work that its task is woken for all the time.
//!
//! Asking such a future each time whether it has ended costs more than the work, where it is a
//! lock that thousands of tasks share. So it is asked only when it has called.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Wake, Waker};

use futures::task::AtomicWaker;

/// A future that is polled when it has called, however often its task is woken by others.
pub struct Seldom<F> {
    future: F,
    bell: Arc<Bell>,
}

/// What the future wakes.
struct Bell {
    rung: AtomicBool,
    task: AtomicWaker,
}

// === impl Seldom ===

impl<F: Future + Unpin> Seldom<F> {
    /// A future, which is polled at the first opportunity.
    pub fn new(future: F) -> Self {
        let bell = Bell {
            rung: AtomicBool::new(true),
            task: AtomicWaker::new(),
        };
        Self {
            future,
            bell: Arc::new(bell),
        }
    }

    /// The future, which may be changed: it is polled again.
    pub fn get_mut(&mut self) -> &mut F {
        self.bell.rung.store(true, Ordering::Release);
        &mut self.future
    }
}

impl<F: Future + Unpin> Future for Seldom<F> {
    type Output = F::Output;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<F::Output> {
        // Before the bell is looked at: who rings later finds the task that is to be woken.
        self.bell.task.register(context.waker());
        if !self.bell.rung.swap(false, Ordering::AcqRel) {
            return Poll::Pending;
        }
        let waker = Waker::from(self.bell.clone());
        let mut context = Context::from_waker(&waker);
        Pin::new(&mut self.future).poll(&mut context)
    }
}

// === impl Bell ===

impl Wake for Bell {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.rung.store(true, Ordering::Release);
        self.task.wake();
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use futures::FutureExt;
    use tokio::sync::oneshot;

    use super::*;

    #[tokio::test]
    async fn it_is_asked_when_it_has_called_only() {
        let (tell, mut told) = oneshot::channel::<u8>();
        let mut asked = 0;
        let counted = poll_fn(|context| {
            asked += 1;
            told.poll_unpin(context)
        });
        let mut seldom = Seldom::new(counted);
        for _ in 0..10 {
            assert!((&mut seldom).now_or_never().is_none());
        }
        tell.send(7).unwrap();
        assert_eq!((&mut seldom).await, Ok(7));
        drop(seldom);
        assert_eq!(asked, 2);
    }

    #[tokio::test]
    async fn its_task_is_woken() {
        let (tell, told) = oneshot::channel::<u8>();
        let waiting = tokio::spawn(Seldom::new(told));
        tokio::task::yield_now().await;
        tell.send(7).unwrap();
        assert_eq!(waiting.await.unwrap(), Ok(7));
    }

    #[tokio::test]
    async fn what_was_changed_is_asked_again() {
        let (_tell, never) = oneshot::channel::<u8>();
        let mut seldom = Seldom::new(never);
        assert!((&mut seldom).now_or_never().is_none());
        let (tell, told) = oneshot::channel();
        *seldom.get_mut() = told;
        tell.send(7).unwrap();
        assert_eq!((&mut seldom).now_or_never(), Some(Ok(7)));
    }
}
