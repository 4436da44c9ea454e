//! `[[source]]`: who may send events.

use std::path::PathBuf;

use serde::Deserialize;
use tagtrail_proto::{Name, Registry};
use toml::Spanned;

use crate::{Glob, Secrets};

/// A configured, authenticated origin of events: one webhook route.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Source {
    /// Its name: `POST /hooks/<name>`.
    pub name: Spanned<Name>,
    /// What sends them: the gateway knows the kinds.
    pub kind: Spanned<String>,
    /// The identity recorded for its events, whatever host they name.
    pub registry: Option<Registry>,
    /// What proves that a request is authentic; two while it is being changed. Only a kind with a proof of its own does without.
    pub secret: Option<Secrets>,
    /// A header that holds the secret, for senders that can't set `Authorization`.
    pub header: Option<Spanned<String>>,
    /// What this source may speak for; empty: everything.
    #[serde(default)]
    pub repositories: Vec<Glob>,
    /// Kind `artifactory`: how its images are addressed.
    pub artifactory_access: Option<Access>,
    /// Kind `nexus`: how its images are addressed.
    pub nexus_access: Option<Access>,
    /// Kind `gar`: who issues the tokens.
    pub issuer: Option<String>,
    /// Kind `gar`: whom the tokens are for.
    pub audience: Option<String>,
    /// Kind `gar`: the service account that the tokens are of.
    pub email: Option<String>,
    /// Kind `gar`: the keys that the tokens are signed with, as a JSON Web Key Set.
    pub keys: Option<Keys>,
    /// Kind `zot`: the NATS subject that it publishes to.
    pub nats: Option<NatsSubject>,
}

impl Source {
    /// The keys of the file that it sets and only some kinds read.
    #[must_use]
    pub fn settings(&self) -> Vec<&'static str> {
        let settings = [
            ("artifactory_access", self.artifactory_access.is_some()),
            ("nexus_access", self.nexus_access.is_some()),
            ("issuer", self.issuer.is_some()),
            ("audience", self.audience.is_some()),
            ("email", self.email.is_some()),
            ("keys", self.keys.is_some()),
            ("nats", self.nats.is_some()),
        ];
        let set = settings.into_iter().filter(|(_, is_set)| *is_set);
        set.map(|(key, _)| key).collect()
    }
}

/// How Docker clients reach the repositories of a product that has many behind one host.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Access {
    /// `host/repository/image`.
    RepositoryPath,
    /// `repository.host/image`.
    SubDomain,
    /// `host:port/image`, a port for each repository.
    Port,
}

/// Where a JSON Web Key Set (RFC 7517) is.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Keys {
    /// Fetched, and fetched again when a key is not in it.
    Url(String),
    /// Read, and read again when a key is not in it.
    File(PathBuf),
}

/// A core NATS subject of somebody else's, on which events are published.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NatsSubject {
    /// Its server, `nats://` or `tls://`.
    pub url: String,
    /// The subject.
    pub subject: String,
    /// A file with credentials (`.creds`).
    pub credentials: Option<PathBuf>,
}
