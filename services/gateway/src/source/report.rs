//! The rules that all kinds share: from an event in the sender's words to a push.

use axum::http::HeaderMap;
use tagtrail_proto::{
    Action, Digest, NameError, Origin, Push, Registry, Scope, Tag, TimeSource, clean_text, instant,
};
use time::OffsetDateTime;

use super::{Context, DecodeError, Meaning};

/// What an event says, in the sender's own words. The rules that all kinds share are in [`Report::decode_any`].
#[derive(Debug)]
pub(super) struct Report {
    pub(super) action: Action,
    pub(super) registry: Registry,
    pub(super) repository: Option<String>,
    pub(super) tag: Option<String>,
    pub(super) digest: Option<String>,
    pub(super) media_type: Option<String>,
    pub(super) size: Option<u64>,
    pub(super) actor: Option<String>,
    pub(super) time: Option<OffsetDateTime>,
    pub(super) id: Option<String>,
}

impl Report {
    /// As [`Report::decode_any`], of a sender who never means a whole repository: one that names nothing else is broken.
    pub(super) fn decode(
        self,
        ctx: &Context<'_>,
        body_id: impl FnOnce() -> String,
    ) -> Result<Meaning, DecodeError> {
        let named = |text: &Option<String>| text.as_deref().is_some_and(|text| !text.is_empty());
        if self.action == Action::Delete && !named(&self.tag) && !named(&self.digest) {
            return Err(DecodeError::new(
                "a delete that names neither tag nor digest",
            ));
        }
        self.decode_any(ctx, body_id)
    }

    /// Only what passes the grammar of names and digests leaves here.
    pub(super) fn decode_any(
        self,
        ctx: &Context<'_>,
        body_id: impl FnOnce() -> String,
    ) -> Result<Meaning, DecodeError> {
        const ACTOR: usize = 256;
        const MEDIA_TYPE: usize = 255;
        const EVENT_ID: usize = 256;

        let repository = present(self.repository)
            .ok_or_else(|| DecodeError::new("it names no repository"))?
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
            (Action::Push, None, Ok(Some(_))) => return Ok(Meaning::Ignored),
            (Action::Push, None, Ok(None)) => {
                return Err(DecodeError::new("a push needs a tag or a digest"));
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
            return Ok(Meaning::Unresolved(push));
        }
        push.check().map_err(DecodeError::new)?;
        Ok(Meaning::Push(push))
    }
}

/// Senders write an unknown text as `""` as often as they leave it out.
pub(super) fn present(text: Option<String>) -> Option<String> {
    text.filter(|text| !text.is_empty())
}

/// A repository as its clients call it: some products show it as it was first written.
pub(super) fn folded(name: &str) -> String {
    name.to_lowercase()
}

/// Seconds since 1970, whole or not.
pub(super) fn seconds_after_1970(seconds: f64) -> Option<OffsetDateTime> {
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
pub(super) fn header<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers
        .get(name)
        .and_then(|value| value.to_str().ok())
        .filter(|text| !text.is_empty())
}

/// A sender's time, unless it is none: unreadable, without a zone, or the zero of Go (year 1) or of Unix.
pub(super) fn sent_at(text: &str) -> Option<OffsetDateTime> {
    instant::parse(text).filter(|time| *time > OffsetDateTime::UNIX_EPOCH)
}
