//! `GET /v1/registries`: the registries that have a history, and the images that two of them share.

use axum::Json;
use axum::extract::State;
use axum::http::Uri;
use axum::routing::on;
use schemars::JsonSchema;
use serde::Serialize;
use tagtrail_config::Role;
use tagtrail_history::registries::{self, KnownRegistry, SharedImages};

use crate::database::Database;
use crate::http::error::Error;
use crate::http::operation::{Method, Operation, ResponseBody, schema};
use crate::http::parameters::Parameters;

pub(crate) const REGISTRIES: Operation = Operation {
    id: "registries",
    method: Method::Get,
    path: "/v1/registries",
    summary: "The registries that have a history, and pairs of them that have images of the same name: one registry under two names has two histories.",
    role: Role::Read,
    in_path: &[],
    query: &[],
    header: &[],
    body: None,
    response: ResponseBody::Json(schema::<Registries>),
    problems: &[],
    serve: |method| on(method, registries),
};

/// The registries that have a history.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct Registries {
    /// In the order of the alphabet.
    items: Vec<KnownRegistry>,
    /// The pairs that share images, the pair with the most images first; 100 at most.
    shared: Vec<SharedImages>,
}

async fn registries(State(database): State<Database>, uri: Uri) -> Result<Json<Registries>, Error> {
    Parameters::read(&uri, REGISTRIES.query)?;
    let answer = database.ask_large(async |db| {
        Ok(Registries {
            items: registries::known(db).await?,
            shared: registries::shared(db).await?,
        })
    });
    Ok(Json(answer.await?))
}
