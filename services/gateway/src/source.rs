//! Kinds of sources: what each sort of sender says, brought to the words of `tagtrail-proto`.
//!
//! A kind is a value of pure functions. To add one: a file beside the others, and its two lines here.

mod acr;
mod aliyun;
mod artifactory;
mod distribution;
mod dockerhub;
mod ecr;
mod gar;
mod generic;
mod ghcr;
mod gitea;
mod harbor;
mod msr;
mod nexus;
mod parts;
mod quay;
mod report;
mod zot;

use std::fmt;
use std::path::PathBuf;

use axum::http::HeaderMap;
use serde::Deserialize;
use serde_json::Value;
use tagtrail_config::{SettingError, Settings};
use tagtrail_proto::{Name, NameError, Push, Registry, clean_text};
use time::OffsetDateTime;

use crate::proof::id_token::TokenRules;
use crate::proof::signature::Signature;

pub(crate) use parts::BODY_ID;
use parts::{Parts, body_id, lenient};
use report::{Report, folded, header, present, seconds_after_1970, sent_at};

/// Every kind there is.
pub(crate) const ALL: &[Kind] = &[
    distribution::DISTRIBUTION,
    harbor::HARBOR,
    quay::QUAY,
    dockerhub::DOCKERHUB,
    ghcr::GHCR,
    gitea::GITEA,
    zot::ZOT,
    ecr::ECR,
    gar::GAR,
    acr::ACR,
    artifactory::ARTIFACTORY,
    nexus::NEXUS,
    msr::MSR,
    aliyun::ALIYUN,
    generic::GENERIC,
];

/// What a sort of sender sends.
#[derive(Debug)]
pub(crate) struct Kind {
    /// As `kind` of a source in `tagtrail.toml`.
    pub(crate) name: &'static str,
    /// Other names of it: products that send the same.
    pub(crate) aliases: &'static [&'static str],
    /// Whether its bodies don't say which registry they are about, so that the source has to.
    pub(crate) needs_registry: bool,
    /// How a sender of this kind proves who it is, besides showing the secret.
    pub(crate) proof: Proof,
    /// Headers that say what the body does not. They are kept with a body that is not understood.
    pub(crate) headers: &'static [&'static str],
    /// Most bytes of a body.
    pub(crate) max_body: usize,
    /// Whether a tag's push names its digest. Where it does not, a `[[registry]]` has to say how that is asked for.
    pub(crate) has_digest: bool,
    /// The registry that its events are always about, unless the source says otherwise.
    pub(crate) default_registry: Option<&'static str>,
    /// How its bodies are decoded.
    decoding: Decoding,
    /// What to set in the registry, for people. `{url}` stands for the address of the source, `{secret}` for its secret,
    /// `{audience}` and `{email}` for what its tokens must name. `docs/registries.md` has it as well.
    pub(crate) setup: &'static str,
}

/// How senders of a kind prove who they are.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Proof {
    /// They show the secret.
    Secret,
    /// They sign the body with the secret, in one of these headers. One that sends none of them shows the secret.
    Signature(&'static [Signature]),
    /// They show a token of an identity provider (`OpenID` Connect), where the source names an `audience`.
    IdToken,
}

/// Decodes a body. An error concerns the whole body; a mistake in one of several events is among the results.
type Decode = fn(&HeaderMap, &[u8], &Context<'_>) -> Result<Vec<Meaning>, DecodeError>;

/// How the bodies of a kind are decoded.
#[derive(Debug, Clone, Copy)]
enum Decoding {
    /// In one way: the kind has no settings.
    Fixed(Decode),
    /// As the settings of the source say: these keys of `[[source]]`, which the function parses.
    Configured(&'static [&'static str], Configure),
}

type Configure = fn(&Settings) -> Result<Options, SettingError>;

/// The settings of a source that its kind parsed.
pub(crate) struct Options {
    /// Decodes a body, as [`Decode`] does.
    pub(crate) decode: Box<Decoder>,
    /// The subject on which its events are published as well.
    pub(crate) nats: Option<NatsSubject>,
    /// The tokens that its senders show in place of a secret.
    pub(crate) tokens: Option<TokenRules>,
}

type Decoder =
    dyn Fn(&HeaderMap, &[u8], &Context<'_>) -> Result<Vec<Meaning>, DecodeError> + Send + Sync;

impl Options {
    fn new(
        decode: impl Fn(&HeaderMap, &[u8], &Context<'_>) -> Result<Vec<Meaning>, DecodeError>
        + Send
        + Sync
        + 'static,
    ) -> Options {
        Options {
            decode: Box::new(decode),
            nats: None,
            tokens: None,
        }
    }
}

impl fmt::Debug for Options {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Options")
            .field("nats", &self.nats)
            .field("tokens", &self.tokens)
            .finish_non_exhaustive()
    }
}

/// A core NATS subject of another system, on which events are published.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct NatsSubject {
    /// Its server, `nats://` or `tls://`.
    pub(crate) url: String,
    /// The subject.
    pub(crate) subject: String,
    /// A file with credentials (`.creds`).
    pub(crate) credentials: Option<PathBuf>,
}

