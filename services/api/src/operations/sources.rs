//! `GET /v1/sources`: each source with its last events, and the findings about it.

mod findings;

use axum::Json;
use axum::extract::State;
use axum::http::Uri;
use axum::routing::on;
use schemars::JsonSchema;
use serde::Serialize;
use sqlx::PgConnection;
use tagtrail_config::{File, Role, SourceRegistry};
use tagtrail_history::coverage::{self, NotCompared};
use tagtrail_history::instant::Instant;
use tagtrail_history::lost::{Lost, lost};
use tagtrail_history::slots::HALF_HOURS;
use tagtrail_history::sources::{self, Activity, Events};
use time::{Duration, OffsetDateTime};

use crate::http::error::Error;
use crate::http::operation::{Method, Operation, ResponseBody, schema};
use crate::http::parameters::Parameters;
use crate::shared::Shared;

pub(crate) use findings::{Finding, Level};

/// Usual gaps after which a source no longer counts as sending. Of events that come at random, one
/// gap of a thousand is longer than ten times the median.
const LONG: f64 = 10.0;
/// The shortest time after which a source no longer counts as sending.
const SHORTEST: Duration = Duration::MINUTE;

pub(crate) const SOURCES: Operation = Operation {
    id: "sources",
    method: Method::Get,
    path: "/v1/sources",
    summary: "The sources: the last event, the events of the last day by half hour, the usual gap, since when a source is silent, and findings with their cures. A source of `tagtrail.toml` is listed before its first event.",
    role: Role::Read,
    in_path: &[],
    query: &[],
    header: &[],
    body: None,
    response: ResponseBody::Json(schema::<Sources>),
    problems: &[],
    serve: |method| on(method, list),
};

/// The sources.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct Sources {
    /// The time of the answer.
    pub(crate) at: Instant,
    /// The time from which on the half hours are counted: a day ago, or later if there are very
    /// many events.
    pub(crate) half_hours_since: Instant,
    /// By name.
    pub(crate) items: Vec<Source>,
    /// The registries that are reconciled.
    pub(crate) reconciled: Vec<ReconciledRegistry>,
    /// Repositories whose last comparison with their registry did not reach its end, the newest
    /// first. At most 100.
    pub(crate) not_compared: Vec<NotCompared>,
    /// The last changes of seven days that no event reported, though one should have: of the newest
    /// eight hours that have any, the newest first. At most 20.
    pub(crate) lost: Vec<Lost>,
}

/// A registry that is reconciled.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct ReconciledRegistry {
    pub(crate) registry: String,
    /// The last time at which a repository of the registry was reconciled to its end.
    pub(crate) last_reconciled_at: Instant,
}

/// A source of events.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "SourceOfEvents")]
pub(crate) struct Source {
    pub(crate) name: String,
    /// The kind of sender; null if the files of this api do not have the source.
    pub(crate) kind: Option<String>,
    /// The registries that its events are about, and the one that is configured.
    pub(crate) registries: Vec<String>,
    pub(crate) state: Standing,
    /// The last time at which an event was received, in the last 90 days.
    pub(crate) last_event_at: Option<Instant>,
    /// Set if the source has fallen silent: the time of its last event.
    pub(crate) silent_since: Option<Instant>,
    /// The median of the time between two events of the last seven days, in seconds. Null: too few.
    pub(crate) usual_gap_seconds: Option<f64>,
    /// Pushes received in each half hour of the last day, the oldest first.
    pub(crate) half_hours: Vec<u64>,
    /// Changes of seven days that its events reported.
    pub(crate) reported_of_week: u64,
    /// Changes of seven days that no event reported, though one should have.
    pub(crate) lost_of_week: u64,
    pub(crate) findings: Vec<Finding>,
}

/// How a source stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Standing {
    /// Its last event is not older than ten times its usual gap; or, without a usual gap, than a
    /// day.
    Sending,
    /// Its last event is older, and it is not silent: this may be a pause, or the begin of a
    /// silence.
    Idle,
    /// It sent nothing in hours in which it did before.
    Silent,
    /// It sent nothing for seven days, and nothing was to be expected.
    Quiet,
    /// No event of it was received in 90 days.
    NoEvent,
}

