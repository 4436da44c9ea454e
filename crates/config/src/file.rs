//! The whole file.

use std::collections::BTreeSet;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use tagtrail_proto::Name;
use toml::Spanned;

use crate::trigger::valid_image_name;
use crate::{HostName, Names, RegistryAccess, Source, Token, Trigger, cure};

/// A mistake in the file, with place and cure.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{place}: {message}")]
pub struct ConfigError {
    place: String,
    message: String,
}

/// The whole file.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct File {
    /// The sources, which may send events.
    #[serde(default)]
    pub source: Vec<Source>,
    /// The registries to ask.
    #[serde(default)]
    pub registry: Vec<RegistryAccess>,
    /// The triggers.
    #[serde(default)]
    pub trigger: Vec<Trigger>,
    /// The tokens for the API.
    #[serde(default)]
    pub token: Vec<Token>,
    /// The settings of requests by browsers.
    #[serde(default)]
    pub pages: Pages,
    #[serde(skip)]
    names: Names,
    #[serde(skip)]
    path: PathBuf,
    #[serde(skip)]
    text: String,
}

/// The settings of requests by browsers.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Pages {
    /// Names by which clients reach the gateway and the api, in addition to `localhost`.
    #[serde(default)]
    pub hosts: Vec<HostName>,
}

/// The path of an empty file, in place of a missing `tagtrail.toml`.
pub const NONE: &str = "/dev/null";

impl File {
    /// Reads the file.
    ///
    /// # Errors
    /// [`ConfigError`], also if the file can't be read.
    pub fn load(path: &Path) -> Result<File, ConfigError> {
        let text = std::fs::read_to_string(path).map_err(|err| ConfigError {
            place: path.display().to_string(),
            message: match err.kind() {
                ErrorKind::InvalidData => "is not UTF-8 text; save it as UTF-8".to_owned(),
                _ => format!("can't be read ({err}); give the path of the file by --config or TAGTRAIL_CONFIG"),
            },
        })?;
        File::parse(&text, path)
    }

    /// Returns the names by which clients reach the gateway and the api.
    #[must_use]
    pub fn hosts(&self) -> Vec<String> {
        self.pages.hosts.iter().map(HostName::to_string).collect()
    }

    /// Returns the path to read: the given path, which must exist, or `tagtrail.toml` if present,
    /// or else an empty file.
    #[must_use]
    pub fn find(given: Option<&Path>) -> PathBuf {
        let usual = Path::new("tagtrail.toml");
        match given {
            Some(given) => given.to_owned(),
            None if usual.exists() => usual.to_owned(),
            None => PathBuf::from(NONE),
        }
    }

    /// Parses the text of the file. `path` is for messages, and the folder of `path` is the working
    /// directory of trigger commands.
    ///
    /// # Errors
    /// [`ConfigError`].
    pub fn parse(text: &str, path: &Path) -> Result<File, ConfigError> {
        let place = |span: Option<std::ops::Range<usize>>| match span {
            Some(span) => format!("{}:{}", path.display(), line(text, span.start)),
            None => path.display().to_string(),
        };
        let reader = toml::Deserializer::parse(text).map_err(|err| ConfigError {
            place: place(err.span()),
            message: format!("{}; it is not TOML", err.message().trim()),
        })?;
        let mut file: File = serde_path_to_error::deserialize(reader).map_err(|err| {
            let key = err
                .path()
                .to_string()
                .replace(".$__serde_spanned_private_value", "")
                .replace(".?", "");
            let inner = err.into_inner();
            let key = if key == "." {
                String::new()
            } else {
                format!("{key}: ")
            };
            let message = inner.message().trim();
            let cure = cure::cure(key.trim_end_matches(": "), message);
            ConfigError {
                place: place(inner.span()),
                message: format!("{key}{message}{cure}"),
            }
        })?;
        file.path = path.to_owned();
        file.text = text.to_owned();
        file.find_secrets();
        file.check()?;
        file.names = Names::of(&file)?;
        file.read_images()?;
        Ok(file)
    }

    /// Makes the paths of secrets relative to the folder of the file.
    fn find_secrets(&mut self) {
        let folder = self.folder().to_owned();
        for source in &mut self.source {
            let secret = source.secret.take();
            source.secret = secret.map(|secret| secret.in_folder(&folder));
        }
        for token in &mut self.token {
            token.secret = token.secret.clone().in_folder(&folder);
        }
        for registry in &mut self.registry {
            let password = registry.password.take();
            registry.password = password.map(|secret| secret.in_folder(&folder));
            let ca = registry.ca.take();
            registry.ca = ca.map(|ca| ca.in_folder(&folder));
            let proxy = registry.proxy.take();
            registry.proxy = proxy.map(|proxy| proxy.in_folder(&folder));
        }
    }

    /// Reads the images of the triggers by the names of the registries.
    fn read_images(&mut self) -> Result<(), ConfigError> {
        let mut triggers = std::mem::take(&mut self.trigger);
        for trigger in &mut triggers {
            for (name, text) in &trigger.written {
                let image = self.names.image(text.get_ref()).map_err(|error| {
                    let key = format!("trigger.images.{}", name.get_ref());
                    self.error_at(text.span().start, &key, error)
                })?;
                trigger.images.insert(name.clone(), image);
            }
        }
        self.trigger = triggers;
        Ok(())
    }

    /// Returns the names of the registries.
    #[must_use]
    pub fn names(&self) -> &Names {
        &self.names
    }

