//! The table of source kinds: each decodes the bodies of one sort of sender to pushes.
//!
//! A kind is a value of pure functions. A new kind is a file beside the others and two lines here.

mod acr;
mod aliyun;
mod artifactory;
mod clock;
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

use std::cell::RefCell;
use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use axum::http::HeaderMap;
use serde::Deserialize;
use serde_json::Value;
use tagtrail_config::{Names, SettingError, Settings};
use tagtrail_proto::{Name, NameError, Push, Registry, clean_text};
use time::OffsetDateTime;

use crate::proof::id_token::TokenRules;
use crate::proof::signature::Signature;

use clock::{EventTime, Stamp, UnreadTime, first_of};
pub(crate) use parts::{BODY_ID, Parts};
use parts::{body_id, lenient};
use report::{Report, header, lowercase, present};

/// All kinds.
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

/// A kind of source.
#[derive(Debug)]
pub(crate) struct Kind {
    /// The value of `kind` in a `[[source]]`.
    pub(crate) name: &'static str,
    /// Other names: products that send the same bodies.
    pub(crate) aliases: &'static [&'static str],
    /// The bodies name no registry, so the source must.
    pub(crate) needs_registry: bool,
    /// The proof of identity that senders of this kind can show, besides the secret.
    pub(crate) proof: Proof,
    /// Headers with details that the body lacks. QUARANTINE keeps these headers with a malformed
    /// body.
    pub(crate) headers: &'static [&'static str],
    /// Largest body, in bytes.
    pub(crate) max_body: usize,
    /// The time after which senders of this kind stop waiting for an answer.
    pub(crate) patience: Duration,
    /// The push of a tag names the digest. Otherwise the resolver needs a `[[registry]]` to look
    /// the digest up.
    pub(crate) has_digest: bool,
    /// Pushes of the senders have a time of their own, as a rule. Otherwise a body that somebody
    /// sends again looks like a new push, and the registry is asked before an older digest is
    /// rolled out.
    pub(crate) has_time: bool,
    /// The registry of the events, unless the source names another.
    pub(crate) default_registry: Option<&'static str>,
    /// The decoder.
    decoding: Decoding,
    /// The settings to make in the registry, for people. `{url}` stands for the address of the
    /// source, `{secret}` for the secret, `{audience}` and `{email}` for the claims of tokens.
    /// `docs/registries.md` has the same text.
    pub(crate) setup: &'static str,
}

/// A sender's proof of identity.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Proof {
    /// The secret.
    Secret,
    /// A signature of the body with the secret, in any of these headers; or else the secret.
    Signature(&'static [Signature]),
    /// A token of an identity provider (`OpenID` Connect) if the source has an `audience`; or else
    /// the secret.
    IdToken,
}

/// Decodes a body. An error concerns the whole body; a mistake in a single event is among the
/// results.
type Decode = fn(&HeaderMap, &[u8], &Context<'_>) -> Result<Vec<Meaning>, DecodeError>;

/// The decoder of a kind.
#[derive(Debug, Clone, Copy)]
enum Decoding {
    /// The same decoder for each source: the kind has no settings.
    Fixed(Decode),
    /// A decoder that depends on the settings of the source: the keys, and the function that parses
    /// them.
    Configured(&'static [&'static str], Configure),
}

type Configure = fn(&Settings) -> Result<Options, SettingError>;

/// The settings of a source, parsed by the kind.
pub(crate) struct Options {
    /// Decodes a body, as [`Decode`] does.
    pub(crate) decode: Box<Decoder>,
    /// The NATS subject on which events are published, in addition to webhooks.
    pub(crate) nats: Option<NatsSubject>,
    /// The rules for tokens, if senders show tokens instead of a secret.
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

impl Options {
    /// Makes relative paths of files begin in a folder.
    pub(crate) fn find_files(&mut self, folder: &Path) {
        let credentials = self
            .nats
            .iter_mut()
            .filter_map(|nats| nats.credentials.as_mut());
        let keys = self.tokens.iter_mut().filter_map(TokenRules::file);
        for path in credentials.chain(keys) {
            if folder != Path::new(".") {
                *path = folder.join(&*path);
            }
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
    /// The server, `nats://` or `tls://`.
    pub(crate) url: String,
    /// The subject.
    pub(crate) subject: String,
    /// A file with credentials (`.creds`).
    pub(crate) credentials: Option<PathBuf>,
}

/// The form of image names in a product that serves many repositories from one host.
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
    /// The event of a registry has a few KiB; with `includereferences` the event holds a manifest
    /// (up to 4 MiB).
    const MAX_BODY: usize = 8 << 20;

    /// The time-out of Distribution, and the bound for senders whose time-out is unknown.
    const PATIENCE: Duration = Duration::from_secs(1);

    /// Returns a kind without settings.
    const fn new(name: &'static str, decode: Decode, setup: &'static str) -> Kind {
        Kind::with(name, Decoding::Fixed(decode), setup)
    }

    /// Returns a kind with settings, which `configure` parses.
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
            patience: Kind::PATIENCE,
            has_digest: true,
            has_time: true,
            default_registry: None,
            decoding,
            setup,
        }
    }

