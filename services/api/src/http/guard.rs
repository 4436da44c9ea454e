//! The check of the token before an operation, the log of refusals, and the author of an act.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use axum::extract::{ConnectInfo, FromRequestParts as _, RawPathParams, Request, State};
use axum::http::header::AUTHORIZATION;
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method};
use axum::middleware::Next;
use axum::response::Response;
use tagtrail_config::{Role, TriggerGlob};
use tagtrail_daemon::Refusals;
use tagtrail_proto::Name;
use time::OffsetDateTime;
use uuid::Uuid;

use crate::database::Database;
use crate::follow::Current;
use crate::http::error::Error;
use crate::http::identity::People;
use crate::http::parameters::{Parameter, optional, text};
use crate::http::session::SignedIn;
use crate::http::tokens::{Holder, Sent, Tokens};
use crate::store::acts;

pub(crate) const IDEMPOTENCY_KEY: Parameter = optional(
    "Idempotency-Key",
    "A key of the caller's choice. An order with the key of an earlier one of the last 24 h is not carried out again.",
    "0198c5b0-7a3e-7c51-9f6d-2f1f5d1c9a11",
    text,
);
pub(crate) const REQUEST: Parameter = optional(
    "X-Request-Id",
    "The id of the request in the record of acts; the answer repeats it.",
    "0198c5b0-7a3e-7c51-9f6d-2f1f5d1c9a11",
    text,
);
/// The parameters in headers of each operation that acts.
pub(crate) const ACTING: &[Parameter] = &[IDEMPOTENCY_KEY, REQUEST];
const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
/// Longest key and id, in bytes.
const LONGEST: usize = 100;

/// The check before an operation.
#[derive(Clone)]
pub(crate) struct Guard {
    pub(crate) tokens: Current<Tokens>,
    pub(crate) refusals: Arc<Refusals>,
    /// The people whom a proxy has signed in.
    pub(crate) people: Option<Arc<People>>,
    pub(crate) role: Role,
    /// Whether the query may carry the token.
    pub(crate) in_query: bool,
    /// The path of the operation.
    pub(crate) path: &'static str,
    /// The id of the operation.
    pub(crate) operation: &'static str,
    pub(crate) database: Database,
}

/// The author of a request, and the request as the record of acts names it.
#[derive(Clone)]
pub(crate) struct Actor {
    holder: Option<Arc<Holder>>,
    remote: Option<SocketAddr>,
    /// The id of the request: the client's, or a new one.
    pub(crate) request_id: String,
    pub(crate) idempotency_key: Option<String>,
    guard: Guard,
}

/// The object of an act, in the refusal of a token of some triggers.
pub(crate) const QUARANTINE: &str = "bodies in quarantine, which belong to no trigger";

impl Actor {
    /// The name of the token.
    pub(crate) fn token(&self) -> Option<&str> {
        self.holder.as_ref().map(|holder| holder.name.as_str())
    }

    /// The name of the token, or `local` without tokens.
    pub(crate) fn name(&self) -> &str {
        self.token().unwrap_or("local")
    }

    /// The role of the token.
    pub(crate) fn role(&self) -> Option<&'static str> {
        self.holder.as_ref().map(|holder| holder.role.as_str())
    }

    /// The address of the client, or of the proxy before the api.
    pub(crate) fn address(&self) -> Option<IpAddr> {
        self.remote.map(|remote| remote.ip())
    }

    /// Checks that the actor may act on all triggers of a pattern, and logs a refusal.
    pub(crate) async fn may_hold(&self, triggers: &TriggerGlob) -> Result<(), Error> {
        let about = || format!("all of {triggers}");
        self.check_scope(|glob| glob.covers(triggers), about).await
    }

    /// Checks that the actor may see and replay bodies in quarantine, and logs a refusal: a token
    /// of some triggers may not, since a body may be about the images of any.
    pub(crate) async fn may_see_quarantine(&self) -> Result<(), Error> {
        let about = || QUARANTINE.to_owned();
        self.check_scope(TriggerGlob::is_of_all, about).await
    }

    /// Checks that the actor may act on a trigger. A refusal is logged, and shown by the trigger.
    pub(crate) async fn may_act_on(&self, trigger: &str) -> Result<(), Error> {
        let name = trigger.parse::<Name>().ok();
        // A path may hold any text; only a name is repeated.
        let about = || match &name {
            Some(name) => format!("the trigger {name}"),
            None => "this trigger".to_owned(),
        };
        let checked = self.check_scope(|glob| glob.matches(trigger), about).await;
        if let (Err(Error::OutOfScope { .. } | Error::OutOfName { .. }), Some(name)) =
            (&checked, &name)
        {
            let (actor, act) = (self.name(), self.guard.operation);
            let shown = self
                .guard
                .database
                .ask(async |db| acts::refuse(db, name, actor, act).await);
            if let Err(error) = shown.await {
                tracing::warn!(trigger = %name, "a refused act can't be shown by the trigger {name}: {error}");
            }
        }
        checked
    }

    /// Checks that a pattern of the token covers the act.
    async fn check_scope(
        &self,
        covers: impl Fn(&TriggerGlob) -> bool,
        about: impl Fn() -> String,
    ) -> Result<(), Error> {
        let Some(holder) = &self.holder else {
            return Ok(());
        };
        // Most acts are allowed whether or not triggers carry the name, which takes a query.
        if holder.may_act(true, &covers) {
            return Ok(());
        }
        let database = &self.guard.database;
        let listed = holder.triggers.is_some();
        if !listed
            && !database
                .ask(async |db| acts::carries(db, &holder.name).await)
                .await?
        {
            return Ok(());
        }
        let (token, trigger) = (holder.name.clone(), about());
        let refusal = match listed {
            true => Error::OutOfScope { token, trigger },
            false => Error::OutOfName { token, trigger },
        };
        Err(self.guard.refuse(refusal, self.remote).await)
    }
}

