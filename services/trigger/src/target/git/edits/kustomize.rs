//! The entries below `images:` of a kustomization.

use std::collections::BTreeMap;

use tagtrail_proto::RolloutImage;

use super::document::{Content, Node, documents, line_of, written};
use super::value::{Part, Quoting};
use super::{Files, Found, KUSTOMIZATIONS, Replacement, Values, Wanted, below};

/// Returns the values of the entries of the trigger's images.
///
/// An entry is of an image if its `newName`, or its `name` without one, is a name of the image, or
/// if its `name` is the name of the image in the trigger.
pub(super) fn values<'a>(
    wanted: &Wanted<'_>,
    files: &'a Files,
) -> Result<BTreeMap<&'a String, Values>, String> {
    let paths = KUSTOMIZATIONS.map(|name| below(wanted.path, name));
    let Some((path, bytes)) = paths.iter().find_map(|path| files.get_key_value(path)) else {
        return Err(format!(
            "the branch has no file {} (a symbolic link is none); correct path",
            paths[0]
        ));
    };
    let text = std::str::from_utf8(bytes)
        .map_err(|_| format!("{path} is not UTF-8 text; save it as UTF-8"))?;
    let documents = documents(text)
        .map_err(|why| format!("{path} can't be read as YAML: {why}; correct the file"))?;
    let entries = documents
        .iter()
        .filter_map(|document| document.entry("images"))
        .flat_map(|(_, images)| images.items());
    let mut values = Values::default();
    for entry in entries {
        let Some((name, image)) = image_of(wanted, entry) else {
            continue;
        };
        let of_entry = Entry { text, entry };
        let changes = of_entry
            .changes(wanted, image)
            .map_err(|why| format!("{path}: the entry of {name} below images: {why}"))?;
        values.replacements.extend(changes);
        let digest = text_of(entry, "digest").and_then(|digest| digest.parse().ok());
        let image = name.clone();
        values.found.push(Found {
            image,
            pins: true,
            digest,
        });
    }
    Ok(BTreeMap::from([(path, values)]))
}

fn text_of<'a>(entry: &'a Node, key: &str) -> Option<&'a str> {
    entry.entry(key).and_then(|(_, value)| value.text())
}

/// Returns the image of the trigger that an entry is of.
fn image_of<'a>(wanted: &'a Wanted<'_>, entry: &Node) -> Option<(&'a String, &'a RolloutImage)> {
    let name = text_of(entry, "name")?;
    let written = text_of(entry, "newName").unwrap_or(name);
    wanted
        .image_of(written)
        .or_else(|| wanted.images.get_key_value(name))
}

/// An entry below `images:`.
struct Entry<'a> {
    text: &'a str,
    entry: &'a Node,
}

impl Entry<'_> {
    /// Returns the changes that bring the entry to the image: `digest` gets the digest, `newTag`
    /// follows where it is written, and `newName` is added to a name that only the file knows.
    fn changes(
        &self,
        wanted: &Wanted<'_>,
        image: &RolloutImage,
    ) -> Result<Vec<Replacement>, String> {
        let mut changes = Vec::new();
        let mut added = Vec::new();
        let name = text_of(self.entry, "name").unwrap_or_default();
        match text_of(self.entry, "newName") {
            Some(written) => {
                let text = wanted.text(image, Part::Name, written);
                changes.push(self.change("newName", &text)?);
            }
            None if wanted.image_of(name).is_none() => {
                added.push(("newName", wanted.text(image, Part::Name, "")));
            }
            None => {}
        }
        if self.entry.entry("newTag").is_some() {
            changes.push(self.change("newTag", image.image.tag.as_ref())?);
        }
        match self.entry.entry("digest") {
            Some(_) => changes.push(self.change("digest", &image.digest.to_string())?),
            None => added.push(("digest", image.digest.to_string())),
        }
        if !added.is_empty() {
            changes.push(self.addition(&added)?);
        }
        Ok(changes)
    }

    fn change(&self, key: &str, value: &str) -> Result<Replacement, String> {
        let Some((name, node)) = self.entry.entry(key) else {
            return Err(format!("has no {key}"));
        };
        let written = written(self.text, Some(name), node).map_err(|why| format!("{key} {why}"))?;
        Ok(Replacement {
            text: written.text(value),
            line: format!("line {}", line_of(self.text, written.range.start)),
            range: written.range,
        })
    }

    /// Returns the change that adds keys, after the last key that the entry has.
    fn addition(&self, added: &[(&str, String)]) -> Result<Replacement, String> {
        let Content::Map { entries, flow } = &self.entry.content else {
            return Err("is no map".to_owned());
        };
        let last = ["newTag", "newName", "name"]
            .iter()
            .find_map(|key| self.entry.entry(key));
        let Some((first, (key, value))) = entries.first().zip(last) else {
            return Err("has no name".to_owned());
        };
        let place = written(self.text, Some(key), value)?;
        let quote = usize::from(place.quoting == Quoting::Quoted);
        let value_end = place.range.end + quote;
        let (at, text) = if *flow {
            let added = added.iter().map(|(key, value)| format!(", {key}: {value}"));
            (value_end, added.collect())
        } else {
            let rest = &self.text[value_end..];
            let end = rest.find('\n').unwrap_or(rest.len());
            let line = rest[..end].strip_suffix('\r').unwrap_or(&rest[..end]);
            let newline = match self.text.contains("\r\n") {
                true => "\r\n",
                false => "\n",
            };
            let start = first.0.range.start;
            let before = self.text[..start].rfind('\n').map_or(0, |at| at + 1);
            let indent = " ".repeat(self.text[before..start].chars().count());
            let added = added
                .iter()
                .map(|(key, value)| format!("{newline}{indent}{key}: {value}"));
            (value_end + line.len(), added.collect())
        };
        Ok(Replacement {
            range: at..at,
            text,
            line: format!("line {}", line_of(self.text, at)),
        })
    }
}