    /// Returns warnings about the file: tags that are read in another spelling, and passwords that
    /// others could read.
    #[must_use]
    pub fn warnings(&self) -> Vec<String> {
        let written = self.trigger.iter().flat_map(|trigger| {
            let images = trigger.written.iter();
            images.filter_map(|(name, text)| Some((name, text, trigger.images.get(name)?)))
        });
        let other = written.filter(|(_, text, image)| {
            let tag = text.get_ref().rsplit_once(':').map(|(_, tag)| tag);
            tag.is_some_and(|tag| {
                tag != image.tag.as_ref() && tag.eq_ignore_ascii_case(image.tag.as_ref())
            })
        });
        other
            .map(|(name, text, image)| {
                let message = format!(
                    "{} writes tags in lower case, so {} is read as {image}",
                    image.registry,
                    text.get_ref()
                );
                let key = format!("trigger.images.{}", name.get_ref());
                self.error_at(text.span().start, &key, message).to_string()
            })
            .chain(self.plain_passwords())
            .collect()
    }

    /// Returns the error for a mistake that the kind of a source or target found, in the form of
    /// all other errors.
    #[must_use]
    pub fn error_at(&self, at: usize, key: &str, message: impl std::fmt::Display) -> ConfigError {
        ConfigError {
            place: format!("{}:{}", self.path.display(), line(&self.text, at)),
            message: format!("{key}: {message}"),
        }
    }

    /// Returns the environment variables that hold secrets: all that the file names by
    /// `{ env = "…" }`, in settings of any kind of source or target.
    #[must_use]
    pub fn secret_variables(&self) -> BTreeSet<String> {
        let mut found = BTreeSet::new();
        let mut left: Vec<toml::Value> = toml::from_str(&self.text).into_iter().collect();
        while let Some(value) = left.pop() {
            match value {
                toml::Value::Table(table) => {
                    let variable = table.get("env").and_then(toml::Value::as_str);
                    found.extend(variable.map(str::to_owned));
                    left.extend(table.into_iter().map(|(_, value)| value));
                }
                toml::Value::Array(values) => left.extend(values),
                _ => {}
            }
        }
        found
    }

    /// Returns the folder of the file.
    #[must_use]
    pub fn folder(&self) -> &Path {
        match self.path.parent() {
            Some(folder) if !folder.as_os_str().is_empty() => folder,
            _ => Path::new("."),
        }
    }

    fn check(&self) -> Result<(), ConfigError> {
        self.check_names("source", self.source.iter().map(|source| &source.name))?;
        self.check_names("trigger", self.trigger.iter().map(|trigger| &trigger.name))?;
        self.check_names("token", self.token.iter().map(|token| &token.name))?;
        for token in &self.token {
            if token.triggers.as_ref().is_some_and(Vec::is_empty) {
                return Err(self.error_at(
                    token.name.span().start,
                    "token.triggers",
                    "names no trigger; write patterns such as [\"team-a-*\"], or leave the key out for all triggers",
                ));
            }
        }
        for source in &self.source {
            if let Some(header) = &source.header {
                let token = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-';
                if header.get_ref().is_empty() || !header.get_ref().bytes().all(token) {
                    return Err(self.error_at(
                        header.span().start,
                        "source.header",
                        "must be the name of an HTTP header, such as X-Tagtrail-Secret",
                    ));
                }
            }
        }
        let mut registries = BTreeSet::new();
        for registry in &self.registry {
            if !registries.insert(registry.name.get_ref()) {
                return Err(self.error_at(
                    registry.name.span().start,
                    "registry.name",
                    format!("{} is configured twice; keep one", registry.name.get_ref()),
                ));
            }
            let urls = [
                ("registry.url", Some(&registry.url)),
                ("registry.realm", registry.realm.as_ref()),
            ];
            for (key, url) in urls {
                let Some(url) = url else { continue };
                let text = url.get_ref();
                if !text.starts_with("https://") && !text.starts_with("http://") {
                    let message = "must start with https:// (or http://)";
                    return Err(self.error_at(url.span().start, key, message));
                }
            }
            if registry.username.is_some() != registry.password.is_some() {
                let message =
                    "a username needs a password and a password a username; give both or neither";
                return Err(self.error_at(
                    registry.name.span().start,
                    "registry.username",
                    message,
                ));
            }
        }
        for trigger in &self.trigger {
            let at = trigger.name.span().start;
            if trigger.written.is_empty() {
                return Err(self.error_at(
                    at,
                    "trigger.images",
                    "watches nothing; add images.<name> = \"registry/repository:tag\"",
                ));
            }
            if let Some(name) = trigger
                .written
                .keys()
                .find(|name| !valid_image_name(name.get_ref()))
            {
                return Err(self.error_at(name.span().start, "trigger.images", format!("{:?} is not a name for an image: 1 to 63 of a-z 0-9 - _, starting with a letter or digit", name.get_ref())));
            }
            if trigger.target.get_ref().len() != 1 {
                let message = "needs exactly one target, such as target.webhook = { url = \"https://…\", secret = { file = \"…\" } }";
                return Err(self.error_at(trigger.target.span().start, "trigger.target", message));
            }
        }
        Ok(())
    }

    fn check_names<'a>(
        &self,
        what: &str,
        names: impl Iterator<Item = &'a Spanned<Name>>,
    ) -> Result<(), ConfigError> {
        let mut seen = BTreeSet::new();
        for name in names {
            if !seen.insert(name.get_ref()) {
                let message = format!(
                    "{:?} is the name of another {what} too; give it a name of its own",
                    name.get_ref().as_ref()
                );
                return Err(self.error_at(name.span().start, &format!("{what}.name"), message));
            }
        }
        Ok(())
    }
}

fn line(text: &str, at: usize) -> usize {
    text.bytes().take(at).filter(|byte| *byte == b'\n').count() + 1
}
