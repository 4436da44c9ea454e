//! `GET /v1/manifests/{digest}`: the manifest of a digest.

use axum::Json;
use axum::extract::State;
use axum::http::Uri;
use axum::routing::on;
use tagtrail_config::Role;
use tagtrail_history::manifests;
use tagtrail_proto::{Digest, Manifest};

use crate::database::Database;
use crate::http::error::Error;
use crate::http::operation::{Method, Operation, ResponseBody, schema};
use crate::http::parameters::{Parameter, Parameters, PathValues, text};

const DIGEST: Parameter = Parameter {
    name: "digest",
    required: true,
    description: "A digest that an image has, or had.",
    example: "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
    schema: text,
};

pub(crate) const MANIFEST: Operation = Operation {
    id: "manifest",
    method: Method::Get,
    path: "/v1/manifests/{digest}",
    summary: "The manifest of a digest: platforms, creation time, labels and annotations.",
    role: Role::Read,
    in_path: &[DIGEST],
    query: &[],
    header: &[],
    body: None,
    response: ResponseBody::Json(schema::<Manifest>),
    problems: &[(400, "digest_invalid"), (404, "manifest_unknown")],
    serve: |method| on(method, manifest),
};

async fn manifest(
    State(database): State<Database>,
    path: PathValues,
    uri: Uri,
) -> Result<Json<Manifest>, Error> {
    let digest: Digest = path.parse(&DIGEST).map_err(Error::Digest)?;
    Parameters::read(&uri, MANIFEST.query)?;
    let found = database
        .ask(async |db| manifests::manifest(db, &digest).await)
        .await?;
    found.map(Json).ok_or(Error::ManifestUnknown(digest))
}
