//! Markers at the ends of lines, as Flux has them: `# {"$imagepolicy": "shop:web:digest"}`.

use std::collections::BTreeMap;

use super::value::{Part, Quoting, Written};
use super::{Files, Found, Replacement, Values, Wanted, is_yaml};

/// Each marker has this text.
const KEY: &str = "$imagepolicy";

/// A line with a marker of the trigger.
struct Line<'a> {
    image: &'a String,
    part: Option<Part>,
    number: usize,
    value: Written,
}

/// Returns the values with markers in all files. Lines that can't be read are passed over: they may
/// be of another trigger.
pub(super) fn values<'a>(wanted: &Wanted<'_>, files: &'a Files) -> BTreeMap<&'a String, Values> {
    let mut all = BTreeMap::new();
    for (path, bytes) in files.iter().filter(|(path, _)| is_yaml(path)) {
        let Ok(text) = std::str::from_utf8(bytes) else {
            continue;
        };
        if !text.contains(KEY) {
            continue;
        }
        let lines = lines(wanted, text);
        let mut values = Values::default();
        for line in &lines {
            let Some(image) = wanted.images.get(line.image) else {
                continue;
            };
            // A tag alone does not pin an image, unless its digest stands beside it.
            let has_digest = || {
                let mut others = lines.iter().filter(|other| other.image == line.image);
                others.any(|other| other.part == Some(Part::Digest))
            };
            let part = match line.part {
                None => Part::Pinned,
                Some(Part::Tag) if !has_digest() => Part::TagAndDigest,
                Some(part) => part,
            };
            let written = &text[line.value.range.clone()];
            values.found.push(Found {
                image: line.image.clone(),
                pins: part.pins(),
                digest: part.digest(written),
            });
            values.replacements.push(Replacement {
                range: line.value.range.clone(),
                text: line.value.text(&wanted.text(image, part, written)),
                line: format!("line {}", line.number),
            });
        }
        if !values.found.is_empty() {
            all.insert(path, values);
        }
    }
    all
}

/// Returns the lines with markers of the trigger's images.
fn lines<'a>(wanted: &'a Wanted<'_>, text: &str) -> Vec<Line<'a>> {
    let (mut lines, mut at) = (Vec::new(), 0);
    for (number, line) in text.split_inclusive('\n').enumerate() {
        let start = at;
        at += line.len();
        let Some((before, name, part)) = marker(line) else {
            continue;
        };
        let Some(mut value) = value(before) else {
            continue;
        };
        value.range = value.range.start + start..value.range.end + start;
        for (image, marker) in wanted.markers {
            if *marker == name {
                lines.push(Line {
                    image,
                    part,
                    number: number + 1,
                    value: value.clone(),
                });
            }
        }
    }
    lines
}

/// Returns the text before the marker of a line, the name in the marker, and the part that it asks
/// for.
fn marker(line: &str) -> Option<(&str, String, Option<Part>)> {
    let key = line.find(KEY)?;
    let comment = line[..key].rfind('#')?;
    let before = &line[..comment];
    if !before.is_empty() && !before.ends_with([' ', '\t']) {
        return None;
    }
    let object: serde_json::Value = serde_json::from_str(line[comment + 1..].trim()).ok()?;
    let mut words = object.get(KEY)?.as_str()?.splitn(3, ':');
    let name = format!("{}:{}", words.next()?, words.next()?);
    let part = match words.next() {
        None => None,
        Some("name") => Some(Part::Name),
        Some("tag") => Some(Part::Tag),
        Some("digest") => Some(Part::Digest),
        Some(_) => return None,
    };
    Some((before, name, part))
}

/// Returns the value at the end of a line. `None`: the value is none of one line and one word.
fn value(before: &str) -> Option<Written> {
    let text = before.trim_end();
    let written = |range, quoting| Some(Written { range, quoting });
    if let Some(quote) = text
        .chars()
        .next_back()
        .filter(|last| "\"'".contains(*last))
    {
        let end = text.len() - 1;
        let begin = text[..end].rfind(quote)?;
        let before = &text[..begin];
        let content = &text[begin + 1..end];
        return match before.ends_with([' ', '\t']) && !content.contains('\\') {
            true => written(begin + 1..end, Quoting::Quoted),
            false => None,
        };
    }
    let start = text.rfind([' ', '\t']).map_or(0, |at| at + 1);
    let word = &text[start..];
    if word == "-" || word.ends_with(':') {
        return written(text.len()..text.len(), Quoting::Absent);
    }
    let key = text[..start].trim_end();
    let before = key.rsplit([' ', '\t']).next().unwrap_or_default();
    let begins = before == "-" || before.ends_with(':') || before.starts_with(['&', '!']);
    let special = word.starts_with(['&', '*', '!', '|', '>', '{', '[', '%', '`', '#', '"', '\''])
        || word.ends_with(['}', ']', ',']);
    match begins && !special {
        true => written(start..text.len(), Quoting::Plain),
        false => None,
    }
}
