//! The errors of the API, as problem details (RFC 9457) with a stable `code`.

use std::sync::Arc;
use std::time::Duration;

use axum::http::header::{CONNECTION, RETRY_AFTER, WWW_AUTHENTICATE};
use axum::http::{HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use schemars::{JsonSchema, SchemaGenerator};
use serde_json::Value;
use tagtrail_config::Role;
use tagtrail_proto::{Digest, Image, NameError};

use tagtrail_daemon::problem;
use tagtrail_history::instant::Instant;
use tagtrail_history::prefix::{DigestPrefix, NotDigits};

/// An error of a request. The client receives the text as `detail`.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error("the parameter image is missing: image=registry.example.com/foo/bar:latest")]
    ImageMissing,
    #[error("{0}")]
    Image(NameError),
    #[error("{0}")]
    Digest(NotDigits),
    #[error("{}", candidates(.prefix, .digests, *.more))]
    DigestAmbiguous {
        prefix: DigestPrefix,
        digests: Vec<Digest>,
        /// Set if more digests begin with the prefix than those listed.
        more: bool,
    },
    #[error(
        "repository must be a registry and a path without a tag, such as registry.example.com/shop/web"
    )]
    Repository,
    #[error(
        "{parameter} must be an RFC 3339 time, such as 2026-03-03T14:02:00Z or 2026-03-03T15:02:00%2B01:00 (the + escaped)"
    )]
    Time { parameter: &'static str },
    #[error("{field} must be a time (UTC), such as 2026-11-25 08:00, 25 Nov 08:00 or for 2 days")]
    TimeTyped { field: &'static str },
    #[error("there is no such report; the reports are {}", .0.join(", "))]
    ReportUnknown(Vec<&'static str>),
    #[error("a report covers three years at most, and known_at must not be in the future")]
    ReportTime,
    #[error(
        "this report takes no known_at: a change counts as reported once its event arrives, however late"
    )]
    NeverFinal,
    #[error("since ({since}) is later than until ({until}), so no time is in the range")]
    RangeEmpty { since: Instant, until: Instant },
    #[error("state must be one of {0}")]
    State(String),
    #[error("match must be a pattern over names: 1 to 63 of a-z 0-9 - and *, such as shop-*")]
    TriggerPattern,
    #[error(
        "condition must be one of settled, waiting, held, rolling_out, failing, paused, broken and removed"
    )]
    Condition,
    #[error("label must be name=value, or a name for any value")]
    Label,
    #[error("{0}")]
    TriggerInvalid(String),
    #[error("If-Match must be a generation, such as \"3\"")]
    Generation,
    #[error(
        "tagtrail.toml has no [api_triggers], so the API makes no triggers; add the table, or write the trigger into a file"
    )]
    ApiTriggersOff,
    #[error(
        "the API has made {0} triggers, and `most` of [api_triggers] in tagtrail.toml allows no more; remove one, or raise it"
    )]
    TooManyTriggers(u32),
    #[error(
        "a file or an annotated object has a trigger of this name: change that one, or give the trigger of the API another name"
    )]
    TriggerOfFile,
    #[error(
        "the trigger has generation {0} now: read its settings again, and send If-Match with that number"
    )]
    GenerationChanged(i64),
    #[error(
        "the trigger exists, with generation {0}: send If-Match with the generation that the change replaces"
    )]
    GenerationRequired(i64),
    #[error("{parameter} must be one of {}", .choices.join(", "))]
    Choice {
        parameter: &'static str,
        choices: Vec<String>,
    },
    #[error(
        "there is no kind {0:?} of events: kinds is one or several of revision, rollout, hold and trigger, separated by commas; changes of sources are not recorded, and GET /v1/sources has their present states"
    )]
    EventKind(String),
    #[error("{parameter} must be true or false")]
    Flag { parameter: &'static str },
    #[error("revision must be a number: revisions of a tag are numbered 1, 2, 3 …")]
    Revision,
    #[error("limit must be a number from 1 to {most}")]
    Limit { most: usize },
    #[error(
        "cursor must be the `next` of the previous page of the same list; leave it out to start over"
    )]
    Cursor,
    #[error("select two revisions to compare, or one to compare with the head; these are {0}")]
    Selected(usize),
    #[error("q must have 1 to 600 characters")]
    Question,
    #[error("cursor and before can't be combined: each names a place in the list")]
    CursorAndBefore,
    #[error("there is no parameter {name:?}; {}", list(.known))]
    ParameterUnknown {
        name: String,
        known: Vec<&'static str>,
    },
    #[error("{0}")]
    Match(String),
    #[error("{0} must not be given more than once")]
    ParameterRepeated(&'static str),
    #[error("the body is not the JSON that the operation takes: {0}")]
    Body(String),
    /// A mistake in the settings of a trigger, with its cure.
    #[error("{0}")]
    Spec(String),
    #[error("this is not the form of this page; open the page again")]
    Form,
    #[error("the body did not arrive whole; send it again")]
    BodyCut,
    #[error(
        "the body is larger than the operation takes; GET /openapi.json states its largest size"
    )]
    BodyTooLarge,
    #[error("send the body as JSON, with the header `Content-Type: application/json`")]
    BodyNotJson,
    #[error(
        "revision can't be combined with at or known_at: a numbered revision means the same at all times"
    )]
    RevisionAndTime,

    #[error("send `Authorization: Bearer …` with the secret of a [[token]] in tagtrail.toml")]
    Unauthenticated,
    #[error(
        "the token in the request does not match: send `Authorization: Bearer …` with the secret of a [[token]] in tagtrail.toml"
    )]
    WrongToken,
    #[error("the proxy's proof of your identity was refused: {0}")]
    AssertionWrong(String),
    #[error("the keys of the identity provider can't be read; try again in a moment")]
    KeysUnavailable,
    #[error("send the Authorization header once")]
    HeaderRepeated,
    #[error(
        "an address may carry only a token with role = \"read\": send this token as `Authorization: Bearer …`, and replace it if the address was logged"
    )]
    TokenInQuery { token: String },
    #[error(
        "this token has role = {:?}; use a token with role = {:?}", .role.as_str(), .needed.as_str()
    )]
    Forbidden {
        token: String,
        role: Role,
        needed: Role,
    },
    #[error(
        "this token may not act on {trigger}: the key `triggers` of its [[token]] in tagtrail.toml does not list it"
    )]
    OutOfScope { token: String, trigger: String },
    #[error(
        "this token may not act on {trigger}: its [[token]] in tagtrail.toml has no key `triggers`, and triggers carry its name, so it acts on {token} and {token}-* alone; add triggers = [\"*\"], or the patterns that it needs"
    )]
    OutOfName { token: String, trigger: String },
    #[error("send the Idempotency-Key once, as 1 to 100 visible ASCII characters")]
    IdempotencyKey,
    #[error(
        "this Idempotency-Key was sent with another order in the last 24 h; send each order with a key of its own"
    )]
    IdempotencyKeyReused,
    #[error("an order can't skip {0:?}; it may skip recheck, manifest, upstream and window")]
    GateNotSkippable(String),
    #[error(
        "{field} must be a time (UTC), such as 2026-03-03 14:02, 3 Mar 14:02, 2 h ago or yesterday 12:00"
    )]
    PastTyped { field: &'static str },
    #[error("{field} is later than now: a time of the past is needed")]
    NotPast { field: &'static str },
    #[error("until must be a time in the future")]
    UntilPast,
    #[error("a digest is written whole, such as sha256: and 64 hexadecimal digits")]
    DigestWhole,
    #[error("the trigger is paused: resume it first")]
    TriggerPaused,
    #[error("{0}")]
    SetImpossible(String),
    #[error(
        "the trigger {0} does not wait for reports; set done = \"reported\" in its target.webhook"
    )]
    OutcomeUnexpected(String),
    #[error("there is no such hold in force; GET /v1/holds lists them")]
    HoldUnknown,
    #[error("this hold is no freeze: POST /v1/triggers/{0}/release ends it")]
    HoldOfTrigger(String),
    #[error("{0}")]
    NotApprovable(String),
    #[error("the setting `approvals` of the trigger takes verdicts of the tokens {0}")]
    NotAnApprover(String),
    #[error("the reason must have 1 to 500 characters")]
    Reason,
    #[error(
        "too many requests without a right token came from this address; correct the token, and send one request a second"
    )]
    TooManyRefusals,

    #[error("{0} is unknown: no push of it was ever recorded")]
    TagUnknown(Image),
    #[error("{image} is unknown: no push of it was ever recorded; known: {}", .similar.join(", "))]
    TagUnlike { image: Image, similar: Vec<String> },
    #[error(
        "the history of {0} begins later: at that time the tag did not exist, or was not recorded yet"
    )]
    TagNotYet(Image),
    #[error("{image} was deleted: revision {revision}, at {at}")]
    TagDeleted {
        image: Image,
        revision: u64,
        at: Instant,
    },
    #[error(
        "{0} is unknown: no push of it was ever recorded; GET /v1/repositories lists the repositories"
    )]
    RepositoryUnknown(String),
    #[error("{repository} is unknown: no push of it was ever recorded; known: {}", .similar.join(", "))]
    RepositoryUnlike {
        repository: String,
        similar: Vec<String>,
    },
    #[error("no digest of an image or manifest begins with {0}")]
    DigestUnknown(DigestPrefix),
    #[error("no tag ever had the digest {0}, and no manifest of it was read")]
    DigestUnheard(Digest),
    #[error("{image} has no revision {revision}")]
    RevisionUnknown { image: Image, revision: u64 },
    #[error(
        "no manifest is recorded for {0}: it has not been read yet, or its registry has no [[registry]] entry in tagtrail.toml"
    )]
    ManifestUnknown(Digest),
    #[error("there is no such trigger; GET /v1/triggers lists them")]
    TriggerUnknown,
    #[error("there is no entry {0} in quarantine; GET /v1/quarantine lists them")]
    QuarantineUnknown(u64),
    #[error("the body was not replayed: {0}")]
    NotReplayed(String),
    #[error("the quarantine can't be read or replayed now: {0}")]
    QuarantineUnavailable(String),
    #[error("there is no such rollout; GET /v1/rollouts lists them")]
    RolloutUnknown,
    #[error(
        "there is no such path; the API is under /v1: resolve, history, digests, manifests, compare, search, coverage, status, sources, quarantine, registries, repositories, tags, changes, revisions, events, triggers, rollouts, approvals, holds, acts, reports; GET /openapi.json describes it"
    )]
    NotFound,
    #[error(
        "this path does not take this method; the Allow header lists the methods that it takes"
    )]
    MethodNotAllowed,

    #[error("the live feed has too many followers; try again in a moment")]
    TooManyFollowers,
    #[error("too many questions are waiting for an answer; try again in a moment")]
    TooManyQuestions,
    #[error("other tests of triggers are running; try again in a moment")]
    TooManyTests,
    #[error("the database has not been reached since the start; try again in a moment")]
    NotConnected,
    #[error("the database can't be reached or is overloaded; try again in a moment")]
    Unavailable(#[source] sqlx::Error),
    #[error("the database did not answer in time; try again in a moment")]
    TooSlow(Duration),
    #[error("internal error; the server's log has the cause")]
    Store(#[source] sqlx::Error),
    #[error("internal error; the server's log has the cause")]
    NotRewritten(#[source] axum::BoxError),
    #[error("internal error; the server's log has the cause")]
    Panicked,
    /// The error of a statement that answers several requests. It is logged where it happened.
    #[error("{0}")]
    OfAll(Arc<Error>),
}

fn list(known: &[&str]) -> String {
    if known.is_empty() {
        return "the operation takes none".to_owned();
    }
    format!("the operation takes {}", known.join(", "))
}

fn candidates(prefix: &DigestPrefix, digests: &[Digest], more: bool) -> String {
    let digests: Vec<String> = digests.iter().map(Digest::to_string).collect();
    let more = if more { " and others" } else { "" };
    format!(
        "several digests begin with {prefix}: {}{more}; write more digits",
        digests.join(", ")
    )
}

impl From<sqlx::Error> for Error {
    fn from(error: sqlx::Error) -> Error {
        let temporary = match &error {
            sqlx::Error::Io(_)
            | sqlx::Error::Tls(_)
            // A pooler dropped the settings of a connection.
            | sqlx::Error::Configuration(_)
            | sqlx::Error::PoolTimedOut
            | sqlx::Error::PoolClosed
            | sqlx::Error::WorkerCrashed => true,
            // Classes of SQLSTATE: connection, credentials, database name, resources, operator
            // (also statement_timeout), system. 25006: Postgres is read-only, as after a failover.
            sqlx::Error::Database(refusal) => refusal.code().is_some_and(|code| {
                ["08", "25006", "28", "3D", "53", "57", "58"]
                    .iter()
                    .any(|class| code.starts_with(class))
            }),
            _ => false,
        };
        if temporary {
            Error::Unavailable(error)
        } else {
            Error::Store(error)
        }
    }
}

impl Error {
    fn status(&self) -> (StatusCode, &'static str) {
        match self {
            Error::ImageMissing | Error::Image(_) => (StatusCode::BAD_REQUEST, "image_invalid"),
            Error::Digest(_) => (StatusCode::BAD_REQUEST, "digest_invalid"),
            Error::DigestAmbiguous { .. } => (StatusCode::BAD_REQUEST, "digest_ambiguous"),
            Error::Repository => (StatusCode::BAD_REQUEST, "repository_invalid"),
            Error::Question => (StatusCode::BAD_REQUEST, "question_invalid"),
            Error::Selected(_) | Error::Revision => (StatusCode::BAD_REQUEST, "revision_invalid"),
            Error::Time { .. } | Error::TimeTyped { .. } | Error::ReportTime => {
                (StatusCode::BAD_REQUEST, "time_invalid")
            }
            Error::State(_) => (StatusCode::BAD_REQUEST, "state_invalid"),
            Error::Choice { .. } => (StatusCode::BAD_REQUEST, "choice_invalid"),
            Error::EventKind(_) => (StatusCode::BAD_REQUEST, "kinds_invalid"),
            Error::Flag { .. } => (StatusCode::BAD_REQUEST, "flag_invalid"),
            Error::Limit { .. } => (StatusCode::BAD_REQUEST, "limit_invalid"),
            Error::Match(_) | Error::TriggerPattern => (StatusCode::BAD_REQUEST, "match_invalid"),
            Error::Condition => (StatusCode::BAD_REQUEST, "condition_invalid"),
            Error::Label => (StatusCode::BAD_REQUEST, "label_invalid"),
            Error::TriggerInvalid(_) => (StatusCode::BAD_REQUEST, "trigger_invalid"),
            Error::Generation => (StatusCode::BAD_REQUEST, "generation_invalid"),
            Error::ApiTriggersOff => (StatusCode::FORBIDDEN, "api_triggers_off"),
            Error::TooManyTriggers(_) => (StatusCode::CONFLICT, "too_many_triggers"),
            Error::TriggerOfFile => (StatusCode::CONFLICT, "trigger_of_file"),
            Error::GenerationChanged(_) => (StatusCode::PRECONDITION_FAILED, "generation_changed"),
            Error::GenerationRequired(_) => {
                (StatusCode::PRECONDITION_REQUIRED, "generation_required")
            }
            Error::Cursor => (StatusCode::BAD_REQUEST, "cursor_invalid"),
            Error::ParameterUnknown { .. } => (StatusCode::BAD_REQUEST, "parameter_unknown"),
            Error::ParameterRepeated(_) => (StatusCode::BAD_REQUEST, "parameter_repeated"),
            Error::Body(_) | Error::BodyCut | Error::Form => {
                (StatusCode::BAD_REQUEST, "body_invalid")
            }
            Error::Spec(_) => (StatusCode::BAD_REQUEST, "spec_invalid"),
            Error::BodyTooLarge => (StatusCode::PAYLOAD_TOO_LARGE, "body_too_large"),
            Error::BodyNotJson => (StatusCode::UNSUPPORTED_MEDIA_TYPE, "body_not_json"),
            Error::RevisionAndTime
            | Error::RangeEmpty { .. }
            | Error::CursorAndBefore
            | Error::NeverFinal => (StatusCode::BAD_REQUEST, "parameter_conflict"),
            Error::HeaderRepeated => (StatusCode::BAD_REQUEST, "header_repeated"),
            Error::Unauthenticated | Error::WrongToken | Error::AssertionWrong(_) => {
                (StatusCode::UNAUTHORIZED, "unauthenticated")
            }
            Error::Forbidden { .. } | Error::TokenInQuery { .. } => {
                (StatusCode::FORBIDDEN, "forbidden")
            }
            Error::OutOfScope { .. } | Error::OutOfName { .. } => {
                (StatusCode::FORBIDDEN, "out_of_scope")
            }
            Error::IdempotencyKey => (StatusCode::BAD_REQUEST, "idempotency_key_invalid"),
            Error::IdempotencyKeyReused => {
                (StatusCode::UNPROCESSABLE_ENTITY, "idempotency_key_reused")
            }
            Error::GateNotSkippable(_) => (StatusCode::BAD_REQUEST, "gate_invalid"),
            Error::UntilPast | Error::PastTyped { .. } | Error::NotPast { .. } => {
                (StatusCode::BAD_REQUEST, "time_invalid")
            }
            Error::DigestWhole => (StatusCode::BAD_REQUEST, "digest_invalid"),
            Error::TriggerPaused => (StatusCode::CONFLICT, "trigger_paused"),
            Error::SetImpossible(_) => (StatusCode::CONFLICT, "set_impossible"),
            Error::OutcomeUnexpected(_) => (StatusCode::CONFLICT, "outcome_unexpected"),
            Error::NotApprovable(_) => (StatusCode::CONFLICT, "not_approvable"),
            Error::NotAnApprover(_) => (StatusCode::FORBIDDEN, "not_an_approver"),
            Error::HoldUnknown => (StatusCode::NOT_FOUND, "hold_unknown"),
            Error::HoldOfTrigger(_) => (StatusCode::CONFLICT, "hold_of_trigger"),
            Error::Reason => (StatusCode::BAD_REQUEST, "reason_invalid"),
            Error::TooManyRefusals => (StatusCode::TOO_MANY_REQUESTS, "too_many_refusals"),
            Error::TagUnknown(_) | Error::TagUnlike { .. } | Error::TagNotYet(_) => {
                (StatusCode::NOT_FOUND, "tag_unknown")
            }
            Error::RepositoryUnknown(_) | Error::RepositoryUnlike { .. } => {
                (StatusCode::NOT_FOUND, "repository_unknown")
            }
            Error::DigestUnknown(_) | Error::DigestUnheard(_) => {
                (StatusCode::NOT_FOUND, "digest_unknown")
            }
            Error::TagDeleted { .. } => (StatusCode::NOT_FOUND, "tag_deleted"),
            Error::RevisionUnknown { .. } => (StatusCode::NOT_FOUND, "revision_unknown"),
            Error::ManifestUnknown(_) => (StatusCode::NOT_FOUND, "manifest_unknown"),
            Error::ReportUnknown(_) => (StatusCode::NOT_FOUND, "report_unknown"),
            Error::TriggerUnknown => (StatusCode::NOT_FOUND, "trigger_unknown"),
            Error::RolloutUnknown => (StatusCode::NOT_FOUND, "rollout_unknown"),
            Error::NotFound => (StatusCode::NOT_FOUND, "not_found"),
            Error::QuarantineUnknown(_) => (StatusCode::NOT_FOUND, "quarantine_unknown"),
            Error::NotReplayed(_) => (StatusCode::CONFLICT, "not_replayed"),
            Error::QuarantineUnavailable(_) => {
                (StatusCode::SERVICE_UNAVAILABLE, "quarantine_unavailable")
            }
            Error::MethodNotAllowed => (StatusCode::METHOD_NOT_ALLOWED, "method_not_allowed"),
            Error::TooManyFollowers | Error::TooManyQuestions | Error::TooManyTests => {
                (StatusCode::SERVICE_UNAVAILABLE, "busy")
            }
            Error::KeysUnavailable => (StatusCode::SERVICE_UNAVAILABLE, "keys_unavailable"),
            Error::NotConnected | Error::Unavailable(_) | Error::TooSlow(_) => {
                (StatusCode::SERVICE_UNAVAILABLE, "store_unavailable")
            }
            Error::OfAll(error) => error.status(),
            Error::Store(_) | Error::NotRewritten(_) | Error::Panicked => {
                (StatusCode::INTERNAL_SERVER_ERROR, "internal")
            }
        }
    }

    fn similar(&self) -> &[String] {
        match self {
            Error::TagUnlike { similar, .. } | Error::RepositoryUnlike { similar, .. } => similar,
            _ => &[],
        }
    }

    /// Logs the cause of an error that the client is not told.
    pub(crate) fn log(&self) {
        match self {
            Error::Unavailable(cause) => tracing::warn!("a request failed: {cause}"),
            Error::TooSlow(time) => {
                tracing::warn!("a request failed: no answer from Postgres in {time:?}");
            }
            Error::Store(cause) => tracing::error!("a query failed: {cause}"),
            Error::NotRewritten(cause) => {
                tracing::error!("an answer could not be written as CSV: {cause}");
            }
            // The panic hook has logged it.
            _ => {}
        }
    }
}

/// The problem that a response states.
#[derive(Debug, Clone)]
pub(crate) struct Told {
    pub(crate) code: &'static str,
    pub(crate) detail: String,
    /// Known images or repositories with a name like the unknown one.
    pub(crate) similar: Vec<String>,
}

/// Problem details (RFC 9457).
#[derive(JsonSchema)]
#[expect(
    dead_code,
    reason = "only the schema is used: tagtrail_daemon::problem writes the body"
)]
pub(crate) struct Problem {
    /// `about:blank`: `code` states the kind of problem.
    r#type: &'static str,
    /// The meaning of the status.
    title: Option<&'static str>,
    /// The status of the HTTP answer.
    status: u16,
    /// Cause and cure, for people.
    detail: String,
    /// The kind of problem, for programs. The meaning of a code never changes.
    code: &'static str,
}

impl Problem {
    /// Returns a reference to the schema.
    pub(crate) fn schema_ref(schemas: &mut SchemaGenerator) -> Value {
        schemas.subschema_for::<Problem>().to_value()
    }
}

impl IntoResponse for Error {
    fn into_response(self) -> Response {
        self.log();
        let (status, code) = self.status();
        let detail = self.to_string();
        let mut response = problem::response(status, code, &detail);
        // A page shows the problem as a page.
        let similar = self.similar().to_vec();
        let told = Told {
            code,
            detail,
            similar,
        };
        response.extensions_mut().insert(told);
        let headers = response.headers_mut();
        if status == StatusCode::UNAUTHORIZED {
            let challenge = HeaderValue::from_static("Bearer realm=\"tagtrail\"");
            headers.insert(WWW_AUTHENTICATE, challenge);
        }
        if status == StatusCode::TOO_MANY_REQUESTS {
            headers.insert(RETRY_AFTER, HeaderValue::from_static("1"));
            headers.insert(CONNECTION, HeaderValue::from_static("close"));
        }
        if status == StatusCode::SERVICE_UNAVAILABLE {
            headers.insert(RETRY_AFTER, HeaderValue::from_static("2"));
        }
        response
    }
}
