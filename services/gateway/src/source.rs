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

use axum::http::HeaderMap;
use serde_json::Value;
use tagtrail_config::Access;
use tagtrail_proto::{Name, NameError, Push, Registry, clean_text};
use time::OffsetDateTime;

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
    /// Keys of a source in `tagtrail.toml` that only this kind reads.
    pub(crate) settings: &'static [&'static str],
    /// Headers that say what the body does not. They are kept with a body that is not understood.
    pub(crate) headers: &'static [&'static str],
    /// Most bytes of a body.
    pub(crate) max_body: usize,
    /// Whether a tag's push names its digest. Where it does not, a `[[registry]]` has to say how that is asked for.
    pub(crate) has_digest: bool,
    /// The registry that its events are always about, unless the source says otherwise.
    pub(crate) default_registry: Option<&'static str>,
    /// Reads a body. An error is about the whole of it; what is wrong with one event of several is among the results.
    pub(crate) decode: Decode,
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

type Decode = fn(&HeaderMap, &[u8], &Context<'_>) -> Result<Vec<Meaning>, DecodeError>;

impl Kind {
    /// A registry's event has a few KiB; with `includereferences` it holds a manifest (4 MiB).
    const MAX_BODY: usize = 8 << 20;

    /// What most kinds have.
    const fn new(name: &'static str, decode: Decode, setup: &'static str) -> Kind {
        Kind {
            name,
            aliases: &[],
            needs_registry: false,
            proof: Proof::Secret,
            settings: &[],
            headers: &[],
            max_body: Kind::MAX_BODY,
            has_digest: true,
            default_registry: None,
            decode,
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

    /// What to set in a registry; `audience` and `email` are those of its tokens, if they are configured.
    pub(crate) fn setup_for(
        &self,
        url: &str,
        secret: &str,
        (audience, email): (Option<&str>, Option<&str>),
    ) -> String {
        self.setup
            .replace("{audience}", audience.unwrap_or(url))
            .replace("{email}", email.unwrap_or(EMAIL))
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
    /// How its images are addressed, where that can be chosen.
    pub(crate) access: Option<Access>,
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
