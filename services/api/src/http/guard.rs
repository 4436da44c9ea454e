//! The check of the token before an operation, the log of refusals, and the author of a change.

use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;

use axum::extract::{ConnectInfo, Request, State};
use axum::middleware::Next;
use axum::response::Response;
use tagtrail_config::Role;
use tagtrail_daemon::Refusals;

use crate::http::error::Error;
use crate::http::tokens::{Sent, Tokens};

/// The check before an operation.
#[derive(Clone)]
pub(crate) struct Guard {
    pub(crate) tokens: Arc<Tokens>,
    pub(crate) refusals: Arc<Refusals>,
    pub(crate) role: Role,
    /// Whether the query may carry the token.
    pub(crate) in_query: bool,
    /// The path of the operation.
    pub(crate) path: &'static str,
}

/// The author of a request: the name of the token, or `local` without tokens, and the address of
/// the client, or of the proxy before the api.
#[derive(Debug, Clone)]
pub(crate) struct Actor {
    token: Option<String>,
    remote: Option<SocketAddr>,
}

impl Actor {
    /// The name of the token.
    pub(crate) fn token(&self) -> Option<&str> {
        self.token.as_deref()
    }
}

impl fmt::Display for Actor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.token.as_deref().unwrap_or("local"))?;
        match self.remote {
            Some(remote) => write!(f, " at {remote}"),
            None => Ok(()),
        }
    }
}

/// Checks the token before anything else of the request is read.
pub(crate) async fn admit(
    State(guard): State<Guard>,
    mut request: Request,
    next: Next,
) -> Result<Response, Error> {
    let remote = request.extensions().get::<ConnectInfo<SocketAddr>>();
    let remote = remote.map(|ConnectInfo(remote)| *remote);
    let query = match guard.in_query {
        true => request.uri().query(),
        false => None,
    };
    let sent = Sent::find(request.headers(), query);
    let admitted = guard.tokens.admit(&sent, guard.role);
    let token = admitted.map(|token| token.map(ToOwned::to_owned));
    match token {
        Ok(token) => {
            request.extensions_mut().insert(Actor { token, remote });
            Ok(next.run(request).await)
        }
        Err(refusal) => Err(guard.refuse(refusal, remote).await),
    }
}

impl Guard {
    /// Logs a refusal. A client of many without a right token receives another error, after a
    /// moment.
    async fn refuse(&self, refusal: Error, remote: Option<SocketAddr>) -> Error {
        if let Some(count) = self.refusals.line() {
            let token = match &refusal {
                Error::Forbidden { token } | Error::TokenInQuery { token } => token,
                _ => "",
            };
            let remote = remote.map_or_else(|| "unknown".to_owned(), |it| it.to_string());
            let route = self.path;
            tracing::warn!(remote, token, route, count, "refused a request: {refusal}");
        }
        let address = remote.map(|remote| remote.ip());
        let wrong = matches!(refusal, Error::Unauthenticated | Error::WrongToken);
        if wrong && self.refusals.exceeded(address).await {
            return Error::TooManyRefusals;
        }
        refusal
    }
}
