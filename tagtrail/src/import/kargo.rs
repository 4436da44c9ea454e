//! Kargo: `Warehouse` and `Stage`.

use serde_json::Value as Json;
use toml::Value;

use super::found::{Found, Trigger, Watched, pattern, repository, table, text, texts};
use super::objects::{Object, list, word, words};

pub(super) fn import(objects: &[Object], found: &mut Found) {
    for object in objects {
        match object.kind.as_str() {
            "Warehouse" => warehouse(object, found),
            "Stage" => stage(object, found),
            _ => {}
        }
    }
}

fn warehouse(object: &Object, found: &mut Found) {
    let mut trigger = Trigger::new(&object.name, object);
    for subscription in object.list("/spec/subscriptions") {
        match subscription.get("image") {
            Some(image) => subscribe(object, image, &mut trigger, found),
            None => {
                let kind = subscription.as_object().and_then(|all| all.keys().next());
                let kind = kind.map_or("subscription", String::as_str);
                found.left_out(object, kind, "a trigger watches images alone");
            }
        }
    }
    if let Some(criteria) = object.text("/spec/freightCreationCriteria/expression") {
        let equal = criteria.contains(".Tag ==") && criteria.contains("imageFrom");
        match equal {
            true => {
                trigger.notes.push("agree = \"tag\"".to_owned());
                let reason = "stands in the output as a comment: agree = \"tag\"";
                found.left_out(object, "freightCreationCriteria", reason);
            }
            false => found.left_out(object, "freightCreationCriteria", "it has no counterpart"),
        }
    }
    if object.text("/spec/freightCreationPolicy") == Some("Manual") {
        let reason = "`tagtrail pause` keeps the trigger from rolling out by itself";
        found.left_out(object, "freightCreationPolicy Manual", reason);
    }
    if object.get("/spec/interval").is_some() {
        let reason = "webhooks and `reconcile` of the [[registry]] take its place";
        found.left_out(object, "interval", reason);
    }
    found.triggers.push(trigger);
}

fn subscribe(object: &Object, image: &Json, trigger: &mut Trigger, found: &mut Found) {
    let get = |key: &str| {
        image
            .get(key)
            .and_then(word)
            .filter(|text| !text.is_empty())
    };
    let Some(url) = get("repoURL") else {
        return found.left_out(object, "image", "it has no repoURL");
    };
    let repository = repository(&url);
    let name = repository.rsplit('/').next().unwrap_or_default().to_owned();
    // Releases before 1.5 have the key `semverConstraint`.
    let constraint = get("constraint").or_else(|| get("semverConstraint"));
    let strategy = get("imageSelectionStrategy").unwrap_or_else(|| "SemVer".to_owned());
    let part = format!("{name}: {strategy}");
    let (order, becomes) = match strategy.as_str() {
        "Digest" => match constraint {
            Some(tag) => (("tag", text(tag)), "tag: its digest is followed"),
            None => return found.left_out(object, &part, "Kargo needs the tag as constraint"),
        },
        "Lexical" => (("alphabetical", text("last")), "alphabetical = \"last\""),
        "NewestBuild" => (
            ("newest", text("created")),
            "newest = \"created\"; \"pushed\" needs no manifests",
        ),
        "SemVer" => {
            let loose = image["strictSemvers"] == Json::Bool(false);
            let parse = if loose { "loose" } else { "strict-v" };
            // Without a constraint Kargo takes prereleases too.
            let range = constraint.unwrap_or_else(|| "*-0".to_owned());
            let rule = table(vec![("range", text(range)), ("parse", text(parse))]);
            (("semver", rule), "semver")
        }
        _ => return found.left_out(object, &part, "Kargo has no such strategy"),
    };
    found.exact(object, &part, becomes);
    let mut policy = vec![("repository", text(repository)), order];
    let mut allow = words(image.get("allowTagsRegexes"));
    allow.extend(get("allowTags"));
    if !allow.is_empty() {
        found.exact(object, &format!("{name}: allowTagsRegexes"), "match");
        policy.push(("match", text(any(&allow))));
    }
    let ignore = words(image.get("ignoreTagsRegexes"));
    if !ignore.is_empty() {
        let ignore = ignore.iter().map(|one| pattern(one)).collect();
        found.exact(
            object,
            &format!("{name}: ignoreTagsRegexes"),
            "ignore_match",
        );
        policy.push(("ignore_match", texts(ignore)));
    }
    // Whole tags, in releases before 1.5. No character of a tag means anything in a glob.
    let tags = words(image.get("ignoreTags"));
    if !tags.is_empty() {
        found.exact(object, &format!("{name}: ignoreTags"), "ignore");
        policy.push(("ignore", texts(tags)));
    }
    if let Some(platform) = get("platform") {
        let becomes = "platforms; arm64 is arm64/v8, which Kargo keeps apart";
        found.close(object, &format!("{name}: platform"), becomes);
        policy.push(("platforms", Value::Array(vec![text(platform)])));
    }
    trigger.add(&name, Watched::Policy(policy));
}

/// Joins patterns of which one is enough. A flag such as `(?i)` is in force in its own pattern
/// only.
fn any(patterns: &[String]) -> String {
    match patterns {
        [one] => pattern(one),
        many => {
            let each = many.iter().map(|one| format!("(?:{})", pattern(one)));
            each.collect::<Vec<_>>().join("|")
        }
    }
}

fn stage(object: &Object, found: &mut Found) {
    for freight in object.list("/spec/requestedFreight") {
        let warehouse = word(&freight["origin"]["name"]).unwrap_or_default();
        let sources = &freight["sources"];
        if sources["direct"] == Json::Bool(true) {
            let reason = format!("write a target into the trigger of {warehouse}");
            found.left_out(object, "sources.direct", &reason);
        }
        let stages = words(sources.get("stages"));
        if stages.is_empty() {
            continue;
        }
        let mut chain = match list(sources.get("stages")).len() {
            1 => format!("trigger = {}", text(stages.join(""))),
            _ => {
                let all = word(&sources["availabilityStrategy"]).as_deref() == Some("All");
                let key = if all { "all" } else { "any" };
                format!("{key} = {}", texts(stages))
            }
        };
        if let Some(soak) = word(&sources["requiredSoakTime"]) {
            chain += &format!(", soak = {}", text(soak));
        }
        let reason = format!("write a trigger with follow = {{ {chain} }}");
        found.left_out(object, "sources.stages", &reason);
    }
    if object.get("/spec/promotionTemplate").is_some() {
        found.left_out(
            object,
            "promotionTemplate",
            "write a target with these steps",
        );
    }
    if object.get("/spec/verification").is_some() {
        found.left_out(object, "verification", "write `verify` of the target");
    }
}
