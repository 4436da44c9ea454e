//! The web pages: HTML made on the server from the same functions as the answers under `/v1`, so
//! that a page and its JSON can't differ.
//!
//! Each page has a file of its own and a row in the table of pages. `frame` draws what all pages
//! have, and `part` the pieces that pages are made of. Pages need no script; `assets/tagtrail.js`
//! adds the live feed, the reader's own clock and the copy buttons.

mod act;
mod assets;
mod browse;
mod compare;
mod digest;
mod explain;
mod frame;
mod holds;
mod home;
mod images;
mod login;
mod part;
mod pasted;
mod quarantine;
mod reader;
mod reports;
mod repository;
mod rollout;
mod rollouts;
mod search;
mod sources;
mod tag;
mod trigger;
mod triggers;
mod unchanged;

use axum::Router;
use axum::middleware::{from_fn, from_fn_with_state};
use axum::routing::MethodRouter;
use tower_http::compression::CompressionLayer;

use crate::http::error::Error;
use crate::operations::{ANSWER, Counted, count, in_time};
use crate::shared::Shared;

/// A page: a row of the table.
pub(crate) struct Page {
    /// Name of the page in the metrics.
    pub(crate) id: &'static str,
    /// The paths, in the notation of axum.
    pub(crate) paths: &'static [&'static str],
    /// Whether a reader need not have signed in.
    pub(crate) open: bool,
    /// Whether all that the page shows comes from Postgres and the files, so that a browser that
    /// has the page is answered 304 while they are unchanged.
    pub(crate) stored: bool,
    /// The handlers, by method.
    pub(crate) serve: fn() -> MethodRouter<Shared>,
}

/// All pages.
pub(crate) const ALL: &[Page] = &[
    home::PAGE,
    browse::PAGE,
    images::PAGE,
    compare::PAGE,
    search::PAGE,
    digest::PAGE,
    sources::PAGE,
    quarantine::PAGE,
    quarantine::REPLAY,
    reports::PAGE,
    reports::ONE,
    login::PAGE,
    login::OUT,
    triggers::PAGE,
    trigger::PAGE,
    trigger::ACT,
    rollouts::PAGE,
    rollout::PAGE,
    rollout::ACT,
    holds::PAGE,
    holds::ACT,
    explain::PAGE,
];

/// The API as a router, by which a page carries out an act: with the checks, the record and the
/// metrics of the operation.
#[derive(Clone)]
pub(crate) struct Operations(pub(crate) Router);

/// Returns the routes of the pages; every other path is one of the API.
pub(crate) fn router(pages: &[Page], shared: Shared, api: Router) -> Router {
    let mut router = Router::new();
    for page in pages {
        shared.metrics.expect_operation(page.id);
        let counted = Counted {
            metrics: shared.metrics.clone(),
            operation: page.id,
        };
        let mut route = (page.serve)().route_layer(from_fn_with_state(ANSWER, in_time));
        if page.stored {
            route = route.route_layer(from_fn_with_state(shared.clone(), unchanged::answer));
        }
        if !page.open {
            route = route.route_layer(from_fn_with_state(shared.clone(), reader::admit));
        }
        let route = route
            .route_layer(from_fn(frame::show_problem))
            .route_layer(from_fn(reader::know))
            .route_layer(from_fn(frame::protect))
            .route_layer(from_fn_with_state(counted, count));
        for path in page.paths {
            router = router.route(path, route.clone());
        }
    }
    router
        .merge(assets::routes())
        // Not the rest: the live feed must arrive event by event.
        .layer(CompressionLayer::new())
        .method_not_allowed_fallback(async || Error::MethodNotAllowed)
        .fallback(pasted::serve)
        .layer(axum::Extension(Operations(api)))
        .with_state(shared)
}

#[cfg(test)]
mod tests;
