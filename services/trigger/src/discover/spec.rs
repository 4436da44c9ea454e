//! The settings of a trigger, from the annotations of its objects. Pure.

use serde_json::{Map, Value, json};
use tagtrail_kubernetes::ObjectName;
use tagtrail_kubernetes::discovery::Wish;

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

/// Returns whether all objects of a trigger ask for a pause.
pub(super) fn is_paused(rows: &[(&Key, &Row)]) -> bool {
    let wishes = rows.iter().filter_map(|(_, row)| row.wish.as_ref());
    let mut pauses = wishes.map(|wish| wish["paused"] == Value::Bool(true));
    rows.iter().any(|(_, row)| row.wish.is_some()) && pauses.all(|paused| paused)
}

/// Returns the settings of the trigger that these objects of one namespace ask for. `None`: the
/// annotations of none of them could ever be read. An error names objects that contradict each
/// other.
pub(super) fn settings(trigger: &str, rows: &[(&Key, &Row)]) -> Result<Option<Value>, String> {
    let mut spec = Map::new();
    let (mut images, mut containers) = (Map::new(), Map::new());
    let (mut target, mut objects) = (Map::new(), Vec::new());
    let mut place = None;
    for (key, row) in rows {
        let Some(wish) = &row.wish else { continue };
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
