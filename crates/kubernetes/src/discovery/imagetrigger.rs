//! The custom resource `ImageTrigger`: a trigger for objects of its own namespace.

use serde_json::{Map, Value};
use tagtrail_proto::clean_text;

use super::tagtrail::{SETTINGS, TARGET};
use super::{Annotated, Followed, SHOWN, Wish};
use crate::object::ObjectName;

/// The kind, in lower case.
pub(super) const KIND: &str = "imagetrigger";
/// Longest specification, in bytes of JSON.
const LONGEST: usize = 64 * 1024;
/// Most objects of a trigger.
const MOST: usize = 50;

/// Reads the specification.
pub(super) fn read(annotated: &Annotated<'_>) -> Result<Wish, String> {
    let spec = annotated.object.get("spec").and_then(Value::as_object);
    let spec = spec.ok_or("spec is missing; write spec.images and spec.objects")?;
    let size = annotated.object["spec"].to_string().len();
    if size > LONGEST {
        return Err(format!("spec has {size} bytes; at most {LONGEST} are read"));
    }
    let mut wish = Wish::default();
    for (key, value) in spec {
        match key.as_str() {
            "images" => {
                for (name, image) in map("images", value)? {
                    let followed = Followed {
                        image: image.clone(),
                        paused: false,
                    };
                    wish.images.insert(name.clone(), followed);
                }
            }
            "objects" => wish.objects = Some(objects(value)?),
            "containers" => wish.containers = Some(map("containers", value)?.clone()),
            "paused" => wish.paused = *value == Value::Bool(true),
            key if SETTINGS.contains(&key) => {
                wish.settings.insert(key.to_owned(), value.clone());
            }
            key if TARGET.contains(&key) => {
                wish.target.insert(key.to_owned(), value.clone());
            }
            key => {
                let key = clean_text(key, SHOWN);
                return Err(format!("spec.{key} is no setting of an ImageTrigger"));
            }
        }
    }
    match &wish.objects {
        Some(objects) if !objects.is_empty() => Ok(wish),
        _ => Err(
            "spec.objects is empty; name what runs the images, such as [\"deployment/web\"]"
                .to_owned(),
        ),
    }
}

fn map<'a>(key: &str, value: &'a Value) -> Result<&'a Map<String, Value>, String> {
    let map = value.as_object();
    map.ok_or_else(|| format!("spec.{key} is no map"))
}

/// Reads the names of objects, which never have a namespace.
fn objects(value: &Value) -> Result<Vec<String>, String> {
    let list = value.as_array().ok_or("spec.objects is no list")?;
    if list.len() > MOST {
        return Err(format!("spec.objects: at most {MOST} objects are changed"));
    }
    let read = |object: &Value| {
        let text = object.as_str().ok_or("spec.objects: each is a text")?;
        let text = clean_text(text, 600);
        let object: ObjectName = text.parse().map_err(|why| format!("spec.objects: {why}"))?;
        Ok(object.to_string())
    };
    list.iter().map(read).collect()
}
