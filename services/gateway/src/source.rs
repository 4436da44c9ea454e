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
mod quay;
mod zot;

use std::cell::OnceCell;
use std::fmt;

use axum::http::HeaderMap;
use serde::de::{Deserialize, DeserializeOwned, Deserializer, Error as _, SeqAccess, Visitor};
use serde_json::Value;
use serde_json::value::RawValue;
use tagtrail_config::Access;
use tagtrail_proto::{
    Action, Digest, Name, NameError, Origin, Push, Registry, Scope, Tag, TimeSource, clean_text,
    instant,
};
use time::OffsetDateTime;

use crate::proof::signature::Signature;

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

type Decode = fn(&HeaderMap, &[u8], &Context<'_>) -> Result<Vec<Decoded>, Malformed>;

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
}

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
    fn registry(&self, host: &str) -> Result<Registry, Malformed> {
        match self.registry {
            Some(registry) => Ok(registry.clone()),
            None => host.parse().map_err(|err| {
                Malformed::new(format_args!(
                    "{err}; set `registry` of the source to say which one it is"
                ))
            }),
        }
    }
}

/// What one event of a body means.
#[derive(Debug, PartialEq)]
pub(crate) enum Decoded {
    /// A fact.
    Push(Box<Push>),
    /// A push of a tag without a usable digest: the registry has to be asked.
    Unresolved(Box<Push>),
    /// Nothing that history keeps: no tag moved.
    Ignored,
    /// The sender asks whether it may send here; this is what it wants to hear.
    Handshake(Value),
    /// Not understood; the others of the same body stand.
    Malformed(Malformed),
}

/// Why a body, or an event of it, was not understood. It ends up in QUARANTINE and in the answer to the sender.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub(crate) struct Malformed(String);

impl Malformed {
    /// More than this of a reason helps nobody.
    const SHOWN: usize = 512;

    pub(crate) fn new(reason: impl fmt::Display) -> Malformed {
        Malformed(clean_text(&reason.to_string(), Malformed::SHOWN))
    }
}

impl From<NameError> for Malformed {
    fn from(err: NameError) -> Malformed {
        Malformed::new(err)
    }
}

impl From<serde_json::Error> for Malformed {
    fn from(err: serde_json::Error) -> Malformed {
        Malformed::new(err)
    }
}

/// What an event says, in the sender's own words. The rules that all kinds share are in [`Report::decode_any`].
#[derive(Debug)]
struct Report {
    action: Action,
    registry: Registry,
    repository: Option<String>,
    tag: Option<String>,
    digest: Option<String>,
    media_type: Option<String>,
    size: Option<u64>,
    actor: Option<String>,
    time: Option<OffsetDateTime>,
    id: Option<String>,
}

impl Report {
    /// As [`Report::decode_any`], of a sender who never means a whole repository: one that names nothing else is broken.
    fn decode(
        self,
        ctx: &Context<'_>,
        body_id: impl FnOnce() -> String,
    ) -> Result<Decoded, Malformed> {
        let named = |text: &Option<String>| text.as_deref().is_some_and(|text| !text.is_empty());
        if self.action == Action::Delete && !named(&self.tag) && !named(&self.digest) {
            return Err(Malformed::new("a delete that names neither tag nor digest"));
        }
        self.decode_any(ctx, body_id)
    }

    /// Only what passes the grammar of names and digests leaves here.
    fn decode_any(
        self,
        ctx: &Context<'_>,
        body_id: impl FnOnce() -> String,
    ) -> Result<Decoded, Malformed> {
        const ACTOR: usize = 256;
        const MEDIA_TYPE: usize = 255;
        const EVENT_ID: usize = 256;

        let repository = present(self.repository)
            .ok_or_else(|| Malformed::new("it names no repository"))?
            .parse()?;
        let tag = match present(self.tag) {
            // Some senders repeat the digest where the tag belongs.
            Some(text) if text.parse::<Digest>().is_err() => Some(text.parse::<Tag>()?),
            _ => None,
        };
        let digest: Result<Option<Digest>, NameError> =
            present(self.digest).map(|text| text.parse()).transpose();
        let (scope, digest) = match (self.action, &tag, digest) {
            // The tag is what counts. For a push its digest can be asked for; a delete does without.
            (_, Some(_), digest) => (Scope::Tag, digest.unwrap_or_default()),
            (_, None, Err(wrong)) => return Err(wrong.into()),
            (Action::Push, None, Ok(Some(_))) => return Ok(Decoded::Ignored),
            (Action::Push, None, Ok(None)) => {
                return Err(Malformed::new("a push needs a tag or a digest"));
            }
            (Action::Delete, None, Ok(Some(digest))) => (Scope::Digest, Some(digest)),
            (Action::Delete, None, Ok(None)) => (Scope::Repository, None),
        };
        let (occurred_at, occurred_at_source) = match self.time {
            Some(time) => (time, TimeSource::Event),
            None => (ctx.received_at, TimeSource::Received),
        };
        let push = Box::new(Push {
            action: self.action,
            scope,
            registry: self.registry,
            repository,
            tag,
            digest,
            media_type: present(self.media_type).map(|text| clean_text(&text, MEDIA_TYPE)),
            // A manifest has a size, and Postgres has no unsigned numbers.
            size: self
                .size
                .filter(|size| (1..=i64::MAX.unsigned_abs()).contains(size)),
            actor: present(self.actor).map(|text| clean_text(&text, ACTOR)),
            occurred_at,
            occurred_at_source,
            source: ctx.source.to_string(),
            origin: Origin::Event,
            event_id: present(self.id).map_or_else(body_id, |text| clean_text(&text, EVENT_ID)),
        });
        if push.action == Action::Push && push.digest.is_none() {
            return Ok(Decoded::Unresolved(push));
        }
        push.check().map_err(Malformed::new)?;
        Ok(Decoded::Push(push))
    }
}

