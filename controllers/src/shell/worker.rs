//! Loops: a queue, what fills it, and a bounded number of reconciliations at a time.

use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::FutureExt;
use futures::future::BoxFuture;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tracing::{debug, error, warn};

use super::{Change, Context, Error, Informer, Queue, Result, informer::Kind};
use crate::common::Key;

/// Reconciliations of one loop that run at the same time, unless it says otherwise.
const WORKERS: usize = 4;

/// What follows a reconciliation that went well.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The next change wakes it.
    Done,
    /// A deadline of the object's own: look again after this.
    After(Duration),
}

impl Outcome {
    /// Again after a while, if there is a deadline.
    pub fn maybe(wait: Option<Duration>) -> Self {
        wait.map_or(Self::Done, Self::After)
    }
}

/// A control loop.
pub trait Controller: Send + Sync + 'static {
    /// Brings one object nearer to what it should be. Takes nothing but the key: what is and
    /// what should be it reads anew. Idempotent; may be killed at any point.
    fn reconcile(&self, key: &Key) -> impl Future<Output = Result<Outcome>> + Send;
}

/// The tasks of the controllers; dropping it aborts them.
pub struct Tasks {
    set: JoinSet<&'static str>,
    shutdown: CancellationToken,
}

/// A loop being wired.
pub struct Loop {
    name: &'static str,
    queue: Queue,
    needs: Vec<BoxFuture<'static, ()>>,
    workers: usize,
    /// Goes with the loop, and with it what fills the queue.
    alive: Arc<()>,
}

// === impl Tasks ===

impl Tasks {
    /// No tasks yet; they end when `shutdown` is cancelled.
    pub fn new(shutdown: CancellationToken) -> Self {
        Self {
            set: JoinSet::new(),
            shutdown,
        }
    }

    /// What ends them.
    pub fn shutdown(&self) -> CancellationToken {
        self.shutdown.clone()
    }

    /// Runs a task until it ends or shutdown comes.
    pub fn spawn(&mut self, name: &'static str, task: impl Future<Output = ()> + Send + 'static) {
        let shutdown = self.shutdown.clone();
        self.set.spawn(async move {
            shutdown.run_until_cancelled_owned(task).await;
            name
        });
    }

    /// Waits until shutdown; an earlier end of any task is an error.
    pub async fn wait(mut self) -> Result<()> {
        while let Some(ended) = self.set.join_next().await {
            match ended {
                _ if self.shutdown.is_cancelled() => {}
                Ok(name) => return Err(Error::TaskEnded(name.to_owned())),
                Err(error) => return Err(Error::TaskEnded(error.to_string())),
            }
        }
        Ok(())
    }
}

// === impl Loop ===

impl Loop {
    /// A loop under upstream's controller name.
    pub fn new(ctx: &Context, name: &'static str) -> Self {
        Self {
            name,
            queue: Queue::new(ctx.metrics.queue(name)),
            needs: Vec::new(),
            workers: WORKERS,
            alive: Arc::default(),
        }
    }

    /// The queue, for what fills it by other ways than a watch.
    pub fn queue(&self) -> Queue {
        self.queue.clone()
    }

    /// Queues the keys that `keys` makes of every change of a kind, and waits for that kind's
    /// first list before starting.
    pub fn on<K: Kind, I: IntoIterator<Item = Key>>(
        self,
        informer: &Arc<Informer<K>>,
        keys: impl Fn(&Change<K>) -> I + Send + Sync + 'static,
    ) -> Self {
        let (queue, alive) = (self.queue.clone(), Arc::downgrade(&self.alive));
        informer.on_change_while(move |change| {
            let alive = alive.strong_count() > 0;
            if alive {
                keys(change).into_iter().for_each(|key| queue.add(key));
            }
            alive
        });
        self.reads(informer)
    }

