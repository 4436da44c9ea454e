//! `GET /v1/resolve?image=&at=&known_at=&revision=`: the revision of an image in force.

use axum::Json;
use axum::extract::State;
use axum::http::Uri;
use axum::routing::on;
use schemars::JsonSchema;
use serde::Serialize;
use tagtrail_config::Role;
use tagtrail_history::instant::Instant;
use tagtrail_history::resolve::{self, Resolution};
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
    /// The revision in force at a time.
    At(OffsetDateTime),
    /// The revision in force at `at`, without revisions recorded after `known_at`.
    KnownAt {
        at: Option<OffsetDateTime>,
        known_at: OffsetDateTime,
    },
    /// The revision with this number.
    Numbered(u64),
}

impl ResolveQuery {
    fn read(parameters: &Parameters) -> Result<ResolveQuery, Error> {
        let (at, known_at) = (parameters.time("at")?, parameters.time("known_at")?);
        match (parameters.revision()?, at, known_at) {
            (None, None, None) => Ok(ResolveQuery::Head),
            (None, Some(at), None) => Ok(ResolveQuery::At(at)),
            (None, at, Some(known_at)) => Ok(ResolveQuery::KnownAt { at, known_at }),
            (Some(revision), None, None) => Ok(ResolveQuery::Numbered(revision)),
            (Some(_), _, _) => Err(Error::RevisionAndTime),
        }
    }
}

async fn resolve(
    State(Shared {
        database,
        together,
        names,
        ..
    }): State<Shared>,
    uri: Uri,
) -> Result<Json<Resolved>, Error> {
    let parameters = Parameters::read(&uri, RESOLVE.query)?;
    let image = parameters.image(&names.get())?;
    let query = ResolveQuery::read(&parameters)?;
    let resolution = match query {
        ResolveQuery::Head => together.head(&image).await?,
        ResolveQuery::At(at) => together.at(&image, at).await?,
        // Revisions recorded later than `known_at` are passed over one by one.
        ResolveQuery::KnownAt { at, known_at } => {
            let question = async |db: &mut _| resolve::known_at(db, &image, at, known_at).await;
            database.ask_large(question).await?
        }
        ResolveQuery::Numbered(revision) => {
            let question = async |db: &mut _| resolve::numbered(db, &image, revision).await;
            database.ask(question).await?
        }
    };
    let found = match (resolution, query) {
        (Resolution::InForce(found), _) => found,
        (Resolution::Unknown, _) => return Err(Error::TagUnknown(image)),
        (Resolution::NotYet, ResolveQuery::Numbered(revision)) => {
            return Err(Error::RevisionUnknown { image, revision });
        }
        (Resolution::NotYet, _) => return Err(Error::TagNotYet(image)),
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
