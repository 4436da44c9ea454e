//! The annotation of workloads.

use serde_json::Value;

use super::super::annotation;
use super::path::{PathError, container};
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
    let container = match container(path, reading.annotated.object, at) {
        Ok(name) => name,
        Err(PathError::Elsewhere(base)) => {
            let text = format!(
                "fieldPath is {}, so the entry has no effect; it begins with {base} in this kind of object",
                shown(path)
            );
            reading.warn(index, &text);
            return Ok(());
        }
        // OpenShift does not read the path of a paused entry.
        Err(PathError::Wrong(_)) if paused => return Ok(()),
        Err(PathError::Wrong(why)) => {
            return Err(of(index, &format!("fieldPath {} {why}", shown(path))));
        }
    };
    let Some(image) = reading.image(index, field::of(entry, "from"))? else {
        return Ok(());
    };
    reading.add(index, &container, (&image, paused))
}
