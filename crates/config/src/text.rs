//! Texts that may be secret.

use std::fmt;
use std::path::{Path, PathBuf};

use secrecy::{ExposeSecret as _, SecretString};
use serde::Deserialize;

use crate::{Secret, SecretError};

/// A text of the file, or the place of a secret text.
#[derive(Clone, PartialEq, Eq, Deserialize)]
#[serde(try_from = "Raw")]
pub enum Text {
    /// The text itself.
    Plain(String),
    /// A secret, after a prefix that may be public, such as `Bearer `.
    Secret {
        /// The text before the secret.
        prefix: String,
        /// The place of the secret.
        secret: Secret,
    },
}

#[derive(Deserialize)]
#[serde(
    untagged,
    expecting = "write a text, or { env = \"VARIABLE\" } or { file = \"path\" }, with prefix = \"…\" if a text precedes the secret"
)]
enum Raw {
    Plain(String),
    Secret(RawSecret),
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawSecret {
    env: Option<String>,
    file: Option<PathBuf>,
    #[serde(default)]
    prefix: String,
}

impl TryFrom<Raw> for Text {
    type Error = &'static str;

    fn try_from(raw: Raw) -> Result<Text, &'static str> {
        match raw {
            Raw::Plain(text) => Ok(Text::Plain(text)),
            Raw::Secret(RawSecret { env, file, prefix }) => {
                let secret = Secret::of(env, file)?;
                Ok(Text::Secret { prefix, secret })
            }
        }
    }
}

impl Text {
    /// Returns the text with the path of its secret below a folder, unless the path is absolute.
    #[must_use]
    pub fn in_folder(self, folder: &Path) -> Text {
        match self {
            Text::Secret { prefix, secret } => {
                let secret = secret.in_folder(folder);
                Text::Secret { prefix, secret }
            }
            plain @ Text::Plain(_) => plain,
        }
    }

    /// Returns the place of the secret. `None`: the text is not secret.
    #[must_use]
    pub fn secret(&self) -> Option<&Secret> {
        match self {
            Text::Plain(_) => None,
            Text::Secret { secret, .. } => Some(secret),
        }
    }

    /// Reads the whole text.
    ///
    /// # Errors
    /// [`SecretError`] names the place of the secret.
    pub fn read(&self) -> Result<SecretString, SecretError> {
        match self {
            Text::Plain(text) => Ok(text.clone().into()),
            Text::Secret { prefix, secret } => {
                let secret = secret.read()?;
                Ok(format!("{prefix}{}", secret.expose_secret()).into())
            }
        }
    }
}

/// Displays a place, never the text: people also write secrets into the file itself.
impl fmt::Debug for Text {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.secret() {
            Some(secret) => write!(f, "Text({secret})"),
            None => f.write_str("Text(…)"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, Deserialize)]
    struct Settings {
        text: Text,
    }

    fn parse(text: &str) -> Result<Text, String> {
        let settings: Result<Settings, _> = toml::from_str(&format!("text = {text}"));
        settings
            .map(|settings| settings.text)
            .map_err(|error| error.message().to_owned())
    }

    #[test]
    fn a_text_is_plain_or_a_secret_after_a_prefix() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("token"), "abc\n").unwrap();
        for (written, expected, secret) in [
            ("\"Bearer abc\"", "Bearer abc", false),
            ("{ file = \"token\" }", "abc", true),
            (
                "{ file = \"token\", prefix = \"Bearer \" }",
                "Bearer abc",
                true,
            ),
        ] {
            let text = parse(written).unwrap().in_folder(folder.path());
            assert_eq!(text.read().unwrap().expose_secret(), expected);
            assert_eq!(text.secret().is_some(), secret);
            assert!(!format!("{text:?}").contains("abc"), "{text:?}");
        }
    }

    #[test]
    fn another_form_is_refused_with_the_right_one() {
        for written in ["7", "{ file = \"a\", suffix = \"b\" }", "[\"a\"]"] {
            let error = parse(written).unwrap_err();
            assert!(error.contains("{ file = \"path\" }"), "{error}");
        }
        let error = parse("{ env = \"A\", file = \"b\" }").unwrap_err();
        assert!(error.contains("either"), "{error}");
    }
}
