//! What a connection waits for besides its client.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering;
use std::task::Context;
use std::task::Poll;
use std::task::Wake;
use std::task::Waker;

/// A future that is polled only when it has asked for it. Timers and signals take locks when they are polled,
/// and they would be with each request.
pub(super) struct Seldom<F> {
    future: Pin<Box<F>>,
    bell: Arc<Bell>,
    /// What polls the future.
    waker: Waker,
    /// What polls this.
    task: Option<Waker>,
}

struct Bell {
    has_rung: AtomicBool,
    task: Mutex<Option<Waker>>,
}

impl Wake for Bell {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.has_rung.store(true, Ordering::Release);
        if let Some(task) = &*self.task.lock().unwrap_or_else(PoisonError::into_inner) {
            task.wake_by_ref();
        }
    }
}

impl<F: Future> Seldom<F> {
    pub(super) fn new(future: F) -> Self {
        let bell = Arc::new(Bell { has_rung: AtomicBool::new(true), task: Mutex::new(None) });
        Self { future: Box::pin(future), waker: Waker::from(Arc::clone(&bell)), bell, task: None }
    }
}

impl<F: Future> Future for Seldom<F> {
    type Output = F::Output;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        let this = self.get_mut();
        if !this.task.as_ref().is_some_and(|task| task.will_wake(cx.waker())) {
            this.task = Some(cx.waker().clone());
            this.bell.task.lock().unwrap_or_else(PoisonError::into_inner).clone_from(&this.task);
        }
        // It may ring again from here on.
        match this.bell.has_rung.swap(false, Ordering::Acquire) {
            true => this.future.as_mut().poll(&mut Context::from_waker(&this.waker)),
            false => Poll::Pending,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;
    use std::task::ready;
    use std::time::Duration;

    use tokio::sync::mpsc;
    use tokio::time::sleep;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn it_is_polled_when_it_asks_for_it_and_by_whomever() {
        let (sender, mut receiver) = mpsc::channel::<()>(1);
        let mut polls = 0;
        let mut seldom = Seldom::new(poll_fn(move |cx| {
            polls += 1;
            ready!(receiver.poll_recv(cx));
            Poll::Ready(polls)
        }));
        for _ in 0..10 {
            tokio::select! {
                biased;
                _early = &mut seldom => panic!("nobody has called"),
                () = sleep(Duration::from_secs(1)) => {}
            }
        }
        // Another task waits for it now.
        let waiting = tokio::spawn(seldom);
        tokio::task::yield_now().await;
        sender.send(()).await.unwrap();
        assert_eq!(waiting.await.unwrap(), 2);
    }
}
