//! `GET /v1/triggers/{name}/explain?at=&limit=`: why a trigger stands for these tags.

use std::collections::BTreeMap;

use axum::Json;
use axum::extract::State;
use axum::http::Uri;
use axum::routing::on;
use schemars::JsonSchema;
use serde::Serialize;
use serde_json::{Value, json};
use sqlx::PgConnection;
use tagtrail_config::Role;
use tagtrail_history::instant::Instant;
use tagtrail_policy::selection::{
    Fit, Key, Last, Outcome, Reason as Against, Selection, TagHead, Times,
};
use tagtrail_policy::watched::{Watched, WatchedPolicy};
use tagtrail_proto::{Digest, Image, Name, RolloutImage, Tag};
use time::OffsetDateTime;

use crate::database::Database;
use crate::http::error::Error;
use crate::http::operation::{Method, Operation, ResponseBody, schema};
use crate::http::parameters::{AT, Parameter, Parameters, PathValues, optional};
use crate::operations::triggers::NAME;
use crate::store;
use crate::store::explain::TagThen;
use crate::store::triggers::Trigger;

/// Tags of each image without `limit`.
pub(crate) const USUAL: usize = 10;
/// Most tags of each image.
const MOST: usize = 100;
/// The best tags whose manifests are judged.
const JUDGED: usize = 200;

const TAGS: Parameter = optional(
    "limit",
    "Most tags of each image.",
    "10",
    || json!({ "type": "integer", "minimum": 1, "maximum": MOST, "default": USUAL }),
);
const THEN: Parameter = Parameter {
    description: "The heads, and the last rollout, that were recorded up to this time (RFC 3339); the rule is the present one.",
    ..AT
};

pub(crate) const EXPLAIN: Operation = Operation {
    id: "explain",
    method: Method::Get,
    path: "/v1/triggers/{name}/explain",
    summary: "For each image of a trigger the selected tag, the next best tags, and why each of them is not selected.",
    role: Role::Read,
    in_path: &[NAME],
    query: &[THEN, TAGS],
    header: &[],
    body: None,
    response: ResponseBody::Json(schema::<Explained>),
    problems: &[
        (400, "time_invalid"),
        (400, "limit_invalid"),
        (404, "trigger_unknown"),
    ],
    serve: |method| on(method, explain),
};

/// Why a trigger stands for these tags.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct Explained {
    pub(crate) trigger: String,
    /// The time of the heads.
    pub(crate) at: Instant,
    /// The images, by their names in the trigger.
    pub(crate) images: BTreeMap<String, ExplainedImage>,
    /// The triggers whose images are taken over, in place of images of its own, as in
    /// `tagtrail.toml`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) follow: Option<Value>,
}

/// An image of a trigger.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct ExplainedImage {
    /// The tag, or the repository of a policy.
    pub(crate) image: String,
    /// The settings of the policy; null for a tag, whose digest is followed.
    pub(crate) rule: Option<Value>,
    /// The tag that the image stands for; null if there is none.
    pub(crate) selected: Option<SelectedHead>,
    /// The other tags: those that the rule takes first, the best one first.
    pub(crate) passed_over: Vec<PassedOverTag>,
    /// Number of tags that are left out.
    pub(crate) left: u64,
}

/// The tag that an image stands for.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct SelectedHead {
    pub(crate) tag: Tag,
    pub(crate) digest: Digest,
    pub(crate) revision: u64,
}

/// A tag that is not selected.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct PassedOverTag {
    pub(crate) tag: Tag,
    /// Null: the tag is deleted.
    pub(crate) digest: Option<Digest>,
    /// The reason as a fixed word, such as `min_age`, `platforms`, `range` and `lower`.
    pub(crate) code: String,
    /// The reason, for people.
    pub(crate) why: String,
    /// Time at which the reason ends by itself, if known.
    pub(crate) opens_at: Option<Instant>,
}

async fn explain(
    State(database): State<Database>,
    path: PathValues,
    uri: Uri,
) -> Result<Json<Explained>, Error> {
    let parameters = Parameters::read(&uri, EXPLAIN.query)?;
    let name: Name = path.parse(&NAME).map_err(|_| Error::TriggerUnknown)?;
    let limit = match parameters.text("limit") {
        None => USUAL,
        Some(text) => match text.parse() {
            Ok(limit @ 1..=MOST) => limit,
            _ => return Err(Error::Limit { most: MOST }),
        },
    };
    let at = parameters.time("at")?;
    let found = database
        .ask_large(async |db| explained(db, &name, at, limit).await)
        .await?;
    found.map(Json).ok_or(Error::TriggerUnknown)
}

pub(crate) async fn explained(
    db: &mut PgConnection,
    name: &Name,
    at: Option<OffsetDateTime>,
    limit: usize,
) -> Result<Option<Explained>, sqlx::Error> {
    let Some(trigger) = store::triggers::configured(db, Some(name)).await?.pop() else {
        return Ok(None);
    };
    let at = at.unwrap_or_else(OffsetDateTime::now_utc);
    let last = store::explain::rolled_out(db, &trigger.name, at).await?;
    let mut images = BTreeMap::new();
    for (name, image) in &trigger.images {
        let explained = match policy(&trigger, name) {
            Some(policy) => {
                let rule = trigger.policies.get(name).map(|policy| policy.rule.clone());
                let of_policy = of_policy(db, &policy, last.get(name), at, limit).await?;
                ExplainedImage {
                    image: image.clone(),
                    rule,
                    ..of_policy
                }
            }
            None => of_tag(db, image, at).await?,
        };
        images.insert(name.clone(), explained);
    }
    Ok(Some(Explained {
        follow: trigger.gate_settings.get("follow").cloned(),
        trigger: trigger.name,
        at: Instant(at),
        images,
    }))
}

