//! `[pages.identity]`: a proxy before the pages that signs people in.

use std::path::{Path, PathBuf};

use serde::Deserialize;

/// The proof by which a proxy says who a person is: a token of an identity provider in a header.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Identity {
    /// The header, such as `X-Goog-IAP-JWT-Assertion`.
    pub header: String,
    /// The issuer of the tokens.
    pub issuer: String,
    /// The audience of the tokens.
    pub audience: String,
    /// The place of the public keys (RFC 7517).
    pub keys: IdentityKeys,
    /// The claim that names the person.
    #[serde(default = "email")]
    pub name: String,
    /// The claim that lists the groups of the person.
    #[serde(default = "groups")]
    pub groups: String,
    /// The groups whose people approve and reject.
    #[serde(default)]
    pub approve: Vec<String>,
    /// The groups whose people give orders.
    #[serde(default)]
    pub operate: Vec<String>,
}

/// The place of a JSON Web Key Set.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum IdentityKeys {
    /// An address.
    Url(String),
    /// A file. A relative path begins in the folder of `tagtrail.toml`.
    File(PathBuf),
}

fn email() -> String {
    "email".to_owned()
}

fn groups() -> String {
    "groups".to_owned()
}

impl Identity {
    /// Makes the path of the keys absolute.
    pub(crate) fn in_folder(mut self, folder: &Path) -> Identity {
        if let IdentityKeys::File(path) = &mut self.keys {
            *path = folder.join(&*path);
        }
        self
    }
}
