//! Annotations and labels of Keel: `keel.sh/…`.

use serde_json::{Map, Value, json};
use tagtrail_policy::keel::{Keel, Unruled};
use tagtrail_policy::selection::Pattern;

use super::tags::{Container, List, containers, running};
use super::{Annotated, Followed, Wish, annotation, truth};

pub(super) const PREFIX: &str = "keel.sh/";
const POLICY: &str = "keel.sh/policy";
/// Annotations without a counterpart that a person should know of.
const LEFT_OUT: [(&str, &str); 1] = [(
    "keel.sh/notify",
    "write an entry [[notify]] for messages to chats",
)];
/// The hours for which approvals count, unless the object says otherwise.
const HOURS: u32 = 24;

/// Returns whether an object has a policy of Keel.
pub(super) fn asks(metadata: &Value) -> bool {
    let has = |map: &str| {
        metadata
            .get(map)
            .is_some_and(|map| map.get(POLICY).is_some())
    };
    has("annotations") || has("labels")
}

/// Reads the annotations of an object. `None`: its policy is `never`.
pub(super) fn read(annotated: &Annotated<'_>) -> Option<Result<Wish, String>> {
    let metadata = &annotated.object["metadata"];
    match text(metadata, POLICY) {
        Ok(Some("never")) | Ok(None) => None,
        Ok(Some(policy)) => Some(read_policy(annotated, policy.trim())),
        Err(mistake) => Some(Err(mistake)),
    }
}

/// Returns the text of an annotation, or of a label: Keel reads both.
fn text<'a>(metadata: &'a Value, key: &str) -> Result<Option<&'a str>, String> {
    if let Some(text) = annotation(metadata, key)? {
        return Ok(Some(text));
    }
    let label = metadata.get("labels").and_then(|labels| labels.get(key));
    Ok(label.and_then(Value::as_str))
}

fn read_policy(annotated: &Annotated<'_>, policy: &str) -> Result<Wish, String> {
    let metadata = &annotated.object["metadata"];
    let mut wish = Wish::default();
    let mut is = |key: &str, otherwise: bool| match text(metadata, key)? {
        Some(text) => truth(key, text, &mut wish.warnings),
        None => Ok(otherwise),
    };
    let with_init = is("keel.sh/initContainers", false)?;
    let match_tag = is("keel.sh/matchTag", false)? || is("keel.sh/match-tag", false)?;
    let same_suffix = is("keel.sh/matchPreRelease", true)?;
    let mut all = containers(annotated);
    all.retain(|one| match one.list {
        List::Containers => true,
        List::InitContainers => with_init,
        List::Volumes => false,
    });
    if let Some(given) = text(metadata, "keel.sh/monitorContainers")? {
        let names =
            Pattern::parse(given).map_err(|why| format!("keel.sh/monitorContainers: {why}"))?;
        all.retain(|container| names.is_match(&container.name));
        if all.is_empty() {
            return Err(format!(
                "keel.sh/monitorContainers: no container has a name that matches {given:?}"
            ));
        }
    }
    for container in &all {
        let running = running(container)?;
        let image = match policy == "force" && match_tag {
            true => running.followed(container, annotated)?,
            false => {
                let tag = running.tag_now_or_before(&container.name, annotated.earlier);
                let keel = Keel {
                    policy,
                    tag: tag.as_deref(),
                    match_tag,
                    same_suffix,
                };
                image(&keel, container, running.repository)?
            }
        };
        let paused = false;
        wish.images
            .insert(container.name.clone(), Followed { image, paused });
    }
    let number = |key: &str| -> Result<Option<u32>, String> {
        let Some(text) = text(metadata, key)? else {
            return Ok(None);
        };
        let number = text.trim().parse();
        let number = number.map_err(|_| format!("{key}: {text:?} is no number; write \"1\""));
        number.map(Some)
    };
    if let Some(needs) = number("keel.sh/approvals")?.filter(|needs| *needs > 0) {
        let hours = number("keel.sh/approvalDeadline")?.unwrap_or(HOURS);
        let approvals = json!({"needs": needs, "within": format!("{hours}h")});
        wish.settings.insert("approvals".to_owned(), approvals);
    }
    for (key, instead) in LEFT_OUT {
        if text(metadata, key)?.is_some() {
            wish.warnings
                .push(format!("{key} has no effect; {instead}"));
        }
    }
    Ok(wish)
}

/// Returns the image of a container as a trigger follows it.
fn image(keel: &Keel<'_>, container: &Container, repository: String) -> Result<Value, String> {
    let policy = keel.policy;
    let settings = keel.settings().map_err(|why| match why {
        Unruled::NoVersion => {
            let Container { name, image, .. } = container;
            format!(
                "{POLICY}: {policy} begins with the running version, and container {name} runs {image}, which names none; write a version as its tag"
            )
        }
        Unruled::Unknown => format!(
            "{POLICY}: Keel has no policy {policy:?}; known are all, major, minor, patch, force, never, glob:… and regexp:…"
        ),
    })?;
    let settings = settings
        .into_iter()
        .map(|(key, value)| (key.to_owned(), value));
    let mut image: Map<String, Value> = settings.collect();
    image.insert("repository".to_owned(), Value::from(repository));
    Ok(Value::Object(image))
}
