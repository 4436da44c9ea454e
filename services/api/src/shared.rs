//! The state that all requests share.

use std::net::SocketAddr;
use std::sync::Arc;

use axum::extract::FromRef;
use tagtrail_config::{File, Names};
use tagtrail_daemon::Refusals;

use crate::config::Pace;
use crate::database::Database;
use crate::feed::Feed;
use crate::follow::Current;
use crate::http::identity::People;
use crate::http::tokens::Tokens;
use crate::metrics::Metrics;
use crate::quarantine::Quarantine;
use crate::together::Together;

/// The state that all requests share.
#[derive(Debug, Clone)]
pub(crate) struct Shared {
    pub(crate) database: Database,
    /// Questions that are asked together.
    pub(crate) together: Together,
    pub(crate) feed: Feed,
    pub(crate) quarantine: Quarantine,
    pub(crate) tokens: Current<Tokens>,
    pub(crate) refusals: Arc<Refusals>,
    /// The people whom a proxy has signed in, if there is one.
    pub(crate) people: Option<Arc<People>>,
    /// The names of registries.
    pub(crate) names: Current<Names>,
    /// The files.
    pub(crate) file: Current<File>,
    pub(crate) pace: Pace,
    /// The address of a gateway in the same process.
    pub(crate) gateway: Option<SocketAddr>,
    pub(crate) metrics: Metrics,
}

impl FromRef<Shared> for Database {
    fn from_ref(shared: &Shared) -> Database {
        shared.database.clone()
    }
}
