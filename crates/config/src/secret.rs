//! Secrets, which the file names and another place holds.

use std::fmt;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use hmac::{Hmac, KeyInit as _, Mac as _};
use secrecy::{ExposeSecret as _, SecretString};
use serde::Deserialize;
use sha2::{Digest as _, Sha256};
use subtle::{Choice, ConstantTimeEq as _};

/// The place of a secret.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(try_from = "Raw")]
pub enum Secret {
    /// In an environment variable.
    Env(String),
    /// In a file that holds nothing else. A relative path begins in the folder of `tagtrail.toml`.
    /// Editors add white space and a byte order mark around a secret; neither counts.
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
        Secret::of(raw.env, raw.file)
    }
}

/// The reason why a secret can't be read.
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
        /// The error of the system.
        source: std::io::Error,
    },
    /// The file is not text.
    #[error("the file {0} is not UTF-8 text; save it as UTF-8")]
    NotText(PathBuf),
    /// The value is empty.
    #[error("the secret from {0} is empty; an empty secret would let everybody in")]
    Empty(String),
}

impl Secret {
    /// Returns the one place that is given.
    pub(crate) fn of(env: Option<String>, file: Option<PathBuf>) -> Result<Secret, &'static str> {
        match (env, file) {
            (Some(variable), None) => Ok(Secret::Env(variable)),
            (None, Some(path)) => Ok(Secret::File(path)),
            _ => Err("a secret is either { env = \"VARIABLE\" } or { file = \"path\" }"),
        }
    }

    /// Returns the secret with its path below a folder, unless the path is absolute.
    #[must_use]
    pub fn in_folder(self, folder: &Path) -> Secret {
        match self {
            Secret::File(path) if folder != Path::new(".") => Secret::File(folder.join(path)),
            secret => secret,
        }
    }

    /// Reads the secret.
    ///
    /// # Errors
    /// [`SecretError`] names the place.
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
                let text = std::fs::read_to_string(path).map_err(|source| match source.kind() {
                    ErrorKind::InvalidData => SecretError::NotText(path.clone()),
                    _ => SecretError::Unreadable {
                        path: path.clone(),
                        source,
                    },
                })?;
                (text, path.display().to_string())
            }
        };
        let secret = text.trim_start_matches('\u{feff}').trim();
        if secret.is_empty() {
            Err(SecretError::Empty(place))
        } else {
            Ok(secret.to_owned().into())
        }
    }
}

/// Displays the place, never the secret.
impl fmt::Display for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Secret::Env(variable) => write!(f, "${variable}"),
            Secret::File(path) => write!(f, "<the content of {}>", path.display()),
        }
    }
}

/// A secret, or two during a change.
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
    /// Returns the secrets with their paths below a folder, unless a path is absolute.
    #[must_use]
    pub fn in_folder(self, folder: &Path) -> Secrets {
        let secrets = self.0.into_iter();
        Secrets(secrets.map(|secret| secret.in_folder(folder)).collect())
    }

    /// Returns the places, the newest last.
    #[must_use]
    pub fn kept(&self) -> &[Secret] {
        &self.0
    }

    /// Reads all secrets.
    ///
    /// # Errors
    /// The first [`SecretError`].
    pub fn read(&self) -> Result<Vec<SecretString>, SecretError> {
        self.0.iter().map(Secret::read).collect()
    }
}

/// Fewest characters of a secret that proves an identity.
const SHORTEST: usize = 16;

/// The error of a short secret.
pub const SHORT: &str =
    "is shorter than 16 characters, and can be guessed; make one with `openssl rand -hex 32`";

/// Returns whether a secret can be guessed by its length.
#[must_use]
pub fn is_short(secret: &SecretString) -> bool {
    secret.expose_secret().chars().count() < SHORTEST
}

/// The live secrets of a source or token, for comparison. Only hashes are kept: all have the same
/// length, so the time of a comparison reveals nothing, not even the length of a secret.
#[derive(Clone, Default)]
pub struct Live(Vec<[u8; 32]>);

impl Live {
    /// Returns the live secrets.
    #[must_use]
    pub fn new(secrets: &[SecretString]) -> Live {
        let hashed = |secret: &SecretString| hash(secret.expose_secret().as_bytes());
        Live(secrets.iter().map(hashed).collect())
    }

    /// Returns whether `shown` is a live secret, in constant time: every secret is compared.
    #[must_use]
    pub fn is(&self, shown: &[u8]) -> Choice {
        let shown = hash(shown);
        let mut matched = Choice::from(0);
        for live in &self.0 {
            matched |= shown.ct_eq(live);
        }
        matched
    }

    /// Signs a message with the first live secret, by HMAC-SHA256. The key is the hash of the
    /// secret, which nothing outside of this process has. `None`: there is no live secret.
    #[must_use]
    pub fn sign(&self, message: &[u8]) -> Option<[u8; 32]> {
        self.0.first().map(|key| mac(key, message))
    }

    /// Returns whether `signature` was made for the message with a live secret, in constant time.
    #[must_use]
    pub fn has_signed(&self, message: &[u8], signature: &[u8]) -> Choice {
        let mut matched = Choice::from(0);
        for key in &self.0 {
            matched |= mac(key, message).as_slice().ct_eq(signature);
        }
        matched
    }
}

impl fmt::Debug for Live {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Live({} secrets)", self.0.len())
    }
}

fn mac(key: &[u8; 32], message: &[u8]) -> [u8; 32] {
    // HMAC fills a short key with zeros to the size of a block.
    let mut block = [0; 64];
    block[..key.len()].copy_from_slice(key);
    let mut mac = Hmac::<Sha256>::new(&block.into());
    mac.update(message);
    mac.finalize().into_bytes().into()
}

fn hash(secret: &[u8]) -> [u8; 32] {
    Sha256::digest(secret).into()
}
