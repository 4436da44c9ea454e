//! `GET /v1/repositories?prefix=&q=&sort=&signatures=&limit=&cursor=`: the repositories that have a
//! history.

use axum::Json;
use axum::extract::State;
use axum::http::Uri;
use axum::routing::on;
use serde_json::json;
use tagtrail_config::Role;
use tagtrail_history::names::{self, KnownRepository, Order, RepositoriesQuery};
use time::OffsetDateTime;

use crate::http::error::Error;
use crate::http::operation::{Method, Operation, ResponseBody, schema};
use crate::http::paging::{CURSOR, Items, LIMIT, List, Page};
use crate::http::parameters::{PART, Parameter, Parameters, SIGNATURES, optional, text};
use crate::shared::Shared;

const PREFIX: Parameter = optional(
    "prefix",
    "Only repositories whose name, with or without the registry, begins with this text.",
    "registry.example.com/shop/",
    text,
);
const SORT: Parameter = optional(
    "sort",
    "The order: by registry and `name`, the `newest` change of a tag first, or the most `changes` in 24 hours first.",
    "changes",
    || json!({ "type": "string", "enum": Order::EVERY.map(Order::as_str), "default": "name" }),
);

pub(crate) const REPOSITORIES: Operation = Operation {
    id: "repositories",
    method: Method::Get,
    path: "/v1/repositories",
    summary: "The repositories that have a history, with the number of their tags and recent changes.",
    role: Role::Read,
    in_path: &[],
    query: &[PREFIX, PART, SORT, SIGNATURES, LIMIT, CURSOR],
    header: &[],
    body: None,
    response: ResponseBody::Json(schema::<Items<KnownRepository>>),
    problems: &[
        (400, "choice_invalid"),
        (400, "flag_invalid"),
        (400, "limit_invalid"),
        (400, "cursor_invalid"),
    ],
    serve: |method| on(method, repositories),
};

/// Returns the list in this order: each has cursors of its own.
fn list(order: Order) -> List<2> {
    let (name, time) = match order {
        Order::Name => ("repositories", None),
        Order::Newest => ("repositories_newest", Some(0)),
        Order::Changes => ("repositories_changes", None),
    };
    List { name, time }
}

async fn repositories(
    State(Shared {
        database, names, ..
    }): State<Shared>,
    uri: Uri,
) -> Result<Json<Items<KnownRepository>>, Error> {
    let parameters = Parameters::read(&uri, REPOSITORIES.query)?;
    let current = names.get();
    let prefix = parameters
        .text(PREFIX.name)
        .map(|prefix| current.without_alias(prefix));
    let query = RepositoriesQuery {
        prefix: prefix.as_deref(),
        part: parameters.written(PART.name),
        signatures: parameters.flag(SIGNATURES.name)?,
        order: parameters
            .choice(SORT.name, &Order::EVERY, Order::as_str)?
            .unwrap_or(Order::Name),
        now: OffsetDateTime::now_utc(),
    };
    let page = Page::read(list(query.order), &parameters)?;
    let found = database
        .ask_large(async |db| names::repositories(db, query, page.after, page.fetch()).await)
        .await?;
    Ok(Json(page.cut(found)))
}
