//! The sources by their events: when each sent the last one, how often it usually sends, and
//! whether it has fallen silent.

use schemars::JsonSchema;
use serde::Serialize;
use sqlx::postgres::PgRow;
use sqlx::{PgConnection, Row as _};
use tagtrail_postgres::row;
use time::{Duration, OffsetDateTime, UtcOffset};

use crate::instant::Instant;
use crate::slots::{HALF_HOURS, slots};

/// Days of which hours are read: a week, and the same stretch of time one week before.
const DAYS: i64 = 15;
/// Days in which a source is known after its last event.
const KNOWN: i64 = 90;
/// Pushes that are read for the half hours and the usual gap.
const READ: i64 = 20_000;
/// Gaps without which there is no usual one.
const TELLING_GAPS: i64 = 5;
/// Hours with events in the same stretch of time before: fewer tell nothing about a silence.
const TELLING: usize = 3;

/// A source of events, by one of its registries.
#[derive(Debug, Clone, Serialize, JsonSchema)]
#[schemars(rename = "SourceActivity")]
pub struct Activity {
    /// Name of the source.
    pub source: String,
    /// The registry that its events are about.
    pub registry: String,
    /// The last time at which an event was received.
    pub last_event_at: Option<Instant>,
    /// Set if the source has fallen silent: it sent events in at least three hours of the same
    /// stretch of time one week (or, if it is younger, one day) before.
    pub silent_since: Option<Instant>,
    /// Changes recorded today (UTC).
    pub today: u64,
    /// Changes usual from midnight to this time, by the seven days before. None: the history is
    /// younger.
    pub usual_today: Option<u64>,
    /// Changes of seven days that events reported.
    pub reported: u64,
    /// Changes of seven days that no event reported, though one should have.
    pub lost: u64,
    /// The time since which the changes of seven days are counted.
    pub since: Instant,
}

/// Returns the sources of the last 90 days, by name and registry.
pub async fn activity(
    db: &mut PgConnection,
    now: OffsetDateTime,
) -> Result<Vec<Activity>, sqlx::Error> {
    let now = now.to_offset(UtcOffset::UTC);
    let hour = now.truncate_to_hour();
    let midnight = now.truncate_to_day();
    let rows = sqlx::query(
        "with hours as (
             select *, event + resolved + observed + reconciled + reordered + imported as changes
             from coverage where period = 'hour' and starts_at >= $1
         ), by_hour as (
             select registry, source,
                 coalesce(sum(changes) filter (where starts_at >= $2), 0)::bigint as today,
                 coalesce(sum(changes * case when extract(hour from starts_at at time zone 'UTC') = $5 then $6 else 1 end)
                     filter (where starts_at >= $2 - interval '7 days' and starts_at < $2
                                   and extract(hour from starts_at at time zone 'UTC') <= $5), 0)::float8 as before,
                 coalesce(sum(event + resolved + reordered) filter (where starts_at >= $3), 0)::bigint as reported,
                 coalesce(sum(observed + reconciled) filter (where starts_at >= $3), 0)::bigint as lost,
                 array_agg(starts_at order by starts_at) filter (where last_event_at is not null) as active
             from hours group by registry, source
         ), by_day as (
             select registry, source, max(last_event_at) as last_event_at, min(starts_at) as first_day
             from coverage where period = 'day' and starts_at >= $4 and source <> ''
             group by registry, source
         )
         select d.registry, d.source, d.last_event_at, d.first_day, h.today, h.before, h.reported, h.lost, h.active
         from by_day d left join by_hour h using (registry, source)
         order by d.source, d.registry limit 1000",
    )
    .bind(hour - Duration::days(DAYS))
    .bind(midnight)
    .bind(hour - Duration::days(7))
    .bind(midnight - Duration::days(KNOWN))
    .bind(i32::from(now.hour()))
    .bind((now - hour).as_seconds_f64() / 3600.0)
    .fetch_all(db)
    .await?;
    rows.iter()
        .map(|row| of_row(row, now, hour - Duration::days(7)))
        .collect()
}

fn of_row(
    found: &PgRow,
    now: OffsetDateTime,
    since: OffsetDateTime,
) -> Result<Activity, sqlx::Error> {
    let count = |name: &str| -> Result<u64, sqlx::Error> {
        let count: Option<i64> = found.try_get(name)?;
        Ok(row::unsigned(count.unwrap_or(0)))
    };
    let last: Option<OffsetDateTime> = found.try_get("last_event_at")?;
    let active: Option<Vec<OffsetDateTime>> = found.try_get("active")?;
    let first: OffsetDateTime = found.try_get("first_day")?;
    let before: Option<f64> = found.try_get("before")?;
    let whole_week = first <= now.truncate_to_day() - Duration::days(7);
    let silent = last.filter(|last| {
        let active = active.unwrap_or_default();
        is_silent(*last, &active, now, first)
    });
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a mean of counts is neither negative nor beyond 2^53"
    )]
    let usual = before.map_or(0, |before| (before / 7.0).round() as u64);
    Ok(Activity {
        source: found.try_get("source")?,
        registry: found.try_get("registry")?,
        last_event_at: last.map(Instant),
        silent_since: silent.map(Instant),
        today: count("today")?,
        usual_today: whole_week.then_some(usual),
        reported: count("reported")?,
        lost: count("lost")?,
        since: Instant(since),
    })
}

/// The events of a source, of its last pushes.
#[derive(Debug, Clone)]
pub struct Events {
    /// Name of the source.
    pub source: String,
    /// The number of pushes in each half hour of the last day.
    pub half_hours: [u64; HALF_HOURS],
    /// The median of the time between two events.
    pub usual_gap: Option<Duration>,
}

