//! `GET /v1/compare?a=&b=`: two digests side by side.

mod contents;

use std::collections::BTreeMap;

use axum::Json;
use axum::extract::State;
use axum::http::Uri;
use axum::response::{IntoResponse as _, Response};
use axum::routing::on;
use schemars::JsonSchema;
use serde::Serialize;
use tagtrail_config::Role;
use tagtrail_history::instant::Instant;
use tagtrail_history::manifests::manifests;
use tagtrail_history::prefix::DigestPrefix;
use tagtrail_proto::{Digest, Manifest};

use crate::database::Database;
use crate::http::error::Error;
use crate::http::operation::{Method, Operation, ResponseBody, schema};
use crate::http::parameters::{Parameter, Parameters, optional, text};
use crate::operations::digests::whole;
use crate::operations::keep;
use contents::Both;
pub(crate) use contents::{LayerComparison, LayerSet};

const A: Parameter = Parameter {
    required: true,
    ..optional(
        "a",
        "The digest before, or its first six or more hex digits.",
        "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
        text,
    )
};
const B: Parameter = Parameter {
    required: true,
    ..optional(
        "b",
        "The digest after, or its first six or more hex digits.",
        "sha256:01ba4719c80b6fe911b091a7c05124b64eeece964e09c058ef8f9805daca546b",
        text,
    )
};

pub(crate) const COMPARE: Operation = Operation {
    id: "compare",
    method: Method::Get,
    path: "/v1/compare",
    summary: "The manifests of two digests side by side: fields, layers and settings.",
    role: Role::Read,
    in_path: &[],
    query: &[A, B],
    header: &[],
    body: None,
    response: ResponseBody::Json(schema::<Comparison>),
    problems: &[
        (400, "digest_invalid"),
        (400, "digest_ambiguous"),
        (404, "digest_unknown"),
        (404, "manifest_unknown"),
    ],
    serve: |method| on(method, compare_digests),
};

/// Two digests side by side.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct Comparison {
    /// The digest before.
    pub(crate) a: Digest,
    /// The digest after.
    pub(crate) b: Digest,
    /// The fields that either of them has.
    pub(crate) fields: Vec<Field>,
    /// The layers of both images, or of one image of each index. Null: those of one side are not
    /// known.
    pub(crate) layers: Option<LayerComparison>,
    /// The reasons for which something is not compared.
    pub(crate) notes: Vec<String>,
}

/// A field of both digests.
#[derive(Debug, PartialEq, Eq, Serialize, JsonSchema)]
pub(crate) struct Field {
    pub(crate) group: Group,
    /// Name of the field, or of the label or annotation.
    pub(crate) name: String,
    /// The value before; none if it is absent.
    pub(crate) before: Option<String>,
    /// The value after; none if it is absent.
    pub(crate) after: Option<String>,
    pub(crate) difference: Difference,
}

/// The group of a field.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Group {
    /// The source of the image.
    Built,
    /// The contents of the image. `size` is the sum of its layers in bytes; `ports`, `entrypoint`
    /// and `command` are JSON lists.
    Contents,
    /// A variable of the environment.
    Environment,
    Label,
    Annotation,
}

/// The difference of a field.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Difference {
    Same,
    Changed,
    Added,
    Gone,
}

/// Keys that have a field of their own.
const OWN: [&str; 6] = [
    "org.opencontainers.image.revision",
    "org.opencontainers.image.version",
    "org.opencontainers.image.source",
    "org.opencontainers.image.created",
    BASE_NAME,
    BASE_DIGEST,
];
const BASE_NAME: &str = "org.opencontainers.image.base.name";
const BASE_DIGEST: &str = "org.opencontainers.image.base.digest";

/// Compares two manifests.
pub(crate) fn compare(before: &Manifest, after: &Manifest) -> Comparison {
    let (mut fields, both) = (Vec::new(), Both::of(before, after));
    let mut add = |group, name: &str, of: fn(&Manifest) -> Option<String>| {
        fields.extend(field(group, name, of(before), of(after)));
    };
    add(Group::Built, "commit", |one| one.revision.clone());
    add(Group::Built, "version", |one| one.version.clone());
    add(Group::Built, "built", |one| {
        one.created.map(|at| Instant(at).to_string())
    });
    add(Group::Built, "base image", |one| known(one, BASE_NAME));
    add(Group::Built, "base digest", |one| known(one, BASE_DIGEST));
    add(Group::Built, "source", |one| one.source.clone());
    add(Group::Contents, "platforms", |one| {
        let names: Vec<String> = one.platforms.iter().map(ToString::to_string).collect();
        (!names.is_empty()).then(|| names.join(", "))
    });
    add(Group::Contents, "media type", |one| {
        Some(one.media_type.clone())
    });
    add(Group::Contents, "artifact type", |one| {
        one.artifact_type.clone()
    });
    fields.extend(both.fields());
    let mut texts = |group, before: &BTreeMap<String, String>, after: &BTreeMap<_, _>| {
        let new = after.keys().filter(|key| !before.contains_key(*key));
        for key in before.keys().chain(new) {
            if !OWN.contains(&key.as_str()) {
                let (before, after) = (before.get(key).cloned(), after.get(key).cloned());
                fields.extend(field(group, key, before, after));
            }
        }
    };
    texts(Group::Label, &before.labels, &after.labels);
    texts(Group::Annotation, &before.annotations, &after.annotations);
    Comparison {
        a: before.digest.clone(),
        b: after.digest.clone(),
        fields,
        layers: both.layers(),
        notes: both.notes(),
    }
}

fn field(group: Group, name: &str, before: Option<String>, after: Option<String>) -> Option<Field> {
    let difference = match (&before, &after) {
        (None, None) => return None,
        (None, Some(_)) => Difference::Added,
        (Some(_), None) => Difference::Gone,
        (Some(before), Some(after)) if before == after => Difference::Same,
        _ => Difference::Changed,
    };
    Some(Field {
        group,
        name: name.to_owned(),
        before,
        after,
        difference,
    })
}

fn known(manifest: &Manifest, key: &str) -> Option<String> {
    let found = manifest.annotations.get(key);
    found.or_else(|| manifest.labels.get(key)).cloned()
}

async fn compare_digests(State(database): State<Database>, uri: Uri) -> Result<Response, Error> {
    let parameters = Parameters::read(&uri, COMPARE.query)?;
    let read = |name| {
        let text = parameters.text(name).unwrap_or_default();
        text.parse().map_err(Error::Digest)
    };
    let (a, b): (DigestPrefix, DigestPrefix) = (read(A.name)?, read(B.name)?);
    // Further digests may begin with the digits of a prefix.
    let is_final = [&a, &b]
        .iter()
        .all(|one| matches!(one, DigestPrefix::Whole(_)));
    let a = whole(&database, a).await?;
    let b = whole(&database, b).await?;
    let mut found = database
        .ask(async |db| manifests(db, &[&a, &b]).await)
        .await?;
    let before = found.get(&a).cloned();
    let before = before.ok_or_else(|| Error::ManifestUnknown(a.clone()))?;
    let after = match a == b {
        true => before.clone(),
        false => found
            .remove(&b)
            .ok_or_else(|| Error::ManifestUnknown(b.clone()))?,
    };
    let answer = Json(compare(&before, &after)).into_response();
    // A digest names its bytes, and a manifest is read once.
    Ok(keep(answer, is_final))
}
