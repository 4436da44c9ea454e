//! `[[token]]`: who may use the API.

use serde::Deserialize;
use tagtrail_proto::Name;
use toml::Spanned;

use crate::Secrets;

/// A token for the API.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Token {
    /// The token's name, for the log.
    pub name: Spanned<Name>,
    /// The token itself; two during a change.
    pub secret: Secrets,
    /// The permissions.
    pub role: Role,
}

/// The permissions of a token.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Read history and state.
    Read,
    /// Also pause and resume triggers.
    Operate,
}