/// How Docker clients reach the repositories of a product that has many behind one host.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Access {
    /// `host/repository/image`.
    RepositoryPath,
    /// `repository.host/image`.
    SubDomain,
    /// `host:port/image`, a port for each repository.
    Port,
}

impl Kind {
    /// A registry's event has a few KiB; with `includereferences` it holds a manifest (4 MiB).
    const MAX_BODY: usize = 8 << 20;

    /// A kind without settings, as most are.
    const fn new(name: &'static str, decode: Decode, setup: &'static str) -> Kind {
        Kind::with(name, Decoding::Fixed(decode), setup)
    }

    /// A kind with these settings.
    const fn with_settings(
        name: &'static str,
        keys: &'static [&'static str],
        configure: Configure,
        setup: &'static str,
    ) -> Kind {
        Kind::with(name, Decoding::Configured(keys, configure), setup)
    }

    const fn with(name: &'static str, decoding: Decoding, setup: &'static str) -> Kind {
        Kind {
            name,
            aliases: &[],
            needs_registry: false,
            proof: Proof::Secret,
            headers: &[],
            max_body: Kind::MAX_BODY,
            has_digest: true,
            default_registry: None,
            decoding,
            setup,
        }
    }

    /// The kind of that name or alias.
    pub(crate) fn named(name: &str) -> Option<&'static Kind> {
        ALL.iter()
            .find(|kind| kind.names().any(|known| known == name))
    }

    /// Its name and its aliases.
    pub(crate) fn names(&self) -> impl Iterator<Item = &'static str> + use<> {
        std::iter::once(self.name).chain(self.aliases.iter().copied())
    }

    /// Its settings: keys of `[[source]]` that only some kinds have.
    pub(crate) fn settings(&self) -> &'static [&'static str] {
        match self.decoding {
            Decoding::Fixed(_) => &[],
            Decoding::Configured(keys, _) => keys,
        }
    }

    /// Parses the settings of a source.
    ///
    /// # Errors
    /// For a key that the kind does not have, or a value that it does not accept.
    pub(crate) fn configure(&self, settings: &Settings) -> Result<Options, SettingError> {
        let unknown = settings.keys().find(|key| !self.settings().contains(key));
        if let Some(key) = unknown {
            let known = tagtrail_config::Source::KEYS.iter().chain(self.settings());
            let known: Vec<String> = known.map(|key| format!("`{key}`")).collect();
            let message = format!(
                "kind {:?} has no such setting, expected one of {}; remove it, or correct its name",
                self.name,
                known.join(", ")
            );
            return Err(SettingError::new(key, message));
        }
        match self.decoding {
            Decoding::Fixed(decode) => Ok(Options::new(decode)),
            Decoding::Configured(_, configure) => configure(settings),
        }
    }

    /// The settings to make in a registry; `tokens` are those of the source, if it has any.
    pub(crate) fn setup_for(&self, url: &str, secret: &str, tokens: Option<&TokenRules>) -> String {
        let (audience, email) =
            tokens.map_or((url, EMAIL), |rules| (&rules.audience, &rules.email));
        self.setup
            .replace("{audience}", audience)
            .replace("{email}", email)
            .replace("{url}", url)
            .replace("{secret}", secret)
    }
}

/// The service account of the examples.
const EMAIL: &str = "tagtrail-push@PROJECT.iam.gserviceaccount.com";

/// What a body does not say about itself.
#[derive(Debug)]
pub(crate) struct Context<'a> {
    /// The source that it came by.
    pub(crate) source: &'a Name,
    /// The registry that the source speaks for, whatever its events say.
    pub(crate) registry: Option<&'a Registry>,
    /// When it came.
    pub(crate) received_at: OffsetDateTime,
}

impl Context<'_> {
    /// The registry: that of the source, else the one that the sender names.
    fn registry(&self, host: &str) -> Result<Registry, DecodeError> {
        match self.registry {
            Some(registry) => Ok(registry.clone()),
            None => host.parse().map_err(|err| {
                DecodeError::new(format_args!(
                    "{err}; set `registry` of the source to say which one it is"
                ))
            }),
        }
    }
}

/// What one event of a body means.
#[derive(Debug, PartialEq)]
pub(crate) enum Meaning {
    /// A fact.
    Push(Box<Push>),
    /// A push of a tag without a usable digest: the registry has to be asked.
    Unresolved(Box<Push>),
    /// Nothing that history keeps: no tag moved.
    Ignored,
    /// The sender asks whether it may send here; this is what it wants to hear.
    Handshake(Value),
    /// Not understood; the others of the same body stand.
    Malformed(DecodeError),
}

/// Why a body, or an event of it, was not understood. It ends up in QUARANTINE and in the answer to the sender.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub(crate) struct DecodeError(String);

impl DecodeError {
    /// More than this of a reason helps nobody.
    const SHOWN: usize = 512;

    pub(crate) fn new(reason: impl fmt::Display) -> DecodeError {
        DecodeError(clean_text(&reason.to_string(), DecodeError::SHOWN))
    }
}

impl From<NameError> for DecodeError {
    fn from(err: NameError) -> DecodeError {
        DecodeError::new(err)
    }
}

impl From<serde_json::Error> for DecodeError {
    fn from(err: serde_json::Error) -> DecodeError {
        DecodeError::new(err)
    }
}

#[cfg(test)]
mod tests;
