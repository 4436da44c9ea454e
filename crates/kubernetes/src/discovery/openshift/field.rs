//! The fields of an object as Go's JSON reads them.

use serde_json::Value;

use super::shown;

/// Returns a field. Its key may be written in other case, as Go's JSON admits.
pub(super) fn of<'a>(value: &'a Value, key: &str) -> Option<&'a Value> {
    let map = value.as_object()?;
    map.get(key).or_else(|| {
        let mut entries = map.iter();
        entries
            .find(|(written, _)| written.eq_ignore_ascii_case(key))
            .map(|(_, value)| value)
    })
}

/// Returns the first keys that are none of these.
pub(super) fn unknown(value: &Value, known: &[&str]) -> Vec<String> {
    let keys = value.as_object().into_iter().flat_map(|map| map.keys());
    let is_known = |key: &&String| known.iter().any(|known| known.eq_ignore_ascii_case(key));
    keys.filter(|key| !is_known(key))
        .take(3)
        .map(|key| shown(key))
        .collect()
}

/// Reads a field that is true or false; a missing one is false. A text `"true"` or `"false"`,
/// which documents and consoles have shown for years, counts with a warning.
pub(super) fn switch(value: &Value, key: &str) -> Result<(bool, Option<String>), String> {
    match of(value, key) {
        None | Some(Value::Null) => Ok((false, None)),
        Some(Value::Bool(on)) => Ok((*on, None)),
        Some(Value::String(text)) if ["true", "false"].contains(&text.as_str()) => {
            let warning = format!(
                "{key} is the text {text:?}, which OpenShift refuses; write {key}: {text} without quotation marks"
            );
            Ok((text == "true", Some(warning)))
        }
        Some(other) => {
            let text = other
                .as_str()
                .map_or_else(|| other.to_string(), str::to_owned);
            Err(format!("{key} is {}; write true or false", shown(&text)))
        }
    }
}
