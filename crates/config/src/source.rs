//! `[[source]]`: who may send events.

use serde::Deserialize;
use serde::de::DeserializeOwned;
use tagtrail_proto::{Name, Registry};
use toml::Spanned;

use crate::{Glob, Secrets};

/// A configured, authenticated origin of events: one webhook route.
#[derive(Debug, Clone, Deserialize)]
pub struct Source {
    /// Its name: `POST /hooks/<name>`.
    pub name: Spanned<Name>,
    /// The kind of sender: the gateway knows the kinds.
    pub kind: Spanned<String>,
    /// The identity recorded for its events, whatever host they name.
    pub registry: Option<Registry>,
    /// The secret that authenticates a request; two while it is being changed. Only a kind with a proof of its own does without.
    pub secret: Option<Secrets>,
    /// A header that holds the secret, for senders that can't set `Authorization`.
    pub header: Option<Spanned<String>>,
    /// The repositories that this source may report; empty: all.
    #[serde(default)]
    pub repositories: Vec<Glob>,
    /// All other keys, for the kind to parse.
    // `flatten` excludes `deny_unknown_fields`: the gateway refuses keys that the kind does not have.
    #[serde(flatten)]
    pub settings: Settings,
}

impl Source {
    /// The keys of a `[[source]]` of any kind.
    pub const KEYS: &[&str] = &[
        "name",
        "kind",
        "registry",
        "secret",
        "header",
        "repositories",
    ];
}

/// The keys of a `[[source]]` that belong to its kind, not parsed yet.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(transparent)]
pub struct Settings(toml::Table);

/// A mistake in the settings of a kind. `flatten` loses their lines, so the error is reported at the line of `kind`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SettingError {
    /// The key, with a dot for each level.
    pub key: String,
    /// The mistake and the cure.
    pub message: String,
}

impl Settings {
    /// The keys that are set.
    pub fn keys(&self) -> impl Iterator<Item = &str> {
        self.0.keys().map(String::as_str)
    }

    /// Parses all of them.
    ///
    /// # Errors
    /// [`SettingError`] for the first one that does not fit `T`.
    pub fn parse<T: DeserializeOwned>(&self) -> Result<T, SettingError> {
        let settings = toml::Value::Table(self.0.clone());
        serde_path_to_error::deserialize(settings).map_err(|error| {
            let key = error.path().to_string();
            let message = error.inner().message().trim();
            let cure = match message {
                _ if message.starts_with("missing field") => "; add it",
                _ if message.starts_with("unknown field") => "; remove it",
                _ => "",
            };
            SettingError::new(key, format!("{message}{cure}"))
        })
    }
}

impl SettingError {
    /// A mistake in the setting of this key.
    pub fn new(key: impl Into<String>, message: impl Into<String>) -> SettingError {
        SettingError {
            key: key.into(),
            message: message.into(),
        }
    }
}
