//! The person who reads a page: the proof of identity, and the preferences.

use std::sync::Arc;

use axum::extract::{ConnectInfo, FromRequestParts, Request, State};
use axum::http::Uri;
use axum::http::request::Parts;
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Redirect, Response};
use std::net::SocketAddr;
use tagtrail_config::{Role, TriggerGlob};
use time::OffsetDateTime;

use crate::http::error::Error;
use crate::http::session::cookie;
use crate::http::tokens::{Holder, Sent};
use crate::shared::Shared;

/// The person who reads a page.
#[derive(Debug, Clone)]
pub(crate) struct Reader {
    /// The holder of the token; none without tokens, and before signing in.
    pub(crate) holder: Option<Arc<Holder>>,
    /// The theme that the reader chose; none: that of the system.
    pub(crate) theme: Option<&'static str>,
    /// The time of the request, which the page shows as its moment.
    pub(crate) now: OffsetDateTime,
    /// Path and query of the request.
    pub(crate) address: String,
    /// Whether anybody may read: there is no `[[token]]`.
    pub(crate) everybody: bool,
}

impl Reader {
    /// The name at the foot of a page.
    pub(crate) fn name(&self) -> Option<&str> {
        match &self.holder {
            Some(holder) => Some(&holder.name),
            None => self.everybody.then_some("local"),
        }
    }

    /// Whether the reader has this role, so that a form makes sense. The operation checks it again.
    pub(crate) fn may(&self, role: Role) -> bool {
        match &self.holder {
            Some(holder) => holder.role.includes(role),
            None => self.everybody,
        }
    }

    /// Checks that the reader has this role.
    pub(crate) fn check(&self, role: Role) -> Result<(), Error> {
        let holder = self.holder.as_ref();
        holder.map_or(Ok(()), |holder| holder.check(role))
    }

    /// Whether the reader has this role, and may act where a pattern of the token `covers` it, so
    /// that a form makes sense. `named`: triggers carry the name of the token. The operation checks
    /// it again.
    pub(crate) fn may_act(
        &self,
        role: Role,
        named: bool,
        covers: impl Fn(&TriggerGlob) -> bool,
    ) -> bool {
        match &self.holder {
            Some(holder) => holder.role.includes(role) && holder.may_act(named, covers),
            None => self.everybody,
        }
    }
}

impl<S: Send + Sync> FromRequestParts<S> for Reader {
    type Rejection = Error;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Reader, Error> {
        // Every page is behind `know`.
        parts.extensions.get().cloned().ok_or(Error::NotFound)
    }
}

/// Reads the preferences of the reader, before anything can fail.
pub(crate) async fn know(mut request: Request, next: Next) -> Response {
    let theme = match cookie(request.headers(), "theme") {
        Some("light") => Some("light"),
        Some("dark") => Some("dark"),
        _ => None,
    };
    let address = request.uri().path_and_query().map(ToString::to_string);
    let reader = Reader {
        holder: None,
        theme,
        now: OffsetDateTime::now_utc(),
        address: address.unwrap_or_default(),
        everybody: false,
    };
    request.extensions_mut().insert(reader.clone());
    let mut response = next.run(request).await;
    response.extensions_mut().get_or_insert(reader);
    response
}

/// Admits a reader with a session or a token; others are sent to sign in.
pub(crate) async fn admit(
    State(shared): State<Shared>,
    request: Request,
    next: Next,
) -> Result<Response, Error> {
    let (mut parts, body) = request.into_parts();
    let now = OffsetDateTime::now_utc();
    let tokens = shared.tokens.get();
    let person = match &shared.people {
        Some(people) if !tokens.is_empty() => people.find(&parts.headers).await?,
        _ => None,
    };
    let holder = match Sent::find(&parts.headers, None) {
        _ if tokens.is_empty() => None,
        _ if person.is_some() => person,
        Sent::Nothing => match tokens.session(&parts.headers, now) {
            Some(holder) => Some(Arc::clone(holder)),
            None => return Ok(to_sign_in(&parts.uri)),
        },
        sent => match tokens.admit(&sent, Role::Read) {
            Ok(holder) => holder.cloned(),
            Err(refusal) => {
                let remote = parts.extensions.get::<ConnectInfo<SocketAddr>>();
                let remote = remote.map(|ConnectInfo(remote)| remote.ip());
                return Err(match shared.refusals.exceeded(remote).await {
                    true => Error::TooManyRefusals,
                    false => refusal,
                });
            }
        },
    };
    let everybody = tokens.is_empty();
    drop(tokens);
    let known = parts.extensions.get_mut::<Reader>();
    let reader = known.ok_or(Error::NotFound)?;
    reader.holder = holder;
    reader.everybody = everybody;
    let reader = reader.clone();
    let mut response = next.run(Request::from_parts(parts, body)).await;
    response.extensions_mut().insert(reader);
    Ok(response)
}

fn to_sign_in(uri: &Uri) -> Response {
    let wanted = uri.path_and_query().map_or("/", |it| it.as_str());
    let next: String = form_urlencoded::byte_serialize(wanted.as_bytes()).collect();
    Redirect::to(&format!("/login?next={next}")).into_response()
}
