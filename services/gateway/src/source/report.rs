//! The rules that all kinds share: from an event in the sender's words to a push.

use axum::http::HeaderMap;
use tagtrail_proto::{
    Action, Digest, NameError, Origin, Push, Registry, Scope, TimeSource, clean_text,
};

use super::{BODY_ID, Context, DecodeError, EventTime, Meaning};

/// An event in the sender's words.
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
    pub(super) time: EventTime,
    pub(super) id: Option<String>,
}

impl Report {
    /// As [`Report::decode_any`], for senders that never delete a whole repository: a delete
    /// without tag and digest is malformed.
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

    /// Returns the meaning of the event. Only valid names and digests pass.
    pub(super) fn decode_any(
        self,
        ctx: &Context<'_>,
        body_id: impl FnOnce() -> String,
    ) -> Result<Meaning, DecodeError> {
        const ACTOR: usize = 256;
        const MEDIA_TYPE: usize = 255;

        let registry = ctx.names.registry(self.registry);
        let repository = present(self.repository)
            .ok_or_else(|| DecodeError::new("the event names no repository"))?
            .parse()?;
        let tag = match present(self.tag) {
            // Some senders repeat the digest in place of the tag.
            Some(text) if text.parse::<Digest>().is_err() => {
                Some(ctx.names.tag(&registry, text.parse()?))
            }
            _ => None,
        };
        let digest: Result<Option<Digest>, NameError> =
            present(self.digest).map(|text| text.parse()).transpose();
        let (scope, digest) = match (self.action, &tag, digest) {
            // With a tag, a missing digest is no error: the resolver can ask for the digest of a
            // push, and a delete needs none.
            (_, Some(_), digest) => (Scope::Tag, digest.unwrap_or_default()),
            (_, None, Err(wrong)) => return Err(wrong.into()),
            (Action::Push, None, Ok(Some(_))) => return Ok(Meaning::Ignored),
            (Action::Push, None, Ok(None)) => {
                return Err(DecodeError::new("a push needs a tag or a digest"));
            }
            (Action::Delete, None, Ok(Some(digest))) => (Scope::Digest, Some(digest)),
            (Action::Delete, None, Ok(None)) => (Scope::Repository, None),
        };
        let time = self.time.unwrap_or_else(|unread| {
            ctx.unread_times.borrow_mut().push(unread);
            None
        });
        let (occurred_at, occurred_at_source) = match time {
            Some(time) => (time, TimeSource::Event),
            None => (ctx.received_at, TimeSource::Received),
        };
        let push = Box::new(Push {
            action: self.action,
            scope,
            registry,
            repository,
            tag,
            digest,
            media_type: present(self.media_type).map(|text| clean_text(&text, MEDIA_TYPE)),
            // No manifest is empty, and Postgres has no unsigned numbers.
            size: self
                .size
                .filter(|size| (1..=i64::MAX.unsigned_abs()).contains(size)),
            actor: present(self.actor).map(|text| clean_text(&text, ACTOR)),
            occurred_at,
            occurred_at_source,
            source: ctx.source.to_string(),
            origin: Origin::Event,
            event_id: present(self.id).map_or_else(body_id, |id| sender_id(&id)),
        });
        if push.action == Action::Push && push.digest.is_none() {
            return Ok(Meaning::Unresolved(push));
        }
        push.check().map_err(DecodeError::new)?;
        Ok(Meaning::Push(push))
    }
}

/// Returns the sender's identifier of an event. Behind the gateway an identifier of Tagtrail's own
/// says that a message is a question of the indexer or the resolver, so a sender's identifier that
/// begins like one gets another beginning: always the same, so that a retry is still recognised.
fn sender_id(text: &str) -> String {
    const EVENT_ID: usize = 256;

    let id = clean_text(text, EVENT_ID);
    let mut reserved = Push::RESERVED.into_iter().chain([BODY_ID]);
    if reserved.any(|prefix| id.starts_with(prefix)) {
        return clean_text(&format!("sender:{id}"), EVENT_ID);
    }
    id
}

/// Returns the text unless empty. Many senders write an unknown text as `""`.
pub(super) fn present(text: Option<String>) -> Option<String> {
    text.filter(|text| !text.is_empty())
}

/// Returns the repository in lower case, as clients do: some products keep the spelling of the
/// first push.
pub(super) fn lowercase(name: &str) -> String {
    name.to_lowercase()
}

/// Returns the text of a header, unless empty.
pub(super) fn header<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers
        .get(name)
        .and_then(|value| value.to_str().ok())
        .filter(|text| !text.is_empty())
}
