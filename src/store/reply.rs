//! What a store answers, and when.

use std::future::Future;
use std::pin::Pin;
use std::task::Context;
use std::task::Poll;

use crate::store::StoreError;

/// A store's answer: a future, which takes an allocation only where something is waited for.
#[must_use]
pub struct Reply<'a, T>(State<'a, T>);

enum State<'a, T> {
    Known(Result<T, StoreError>),
    Awaited(Pin<Box<dyn Future<Output = Result<T, StoreError>> + Send + 'a>>),
    /// It was given away.
    Given,
}

/// An answer that is known stays nowhere in particular.
impl<T> Unpin for Reply<'_, T> {}

impl<'a, T> Reply<'a, T> {
    /// An answer that is known already.
    pub fn now(answer: Result<T, StoreError>) -> Self {
        Self(State::Known(answer))
    }

    /// One that comes later.
    pub fn later(answer: impl Future<Output = Result<T, StoreError>> + Send + 'a) -> Self {
        Self(State::Awaited(Box::pin(answer)))
    }

    /// Whether it is known already.
    pub fn known(&self) -> Option<&Result<T, StoreError>> {
        match &self.0 {
            State::Known(answer) => Some(answer),
            State::Awaited(_) | State::Given => None,
        }
    }
}

impl<T> Future for Reply<'_, T> {
    type Output = Result<T, StoreError>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let state = &mut self.get_mut().0;
        if let State::Awaited(answer) = state {
            return answer.as_mut().poll(context);
        }
        match std::mem::replace(state, State::Given) {
            State::Known(answer) => Poll::Ready(answer),
            // Nobody asks again who has been answered; who does has no second answer.
            State::Given | State::Awaited(_) => Poll::Pending,
        }
    }
}
