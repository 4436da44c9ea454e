//! Keel: annotations and labels `keel.sh/…` of workloads.

use tagtrail_policy::keel::{Keel, Unruled};
use tagtrail_policy::selection::Pattern;
use toml::Value;

use super::found::{Found, Trigger, Watched, pattern, reference, text};
use super::objects::Object;
use super::workload::{Container, containers};

const PREFIX: &str = "keel.sh/";

pub(super) fn import(objects: &[Object], found: &mut Found) {
    for object in objects {
        if let Some(policy) = object.annotation("keel.sh/policy") {
            workload(object, &policy, found);
        }
    }
}

fn workload(object: &Object, policy: &str, found: &mut Found) {
    if policy == "never" {
        return found.left_out(object, "policy never", "nothing is rolled out");
    }
    let mut trigger = Trigger::new(&object.name, object);
    for container in watched(object, found) {
        let (repository, tag) = reference(&container.image);
        let mut settings = vec![("repository", text(repository))];
        let Some(order) = order(object, policy, &container, tag.as_deref(), found) else {
            continue;
        };
        settings.extend(order);
        trigger.add(&container.name, Watched::Policy(settings));
    }
    if let Some(needs) = object
        .annotation("keel.sh/approvals")
        .filter(|needs| needs != "0")
    {
        let hours = object.annotation("keel.sh/approvalDeadline");
        let hours = hours
            .and_then(|hours| hours.parse::<u32>().ok())
            .unwrap_or(24);
        let needs = needs.parse::<u32>().unwrap_or(1);
        let note = format!("approvals = {{ needs = {needs}, within = \"{hours}h\" }}");
        found.left_out(object, "approvals", "stands in the output as a comment");
        trigger.notes.push(note);
    }
    for name in object.annotations(PREFIX) {
        let reason = match name.as_str() {
            "trigger" | "pollSchedule" => "webhooks and `reconcile` take its place",
            "digest" | "update-time" => "it is a note of Keel's own",
            "notify" => "write a receiver of notifications",
            "imagePullSecret" => {
                let secret = object
                    .annotation("keel.sh/imagePullSecret")
                    .unwrap_or_default();
                let secret = format!("the secret {}/{secret}", object.namespace);
                let images = containers(object);
                let image = images.first().map(|one| reference(&one.image).0);
                found.secret(object, &name, &image.unwrap_or_default(), &secret);
                continue;
            }
            "policy" | "approvals" | "approvalDeadline" | "matchTag" | "match-tag"
            | "matchPreRelease" | "monitorContainers" | "initContainers" => continue,
            _ => "it has no counterpart",
        };
        found.left_out(object, &name, reason);
    }
    found.triggers.push(trigger);
}

/// Returns the containers that Keel updates.
fn watched(object: &Object, found: &mut Found) -> Vec<Container> {
    let with_init = object.annotation("keel.sh/initContainers").as_deref() == Some("true");
    let mut all = containers(object);
    all.retain(|container| with_init || !container.init);
    if with_init {
        found.exact(
            object,
            "initContainers",
            "their images belong to the trigger",
        );
    }
    let Some(given) = object.annotation("keel.sh/monitorContainers") else {
        return all;
    };
    match Pattern::parse(&pattern(&given)) {
        Ok(names) => {
            all.retain(|container| names.is_match(&container.name));
            found.exact(
                object,
                "monitorContainers",
                "the images of these containers",
            );
            all
        }
        Err(cause) => {
            found.left_out(object, "monitorContainers", &cause);
            Vec::new()
        }
    }
}

/// Returns the settings that order the tags of a container.
fn order(
    object: &Object,
    policy: &str,
    container: &Container,
    tag: Option<&str>,
    found: &mut Found,
) -> Option<Vec<(&'static str, Value)>> {
    let part = format!("policy {policy} of {}", container.name);
    let is = |name: &str, otherwise: bool| match object.annotation(name).as_deref() {
        Some(text) => text == "true",
        None => otherwise,
    };
    let given = policy.strip_prefix("regexp:");
    let rewritten = given.map(|given| format!("regexp:{}", pattern(given)));
    let keel = Keel {
        policy: rewritten.as_deref().unwrap_or(policy),
        tag,
        match_tag: is("keel.sh/matchTag", false) || is("keel.sh/match-tag", false),
        same_suffix: is("keel.sh/matchPreRelease", true),
    };
    let settings = match keel.settings() {
        Ok(settings) => settings,
        Err(why) => {
            let reason = match why {
                Unruled::NoVersion => {
                    "the running tag is no version: Keel takes any tag then; write the version to begin with as semver.from"
                }
                Unruled::Unknown => "Keel has no such policy, and updates nothing",
            };
            found.left_out(object, &part, reason);
            return None;
        }
    };
    let order = |key| settings.iter().any(|(one, _)| *one == key);
    if order("semver") {
        found.exact(object, &part, "semver with within and from");
    } else {
        let becomes = if order("glob") {
            "glob, alphabetical = \"last\"; Tagtrail never goes down"
        } else if order("order") {
            "match, order; Tagtrail never goes down"
        } else if order("alphabetical") {
            "match, alphabetical; Tagtrail never goes down"
        } else if order("tag") {
            "tag: its digest is followed"
        } else {
            "newest = \"pushed\"; Keel takes any tag, also an older version"
        };
        found.close(object, &part, becomes);
    }
    let value = |(key, value)| Some((key, Value::try_from(value).ok()?));
    settings.into_iter().map(value).collect()
}