    /// Queues the changed object itself.
    pub fn on_self<K: Kind>(self, informer: &Arc<Informer<K>>) -> Self {
        self.on(informer, |change| [change.key.clone()])
    }

    /// Waits for a kind's first list before starting.
    pub fn reads<K: Kind>(mut self, informer: &Arc<Informer<K>>) -> Self {
        let informer = informer.clone();
        self.needs
            .push(async move { informer.synced().await }.boxed());
        self
    }

    /// At most this many reconciliations at a time.
    pub fn workers(mut self, workers: usize) -> Self {
        self.workers = workers;
        self
    }

    /// Starts it.
    pub fn run(self, tasks: &mut Tasks, controller: impl Controller) {
        let name = self.name;
        tasks.spawn(name, self.work(Arc::new(controller)));
    }

    async fn work<C: Controller>(mut self, controller: Arc<C>) {
        futures::future::join_all(std::mem::take(&mut self.needs)).await;
        debug!(controller = self.name, "started");
        // Owned here, so that an aborted loop aborts its reconciliations.
        let mut running = JoinSet::new();
        loop {
            while running.len() < self.workers
                && let Some(key) = self.queue.take()
            {
                let (queue, controller) = (self.queue.clone(), controller.clone());
                running.spawn(work_on(self.name, queue, controller, key));
            }
            tokio::select! {
                Some(_) = running.join_next() => {}
                () = self.queue.changed(), if running.len() < self.workers => {}
            }
        }
    }
}

async fn work_on<C: Controller>(name: &'static str, queue: Queue, controller: Arc<C>, key: Key) {
    let start = Instant::now();
    let outcome = AssertUnwindSafe(controller.reconcile(&key))
        .catch_unwind()
        .await;
    let took = start.elapsed();
    match outcome {
        Ok(Ok(outcome)) => {
            queue.done(&key, took);
            if let Outcome::After(wait) = outcome {
                queue.add_after(key, wait);
            }
        }
        Ok(Err(error)) => {
            let again = queue.failed(&key, took);
            if error.is_conflict() {
                debug!(controller = name, %key, %error, ?again, "conflict");
            } else {
                warn!(controller = name, %key, %error, ?again, "reconciliation failed");
            }
        }
        Err(_) => {
            let again = queue.failed(&key, took);
            error!(controller = name, %key, ?again, "reconciliation panicked; this is a defect");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::shell::metrics::Metrics;
    use parking_lot::Mutex;
    use tokio::sync::mpsc;

    struct Script {
        steps: Mutex<Vec<Result<Outcome>>>,
        calls: mpsc::UnboundedSender<String>,
    }

    impl Controller for Script {
        async fn reconcile(&self, key: &Key) -> Result<Outcome> {
            let step = self.steps.lock().pop();
            self.calls.send(key.to_string()).unwrap();
            step.expect("the script says panic when it is over")
        }
    }

    #[tokio::test]
    async fn a_key_is_tried_again_after_an_error_a_panic_and_a_deadline() {
        let (calls, mut called) = mpsc::unbounded_channel();
        let wrong = Error::Config("scripted".into());
        let mut steps = vec![Ok(Outcome::After(Duration::from_millis(9))), Err(wrong)];
        steps.reverse();
        let script = Script {
            steps: Mutex::new(steps),
            calls,
        };
        let shutdown = CancellationToken::new();
        let mut tasks = Tasks::new(shutdown.clone());
        let wired = Loop {
            name: "test",
            queue: Queue::new(Metrics::default().queue("test")),
            needs: Vec::new(),
            workers: 1,
            alive: Arc::default(),
        };
        wired.queue().add(Key::new("a", "b"));
        wired.run(&mut tasks, script);
        // Deadline, error, then panics, each followed by another try.
        for _ in 0..4 {
            assert_eq!(called.recv().await.as_deref(), Some("a/b"));
        }
        shutdown.cancel();
        tasks.wait().await.unwrap();
    }
}
