//! `[[source]]`: the senders of events.

use serde::Deserialize;
use serde::de::DeserializeOwned;
use tagtrail_proto::{Name, NameError, Registry};
use toml::Spanned;

use crate::file::Mistake;
use crate::{Glob, Secrets};

/// A configured, authenticated origin of events: a webhook route.
#[derive(Debug, Clone, Deserialize)]
pub struct Source {
    /// The name: `POST /hooks/<name>`.
    pub name: Spanned<Name>,
    /// The kind of sender. The gateway has the table of kinds.
    pub kind: Spanned<String>,
    /// The registry that the source reports. `None` is a mistake, except of a kind that is always
    /// about one registry; services take it as [`SourceRegistry::Any`], so that an upgrade shuts no
    /// sender out.
    pub registry: Option<SourceRegistry>,
    /// The secret that authenticates a request; two during a change. Optional for a kind with
    /// another proof of identity.
    pub secret: Option<Secrets>,
    /// A header that holds the secret, for senders that can't set `Authorization`.
    pub header: Option<Spanned<String>>,
    /// The repositories that this source may report. Empty: all.
    #[serde(default)]
    pub repositories: Vec<Glob>,
    /// The use of the pulls that this source reports.
    #[serde(default)]
    pub pulls: Pulls,
    /// The keys that belong to the kind.
    // `flatten` excludes `deny_unknown_fields`, so the kind refuses unknown keys.
    #[serde(flatten)]
    pub settings: Settings,
}

/// The registry that a source reports.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub enum SourceRegistry {
    /// `any`: the registry that each event names. So the source can move the images of every
    /// registry.
    Any,
    /// This one, whichever host an event names.
    Named(Registry),
}

impl TryFrom<String> for SourceRegistry {
    type Error = NameError;

    fn try_from(text: String) -> Result<SourceRegistry, NameError> {
        match text.as_str() {
            "any" => Ok(SourceRegistry::Any),
            name => name.parse().map(SourceRegistry::Named),
        }
    }
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
        "pulls",
    ];

    /// Checks the entry.
    pub(crate) fn check(&mut self) -> Result<(), Mistake> {
        let Some(header) = &self.header else {
            return Ok(());
        };
        let token = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-';
        if header.get_ref().is_empty() || !header.get_ref().bytes().all(token) {
            let message = "must be the name of an HTTP header, such as X-Tagtrail-Secret";
            return Err(Mistake::new(header.span().start, "source.header", message));
        }
        Ok(())
    }
}

/// The use of reported pulls: a pull by tag names the digest that the tag has.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Pulls {
    /// A pull of another digest than the last reported one makes the resolver compare history with
    /// the registry.
    #[default]
    Observe,
    /// Pulls have no effect.
    Ignore,
}

/// The keys of a `[[source]]` that belong to the kind, not parsed yet.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(transparent)]
pub struct Settings(toml::Table);

/// A mistake in the settings of a kind. `flatten` loses line numbers, so the error names the line
/// of `kind`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SettingError {
    /// The key, with dots between levels.
    pub key: String,
    /// The mistake and the cure.
    pub message: String,
}

impl Settings {
    /// Returns the keys that are set.
    pub fn keys(&self) -> impl Iterator<Item = &str> {
        self.0.keys().map(String::as_str)
    }

    /// Parses all keys.
    ///
    /// # Errors
    /// [`SettingError`] for the first key that does not fit `T`.
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
    /// Returns the error for a mistake in this key.
    pub fn new(key: impl Into<String>, message: impl Into<String>) -> SettingError {
        SettingError {
            key: key.into(),
            message: message.into(),
        }
    }
}
