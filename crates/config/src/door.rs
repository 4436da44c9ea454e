//! The spec of a trigger: its settings as written, from whichever door.

use std::fmt;
use std::path::{Path, PathBuf};

use serde_json::Value;
use sha2::{Digest as _, Sha256};

use crate::document::{ConfigError, Document};
use crate::entries::Entries;
use crate::file::Mistake;
use crate::{File, Table, Trigger};

/// Where a spec comes from.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Door {
    /// The main file.
    #[default]
    File,
    /// A file of the folder of triggers.
    Folder,
    /// The API.
    Api,
    /// Annotated objects of a cluster.
    Kubernetes,
}

impl Door {
    /// Returns the word of the API and of the database.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Door::File => "file",
            Door::Folder => "folder",
            Door::Api => "api",
            Door::Kubernetes => "kubernetes",
        }
    }
}

impl fmt::Display for Door {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The settings of a trigger as they are written. `Debug` leaves them out: they may hold secrets.
#[derive(Clone, PartialEq)]
pub struct Spec {
    /// Where the settings come from.
    pub door: Door,
    /// The file that has the entry. Relative paths begin in its folder.
    pub file: PathBuf,
    written: Value,
}

impl fmt::Debug for Spec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Spec({} {})", self.door, self.file.display())
    }
}

/// The settings without texts that may hold a secret.
#[derive(Debug, Clone, PartialEq)]
pub struct Shown {
    /// The settings.
    pub settings: Value,
    /// Whether no text was left out.
    pub complete: bool,
}

impl Spec {
    /// Returns the SHA-256 of the settings. It is the same for settings that differ in the order of
    /// their keys alone.
    #[must_use]
    pub fn hash(&self) -> [u8; 32] {
        hash(&self.written)
    }

    /// Returns the SHA-256 of the settings without the keys by which an equal trigger differs after
    /// a change of its name.
    #[must_use]
    pub fn likeness(&self) -> [u8; 32] {
        let mut written = self.written.clone();
        if let Value::Object(keys) = &mut written {
            for key in ["name", "renamed_from", "labels"] {
                keys.remove(key);
            }
        }
        hash(&written)
    }

    /// Returns the settings without texts that may hold a secret: credentials and questions in
    /// addresses, values of headers, and values of variables.
    #[must_use]
    pub fn shown(&self) -> Shown {
        let mut settings = self.written.clone();
        let mut complete = true;
        if let Value::Object(keys) = &mut settings {
            // Names of images and labels are chosen freely.
            let parts = keys
                .iter_mut()
                .filter(|(key, _)| !["images", "labels"].contains(&key.as_str()));
            for (key, value) in parts {
                complete &= !hide(key, value);
            }
        }
        Shown { settings, complete }
    }
}

/// Leaves out the texts of a setting that may hold a secret. Returns whether there were any.
fn hide(key: &str, value: &mut Value) -> bool {
    let mut hidden = false;
    match (key, value) {
        ("url" | "http" | "proxy", Value::String(url)) => hidden = hide_url(url),
        ("headers" | "set", Value::Object(values)) => {
            for value in values.values_mut().filter(|value| value.is_string()) {
                *value = Value::from(HIDDEN);
                hidden = true;
            }
        }
        (_, Value::Object(keys)) => {
            for (key, value) in keys {
                hidden |= hide(key, value);
            }
        }
        (key, Value::Array(values)) => {
            for value in values {
                hidden |= hide(key, value);
            }
        }
        _ => {}
    }
    hidden
}

/// In place of a text that may hold a secret.
const HIDDEN: &str = "(hidden)";

/// Leaves out the credentials and the question of an address. Returns whether there were any.
fn hide_url(url: &mut String) -> bool {
    let begin = url.find("://").map_or(0, |at| at + 3);
    let end = url[begin..]
        .find(['/', '?', '#'])
        .map_or(url.len(), |at| begin + at);
    let credentials = url[begin..end].rfind('@').map(|at| begin + at);
    let question = url[begin..].find(['?', '#']).map(|at| begin + at);
    if let Some(at) = question {
        url.truncate(at + 1);
        url.push_str(HIDDEN);
    }
    if let Some(at) = credentials {
        url.replace_range(begin..at, HIDDEN);
    }
    credentials.is_some() || question.is_some()
}

/// Returns the SHA-256 of settings, of which the order of keys does not count.
#[must_use]
pub fn hash(value: &Value) -> [u8; 32] {
    fn add(value: &Value, to: &mut Sha256) {
        match value {
            Value::Object(map) => {
                let mut entries: Vec<_> = map.iter().collect();
                entries.sort_by_key(|(key, _)| *key);
                to.update(b"{");
                for (key, value) in entries {
                    to.update(Value::from(key.as_str()).to_string());
                    to.update(b":");
                    add(value, to);
                    to.update(b",");
                }
                to.update(b"}");
            }
            Value::Array(values) => {
                to.update(b"[");
                for value in values {
                    add(value, to);
                    to.update(b",");
                }
                to.update(b"]");
            }
            other => to.update(other.to_string()),
        }
    }
    let mut hasher = Sha256::new();
    add(value, &mut hasher);
    hasher.finalize().into()
}

impl Trigger {
    /// Returns the settings as they are written.
    #[must_use]
    pub fn spec(&self) -> Spec {
        Spec {
            door: self.door,
            file: self.document.path().to_owned(),
            written: self.raw.as_ref().clone(),
        }
    }
}

