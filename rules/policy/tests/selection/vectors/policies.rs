//! Policies over the tags of a repository.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::{Value, json};
use tagtrail_policy::selection::{ImagePolicy, Outcome, Policy, TagHead, Times};
use tagtrail_proto::{Digest, Manifest};
use time::OffsetDateTime;
use time::macros::datetime;

use crate::platform;

/// The times of the vectors are seconds after this one, and their times of a build are days after
/// it: a real one, since the begin of Unix time is no time of a build.
pub(super) const BEGIN: OffsetDateTime = datetime!(2026-01-01 00:00 UTC);
pub(super) const NOW: OffsetDateTime = datetime!(2026-01-01 00:01 UTC);

/// Compiles settings, given without a repository.
pub(super) fn compile(mut settings: Value) -> Option<Policy> {
    settings["repository"] = json!("registry.example.com/shop/api");
    let policy: ImagePolicy = serde_json::from_value(settings).unwrap();
    policy.compile().ok()
}

pub(super) fn head(policy: &Policy, tag: &str, digest: Option<&str>, at: u64) -> TagHead {
    TagHead {
        tag: tag.parse().unwrap(),
        digest: digest.map(|digest| Digest::sha256_of(digest.as_bytes())),
        times: Times {
            pushed: BEGIN + Duration::from_secs(at),
            created: None,
        },
        recorded_at: BEGIN + Duration::from_secs(at),
        tombstone: false,
        fit: policy.rule().fit(None),
    }
}

pub(super) fn answer(policy: &Policy, heads: &[TagHead]) -> Value {
    let selection = policy.select(heads, None, NOW);
    let selected = usize::from(matches!(selection.outcome, Outcome::Select { .. }));
    if !matches!(selection.outcome, Outcome::Wait { .. }) {
        assert_eq!(
            selection.passed_over.len() + selected,
            heads.len(),
            "a reason for each tag"
        );
    }
    match selection.outcome {
        Outcome::Select { head, .. } => json!(head.tag),
        Outcome::Nothing => Value::Null,
        Outcome::Wait { .. } => json!("wait"),
        other => panic!("{other:?}"),
    }
}

/// Answers for tags that differ in nothing but their names.
pub(super) fn answer_for(settings: Value, tags: &Value) -> Value {
    let Some(policy) = compile(settings) else {
        return json!("error");
    };
    let tags = tags
        .as_array()
        .unwrap()
        .iter()
        .map(|tag| tag.as_str().unwrap());
    let heads: Vec<TagHead> = tags.map(|tag| head(&policy, tag, Some("A"), 0)).collect();
    answer(&policy, &heads)
}

pub(super) fn select(given: &Value) -> Value {
    let mut settings = given.clone();
    let fields = settings.as_object_mut().unwrap();
    let (tags, heads) = (fields.remove("tags"), fields.remove("heads"));
    if let Some(push) = fields.remove("repushed") {
        // A repeated push of the same digest is no revision, so the heads stay as they are.
        assert_eq!(push["same_digest"], json!(true));
    }
    if let Some(tags) = tags {
        return answer_for(settings, &tags);
    }
    let policy = compile(settings).unwrap();
    let heads: Vec<TagHead> = heads
        .unwrap()
        .as_array()
        .unwrap()
        .iter()
        .map(|given| read(&policy, given))
        .collect();
    answer(&policy, &heads)
}

fn read(policy: &Policy, given: &Value) -> TagHead {
    let seconds = |key: &str| given[key].as_u64();
    let at = seconds("at").unwrap();
    let mut head = head(
        policy,
        given["tag"].as_str().unwrap(),
        given["digest"].as_str(),
        at,
    );
    head.recorded_at = BEGIN + Duration::from_secs(seconds("recorded").unwrap_or(at));
    let day = Duration::from_secs(24 * 3600);
    head.times.created = seconds("created").map(|days| BEGIN + day * u32::try_from(days).unwrap());
    if !given["platforms"].is_null() || !given["labels"].is_null() {
        head.fit = policy.rule().fit(Some(&manifest(given)));
    }
    head
}

fn manifest(given: &Value) -> Manifest {
    let platforms: Vec<String> =
        serde_json::from_value(given["platforms"].clone()).unwrap_or_default();
    let labels: BTreeMap<String, String> =
        serde_json::from_value(given["labels"].clone()).unwrap_or_default();
    Manifest {
        digest: Digest::sha256_of(b"A"),
        registry: "registry.example.com".parse().unwrap(),
        repository: "shop/api".parse().unwrap(),
        media_type: "application/vnd.oci.image.index.v1+json".to_owned(),
        size: 1,
        artifact_type: None,
        platforms: platforms.iter().map(|text| platform(text)).collect(),
        created: None,
        labels,
        annotations: BTreeMap::new(),
        revision: None,
        source: None,
        version: None,
        tombstone: false,
        image: None,
        index: None,
        read_at: BEGIN,
    }
}
