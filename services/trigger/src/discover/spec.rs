//! The settings of a trigger, from the annotations of its objects. Pure.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};
use tagtrail_kubernetes::ObjectName;
use tagtrail_kubernetes::discovery::{PREFIX, Wish, is_setting};
use tagtrail_proto::clean_text;

use super::write::PROBLEM;
use super::{full, status};
use crate::store::discovered::{Key, Row};

/// Returns the form in which a wish is recorded.
pub(super) fn recorded(wish: &Wish) -> Value {
    let images = wish.images.iter();
    let images: Map<String, Value> = images
        .map(|(name, followed)| (name.clone(), followed.image.clone()))
        .collect();
    json!({
        "images": images,
        "settings": wish.settings,
        "target": wish.target,
        "paused": wish.paused,
        "group": wish.group,
        "objects": wish.objects,
        "containers": wish.containers,
    })
}

/// The reason for which the annotations of an object have no effect.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Refusal {
    pub(super) text: String,
    /// The trigger that changes the object.
    pub(super) by: String,
}

/// Returns the reason for which the annotations of an object have no effect: an `ImageTrigger` of
/// its namespace names it. Otherwise two triggers would change its images in turn. Of several
/// `ImageTriggers` the first one by name is told.
pub(super) fn refusal(key: &Key, known: &BTreeMap<Key, Row>) -> Option<Refusal> {
    if is_image_trigger(key) {
        return None;
    }
    let names_it = |row: &Row| {
        let objects = row
            .wish
            .as_ref()
            .and_then(|wish| wish["objects"].as_array());
        let mut objects = objects.into_iter().flatten().filter_map(Value::as_str);
        objects.any(|object| object.parse().as_ref() == Ok(&key.object))
    };
    let (by, row) = known.iter().find(|(other, row)| {
        let same_place = (&other.cluster, &other.namespace) == (&key.cluster, &key.namespace);
        same_place && is_image_trigger(other) && names_it(row)
    })?;
    let (place, by, trigger) = (full(key), &by.object, &row.trigger);
    let text = format!(
        "{place}: its annotations have no effect, because {by} names it (trigger {trigger}); remove the annotations, or take the object out of spec.objects"
    );
    Some(Refusal {
        text: clean_text(&text, PROBLEM),
        by: trigger.clone(),
    })
}

/// Returns whether the trigger is an object of its own.
pub(super) fn is_image_trigger(key: &Key) -> bool {
    let (kind, group) = status::KIND;
    key.object.kind == kind && key.object.group.as_deref() == Some(group)
}

/// Returns whether all objects of a trigger ask for a pause.
pub(super) fn is_paused(rows: &[(&Key, &Row)]) -> bool {
    let wishes: Vec<&Value> = rows.iter().filter_map(|(_, row)| row.counting()).collect();
    let mut pauses = wishes
        .iter()
        .map(|wish| wish["paused"] == Value::Bool(true));
    !wishes.is_empty() && pauses.all(|paused| paused)
}

/// Returns a mistake in the settings of a trigger with its key as the objects have it: a field of
/// the specification of an `ImageTrigger`, or an annotation of Tagtrail. Others keep the key of the
/// setting.
pub(super) fn mistake(rows: &[(&Key, &Row)], message: &str) -> String {
    let message = message.strip_prefix("trigger.").unwrap_or(message);
    let message = message
        .strip_prefix("target.kubernetes: ")
        .unwrap_or(message);
    let (key, cause) = message.split_once(": ").unwrap_or_default();
    let is_key = |letter: char| letter.is_ascii_alphanumeric() || "._-[]".contains(letter);
    if cause.is_empty() || key.is_empty() || !key.chars().all(is_key) {
        return message.to_owned();
    }
    let word = key.split(['.', '[']).next().unwrap_or_default();
    if rows.iter().all(|(key, _)| is_image_trigger(key)) {
        format!("spec.{message}")
    } else if is_setting(word) && rows.iter().all(|(_, row)| row.by == "tagtrail") {
        format!("{PREFIX}{message}")
    } else {
        message.to_owned()
    }
}