impl File {
    /// Reads the settings of a trigger from a door, as if a file had them. `origin`: the file for
    /// messages, in whose folder relative paths begin.
    ///
    /// # Errors
    /// The settings are wrong.
    pub fn read_trigger(
        &self,
        door: Door,
        origin: &Path,
        written: &Value,
    ) -> Result<Trigger, ConfigError> {
        let wrong = |message: String| ConfigError::of_file(origin, message);
        let mut table = toml::Table::new();
        let value = toml::Value::try_from(written)
            .map_err(|error| wrong(format!("the settings can't be read: {error}")))?;
        table.insert("trigger".to_owned(), toml::Value::Array(vec![value]));
        let text = toml::to_string(&table)
            .map_err(|error| wrong(format!("the settings can't be read: {error}")))?;
        let mut entries = Entries::read_triggers(Document::new(origin, &text))?;
        if let Some(broken) = entries.broken.pop() {
            return Err(broken.problem.of_one_trigger());
        }
        let Some(mut trigger) = entries.trigger.pop() else {
            return Err(wrong("the settings are no table".to_owned()));
        };
        let check = trigger.check(self.names());
        check.map_err(|Mistake { at, key, message }| {
            trigger.error_at(at, &key, message).of_one_trigger()
        })?;
        trigger.door = door;
        trigger.raw = std::sync::Arc::new(written.clone());
        Ok(trigger)
    }

    /// Adds a trigger of another door, or of an earlier generation, in place of one of the same
    /// name.
    pub fn put(&mut self, trigger: Trigger) {
        let name = trigger.name.get_ref().to_string();
        self.trigger.retain(|one| one.name != trigger.name);
        if let Ok(written) = toml::Value::try_from(trigger.raw.as_ref()) {
            self.note_written(Table::Trigger, &name, written);
        }
        self.documents
            .push(std::sync::Arc::clone(&trigger.document));
        self.trigger.push(trigger);
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn file(target: &str) -> File {
        let text = format!(
            "[[trigger]]\nname = \"shop\"\nimages.web = \"registry.example.com/shop/web:latest\"\nsettle = \"5s\"\n{target}\n"
        );
        File::parse(&text, Path::new("conf/tagtrail.toml")).unwrap()
    }

    #[test]
    fn the_hash_of_a_spec_depends_on_its_values_alone() {
        let one = json!({ "a": 1, "b": { "c": [1, 2], "d": "x" } });
        let two = json!({ "b": { "d": "x", "c": [1, 2] }, "a": 1 });
        assert_eq!(hash(&one), hash(&two));
        for other in [
            json!({ "a": 1, "b": { "c": [2, 1], "d": "x" } }),
            json!({ "a": "1", "b": { "c": [1, 2], "d": "x" } }),
            json!({ "a": 1, "b": { "c": [1, 2] }, "d": "x" }),
        ] {
            assert_ne!(hash(&one), hash(&other), "{other}");
        }
    }

    #[test]
    fn a_recorded_spec_is_read_back_as_the_same_trigger() {
        let file = file(
            "target.webhook = { url = \"https://a.example/hook\", secret = { file = \"key\" } }",
        );
        let spec = file.trigger[0].spec();
        let shown = spec.shown();
        assert!(shown.complete);
        let read = File::default()
            .read_trigger(Door::File, &spec.file, &shown.settings)
            .unwrap();
        assert_eq!(read.spec(), spec);
        assert_eq!(read.spec().hash(), spec.hash());
        assert_eq!(read.images.len(), 1);
        assert_eq!(read.folder(), Path::new("conf"));
        let mut other = File::default();
        other.put(read);
        assert_eq!(
            other.written(Table::Trigger, "shop"),
            file.written(Table::Trigger, "shop")
        );
    }

    #[test]
    fn texts_that_may_hold_secrets_are_left_out() {
        for (target, shown) in [
            (
                "target.webhook = { url = \"https://user:pw@a.example/x?token=secret\" }",
                json!({ "webhook": { "url": "https://(hidden)@a.example/x?(hidden)" } }),
            ),
            (
                "target.webhook = { url = \"https://a.example\", headers = { Authorization = \"Bearer x\", token = { env = \"X\" } } }",
                json!({ "webhook": { "url": "https://a.example", "headers": { "Authorization": "(hidden)", "token": { "env": "X" } } } }),
            ),
            (
                "target.command = { run = [\"x\"], set = { PASSWORD = \"x\" } }",
                json!({ "command": { "run": ["x"], "set": { "PASSWORD": "(hidden)" } } }),
            ),
        ] {
            let spec = file(target).trigger[0].spec();
            let found = spec.shown();
            assert!(!found.complete, "{target}");
            assert_eq!(found.settings["target"], shown);
            assert!(!format!("{spec:?}").contains("secret"));
        }
    }

    #[test]
    fn wrong_settings_of_a_door_are_refused_without_a_line() {
        let read = |written: Value| {
            let read = File::default().read_trigger(Door::Api, Path::new("the API"), &written);
            read.unwrap_err().to_string()
        };
        for (written, expected) in [
            (json!({ "name": "shop" }), "missing field `target`"),
            (
                json!({ "name": "shop", "images": {}, "target": { "webhook": {} } }),
                "watches nothing",
            ),
            (json!(7), "invalid type: integer `7`"),
            (json!({ "name": null }), "can't be read"),
        ] {
            let error = read(written);
            assert!(
                error.starts_with("the API: ") && error.contains(expected),
                "{error}"
            );
        }
    }
}
