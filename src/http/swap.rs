//! New settings for a running server: routes are swapped under its connections.
//!
//! What a request meets is built anew from the new settings and put in the place of the old in one
//! step. A request ends on what it began with, so none fails and none sees half of each. What must
//! outlive a change (counts of limits, what is in flight) is handed on by [`Shared::successor`].

use std::sync::{Arc, Mutex, PoisonError};

use arc_swap::ArcSwap;
use axum::Router;
use tokio::sync::Semaphore;

use super::state::{AppState, Shared};
use super::to_https;

/// The routes of a listener as they are now.
#[derive(Clone)]
pub(super) struct Routes(Arc<ArcSwap<Router>>);

impl Routes {
    pub(super) fn new(router: Router) -> Self {
        Self(Arc::new(ArcSwap::from_pointee(router)))
    }

    /// What the next request is answered by.
    pub(super) fn now(&self) -> Router {
        Router::clone(&self.0.load())
    }

    fn swap(&self, router: Router) {
        self.0.store(Arc::new(router));
    }
}

/// Gives a running server new settings.
#[derive(Clone)]
pub struct Reload {
    current: Arc<Mutex<Current>>,
    site: Routes,
    redirect: Option<(Routes, String)>,
    permits: Arc<Semaphore>,
}

struct Current {
    shared: Arc<Shared>,
    connections_max: usize,
}

impl Reload {
    pub(super) fn new(
        shared: Arc<Shared>,
        site: Routes,
        redirect: Option<(Routes, String)>,
        permits: Arc<Semaphore>,
    ) -> Self {
        let connections_max = shared.app.http.connections_max;
        let current = Arc::new(Mutex::new(Current { shared, connections_max }));
        Self { current, site, redirect, permits }
    }

    /// Requests from now on meet `state`. A lower bound on connections holds once enough of the
    /// open ones have ended.
    pub fn apply(&self, state: AppState) {
        let mut current = self.current.lock().unwrap_or_else(PoisonError::into_inner);
        let (before, after) = (current.connections_max, state.http.connections_max);
        current.shared = Arc::new(current.shared.successor(state));
        current.connections_max = after;
        self.site.swap(super::routes(&current.shared));
        if let Some((routes, host)) = &self.redirect {
            routes.swap(to_https::routes(&current.shared, host));
        }
        drop(current);
        self.permits.add_permits(after.saturating_sub(before));
        let fewer = u32::try_from(before.saturating_sub(after)).unwrap_or(u32::MAX);
        if fewer > 0 {
            let permits = Arc::clone(&self.permits);
            tokio::spawn(async move {
                if let Ok(taken) = permits.acquire_many_owned(fewer).await {
                    taken.forget();
                }
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use axum::routing::get;
    use http_body_util::BodyExt;
    use tower::ServiceExt;

    use super::*;

    async fn body(router: Router) -> String {
        let request = axum::extract::Request::new(axum::body::Body::empty());
        let response = router.oneshot(request).await.unwrap();
        let bytes = response.into_body().collect().await.unwrap().to_bytes();
        String::from_utf8(bytes.to_vec()).unwrap()
    }

    #[tokio::test]
    async fn a_request_is_answered_by_the_routes_it_began_with() {
        let answer =
            |text: &'static str| Router::new().route("/", get(move || async move { text }));
        let routes = Routes::new(answer("before"));
        let began = routes.now();
        routes.swap(answer("after"));
        assert_eq!(
            (body(began).await, body(routes.now()).await),
            ("before".into(), "after".into())
        );
    }
}