/// Returns the settings of the trigger that these objects of one namespace ask for. `None`: the
/// annotations of none of them count, or could ever be read. An error names objects that contradict
/// each other.
pub(super) fn settings(trigger: &str, rows: &[(&Key, &Row)]) -> Result<Option<Value>, String> {
    let mut spec = Map::new();
    let (mut images, mut containers) = (Map::new(), Map::new());
    let (mut target, mut objects) = (Map::new(), Vec::new());
    let mut place = None;
    for (key, row) in rows {
        let Some(wish) = row.counting() else {
            continue;
        };
        let object = &key.object;
        place = Some((&key.cluster, &key.namespace));
        match wish.get("objects").and_then(Value::as_array) {
            None => objects.push(json!(object.to_string())),
            Some(named) => objects.extend(named.iter().cloned()),
        }
        let is_own = wish.get("objects").is_none_or(Value::is_null);
        for (name, image) in entries(wish, "images") {
            add(&mut images, object, ("container", name), image)?;
            if is_own {
                containers.insert(name.clone(), json!([name]));
            }
        }
        for (name, list) in entries(wish, "containers") {
            containers.insert(name.clone(), list.clone());
        }
        for (name, value) in entries(wish, "settings") {
            add(&mut spec, object, ("setting", name), value)?;
        }
        for (name, value) in entries(wish, "target") {
            add(&mut target, object, ("setting", name), value)?;
        }
    }
    let Some((cluster, namespace)) = place else {
        return Ok(None);
    };
    // The place comes last: no annotation changes it.
    target.insert("cluster".to_owned(), json!(cluster));
    target.insert("namespace".to_owned(), json!(namespace));
    target.insert("objects".to_owned(), json!(objects));
    target.insert("containers".to_owned(), Value::Object(containers));
    spec.insert("name".to_owned(), json!(trigger));
    spec.insert("images".to_owned(), Value::Object(images));
    spec.insert("target".to_owned(), json!({"kubernetes": target}));
    spec.insert(
        "labels".to_owned(),
        json!({"cluster": cluster, "namespace": namespace}),
    );
    Ok(Some(Value::Object(spec)))
}

fn entries<'a>(wish: &'a Value, key: &str) -> impl Iterator<Item = (&'a String, &'a Value)> {
    wish.get(key)
        .and_then(Value::as_object)
        .into_iter()
        .flatten()
}