/// Events of the last pushes.
#[derive(Debug)]
pub struct Recent {
    /// By name of the source.
    pub sources: Vec<Events>,
    /// The time from which on pushes are read: a day ago, or later if there are very many.
    pub since: OffsetDateTime,
}

/// Returns the events of each source: of the last 20,000 pushes, those of the last day by half
/// hour, and those of seven days for the usual gap.
pub async fn recent(db: &mut PgConnection, now: OffsetDateTime) -> Result<Recent, sqlx::Error> {
    let day = now - Duration::DAY;
    let rows = sqlx::query(
        "with e as materialized (
             select source, received_at from push
             where id > (select coalesce(max(id), 0) - $3 from push) and recorded_at >= $1 - interval '6 days' and origin = 'event'
         ), gaps as (
             -- An event about several tags is several pushes of one moment.
             select source, received_at - lag(received_at) over (partition by source order by received_at) as gap from e
         ), usual as (
             select source, percentile_cont(0.5) within group (order by extract(epoch from gap)::float8) as seconds
             from gaps where gap > interval '0' group by source having count(*) >= $4
         ), slots as (
             select source, floor(extract(epoch from received_at - $1) / 1800)::int as slot, count(*) as pushes
             from e where received_at >= $1 and received_at <= $2 group by 1, 2
         ), first as (
             select p.recorded_at from push p where p.id = (select max(id) - $3 from push)
         )
         select s.source, s.slots, s.counts, u.seconds, (select recorded_at from first) as bound
         from (select source, array_agg(slot order by slot) as slots, array_agg(pushes order by slot) as counts from slots group by source) s
         full join usual u using (source)
         order by source limit 1000",
    )
    .bind(day)
    .bind(now)
    .bind(READ)
    .bind(TELLING_GAPS)
    .fetch_all(db)
    .await?;
    let mut recent = Recent {
        sources: Vec::new(),
        since: day,
    };
    for found in &rows {
        let seconds: Option<f64> = found.try_get("seconds")?;
        let bound: Option<OffsetDateTime> = found.try_get("bound")?;
        recent.since = bound.map_or(day, |bound| bound.max(day));
        recent.sources.push(Events {
            source: found.try_get("source")?,
            half_hours: slots(found)?,
            usual_gap: seconds.map(Duration::seconds_f64),
        });
    }
    Ok(recent)
}

/// Returns the last time at which a repository of each registry was reconciled to its end.
pub async fn reconciled(
    db: &mut PgConnection,
) -> Result<Vec<(String, OffsetDateTime)>, sqlx::Error> {
    let rows = sqlx::query(
        "select registry, max(last_at) as last_at from reconcile group by registry order by registry",
    )
    .fetch_all(db)
    .await?;
    rows.iter()
        .map(|row| Ok((row.try_get("registry")?, row.try_get("last_at")?)))
        .collect()
}

/// Returns whether a source is silent: between its last event and now it was active at the same
/// hours of the week before. A source that is younger than eight days is compared with the day
/// before.
fn is_silent(
    last: OffsetDateTime,
    active: &[OffsetDateTime],
    now: OffsetDateTime,
    first: OffsetDateTime,
) -> bool {
    let young = first > now - Duration::days(8);
    let back = match young {
        true => Duration::DAY,
        false => Duration::WEEK,
    };
    // The hours of the last event and of now are not whole.
    let from = last.truncate_to_hour() + Duration::HOUR;
    let until = now.truncate_to_hour();
    let same = active.iter().filter(|hour| {
        let then = **hour + back;
        then >= from && then < until
    });
    same.count() >= TELLING
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> OffsetDateTime {
        tagtrail_proto::instant::parse(text).unwrap()
    }

    /// Hours from 8 to 18 on five days of the week that begins on a Monday.
    fn office(monday: &str, days: std::ops::Range<i64>) -> Vec<OffsetDateTime> {
        let monday = at(monday);
        days.flat_map(|day| {
            (8..18).map(move |hour| monday + Duration::days(day) + Duration::hours(hour))
        })
        .collect()
    }

    #[test]
    fn silence_is_judged_by_the_same_hours_of_the_week_before() {
        let active = office("2026-11-16T00:00:00Z", 0..5);
        let first = at("2026-10-01T00:00:00Z");
        let silent = |last: &str, now: &str| is_silent(at(last), &active, at(now), first);
        // Monday morning: two whole hours tell nothing, three do.
        assert!(!silent("2026-11-23T09:30:00Z", "2026-11-23T12:59:00Z"));
        assert!(silent("2026-11-23T09:30:00Z", "2026-11-23T13:01:00Z"));
        // A night, and the evening after work, are no silence.
        assert!(!silent("2026-11-23T17:50:00Z", "2026-11-24T08:30:00Z"));
        assert!(silent("2026-11-23T17:50:00Z", "2026-11-24T11:30:00Z"));
        // Nor is a weekend.
        let active = office("2026-11-16T00:00:00Z", 0..5);
        let weekend = is_silent(
            at("2026-11-20T17:50:00Z"),
            &active,
            at("2026-11-23T08:30:00Z"),
            first,
        );
        assert!(!weekend);
    }

    #[test]
    fn a_young_source_is_compared_with_the_day_before_and_a_first_event_with_nothing() {
        let active = office("2026-11-16T00:00:00Z", 0..1);
        let first = at("2026-11-16T00:00:00Z");
        let last = at("2026-11-16T17:50:00Z");
        assert!(is_silent(last, &active, at("2026-11-17T12:00:00Z"), first));
        assert!(!is_silent(last, &active, at("2026-11-17T09:00:00Z"), first));
        assert!(!is_silent(last, &[last], at("2026-11-19T00:00:00Z"), first));
    }
}