async fn list(State(shared): State<Shared>, uri: Uri) -> Result<Json<Sources>, Error> {
    Parameters::read(&uri, SOURCES.query)?;
    let (now, file) = (OffsetDateTime::now_utc(), shared.file.get());
    let sources = shared
        .database
        .ask_page(async |db| see(db, &file, now).await)
        .await?;
    Ok(Json(sources))
}

/// Reads the sources.
pub(crate) async fn see(
    db: &mut PgConnection,
    file: &File,
    now: OffsetDateTime,
) -> Result<Sources, sqlx::Error> {
    let activity = sources::activity(db, now).await?;
    let recent = sources::recent(db, now).await?;
    let reconciled = sources::reconciled(db).await?;
    let not_compared = coverage::not_compared(db).await?;
    let lost = lost(db, now).await?;
    Ok(Sources {
        at: Instant(now),
        half_hours_since: Instant(recent.since),
        items: join(file, activity, &recent.sources, &not_compared, now),
        reconciled: reconciled
            .into_iter()
            .map(|(registry, at)| ReconciledRegistry {
                registry,
                last_reconciled_at: Instant(at),
            })
            .collect(),
        not_compared,
        lost,
    })
}

fn join(
    file: &File,
    activity: Vec<Activity>,
    recent: &[Events],
    not_compared: &[NotCompared],
    now: OffsetDateTime,
) -> Vec<Source> {
    let mut items: Vec<Source> = Vec::new();
    for entry in &file.source {
        let registry = match &entry.registry {
            Some(SourceRegistry::Named(registry)) => vec![registry.to_string()],
            _ => Vec::new(),
        };
        let kind = Some(entry.kind.get_ref().clone());
        items.push(Source::new(
            entry.name.get_ref().to_string(),
            kind,
            registry,
        ));
    }
    // A source of changes that no event reported is none of events.
    for one in activity.iter().filter(|one| one.last_event_at.is_some()) {
        let known = items.iter().position(|item| item.name == one.source);
        let place = known.unwrap_or_else(|| {
            items.push(Source::new(one.source.clone(), None, Vec::new()));
            items.len() - 1
        });
        if let Some(item) = items.get_mut(place) {
            item.add(one);
        }
    }
    for item in &mut items {
        if let Some(events) = recent.iter().find(|events| events.source == item.name) {
            item.usual_gap_seconds = events.usual_gap.map(Duration::as_seconds_f64);
            item.half_hours = events.half_hours.to_vec();
        }
        item.state = item.standing(now);
        item.findings = findings::of(item, file, not_compared);
    }
    items.sort_by(|one, other| one.name.cmp(&other.name));
    items
}

impl Source {
    fn new(name: String, kind: Option<String>, registries: Vec<String>) -> Source {
        Source {
            name,
            kind,
            registries,
            state: Standing::NoEvent,
            last_event_at: None,
            silent_since: None,
            usual_gap_seconds: None,
            half_hours: vec![0; HALF_HOURS],
            reported_of_week: 0,
            lost_of_week: 0,
            findings: Vec::new(),
        }
    }

    /// Adds the activity of one registry. The source is silent if it is about the registry of its
    /// last event.
    fn add(&mut self, one: &Activity) {
        if !self.registries.contains(&one.registry) {
            self.registries.push(one.registry.clone());
        }
        self.reported_of_week += one.reported;
        self.lost_of_week += one.lost;
        let last = self.last_event_at.map(|last| last.0);
        if one.last_event_at.map(|last| last.0) > last {
            self.last_event_at = one.last_event_at;
            self.silent_since = one.silent_since;
        }
    }

    fn standing(&self, now: OffsetDateTime) -> Standing {
        let Some(last) = self.last_event_at else {
            return Standing::NoEvent;
        };
        let age = now - last.0;
        let long = |gap| Duration::saturating_seconds_f64(gap * LONG).max(SHORTEST);
        let lively = self.usual_gap_seconds.map_or(Duration::DAY, long);
        match self.silent_since {
            Some(_) => Standing::Silent,
            None if age > Duration::WEEK => Standing::Quiet,
            None if age > lively => Standing::Idle,
            None => Standing::Sending,
        }
    }
}