/// Adds a value, unless another object has another one.
fn add(
    to: &mut Map<String, Value>,
    object: &ObjectName,
    (what, name): (&str, &String),
    value: &Value,
) -> Result<(), String> {
    match to.get(name) {
        Some(other) if other != value => Err(format!(
            "{what} {name}: {object} and another object of the group ask for {value} and {other}; make them equal, or give the objects groups of their own"
        )),
        _ => {
            to.insert(name.clone(), value.clone());
            Ok(())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(wish: Option<Value>) -> Row {
        Row {
            uid: "u".to_owned(),
            seen: "s".to_owned(),
            by: "tagtrail".to_owned(),
            trigger: "prod-shop-deployment-web".to_owned(),
            wish,
            problem: None,
            refused: None,
            warnings: Vec::new(),
            annotations: Map::new(),
            gone_at: None,
            held: false,
        }
    }

    fn key(object: &str) -> Key {
        Key {
            cluster: "prod".to_owned(),
            namespace: "shop".to_owned(),
            object: object.parse().unwrap(),
        }
    }

    fn wish(image: &str, settings: Value, paused: bool) -> Option<Value> {
        Some(
            json!({"images": {"web": image}, "settings": settings, "target": {"cluster": "other", "wait": "each"}, "paused": paused}),
        )
    }

    #[test]
    fn a_trigger_reaches_its_own_object_alone() {
        let row = row(wish(
            "r.example.com/web:1",
            json!({"settle": "1s", "name": "other"}),
            false,
        ));
        let key = key("deployment/web");
        let spec = settings("prod-shop-deployment-web", &[(&key, &row)]);
        assert_eq!(
            spec.unwrap().unwrap(),
            json!({
                "name": "prod-shop-deployment-web", "settle": "1s", "images": {"web": "r.example.com/web:1"},
                "labels": {"cluster": "prod", "namespace": "shop"},
                "target": {"kubernetes": {"cluster": "prod", "namespace": "shop", "objects": ["deployment/web"],
                    "containers": {"web": ["web"]}, "wait": "each"}},
            })
        );
    }

    #[test]
    fn a_mistake_has_the_key_that_people_wrote() {
        let object = "imagetrigger.tagtrail.dev/shop";
        let own = row(None);
        let mut keel = row(None);
        keel.by = "keel".to_owned();
        for (row, object, message, expected) in [
            (
                &own,
                object,
                "settle: 30 has no unit",
                "spec.settle: 30 has no unit",
            ),
            (&own, object, "images.web: wrong", "spec.images.web: wrong"),
            (
                &own,
                object,
                "trigger.target.kubernetes: wait: wrong",
                "spec.wait: wrong",
            ),
            (
                &own,
                object,
                "trigger.target.kubernetes: objects is empty",
                "objects is empty",
            ),
            (
                &own,
                "deployment/web",
                "settle: wrong",
                "tagtrail.dev/settle: wrong",
            ),
            (
                &own,
                "deployment/web",
                "retry.first: wrong",
                "tagtrail.dev/retry.first: wrong",
            ),
            (
                &own,
                "deployment/web",
                "trigger.target.kubernetes: wait: no",
                "tagtrail.dev/wait: no",
            ),
            (
                &own,
                "deployment/web",
                "images.web: wrong",
                "images.web: wrong",
            ),
            (
                &keel,
                "deployment/web",
                "approvals.needs: wrong",
                "approvals.needs: wrong",
            ),
        ] {
            assert_eq!(mistake(&[(&key(object), row)], message), expected);
        }
    }

    #[test]
    fn objects_of_a_group_agree() {
        let (one, two) = (key("deployment/web"), key("cronjob/nightly"));
        let same = row(wish("r.example.com/web:1", json!({}), false));
        let both = settings("t", &[(&one, &same), (&two, &same)])
            .unwrap()
            .unwrap();
        assert_eq!(
            both["target"]["kubernetes"]["objects"],
            json!(["deployment/web", "cronjob/nightly"])
        );
        let other = row(wish("r.example.com/web:2", json!({}), false));
        let error = settings("t", &[(&one, &same), (&two, &other)]).unwrap_err();
        assert!(
            error.starts_with("container web: cronjob/nightly and another object"),
            "{error}"
        );
        // A mistake in one object leaves the others.
        let broken = row(None);
        assert!(
            settings("t", &[(&one, &same), (&two, &broken)])
                .unwrap()
                .is_some()
        );
        assert_eq!(settings("t", &[(&two, &broken)]), Ok(None));
    }

    #[test]
    fn an_object_that_an_image_trigger_names_has_no_trigger_of_its_own() {
        let names = |objects: Value| row(Some(json!({"images": {}, "objects": objects})));
        let shop = || key("imagetrigger.tagtrail.dev/shop");
        let known = |wish: Row| BTreeMap::from([(shop(), wish)]);
        let named = known(names(json!(["cronjob/nightly", "deployment/web"])));
        let text = refusal(&key("deployment/web"), &named).unwrap().text;
        assert!(
            text.contains("because imagetrigger.tagtrail.dev/shop names it"),
            "{text}"
        );
        // Another kind, another namespace, and an ImageTrigger that could never be read.
        assert_eq!(refusal(&key("statefulset/web"), &named), None);
        let elsewhere = Key {
            namespace: "pay".to_owned(),
            ..key("deployment/web")
        };
        assert_eq!(refusal(&elsewhere, &named), None);
        assert_eq!(refusal(&key("deployment/web"), &known(row(None))), None);
        // An ImageTrigger is no object of another one.
        let circle = known(names(json!(["imagetrigger.tagtrail.dev/shop"])));
        assert_eq!(refusal(&shop(), &circle), None);
        // Of two, always the same one is told.
        let mut two = named.clone();
        two.insert(
            key("imagetrigger.tagtrail.dev/apis"),
            names(json!(["deployment/web"])),
        );
        let text = refusal(&key("deployment/web"), &two).unwrap().text;
        assert!(
            text.contains("because imagetrigger.tagtrail.dev/apis names it"),
            "{text}"
        );

        let (web, api) = (key("deployment/web"), key("deployment/api"));
        let good = row(wish("r.example.com/web:1", json!({}), true));
        let refused = Row {
            refused: Some(text),
            ..good.clone()
        };
        assert_eq!(settings("t", &[(&web, &refused)]), Ok(None));
        assert!(!is_paused(&[(&web, &refused)]));
        // The others of its group go on.
        let both = settings("t", &[(&web, &refused), (&api, &good)]);
        assert_eq!(
            both.unwrap().unwrap()["target"]["kubernetes"]["objects"],
            json!(["deployment/api"])
        );
    }

    #[test]
    fn a_trigger_is_paused_if_all_objects_ask_for_it() {
        let (one, two) = (key("deployment/web"), key("cronjob/nightly"));
        let (paused, active) = (
            row(wish("r.example.com/web:1", json!({}), true)),
            row(wish("r.example.com/web:1", json!({}), false)),
        );
        assert!(is_paused(&[(&one, &paused)]));
        assert!(!is_paused(&[(&one, &paused), (&two, &active)]));
        assert!(!is_paused(&[(&one, &row(None))]));
    }
}
