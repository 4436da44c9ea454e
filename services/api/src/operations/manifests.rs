//! `GET /v1/manifests/{digest}`: the manifest of a digest.

use axum::Json;
use axum::extract::State;
use axum::http::Uri;
use axum::routing::on;
use tagtrail_config::Role;
use tagtrail_history::manifests;
use tagtrail_proto::Manifest;

use crate::database::Database;
use crate::http::error::Error;
use crate::http::operation::{Method, Operation, ResponseBody, schema};
use crate::http::parameters::{Parameters, PathValues};
use crate::operations::digests::{DIGEST_IN_PATH, whole_digest};

pub(crate) const MANIFEST: Operation = Operation {
    id: "manifest",
    method: Method::Get,
    path: "/v1/manifests/{digest}",
    summary: "The manifest of a digest: platforms, creation time, labels, annotations, layers and settings.",
    role: Role::Read,
    in_path: &[DIGEST_IN_PATH],
    query: &[],
    header: &[],
    body: None,
    response: ResponseBody::Json(schema::<Manifest>),
    problems: &[
        (400, "digest_invalid"),
        (400, "digest_ambiguous"),
        (404, "digest_unknown"),
        (404, "manifest_unknown"),
    ],
    serve: |method| on(method, manifest),
};

async fn manifest(
    State(database): State<Database>,
    path: PathValues,
    uri: Uri,
) -> Result<Json<Manifest>, Error> {
    Parameters::read(&uri, MANIFEST.query)?;
    let digest = whole_digest(&database, &path).await?;
    let found = database
        .ask(async |db| manifests::manifest(db, &digest).await)
        .await?;
    found.map(Json).ok_or(Error::ManifestUnknown(digest))
}
