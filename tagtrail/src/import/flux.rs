//! Flux: `ImagePolicy`, `ImageRepository` and `ImageUpdateAutomation`.

use toml::Value;

use super::found::{Found, Trigger, Watched, pattern, repository, table, text, texts};
use super::objects::{Object, words};

/// The exclusions of an `ImageRepository` that lists none.
const EXCLUDED: &str = r"^.*\.sig$";

pub(super) fn import(objects: &[Object], found: &mut Found) {
    for object in objects {
        match object.kind.as_str() {
            "ImagePolicy" => policy(object, objects, found),
            "ImageRepository" => registry(object, found),
            "ImageUpdateAutomation" => automation(object, found),
            _ => {}
        }
    }
}

fn policy(object: &Object, objects: &[Object], found: &mut Found) {
    let of = object
        .text("/spec/imageRepositoryRef/name")
        .unwrap_or_default();
    let within = object.text("/spec/imageRepositoryRef/namespace");
    let within = within.unwrap_or(&object.namespace);
    let source = objects
        .iter()
        .find(|one| one.kind == "ImageRepository" && one.name == of && one.namespace == within);
    let Some((source, image)) = source.and_then(|one| Some((one, one.text("/spec/image")?))) else {
        let reason = format!("add its ImageRepository {within}/{of} to the input");
        return found.left_out(object, "imageRepositoryRef", &reason);
    };
    let Some((key, order)) = order(object, found) else {
        return;
    };
    let mut settings = vec![("repository", text(repository(image))), (key, order)];
    filter(object, &mut settings, found);
    let excluded = match source.get("/spec/exclusionList") {
        Some(list) => words(Some(list)),
        None => vec![EXCLUDED.to_owned()],
    };
    if !excluded.is_empty() {
        let excluded = excluded.iter().map(|one| pattern(one)).collect();
        settings.push(("ignore_match", texts(excluded)));
    }
    let reflection = object
        .text("/spec/digestReflectionPolicy")
        .unwrap_or("Never");
    let moved = match reflection {
        "Always" => "follow",
        _ => "keep",
    };
    settings.push(("on_moved", text(moved)));
    found.close(
        object,
        &format!("digestReflectionPolicy {reflection}"),
        &format!("on_moved = \"{moved}\"; images are pinned by digest always"),
    );
    for unused in ["interval", "suspend"] {
        if object.get(&format!("/spec/{unused}")).is_some() {
            found.left_out(object, unused, unused_reason(unused));
        }
    }
    let mut trigger = Trigger::new(&object.name, object);
    let name = trigger.add(&object.name, Watched::Policy(settings));
    if let Some(tag) = latest(object) {
        trigger.selected.insert(name, tag);
    }
    found.triggers.push(trigger);
}

/// Returns the setting that orders the tags.
fn order(object: &Object, found: &mut Found) -> Option<(&'static str, Value)> {
    if let Some(range) = object.text("/spec/policy/semver/range") {
        found.exact(
            object,
            "policy.semver.range",
            "semver, parse = \"three-part\"",
        );
        let rule = table(vec![("range", text(range)), ("parse", text("three-part"))]);
        return Some(("semver", rule));
    }
    for (kind, key, highest, lowest) in [
        ("alphabetical", "alphabetical", "last", "first"),
        ("numerical", "numeric", "highest", "lowest"),
    ] {
        if object.get(&format!("/spec/policy/{kind}")).is_none() {
            continue;
        }
        let part = format!("policy.{kind}.order");
        let order = object.text(&format!("/spec/policy/{kind}/order"));
        let word = match order.unwrap_or("asc").to_ascii_lowercase().as_str() {
            "asc" | "" => highest,
            "desc" => lowest,
            _ => {
                found.left_out(object, &part, "write the order as asc or desc");
                return None;
            }
        };
        let becomes = format!("{key} = \"{word}\"");
        match kind {
            "numerical" => found.close(
                object,
                &part,
                &format!(
                    "{becomes}; a tag that is no number is passed over, where Flux selects nothing at all, and long numbers are exact"
                ),
            ),
            _ => found.exact(object, &part, &becomes),
        }
        return Some((key, text(word)));
    }
    found.left_out(
        object,
        "policy",
        "it has no semver, alphabetical or numerical",
    );
    None
}

fn filter(object: &Object, settings: &mut Vec<(&'static str, Value)>, found: &mut Found) {
    let filter = |key: &str| {
        let text = object.text(&format!("/spec/filterTags/{key}"));
        text.filter(|text| !text.is_empty())
    };
    let Some(given) = filter("pattern") else {
        return;
    };
    settings.push(("match", text(pattern(given))));
    let Some(extract) = filter("extract") else {
        return found.exact(object, "filterTags.pattern", "match");
    };
    settings.push(("extract", text(extract)));
    let becomes = "match, extract; of two tags with the same text Flux takes one at random, and Tagtrail the last by bytes";
    found.close(object, "filterTags.pattern, extract", becomes);
}

/// Returns the tag that Flux has selected.
fn latest(object: &Object) -> Option<String> {
    if let Some(tag) = object.text("/status/latestRef/tag") {
        return Some(tag.to_owned());
    }
    // Before image.toolkit.fluxcd.io/v1beta2 of Flux 2.5.
    super::found::reference(object.text("/status/latestImage")?).1
}

fn registry(object: &Object, found: &mut Found) {
    let image = object.text("/spec/image").unwrap_or_default();
    found.exact(object, "image", "repository");
    match object.get("/spec/exclusionList") {
        Some(_) => found.exact(object, "exclusionList", "ignore_match"),
        None => found.exact(object, "exclusionList (default)", "ignore_match"),
    }
    for part in ["secretRef", "certSecretRef", "proxySecretRef"] {
        if let Some(secret) = object.text(&format!("/spec/{part}/name")) {
            let secret = format!("the secret {}/{secret}", object.namespace);
            found.secret(object, part, &repository(image), &secret);
        }
    }
    for unused in [
        "serviceAccountName",
        "provider",
        "accessFrom",
        "interval",
        "suspend",
    ] {
        if object.get(&format!("/spec/{unused}")).is_some() {
            found.left_out(object, unused, unused_reason(unused));
        }
    }
}

fn automation(object: &Object, found: &mut Found) {
    for (part, reason) in [
        (
            "git",
            "write a target that commits: Tagtrail runs it with the pinned images",
        ),
        ("update", "write a target that edits the files"),
        ("policySelector", "each ImagePolicy is a trigger"),
        ("interval", unused_reason("interval")),
        ("suspend", unused_reason("suspend")),
    ] {
        if object.get(&format!("/spec/{part}")).is_some() {
            found.left_out(object, part, reason);
        }
    }
}

fn unused_reason(part: &str) -> &'static str {
    match part {
        "interval" => "webhooks and `reconcile` of the [[registry]] take its place",
        "suspend" => "`tagtrail pause` takes its place",
        "accessFrom" => "triggers have no namespaces",
        _ => "write the access to the registry into a [[registry]]",
    }
}
