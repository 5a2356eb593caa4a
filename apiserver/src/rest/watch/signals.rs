//! What has a watch do something although no event comes: its time, and the ends of others.

use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::time::{Instant, Sleep};
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};

/// What happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Signal {
    /// The alarm went off.
    Alarm,
    /// The server stops, or the kind is not served any more as it was.
    Stop,
}

/// The sources of signals. They stay registered from one event to the next.
pub struct Signals {
    alarm: Pin<Box<Sleep>>,
    draining: Pin<Box<WaitForCancellationFutureOwned>>,
    withdrawn: Pin<Box<WaitForCancellationFutureOwned>>,
}

// === impl Signals ===

impl Signals {
    /// An alarm at a time, the end of the server, and that of the kind.
    pub fn new(
        alarm: Instant,
        draining: &CancellationToken,
        withdrawn: &CancellationToken,
    ) -> Self {
        Self {
            alarm: Box::pin(tokio::time::sleep_until(alarm)),
            draining: Box::pin(draining.clone().cancelled_owned()),
            withdrawn: Box::pin(withdrawn.clone().cancelled_owned()),
        }
    }

    /// Sets the alarm anew.
    pub fn set_alarm(&mut self, at: Instant) {
        self.alarm.as_mut().reset(at);
    }
}

impl Future for Signals {
    type Output = Signal;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Signal> {
        if self.alarm.as_mut().poll(context).is_ready() {
            return Poll::Ready(Signal::Alarm);
        }
        let stops = self.draining.as_mut().poll(context).is_ready()
            || self.withdrawn.as_mut().poll(context).is_ready();
        match stops {
            true => Poll::Ready(Signal::Stop),
            false => Poll::Pending,
        }
    }
}