/// Compiles the policy of an image; `None` for a tag.
fn policy(trigger: &Trigger, name: &str) -> Option<std::sync::Arc<WatchedPolicy>> {
    let settings = serde_json::from_value(trigger.policies.get(name)?.rule.clone()).ok()?;
    match Watched::compile(settings).ok()?.into_policy() {
        Watched::Policy(policy) => Some(policy),
        Watched::Tag(_) => None,
    }
}

/// Explains an image whose tag the trigger names.
async fn of_tag(
    db: &mut PgConnection,
    image: &str,
    at: OffsetDateTime,
) -> Result<ExplainedImage, sqlx::Error> {
    let resolution = match image.parse::<Image>() {
        Ok(image) => tagtrail_history::resolve::known_at(db, &image, None, at)
            .await
            .map(|resolution| Some((image.tag, resolution)))?,
        Err(_) => None,
    };
    let selected = match resolution {
        Some((tag, tagtrail_history::resolve::Resolution::InForce(head))) => {
            head.digest.map(|digest| SelectedHead {
                tag,
                digest,
                revision: head.revision,
            })
        }
        _ => None,
    };
    Ok(ExplainedImage {
        image: image.to_owned(),
        rule: None,
        selected,
        passed_over: Vec::new(),
        left: 0,
    })
}

/// Explains an image with a policy.
async fn of_policy(
    db: &mut PgConnection,
    watched: &WatchedPolicy,
    last: Option<&RolloutImage>,
    at: OffsetDateTime,
    limit: usize,
) -> Result<ExplainedImage, sqlx::Error> {
    let tags = store::explain::tags(db, &watched.registry, &watched.repository, at).await?;
    let rule = watched.policy.rule();
    let mut heads: Vec<TagHead> = tags.iter().map(|then| head(then, rule.fit(None))).collect();
    if rule.needs_manifest() {
        let mut best: Vec<(Key, usize)> = heads
            .iter()
            .enumerate()
            .filter_map(|(place, head)| {
                let live = head.digest.is_some() && !head.tombstone;
                let key = rule.key(&head.tag, head.times).ok().filter(|_| live);
                Some((key?, place))
            })
            .collect();
        best.sort_unstable_by(|one, other| other.0.cmp(&one.0));
        best.truncate(JUDGED);
        let places: Vec<usize> = best.into_iter().map(|(_, place)| place).collect();
        let digests: Vec<&Digest> = places
            .iter()
            .filter_map(|place| heads[*place].digest.as_ref())
            .collect();
        let manifests = tagtrail_postgres::manifests(db, &digests).await?;
        for place in places {
            let digest = heads[place].digest.as_ref();
            let manifest = digest.and_then(|digest| manifests.get(digest));
            heads[place].fit = rule.fit(manifest);
        }
    }
    let last = last.and_then(|image| {
        let head = heads.iter().find(|head| head.tag == image.image.tag)?;
        let in_repository = image.image.registry == watched.registry
            && image.image.repository == watched.repository;
        Some(Last {
            key: rule.key_beyond_filters(&head.tag, head.times)?,
            tag: head.tag.clone(),
            digest: image.digest.clone(),
            rule_changed: false,
            released: false,
        })
        .filter(|_| in_repository)
    });
    let selection = watched.policy.select(&heads, last.as_ref(), at);
    Ok(ExplainedImage {
        image: String::new(),
        rule: None,
        selected: selected(&selection, last.as_ref(), &tags),
        left: selection.passed_over.len().saturating_sub(limit) as u64,
        passed_over: passed_over(&selection, &heads, limit),
    })
}

fn head(then: &TagThen, fit: Fit) -> TagHead {
    TagHead {
        tag: then.tag.clone(),
        digest: then.digest.clone(),
        times: Times {
            pushed: then.pushed,
            created: then.created,
        },
        recorded_at: then.recorded_at,
        tombstone: then.tombstone,
        fit,
    }
}

fn selected(
    selection: &Selection<'_>,
    last: Option<&Last>,
    tags: &[TagThen],
) -> Option<SelectedHead> {
    let (tag, digest) = match &selection.outcome {
        Outcome::Select { head, .. } => (&head.tag, head.digest.clone()?),
        // The last selection stays.
        Outcome::Keep(_) | Outcome::Wait { .. } | Outcome::Hold(_) => {
            let last = last?;
            (&last.tag, last.digest.clone())
        }
        Outcome::Nothing => return None,
    };
    let then = tags.iter().find(|then| then.tag == *tag);
    Some(SelectedHead {
        tag: tag.clone(),
        digest,
        revision: then.map_or(0, |then| then.revision),
    })
}

fn passed_over(selection: &Selection<'_>, heads: &[TagHead], limit: usize) -> Vec<PassedOverTag> {
    let others = selection.passed_over.iter().take(limit);
    let other = others.map(|other| {
        let head = heads.iter().find(|head| head.tag == *other.tag);
        let opens_at = match &other.reason {
            Against::TooYoung { opens_at, .. } => Some(*opens_at),
            Against::Unread { until } => *until,
            _ => None,
        };
        PassedOverTag {
            tag: other.tag.clone(),
            digest: head.and_then(|head| head.digest.clone()),
            code: other.reason.code().to_owned(),
            why: other.reason.to_string(),
            opens_at: opens_at.map(Instant),
        }
    });
    other.collect()
}
