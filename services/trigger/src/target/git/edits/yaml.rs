//! Values of YAML files, named by their places.

use std::collections::BTreeMap;

use super::document::{Node, documents, line_of, written};
use super::{Files, Found, Place, Replacement, Values, Wanted, below};

/// A step from a node to one of its parts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in super::super) struct Step(String);

/// Reads a place: keys and numbers of items, separated by points, or a JSON pointer.
pub(in super::super) fn steps(at: &str) -> Result<Vec<Step>, String> {
    let words: Vec<String> = match at.strip_prefix('/') {
        Some(pointer) => {
            let words = pointer.split('/');
            let plain = |word: &str| word.replace("~1", "/").replace("~0", "~");
            words.map(plain).collect()
        }
        None => at.split('.').map(str::to_owned).collect(),
    };
    match words.iter().any(String::is_empty) {
        true => Err(format!(
            "{at:?} is no place; write one such as \"image.digest\", \"images.0.digest\", or as a JSON pointer \"/image/digest\""
        )),
        false => Ok(words.into_iter().map(Step).collect()),
    }
}

/// Returns the value of a place.
pub(super) fn values<'a>(
    wanted: &Wanted<'_>,
    place: &Place,
    files: &'a Files,
) -> Result<BTreeMap<&'a String, Values>, String> {
    let Some(image) = wanted.images.get(&place.image) else {
        return Ok(BTreeMap::new());
    };
    let path = below(wanted.path, &place.file);
    let Some((path, bytes)) = files.get_key_value(&path) else {
        return Err(format!(
            "the branch has no file {path} (a symbolic link is none); correct edits, or add the file"
        ));
    };
    let at = &place.at;
    let text = std::str::from_utf8(bytes)
        .map_err(|_| format!("{path} is not UTF-8 text; save it as UTF-8"))?;
    let documents = documents(text)
        .map_err(|why| format!("{path} can't be read as YAML: {why}; correct the file"))?;
    let found: Vec<_> = documents
        .iter()
        .filter_map(|document| find(document, &place.steps))
        .collect();
    let [(key, node)] = found.as_slice() else {
        return Err(match found.len() {
            0 => format!("{path} has no value at {at}; correct at, or write a first value there"),
            many => format!("{path} has {many} documents with a value at {at}; split the file"),
        });
    };
    let written =
        written(text, *key, node).map_err(|why| format!("{path}: the value at {at} {why}"))?;
    let before = &text[written.range.clone()];
    let values = Values {
        found: vec![Found {
            image: place.image.clone(),
            pins: place.write.pins(),
            digest: place.write.digest(before),
        }],
        replacements: vec![Replacement {
            text: written.text(&wanted.text(image, place.write, before)),
            line: format!("line {}", line_of(text, written.range.start)),
            range: written.range,
        }],
    };
    Ok(BTreeMap::from([(path, values)]))
}

/// Returns the node at a place, with its key if it is of a map.
fn find<'a>(document: &'a Node, steps: &[Step]) -> Option<(Option<&'a Node>, &'a Node)> {
    let mut at = (None, document);
    for Step(word) in steps {
        at = match at.1.entry(word) {
            Some((key, value)) => (Some(key), value),
            None => (None, at.1.items().get(word.parse::<usize>().ok()?)?),
        };
    }
    Some(at)
}