/// Senders write an unknown text as `""` as often as they leave it out.
fn present(text: Option<String>) -> Option<String> {
    text.filter(|text| !text.is_empty())
}

/// A repository as its clients call it: some products show it as it was first written.
fn folded(name: &str) -> String {
    name.to_lowercase()
}

/// Seconds since 1970, whole or not.
fn seconds_after_1970(seconds: f64) -> Option<OffsetDateTime> {
    // What is more is in milliseconds.
    let seconds = if seconds > 1e11 {
        seconds / 1e3
    } else {
        seconds
    };
    // Whole microseconds: a number of this size has no more than that.
    #[expect(
        clippy::cast_possible_truncation,
        reason = "a cast of a float ends at the limits"
    )]
    let microseconds = (seconds * 1e6).round() as i128;
    OffsetDateTime::from_unix_timestamp_nanos(microseconds.saturating_mul(1000))
        .ok()
        .filter(|time| *time > OffsetDateTime::UNIX_EPOCH)
}

/// A header's text, if there is any.
fn header<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers
        .get(name)
        .and_then(|value| value.to_str().ok())
        .filter(|text| !text.is_empty())
}

/// A sender's time, unless it is none: unreadable, without a zone, or the zero of Go (year 1) or of Unix.
fn sent_at(text: &str) -> Option<OffsetDateTime> {
    instant::parse(text).filter(|time| *time > OffsetDateTime::UNIX_EPOCH)
}

/// The events of a body, each still as text.
#[derive(Debug)]
struct Parts<'a>(Vec<&'a RawValue>);

impl Parts<'_> {
    /// More events than this in one body are refused, so that every body can be published before its sender gives up waiting.
    const MOST: usize = 1000;

    /// Decodes each event by itself. `decode` gets its text and an identifier for it, in case that it has none of its own.
    fn decode(
        &self,
        body: &[u8],
        decode: impl Fn(&RawValue, &dyn Fn() -> String) -> Result<Decoded, Malformed>,
    ) -> Vec<Decoded> {
        let all = self.0.len();
        let whole = OnceCell::new();
        let each = |(number, part): (usize, &&RawValue)| {
            let body_id = || {
                let whole = whole.get_or_init(|| body_id(body));
                if all > 1 {
                    format!("{whole}#{number}")
                } else {
                    whole.clone()
                }
            };
            decode(part, &body_id).unwrap_or_else(|malformed| {
                let reason = format!("event {} of {all}: {malformed}", number + 1);
                Decoded::Malformed(Malformed::new(reason))
            })
        };
        self.0.iter().enumerate().map(each).collect()
    }
}

/// An identifier for the event of a body that has none of its own.
fn body_id(body: &[u8]) -> String {
    let hash = Digest::sha256_of(body).to_string();
    format!("{BODY_ID}{}", &hash["sha256:".len()..][..32])
}

/// Start of the identifiers that are made from bodies, for events without one of their own.
pub(crate) const BODY_ID: &str = "body:";

impl<'de: 'a, 'a> Deserialize<'de> for Parts<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Parts<'a>, D::Error> {
        struct Events;
        impl<'de> Visitor<'de> for Events {
            type Value = Vec<&'de RawValue>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a list of events")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Self::Value, A::Error> {
                let mut parts = Vec::new();
                while let Some(part) = list.next_element()? {
                    if parts.len() == Parts::MOST {
                        return Err(A::Error::custom(format_args!(
                            "more than {} events in one body",
                            Parts::MOST
                        )));
                    }
                    parts.push(part);
                }
                Ok(parts)
            }
        }
        deserializer.deserialize_seq(Events).map(Parts)
    }
}

/// Deserialises what only describes an event: of a wrong type, it is as if it were absent.
fn lenient<'de, D: Deserializer<'de>, T: DeserializeOwned>(de: D) -> Result<Option<T>, D::Error> {
    let raw = <&RawValue>::deserialize(de)?;
    Ok(serde_json::from_str(raw.get()).ok())
}

#[cfg(test)]
mod tests;
