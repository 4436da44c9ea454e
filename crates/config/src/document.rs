//! The text of one file, and mistakes with their place in it.

use std::collections::BTreeSet;
use std::fmt;
use std::io::ErrorKind;
use std::ops::Range;
use std::path::{Path, PathBuf};

/// The text of one file.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Document {
    path: PathBuf,
    text: String,
}

/// A mistake in a file, with place and cure.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub struct ConfigError {
    path: PathBuf,
    line: Option<usize>,
    message: String,
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let path = self.path.display();
        match self.line {
            Some(line) => write!(f, "{path}:{line}: {}", self.message),
            None => write!(f, "{path}: {}", self.message),
        }
    }
}

impl ConfigError {
    /// Returns the mistake of a whole file.
    pub(crate) fn of_file(path: &Path, message: impl Into<String>) -> ConfigError {
        ConfigError {
            path: path.to_owned(),
            line: None,
            message: message.into(),
        }
    }

    /// Returns the mistake without its line and the table of its key, for settings of a single
    /// trigger that no file has.
    pub(crate) fn of_one_trigger(self) -> ConfigError {
        let key = self.message.strip_prefix("trigger[0]");
        let key = key.or_else(|| self.message.strip_prefix("trigger"));
        let rest = key.and_then(|rest| rest.strip_prefix('.').or(rest.strip_prefix(": ")));
        ConfigError {
            line: None,
            message: rest.map_or_else(|| self.message.clone(), str::to_owned),
            path: self.path,
        }
    }

    /// Returns the mistake without its file: key and cause.
    #[must_use]
    pub fn message(&self) -> &str {
        &self.message
    }

    /// Returns the file of the mistake.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Document {
    pub(crate) fn new(path: &Path, text: &str) -> Document {
        Document {
            path: path.to_owned(),
            text: text.to_owned(),
        }
    }

    /// Reads a file.
    pub(crate) fn read(path: &Path) -> Result<Document, ConfigError> {
        let text = std::fs::read_to_string(path).map_err(|err| {
            let message = match err.kind() {
                ErrorKind::InvalidData => "is not UTF-8 text; save it as UTF-8".to_owned(),
                _ => format!(
                    "can't be read ({err}); give the path of the file by --config or TAGTRAIL_CONFIG"
                ),
            };
            ConfigError::of_file(path, message)
        })?;
        Ok(Document::new(path, &text))
    }

    /// Returns the files that hold secrets: all that the file names by `{ file = "…" }`.
    pub(crate) fn secret_files(&self) -> BTreeSet<PathBuf> {
        let files = self.secrets("file").into_iter();
        files.map(|file| self.folder().join(file)).collect()
    }

    pub(crate) fn text(&self) -> &str {
        &self.text
    }

    /// Returns the folder of the file, where relative paths begin.
    pub(crate) fn folder(&self) -> &Path {
        match self.path.parent() {
            Some(folder) if !folder.as_os_str().is_empty() => folder,
            _ => Path::new("."),
        }
    }

    /// Returns the path of the file.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Returns the error for a mistake in a key at this place.
    pub(crate) fn error_at(&self, at: usize, key: &str, message: impl fmt::Display) -> ConfigError {
        self.error(Some(at..at), format!("{key}: {message}"))
    }

    pub(crate) fn error(&self, span: Option<Range<usize>>, message: String) -> ConfigError {
        ConfigError {
            path: self.path.clone(),
            line: span.map(|span| line(&self.text, span.start)),
            message,
        }
    }

    /// Returns the environment variables that hold secrets: all that the file names by
    /// `{ env = "…" }`, in settings of any kind of source or target.
    pub(crate) fn secret_variables(&self) -> BTreeSet<String> {
        self.secrets("env")
    }

    /// Returns the texts under this key in all tables.
    fn secrets(&self, key: &str) -> BTreeSet<String> {
        let mut found = BTreeSet::new();
        let mut left: Vec<toml::Value> = toml::from_str(&self.text).into_iter().collect();
        while let Some(value) = left.pop() {
            match value {
                toml::Value::Table(table) => {
                    let text = table.get(key).and_then(toml::Value::as_str);
                    found.extend(text.map(str::to_owned));
                    left.extend(table.into_iter().map(|(_, value)| value));
                }
                toml::Value::Array(values) => left.extend(values),
                _ => {}
            }
        }
        found
    }
}

fn line(text: &str, at: usize) -> usize {
    text.bytes().take(at).filter(|byte| *byte == b'\n').count() + 1
}