impl fmt::Display for Actor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())?;
        match self.remote {
            Some(remote) => write!(f, " at {remote}"),
            None => Ok(()),
        }
    }
}

/// Checks the token before anything else of the request is read.
pub(crate) async fn admit(
    State(guard): State<Guard>,
    request: Request,
    next: Next,
) -> Result<Response, Error> {
    let (mut parts, body) = request.into_parts();
    let remote = parts.extensions.get::<ConnectInfo<SocketAddr>>();
    let remote = remote.map(|ConnectInfo(remote)| *remote);
    let query = match guard.in_query {
        true => parts.uri.query(),
        false => None,
    };
    let tokens = guard.tokens.get();
    let admitted = match signed_in(&guard, &tokens, &parts).await? {
        Some(SignedIn(None)) => Ok(None),
        Some(SignedIn(Some(holder))) => holder.check(guard.role).map(|()| Some(holder)),
        None => {
            let sent = Sent::find(&parts.headers, query);
            let admitted = tokens.admit(&sent, guard.role);
            admitted.map(|holder| holder.cloned())
        }
    };
    let holder = match admitted {
        Ok(holder) => holder,
        Err(refusal) => return Err(guard.refuse(refusal, remote).await),
    };
    let acts = guard.role != Role::Read;
    let actor = Actor {
        holder,
        remote,
        request_id: request_id(&parts.headers),
        idempotency_key: match acts {
            true => idempotency_key(&parts.headers)?,
            false => None,
        },
        guard,
    };
    if acts && let Ok(values) = RawPathParams::from_request_parts(&mut parts, &()).await {
        for (_, trigger) in values.iter().filter(|(name, _)| *name == "name") {
            actor.may_act_on(trigger).await?;
        }
    }
    let id = HeaderValue::from_str(&actor.request_id).ok();
    parts.extensions.insert(actor);
    let mut response = next.run(Request::from_parts(parts, body)).await;
    if acts && let Some(id) = id {
        response.headers_mut().insert(REQUEST_ID, id);
    }
    Ok(response)
}

/// Returns the holder of whom the pages have made sure, whom a proxy names, or of whom a browser
/// shows a session. The last two open only operations that read: `EventSource` and links send no
/// token.
async fn signed_in(
    guard: &Guard,
    tokens: &Tokens,
    request: &Parts,
) -> Result<Option<SignedIn>, Error> {
    if let Some(signed_in) = request.extensions.get::<SignedIn>() {
        return Ok(Some(signed_in.clone()));
    }
    let reads = guard.role == Role::Read && request.method == Method::GET;
    if !reads || tokens.is_empty() {
        return Ok(None);
    }
    if let Some(people) = &guard.people
        && let Some(person) = people.find(&request.headers).await?
    {
        return Ok(Some(SignedIn(Some(person))));
    }
    if request.headers.contains_key(AUTHORIZATION) {
        return Ok(None);
    }
    let holder = tokens.session(&request.headers, OffsetDateTime::now_utc());
    Ok(holder.map(|holder| SignedIn(Some(Arc::clone(holder)))))
}

/// Returns the client's id of a request if it has a usable form, or else a new one.
fn request_id(headers: &HeaderMap) -> String {
    let given = headers.get(REQUEST_ID).and_then(visible);
    given.map_or_else(|| Uuid::now_v7().to_string(), ToOwned::to_owned)
}

fn idempotency_key(headers: &HeaderMap) -> Result<Option<String>, Error> {
    let mut values = headers.get_all("idempotency-key").iter();
    match (values.next(), values.next()) {
        (None, _) => Ok(None),
        (Some(value), None) => visible(value)
            .map(|key| Some(key.to_owned()))
            .ok_or(Error::IdempotencyKey),
        _ => Err(Error::IdempotencyKey),
    }
}

fn visible(value: &HeaderValue) -> Option<&str> {
    let text = value.to_str().ok()?;
    let right =
        (1..=LONGEST).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_graphic());
    right.then_some(text)
}

impl Guard {
    /// Logs a refusal. A client of many without a right token receives another error, after a
    /// moment.
    async fn refuse(&self, refusal: Error, remote: Option<SocketAddr>) -> Error {
        let address = remote.map(|remote| remote.ip());
        if let Some(count) = self.refusals.line(address) {
            let token = match &refusal {
                Error::Forbidden { token, .. }
                | Error::OutOfScope { token, .. }
                | Error::OutOfName { token, .. }
                | Error::TokenInQuery { token } => token,
                _ => "",
            };
            let remote = remote.map_or_else(|| "unknown".to_owned(), |it| it.to_string());
            let (route, act) = (self.path, self.operation);
            match self.role {
                Role::Read => {
                    tracing::warn!(remote, token, route, count, "refused a request: {refusal}");
                }
                _ => tracing::warn!(
                    remote,
                    token,
                    route,
                    act,
                    count,
                    "refused a request, so nothing was switched or ordered: {refusal}"
                ),
            }
        }
        let wrong = matches!(refusal, Error::Unauthenticated | Error::WrongToken);
        if wrong && self.refusals.exceeded(address).await {
            return Error::TooManyRefusals;
        }
        refusal
    }
}
