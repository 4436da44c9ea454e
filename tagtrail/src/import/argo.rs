//! Argo CD Image Updater: `ImageUpdater` objects, and the annotations of Applications.

use serde_json::Value as Json;
use tagtrail_policy::selection::TagGlob;
use toml::Value;

use super::found::{Found, Trigger, Watched, pattern, repository, table, text, texts};
use super::objects::{Object, list, word, words};

const PREFIX: &str = "argocd-image-updater.argoproj.io/";
/// The strategy of an image that names none, or an unknown one.
const STRATEGY: &str = "semver";

pub(super) fn import(objects: &[Object], found: &mut Found) {
    for object in objects {
        match object.kind.as_str() {
            "ImageUpdater" => updater(object, found),
            "Application" => application(object, found),
            _ => {}
        }
    }
}

/// The settings of one image.
#[derive(Debug, Default)]
struct Settings {
    strategy: Option<String>,
    allow: Option<String>,
    ignore: Vec<String>,
    platforms: Vec<String>,
    secret: Option<String>,
}

fn updater(object: &Object, found: &mut Found) {
    let common = object.get("/spec/commonUpdateSettings");
    for (place, reference) in object.list("/spec/applicationRefs").iter().enumerate() {
        let pattern = word(&reference["namePattern"]).unwrap_or_default();
        if reference["useAnnotations"] == Json::Bool(true) {
            let reason = "add the Applications to the input: their annotations count";
            found.left_out(object, &format!("applicationRefs {pattern}"), reason);
            continue;
        }
        let exact = !pattern.is_empty() && !pattern.contains(['*', '?', '[']);
        let name = match exact {
            true => pattern.clone(),
            false => format!("{}-{place}", object.name),
        };
        if !exact || !reference["labelSelectors"].is_null() {
            let part = format!("namePattern {pattern}");
            found.close(
                object,
                &part,
                "one trigger: write a target for these Applications",
            );
        }
        let mut trigger = Trigger::new(&name, object);
        for image in list(reference.get("images")) {
            let levels = [
                image.get("commonUpdateSettings"),
                reference.get("commonUpdateSettings"),
                common,
            ];
            let get = |key: &str| {
                let mut levels = levels.iter().flatten();
                levels.find_map(|level| level.get(key).filter(|value| !value.is_null()))
            };
            let settings = Settings {
                strategy: get("updateStrategy").and_then(word),
                allow: get("allowTags").and_then(word),
                ignore: words(get("ignoreTags")),
                platforms: words(get("platforms")),
                secret: get("pullSecret").and_then(word),
            };
            let alias = word(&image["alias"]).unwrap_or_default();
            let name = word(&image["imageName"]).unwrap_or_default();
            add(object, &alias, &name, settings, &mut trigger, found);
            if !image["manifestTargets"].is_null() {
                write_back(object, &format!("manifestTargets of {alias}"), found);
            }
        }
        if !reference["writeBackConfig"].is_null() {
            write_back(object, &format!("writeBackConfig of {name}"), found);
        }
        found.triggers.push(trigger);
    }
    if object.get("/spec/writeBackConfig").is_some() {
        write_back(object, "writeBackConfig", found);
    }
}

fn application(object: &Object, found: &mut Found) {
    let get = |key: &str| object.annotation(&format!("{PREFIX}{key}"));
    let Some(images) = get("image-list") else {
        return;
    };
    let split = |text: Option<String>| -> Vec<String> {
        let text = text.unwrap_or_default();
        let parts = text.split(',').map(|part| part.trim().to_owned());
        parts.filter(|part| !part.is_empty()).collect()
    };
    let mut trigger = Trigger::new(&object.name, object);
    for entry in split(Some(images)) {
        let (alias, image) = entry.split_once('=').unwrap_or(("", &entry));
        // Settings without an alias are those of all images.
        let of = |key: &str| match alias {
            "" => get(key),
            alias => get(&format!("{alias}.{key}")).or_else(|| get(key)),
        };
        let settings = Settings {
            strategy: of("update-strategy"),
            allow: of("allow-tags"),
            ignore: split(of("ignore-tags")),
            platforms: split(of("platforms")),
            secret: of("pull-secret"),
        };
        add(object, alias, image, settings, &mut trigger, found);
    }
    for name in object.annotations(PREFIX) {
        let writes = ["write-back", "git-", "helm.", "kustomize."];
        if writes.iter().any(|part| name.contains(part)) {
            write_back(object, &name, found);
        }
    }
    found.triggers.push(trigger);
}