    /// Returns the kind with this name or alias.
    pub(crate) fn named(name: &str) -> Option<&'static Kind> {
        ALL.iter()
            .find(|kind| kind.names().any(|known| known == name))
    }

    /// Returns the name and the aliases.
    pub(crate) fn names(&self) -> impl Iterator<Item = &'static str> + use<> {
        std::iter::once(self.name).chain(self.aliases.iter().copied())
    }

    /// Returns the keys of `[[source]]` that belong to this kind.
    pub(crate) fn settings(&self) -> &'static [&'static str] {
        match self.decoding {
            Decoding::Fixed(_) => &[],
            Decoding::Configured(keys, _) => keys,
        }
    }

    /// Parses the settings of a source.
    ///
    /// # Errors
    /// For a key or a value that the kind refuses.
    pub(crate) fn configure(&self, settings: &Settings) -> Result<Options, SettingError> {
        let unknown = settings.keys().find(|key| !self.settings().contains(key));
        if let Some(key) = unknown {
            let known = tagtrail_config::Source::KEYS.iter().chain(self.settings());
            let known: Vec<String> = known.map(|key| format!("`{key}`")).collect();
            let message = format!(
                "kind {:?} has no such setting, expected one of {}; remove the key, or correct the name",
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

    /// Returns the settings to make in a registry. `tokens` are the token rules of the source.
    pub(crate) fn setup_for(&self, url: &str, secret: &str, tokens: Option<&TokenRules>) -> String {
        let (audience, email) = tokens.map_or((url, EMAIL), |rules| {
            (&rules.of_issuer.audience, &rules.email)
        });
        self.setup
            .replace("{audience}", audience)
            .replace("{email}", email)
            .replace("{url}", url)
            .replace("{secret}", secret)
    }
}

/// The service account of the examples.
const EMAIL: &str = "tagtrail-push@PROJECT.iam.gserviceaccount.com";

/// The context of a body.
#[derive(Debug)]
pub(crate) struct Context<'a> {
    /// The source that received the body.
    pub(crate) source: &'a Name,
    /// The registry that the source is configured for, which overrides the host in an event.
    pub(crate) registry: Option<&'a Registry>,
    /// The names of registries.
    pub(crate) names: &'a Names,
    /// The time of receipt.
    pub(crate) received_at: OffsetDateTime,
    /// The times of events that could not be read, for the author of the sender.
    pub(crate) unread_times: RefCell<Vec<UnreadTime>>,
}

impl Context<'_> {
    /// Returns the registry of the source, or else the registry that the sender names.
    fn registry(&self, host: &str) -> Result<Registry, DecodeError> {
        match self.registry {
            Some(registry) => Ok(registry.clone()),
            None => host.parse().map_err(|err| {
                DecodeError::new(format_args!("{err}; set `registry` of the source"))
            }),
        }
    }
}

/// The meaning of an event.
#[derive(Debug, PartialEq)]
pub(crate) enum Meaning {
    /// A push with a digest, or a delete.
    Push(Box<Push>),
    /// The push of a tag without a usable digest: the resolver asks the registry.
    Unresolved(Box<Push>),
    /// A pull by tag, which names the digest of the tag.
    Observed(Box<Push>),
    /// An event that changes no tag.
    Ignored,
    /// The sender asks for permission, which this value grants.
    Handshake(Value),
    /// A malformed event. Other events of the same body still count.
    Malformed(DecodeError),
}

/// The reason why a body, or an event, is malformed, for QUARANTINE and for the sender.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{reason}")]
pub(crate) struct DecodeError {
    reason: String,
    /// The whole body has another form than the bodies of the kind, so a setting is probably wrong,
    /// here or at the sender.
    pub(crate) wrong_form: bool,
}

impl DecodeError {
    /// Most bytes of a reason.
    const SHOWN: usize = 512;

    pub(crate) fn new(reason: impl fmt::Display) -> DecodeError {
        DecodeError {
            reason: clean_text(&reason.to_string(), DecodeError::SHOWN),
            wrong_form: false,
        }
    }

    /// Returns the error for a body of another form than the bodies of the kind.
    pub(crate) fn wrong_form(reason: impl fmt::Display) -> DecodeError {
        DecodeError {
            wrong_form: true,
            ..DecodeError::new(reason)
        }
    }
}

impl From<NameError> for DecodeError {
    fn from(err: NameError) -> DecodeError {
        DecodeError::new(err)
    }
}

impl From<serde_json::Error> for DecodeError {
    fn from(err: serde_json::Error) -> DecodeError {
        DecodeError::wrong_form(err)
    }
}

#[cfg(test)]
mod tests;
