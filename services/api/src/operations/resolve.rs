//! `GET /v1/resolve?image=&at=&known_at=&revision=`: the revision of an image in force.

use axum::Json;
use axum::extract::State;
use axum::http::Uri;
use axum::routing::on;
use schemars::JsonSchema;
use serde::Serialize;
use sqlx::PgConnection;
use tagtrail_config::Role;
use tagtrail_history::instant::Instant;
use tagtrail_history::resolve;
use tagtrail_history::tag_id;
use tagtrail_proto::{Digest, Image, Kind, Pinned};
use time::OffsetDateTime;

use crate::http::error::Error;
use crate::http::operation::{Method, Operation, ResponseBody, schema};
use crate::http::parameters::{AT, IMAGE, KNOWN_AT, Parameters, REVISION};
use crate::shared::Shared;

pub(crate) const RESOLVE: Operation = Operation {
    id: "resolve",
    method: Method::Get,
    path: "/v1/resolve",
    summary: "The revision of an image in force now or at a time, or the one with a number.",
    role: Role::Read,
    in_path: &[],
    query: &[IMAGE, AT, KNOWN_AT, REVISION],
    header: &[],
    body: None,
    response: ResponseBody::Json(schema::<Resolved>),
    problems: &[
        (400, "image_invalid"),
        (400, "time_invalid"),
        (400, "revision_invalid"),
        (400, "parameter_conflict"),
        (404, "tag_unknown"),
        (404, "tag_deleted"),
        (404, "revision_unknown"),
    ],
    serve: |method| on(method, resolve),
};

/// The revision in force.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct Resolved {
    image: Image,
    pinned: Pinned,
    digest: Digest,
    revision: u64,
    kind: Kind,
    occurred_at: Instant,
    recorded_at: Instant,
}

/// The revision that a request asks for.
#[derive(Debug, Clone, Copy)]
enum ResolveQuery {
    /// The revision in force now.
    Head,
    /// The revision in force at `at`, without revisions recorded after `known_at`.
    AsOf {
        at: Option<OffsetDateTime>,
        known_at: Option<OffsetDateTime>,
    },
    /// The revision with this number.
    Numbered(u64),
}

impl ResolveQuery {
    fn read(parameters: &Parameters) -> Result<ResolveQuery, Error> {
        let (at, known_at) = (parameters.time("at")?, parameters.time("known_at")?);
        match (parameters.revision()?, at, known_at) {
            (None, None, None) => Ok(ResolveQuery::Head),
            (None, at, known_at) => Ok(ResolveQuery::AsOf { at, known_at }),
            (Some(revision), None, None) => Ok(ResolveQuery::Numbered(revision)),
            (Some(_), _, _) => Err(Error::RevisionAndTime),
        }
    }
}

async fn resolve(
    State(Shared {
        database, names, ..
    }): State<Shared>,
    uri: Uri,
) -> Result<Json<Resolved>, Error> {
    let parameters = Parameters::read(&uri, RESOLVE.query)?;
    let image = parameters.image(&names)?;
    let query = ResolveQuery::read(&parameters)?;
    let question = async |db: &mut PgConnection| {
        let found = match query {
            ResolveQuery::Head => resolve::head(db, &image).await?,
            ResolveQuery::AsOf { at, known_at } => resolve::as_of(db, &image, at, known_at).await?,
            ResolveQuery::Numbered(revision) => resolve::numbered(db, &image, revision).await?,
        };
        let known = found.is_some() || tag_id(db, &image).await?.is_some();
        Ok((found, known))
    };
    let (found, known) = match query {
        // Revisions recorded later than `known_at` are passed over one by one.
        ResolveQuery::AsOf {
            known_at: Some(_), ..
        } => database.ask_large(question).await?,
        _ => database.ask(question).await?,
    };
    let Some(found) = found else {
        return Err(match query {
            ResolveQuery::Numbered(revision) if known => Error::RevisionUnknown { image, revision },
            ResolveQuery::AsOf { .. } if known => Error::TagNotYet(image),
            _ => Error::TagUnknown(image),
        });
    };
    let Some(digest) = found.digest else {
        return Err(Error::TagDeleted {
            image,
            revision: found.revision,
            at: Instant(found.occurred_at),
        });
    };
    Ok(Json(Resolved {
        pinned: image.pinned(&digest),
        image,
        digest,
        revision: found.revision,
        kind: found.kind,
        occurred_at: Instant(found.occurred_at),
        recorded_at: Instant(found.recorded_at),
    }))
}
