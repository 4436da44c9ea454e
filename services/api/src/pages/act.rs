//! Acts that people order on pages. Each is carried out by its operation of the API, with that
//! operation's checks, record of acts, log and metrics.

use std::net::SocketAddr;

use axum::body::Body;
use axum::extract::{ConnectInfo, FromRequestParts};
use axum::http::header::CONTENT_TYPE;
use axum::http::request::Parts;
use axum::http::{Method, Request, StatusCode};
use axum::response::{Html, IntoResponse as _, Redirect, Response};
use serde_json::Value;
use sqlx::PgConnection;
use tagtrail_config::Role;
use tower_service::Service as _;

use crate::http::error::Error;
use crate::http::parameters::{Parameter, text};
use crate::http::session::SignedIn;
use crate::pages::Operations;
use crate::pages::part::form::Fields;
use crate::pages::reader::Reader;
use crate::shared::Shared;
use crate::store::acts;

/// The name of an act in the path of a page.
pub(crate) const ACT: Parameter = Parameter {
    name: "act",
    required: true,
    description: "Name of the act.",
    example: "pause",
    schema: text,
};

/// The person who acts, and the API that carries the act out.
pub(crate) struct Acting {
    pub(crate) reader: Reader,
    api: Operations,
    remote: Option<ConnectInfo<SocketAddr>>,
}

/// A call of the API.
#[derive(Debug)]
pub(crate) struct Order {
    pub(crate) method: Method,
    pub(crate) path: String,
    pub(crate) body: Value,
    /// The role that the operation needs.
    pub(crate) role: Role,
    /// The trigger on which it acts, if it is one.
    pub(crate) trigger: Option<String>,
}

impl<S: Send + Sync> FromRequestParts<S> for Acting {
    type Rejection = Error;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Acting, Error> {
        let reader = Reader::from_request_parts(parts, state).await?;
        let api = parts.extensions.get::<Operations>().cloned();
        Ok(Acting {
            reader,
            api: api.ok_or(Error::NotFound)?,
            remote: parts.extensions.get().copied(),
        })
    }
}

impl Acting {
    /// Carries out an order if the person saw the present state, which `now` returns for the form
    /// that was sent; otherwise nothing is done, and the answer is the page with the news, which
    /// `again` draws.
    pub(crate) async fn order<T>(
        self,
        shared: &Shared,
        fields: &Fields,
        order: Order,
        (state, now): (T, String),
        again: impl FnOnce(&Reader, T) -> Html<String>,
        then: &str,
    ) -> Result<Response, Error> {
        let key = fields.text("key").ok_or(Error::IdempotencyKey)?;
        // The operation refuses, logs and shows an act that the role or the file forbids.
        let refused = self.is_forbidden(&order);
        if !refused && fields.text("seen") != Some(&now) {
            let name = self.reader.name().unwrap_or_default();
            let repeated = shared
                .database
                .ask(async |db| acts::has_key(db, name, key).await)
                .await?;
            // A form that was sent twice acts once, and leads to the same page.
            if !repeated {
                let page = again(&self.reader, state);
                return Ok((StatusCode::CONFLICT, page).into_response());
            }
        }
        let response = self.call(key, order).await?;
        Ok(match response.status().is_success() {
            true => Redirect::to(then).into_response(),
            false => response,
        })
    }

    fn is_forbidden(&self, order: &Order) -> bool {
        let may = match &order.trigger {
            Some(trigger) => shows(&self.reader, order.role, trigger, false),
            None => self.reader.may(order.role),
        };
        !may
    }

    /// Calls the operation. An answer that is a problem is shown as a page.
    pub(crate) async fn call(self, key: &str, order: Order) -> Result<Response, Error> {
        let request = Request::builder()
            .method(order.method)
            .uri(order.path)
            .header(CONTENT_TYPE, "application/json")
            .header("idempotency-key", key)
            .body(Body::from(order.body.to_string()));
        // A key that no header can hold.
        let mut request = request.map_err(|_| Error::IdempotencyKey)?;
        let extensions = request.extensions_mut();
        extensions.insert(SignedIn(self.reader.holder.clone()));
        if let Some(remote) = self.remote {
            extensions.insert(remote);
        }
        let Operations(mut api) = self.api;
        let response = match api.call(request).await {
            Ok(response) => response,
            Err(never) => match never {},
        };
        // Only a renamed trigger is redirected; its page has another address.
        match response.status().is_redirection() {
            true => Err(Error::TriggerUnknown),
            false => Ok(response),
        }
    }
}

/// Returns whether triggers carry the name of the reader's token, so that it acts on these alone.
/// Tokens that list their triggers, and those that may not act, are never asked about.
pub(crate) async fn is_named(db: &mut PgConnection, reader: &Reader) -> Result<bool, sqlx::Error> {
    match &reader.holder {
        Some(holder)
            if holder.triggers.is_none() && holder.own.is_some() && holder.role != Role::Read =>
        {
            acts::carries(db, &holder.name).await
        }
        _ => Ok(false),
    }
}

/// Returns whether the forms of this role about a trigger are shown. The operation checks it again.
pub(crate) fn shows(reader: &Reader, role: Role, trigger: &str, named: bool) -> bool {
    reader.may_act(role, named, |glob| glob.matches(trigger))
}
