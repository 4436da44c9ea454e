//! Secrets: named in the file, kept outside of it.

use std::fmt;
use std::path::PathBuf;

use secrecy::{ExposeSecret as _, SecretString};
use serde::Deserialize;
use sha2::{Digest as _, Sha256};
use subtle::{Choice, ConstantTimeEq as _};

/// Where a secret is kept.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(try_from = "Raw")]
pub enum Secret {
    /// In an environment variable.
    Env(String),
    /// In a file, alone; a newline at its end does not count.
    File(PathBuf),
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Raw {
    env: Option<String>,
    file: Option<PathBuf>,
}

impl TryFrom<Raw> for Secret {
    type Error = &'static str;

    fn try_from(raw: Raw) -> Result<Secret, &'static str> {
        match (raw.env, raw.file) {
            (Some(variable), None) => Ok(Secret::Env(variable)),
            (None, Some(path)) => Ok(Secret::File(path)),
            _ => Err("a secret is either { env = \"VARIABLE\" } or { file = \"path\" }"),
        }
    }
}

/// Why a secret can't be had.
#[derive(Debug, thiserror::Error)]
pub enum SecretError {
    /// The variable is not set.
    #[error("the environment variable {0} is not set; set it, or name another one")]
    Unset(String),
    /// The file can't be read.
    #[error("the file {path} can't be read; check that it exists and that this user may read it")]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// There is nothing in it.
    #[error("the secret from {0} is empty; an empty secret would let everybody in")]
    Empty(String),
}

impl Secret {
    /// The secret itself.
    ///
    /// # Errors
    /// [`SecretError`] names where it should be.
    pub fn read(&self) -> Result<SecretString, SecretError> {
        let (text, place) = match self {
            Secret::Env(variable) => {
                #[expect(
                    clippy::disallowed_methods,
                    reason = "the name of the variable is known only from tagtrail.toml"
                )]
                let text =
                    std::env::var(variable).map_err(|_| SecretError::Unset(variable.clone()))?;
                (text, variable.clone())
            }
            Secret::File(path) => {
                let text =
                    std::fs::read_to_string(path).map_err(|source| SecretError::Unreadable {
                        path: path.clone(),
                        source,
                    })?;
                (text, path.display().to_string())
            }
        };
        let secret = text.trim_end_matches(['\r', '\n']);
        if secret.is_empty() {
            Err(SecretError::Empty(place))
        } else {
            Ok(secret.to_owned().into())
        }
    }
}

/// Where it is kept, for people to find it; never what it is.
impl fmt::Display for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Secret::Env(variable) => write!(f, "${variable}"),
            Secret::File(path) => write!(f, "<the content of {}>", path.display()),
        }
    }
}

/// One secret, or two while the first is being replaced by the second.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(try_from = "OneOrMore")]
pub struct Secrets(Vec<Secret>);

#[derive(Deserialize)]
#[serde(
    untagged,
    expecting = "a secret is { env = \"VARIABLE\" } or { file = \"path\" }, or a list of two of them"
)]
enum OneOrMore {
    One(Secret),
    More(Vec<Secret>),
}

impl TryFrom<OneOrMore> for Secrets {
    type Error = &'static str;

    fn try_from(secrets: OneOrMore) -> Result<Secrets, &'static str> {
        match secrets {
            OneOrMore::One(secret) => Ok(Secrets(vec![secret])),
            OneOrMore::More(secrets) if (1..=2).contains(&secrets.len()) => Ok(Secrets(secrets)),
            OneOrMore::More(_) => Err("a list of secrets holds one or two, the old and the new"),
        }
    }
}

impl Secrets {
    /// Where they are kept, the newest last.
    #[must_use]
    pub fn kept(&self) -> &[Secret] {
        &self.0
    }

    /// All of them.
    ///
    /// # Errors
    /// [`SecretError`] of the first that can't be had.
    pub fn read(&self) -> Result<Vec<SecretString>, SecretError> {
        self.0.iter().map(Secret::read).collect()
    }
}

/// The live secrets of something, to compare with what is shown. Holds hashes only: they have one length, so that comparing
/// them tells nothing, not even how long a secret is.
#[derive(Clone, Default)]
pub struct Live(Vec<[u8; 32]>);

impl Live {
    /// These secrets.
    #[must_use]
    pub fn new(secrets: &[SecretString]) -> Live {
        let hashed = |secret: &SecretString| hash(secret.expose_secret().as_bytes());
        Live(secrets.iter().map(hashed).collect())
    }

    /// Whether this is one of them, in constant time. Each is compared, whatever matched before.
    #[must_use]
    pub fn is(&self, shown: &[u8]) -> Choice {
        let shown = hash(shown);
        let mut matched = Choice::from(0);
        for live in &self.0 {
            matched |= shown.ct_eq(live);
        }
        matched
    }
}

impl fmt::Debug for Live {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Live({} secrets)", self.0.len())
    }
}

fn hash(secret: &[u8]) -> [u8; 32] {
    Sha256::digest(secret).into()
}
