//! Old names of triggers: a permanent redirect to the present name.

use axum::extract::{FromRequestParts as _, RawPathParams, Request, State};
use axum::http::header::LOCATION;
use axum::http::{HeaderValue, StatusCode};
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Response};

use crate::database::Database;
use crate::store;

/// The start of the path of each trigger.
const BELOW: &str = "/v1/triggers/";

/// Answers 308 in place of 404 where the path has an old name of a trigger. The request has changed
/// nothing by then, since there is no trigger of this name.
pub(crate) async fn follow(
    State(database): State<Database>,
    request: Request,
    next: Next,
) -> Response {
    let (mut parts, body) = request.into_parts();
    let values = RawPathParams::from_request_parts(&mut parts, &()).await;
    let name = values.ok().and_then(|values| {
        let mut values = values.iter();
        let (_, name) = values.find(|(parameter, _)| *parameter == "name")?;
        name.parse().ok()
    });
    let uri = parts.uri.clone();
    let response = next.run(Request::from_parts(parts, body)).await;
    let (Some(name), StatusCode::NOT_FOUND) = (name, response.status()) else {
        return response;
    };
    let renamed = database.ask(async |db| store::triggers::renamed(db, &name).await);
    let Ok(Some(new)) = renamed.await else {
        return response;
    };
    let rest = uri
        .path()
        .strip_prefix(BELOW)
        .and_then(|below| below.find('/').map(|at| &below[at..]));
    let query = uri
        .query()
        .map(|query| format!("?{query}"))
        .unwrap_or_default();
    let place = format!("{BELOW}{new}{}{query}", rest.unwrap_or_default());
    match HeaderValue::from_str(&place) {
        Ok(place) => (StatusCode::PERMANENT_REDIRECT, [(LOCATION, place)]).into_response(),
        Err(_) => response,
    }
}