fn write_back(object: &Object, part: &str, found: &mut Found) {
    found.left_out(
        object,
        part,
        "write a target: Tagtrail runs it with the pinned images",
    );
}

/// Adds an image such as `registry.example.com/web:~1.4`.
fn add(
    object: &Object,
    alias: &str,
    image: &str,
    settings: Settings,
    trigger: &mut Trigger,
    found: &mut Found,
) {
    let start = image.rfind('/').map_or(0, |slash| slash + 1);
    let (path, constraint) = match image[start..].split_once(':') {
        Some((name, constraint)) => (&image[..start + name.len()], constraint),
        None => (image, ""),
    };
    let repository = repository(path);
    let short = path.rsplit('/').next().unwrap_or(path);
    let name = if alias.is_empty() { short } else { alias };
    if let Some(secret) = &settings.secret {
        found.secret(object, &format!("{name}: pullSecret"), &repository, secret);
    }
    let strategy = settings.strategy.as_deref().unwrap_or(STRATEGY);
    let part = format!("{name}: {strategy}");
    let (order, becomes) = match strategy {
        "digest" if constraint.is_empty() => {
            return found.left_out(object, &part, "Argo needs the tag as the constraint");
        }
        "digest" => (("tag", text(constraint)), "tag: its digest is followed"),
        "alphabetical" | "name" => (("alphabetical", text("last")), "alphabetical = \"last\""),
        "newest-build" | "latest" => (
            ("newest", text("created")),
            "newest = \"created\"; \"pushed\" needs no manifests, and takes an old build that is pushed again",
        ),
        _ => {
            let range = if constraint.is_empty() {
                "*"
            } else {
                constraint
            };
            let rule = table(vec![("range", text(range)), ("parse", text("loose"))]);
            (("semver", rule), "semver, parse = \"loose\"")
        }
    };
    found.exact(object, &part, becomes);
    let mut policy = vec![("repository", text(repository)), order];
    let Some(filters) = filters(object, name, settings, found) else {
        return;
    };
    policy.extend(filters);
    trigger.add(name, Watched::Policy(policy));
}

/// Returns the filters. `None`: Argo takes no tag at all.
fn filters(
    object: &Object,
    name: &str,
    settings: Settings,
    found: &mut Found,
) -> Option<Vec<(&'static str, Value)>> {
    let mut filters = Vec::new();
    if let Some(allow) = settings.allow.filter(|allow| !allow.is_empty()) {
        let part = format!("{name}: allowTags");
        let function = allow.split(':').next().unwrap_or_default();
        match (
            function.to_ascii_lowercase().as_str(),
            allow.split_once(':'),
        ) {
            ("any", None) => {}
            ("regexp", Some((_, given))) => {
                filters.push(("match", text(pattern(given))));
                found.exact(object, &part, "match");
            }
            _ => {
                let reason = "Argo does not know this function, and takes no tag";
                found.left_out(object, &part, reason);
                return None;
            }
        }
    }
    let (mut ignore, mut bad) = (Vec::new(), Vec::new());
    for glob in settings.ignore {
        match TagGlob::parse(&glob) {
            Ok(_) => ignore.push(glob),
            Err(_) => bad.push(glob),
        }
    }
    if !ignore.is_empty() {
        found.exact(object, &format!("{name}: ignoreTags"), "ignore");
        filters.push(("ignore", texts(ignore)));
    }
    if !bad.is_empty() {
        let part = format!("{name}: ignoreTags {}", bad.join(", "));
        found.exact(
            object,
            &part,
            "nothing: Argo can't read it, and ignores no tag",
        );
    }
    if !settings.platforms.is_empty() {
        let any = table(vec![("any", texts(settings.platforms))]);
        filters.push(("platforms", any));
        found.exact(
            object,
            &format!("{name}: platforms"),
            "platforms = { any = [..] }",
        );
    }
    Some(filters)
}
