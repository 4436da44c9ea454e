//! `GET /v1/repositories?prefix=&signatures=&limit=&cursor=`: the repositories that have a history.

use axum::Json;
use axum::extract::State;
use axum::http::Uri;
use axum::routing::on;
use tagtrail_config::Role;
use tagtrail_history::names::{self, KnownRepository};

use crate::http::error::Error;
use crate::http::operation::{Method, Operation, ResponseBody, schema};
use crate::http::paging::{CURSOR, Items, LIMIT, List, Page};
use crate::http::parameters::{Parameter, Parameters, SIGNATURES, optional, text};
use crate::shared::Shared;

const PREFIX: Parameter = optional(
    "prefix",
    "Only repositories whose name, with or without the registry, begins with this text.",
    "registry.example.com/shop/",
    text,
);

pub(crate) const REPOSITORIES: Operation = Operation {
    id: "repositories",
    method: Method::Get,
    path: "/v1/repositories",
    summary: "The repositories that have a history, by registry and name, with the number of their tags.",
    role: Role::Read,
    in_path: &[],
    query: &[PREFIX, SIGNATURES, LIMIT, CURSOR],
    header: &[],
    body: None,
    response: ResponseBody::Json(schema::<Items<KnownRepository>>),
    problems: &[
        (400, "flag_invalid"),
        (400, "limit_invalid"),
        (400, "cursor_invalid"),
    ],
    serve: |method| on(method, repositories),
};

const LIST: List<1> = List {
    name: "repositories",
    time: None,
};

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
    let signatures = parameters.flag(SIGNATURES.name)?;
    let page = Page::read(LIST, &parameters)?;
    let found = database
        .ask_large(async |db| {
            names::repositories(db, prefix.as_deref(), signatures, page.after, page.fetch()).await
        })
        .await?;
    Ok(Json(page.cut(found)))
}
