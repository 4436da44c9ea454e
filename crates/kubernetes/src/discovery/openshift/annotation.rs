//! The annotation of workloads.

use serde_json::Value;

use super::super::annotation;
use super::{ANNOTATION, MOST, Reading, field, of, shown};
use crate::object::pod_spec;

/// Reads the annotation of an object. `false`: it has none.
pub(super) fn read(reading: &mut Reading<'_>) -> Result<bool, String> {
    let metadata = reading.annotated.object.get("metadata");
    let Some(text) = annotation(metadata.unwrap_or(&Value::Null), ANNOTATION)? else {
        return Ok(false);
    };
    let entries: Vec<Value> = serde_json::from_str(text)
        .map_err(|error| format!("{ANNOTATION} is no list in JSON: {error}"))?;
    if entries.len() > MOST {
        return Err(format!(
            "{ANNOTATION} has {} entries; at most {MOST} are read",
            entries.len()
        ));
    }
    let mut paths = Vec::new();
    for (index, entry) in entries.iter().enumerate() {
        let path = path_of(entry).map_err(|why| of(index, &why))?;
        if let Some(first) = paths.iter().position(|one| *one == path) {
            return Err(format!(
                "entries {} and {} have the same fieldPath {}; remove one of them",
                first + 1,
                index + 1,
                shown(path)
            ));
        }
        paths.push(path);
    }
    for (index, (entry, path)) in entries.iter().zip(paths).enumerate() {
        read_entry(reading, index, entry, path)?;
    }
    Ok(!entries.is_empty())
}

fn path_of(entry: &Value) -> Result<&str, String> {
    if !entry.is_object() {
        return Err(format!(
            "{} is no entry; write {{\"from\": …, \"fieldPath\": …}}",
            shown(&entry.to_string())
        ));
    }
    let path = field::of(entry, "fieldPath").and_then(Value::as_str);
    path.ok_or_else(|| "the text fieldPath is missing".to_owned())
}

fn read_entry(
    reading: &mut Reading<'_>,
    index: usize,
    entry: &Value,
    path: &str,
) -> Result<(), String> {
    let unknown = field::unknown(entry, &["from", "fieldPath", "paused"]);
    if !unknown.is_empty() {
        let text = format!("{} has no effect", unknown.join(", "));
        reading.warn(index, &text);
    }
    let (paused, warning) = field::switch(entry, "paused").map_err(|why| of(index, &why))?;
    if let Some(warning) = warning {
        reading.warn(index, &warning);
    }
    let at = pod_spec(reading.annotated.kind);
    let base = format!("{}.", at.trim_start_matches('/').replace('/', "."));
    let Some(rest) = path.strip_prefix(&base) else {
        let text = format!(
            "fieldPath is {}, so the entry has no effect; it begins with {base} in this kind of object",
            shown(path)
        );
        reading.warn(index, &text);
        return Ok(());
    };
    let container = match container(rest, reading.annotated.object, at) {
        Ok(name) => name,
        // OpenShift does not read the path of a paused entry.
        Err(_) if paused => return Ok(()),
        Err(why) => return Err(of(index, &format!("fieldPath {} {why}", shown(path)))),
    };
    let Some(image) = reading.image(index, field::of(entry, "from"))? else {
        return Ok(());
    };
    reading.add(index, &container, (&image, paused))
}

/// The grammar of a path after the pod spec.
const FORM: &str = "is not valid; write containers[?(@.name==\"NAME\")].image after the pod spec, \
                    initContainers in place of containers, or a number in place of ?(…)";

/// Returns the name of the container that the rest of a path names: by its name or by its place.
/// `at` is the place of the pod spec.
fn container(rest: &str, object: &Value, at: &str) -> Result<String, String> {
    let (list, other, rest) = match rest.strip_prefix("containers[") {
        Some(rest) => ("containers", "initContainers", rest),
        None => {
            let rest = rest.strip_prefix("initContainers[").ok_or(FORM)?;
            ("initContainers", "containers", rest)
        }
    };
    let selector = rest.strip_suffix("].image").ok_or(FORM)?;
    if !selector.is_empty() && selector.bytes().all(|byte| byte.is_ascii_digit()) {
        let names = names(object, at, list);
        let index = selector.parse::<usize>().ok();
        let name = index.and_then(|index| *names.get(index)?);
        let count = names.len();
        return name
            .map(str::to_owned)
            .ok_or_else(|| format!("names no container, since {list} has {count}"));
    }
    let name = selector
        .strip_prefix("?(@.name==\"")
        .and_then(|rest| rest.strip_suffix("\")"))
        .filter(|name| !name.is_empty() && !name.contains(['"', ']']))
        .ok_or(FORM)?;
    // OpenShift looks for a name in both lists, whichever the path names.
    let mut lists = [list, other].into_iter();
    match lists.any(|list| names(object, at, list).contains(&Some(name))) {
        true => Ok(name.to_owned()),
        false => Err("names no container of the object".to_owned()),
    }
}

/// Returns the names of the containers of a list.
fn names<'a>(object: &'a Value, at: &str, list: &str) -> Vec<Option<&'a str>> {
    let containers = object.pointer(&format!("{at}/{list}"));
    let containers = containers.and_then(Value::as_array).into_iter().flatten();
    containers
        .map(|one| one.get("name").and_then(Value::as_str))
        .collect()
}
