//! The statements on the table `postponed`.

use std::collections::HashMap;
use std::time::Duration;

use sqlx::{PgConnection, Row as _};
use tagtrail_postgres::row;
use tagtrail_proto::Registry;
use time::OffsetDateTime;

use super::{Entry, Key, Row, Work};

/// Adds entries. An entry with the key of a row takes its place, and is due when the first of both
/// is.
pub(super) async fn add(db: &mut PgConnection, entries: &[Entry]) -> Result<(), sqlx::Error> {
    let entries = merged(entries);
    fn each<'a, T>(entries: &[&'a Entry], of: impl Fn(&'a Entry) -> T) -> Vec<T> {
        entries.iter().map(|entry| of(entry)).collect()
    }
    let attempts = |entry: &Entry| i32::try_from(entry.attempts).unwrap_or(i32::MAX);
    let traces = |entry: &Entry| entry.trace.map(|trace| trace.to_string());
    let entries: Vec<&Entry> = entries.iter().collect();
    sqlx::query(
        "insert into postponed (work, key, registry, source, body, traceparent, attempts, due_at, postponed_at)
         select *, clock_timestamp() from unnest($1::text[], $2::text[], $3::text[], $4::text[], $5::bytea[], $6::text[], $7::int[], $8::timestamptz[])
         on conflict (work, key) do update set source = excluded.source, body = excluded.body, traceparent = excluded.traceparent,
             attempts = least(postponed.attempts, excluded.attempts), due_at = least(postponed.due_at, excluded.due_at),
             postponed_at = excluded.postponed_at",
    )
    .bind(each(&entries, |entry| entry.key.work.as_str()))
    .bind(each(&entries, |entry| entry.key.key.as_str()))
    .bind(each(&entries, |entry| entry.key.registry.as_ref()))
    .bind(each(&entries, |entry| entry.key.source.as_str()))
    .bind(each(&entries, |entry| entry.body.as_slice()))
    .bind(each(&entries, traces))
    .bind(each(&entries, attempts))
    .bind(each(&entries, |entry| entry.due_at))
    .execute(db)
    .await
    .map(|_| ())
}

/// Returns the last entry of each key, due when the first of them is, with the fewest attempts: a
/// statement may change a row only once.
fn merged(entries: &[Entry]) -> Vec<Entry> {
    let mut by_key: HashMap<(Work, &str), Entry> = HashMap::with_capacity(entries.len());
    for entry in entries {
        by_key
            .entry((entry.key.work, &entry.key.key))
            .and_modify(|earlier| {
                *earlier = Entry {
                    attempts: earlier.attempts.min(entry.attempts),
                    due_at: earlier.due_at.min(entry.due_at),
                    ..entry.clone()
                };
            })
            .or_insert_with(|| entry.clone());
    }
    by_key.into_values().collect()
}

/// Sets the time at which claimed rows are due, unless a later message has taken their place.
pub(super) async fn set_due(
    db: &mut PgConnection,
    rows: &[(Row, OffsetDateTime)],
) -> Result<(), sqlx::Error> {
    let (claimed, times): (Vec<&Row>, Vec<OffsetDateTime>) =
        rows.iter().map(|(row, due_at)| (row, *due_at)).unzip();
    let (works, keys, versions) = columns(&claimed);
    sqlx::query(
        "update postponed p set due_at = c.due_at
         from unnest($1::text[], $2::text[], $3::timestamptz[], $4::timestamptz[]) as c (work, key, postponed_at, due_at)
         where p.work = c.work and p.key = c.key and p.postponed_at = c.postponed_at",
    )
    .bind(works)
    .bind(keys)
    .bind(versions)
    .bind(times)
    .execute(db)
    .await
    .map(|_| ())
}

/// Removes claimed rows, unless a later message has taken their place.
pub(super) async fn remove(db: &mut PgConnection, rows: &[Row]) -> Result<(), sqlx::Error> {
    let (works, keys, versions) = columns(&rows.iter().collect::<Vec<_>>());
    sqlx::query(
        "delete from postponed p using unnest($1::text[], $2::text[], $3::timestamptz[]) as c (work, key, postponed_at)
         where p.work = c.work and p.key = c.key and p.postponed_at = c.postponed_at",
    )
    .bind(works)
    .bind(keys)
    .bind(versions)
    .execute(db)
    .await
    .map(|_| ())
}

fn columns<'a>(rows: &[&'a Row]) -> (Vec<&'static str>, Vec<&'a str>, Vec<OffsetDateTime>) {
    (
        rows.iter().map(|row| row.work.as_str()).collect(),
        rows.iter().map(|row| row.key.as_str()).collect(),
        rows.iter().map(|row| row.postponed_at).collect(),
    )
}

/// Claims due rows for `lease`, at most so many of each registry. The sources of a registry take
/// turns.
pub(super) async fn claim(
    db: &mut PgConnection,
    work: Work,
    free: &[(&Registry, usize)],
    lease: Duration,
) -> Result<Vec<(Row, Entry)>, sqlx::Error> {
    let names: Vec<&str> = free.iter().map(|(name, _)| name.as_ref()).collect();
    let free: Vec<i64> = free
        .iter()
        .map(|(_, free)| i64::try_from(*free).unwrap_or(i64::MAX))
        .collect();
    // The recursive part steps through the sources in the index, which has no other way to list
    // them.
    let rows = sqlx::query(
        "with recursive share as (select * from unnest($2::text[], $3::bigint[]) as s (registry, free)),
         line as (
             (select registry, source from postponed where work = $1 order by registry, source limit 1)
             union all
             select next.registry, next.source
             from line cross join lateral (
                 select p.registry, p.source from postponed p
                 where p.work = $1 and (p.registry, p.source) > (line.registry, line.source)
                 order by p.registry, p.source limit 1
             ) next
         ),
         due as (
             select share.registry, share.free, d.key, d.turn
             from line join share using (registry)
             cross join lateral (
                 select l.key, row_number() over (order by l.due_at) as turn from (
                     select p.key, p.due_at from postponed p
                     where p.work = $1 and p.registry = line.registry and p.source = line.source and p.due_at <= now()
                     order by p.due_at limit share.free for update skip locked
                 ) l
             ) d
         ),
         chosen as (
             select key from (select key, free, row_number() over (partition by registry order by turn) as place from due) ranked
             where place <= free
         )
         update postponed p set due_at = now() + $4 * interval '1 second', attempts = p.attempts + 1
         from chosen where p.work = $1 and p.key = chosen.key
         returning p.key, p.registry, p.source, p.body, p.traceparent, p.attempts, p.due_at, p.postponed_at",
    )
    .bind(work.as_str())
    .bind(names)
    .bind(free)
    .bind(lease.as_secs_f64())
    .fetch_all(db)
    .await?;
    rows.iter()
        .map(|found| {
            let key: String = found.try_get("key")?;
            let trace: Option<String> = found.try_get("traceparent")?;
            let attempts: i32 = found.try_get("attempts")?;
            let row = Row {
                work,
                key: key.clone(),
                postponed_at: found.try_get("postponed_at")?,
            };
            let entry = Entry {
                key: Key {
                    work,
                    registry: row::parsed(found.try_get("registry")?)?,
                    source: found.try_get("source")?,
                    key,
                },
                body: found.try_get("body")?,
                trace: trace.and_then(|trace| trace.parse().ok()),
                attempts: u32::try_from(attempts).unwrap_or(1),
                due_at: found.try_get("due_at")?,
            };
            Ok((row, entry))
        })
        .collect()
}

/// Returns the number of rows of each kind and registry.
pub(super) async fn counts(
    db: &mut PgConnection,
    work: Work,
) -> Result<HashMap<String, usize>, sqlx::Error> {
    let rows = sqlx::query(
        "select registry, count(*) as rows from postponed where work = $1 group by registry",
    )
    .bind(work.as_str())
    .fetch_all(db)
    .await?;
    rows.iter()
        .map(|found| {
            let rows = row::unsigned(found.try_get("rows")?);
            Ok((
                found.try_get("registry")?,
                usize::try_from(rows).unwrap_or(usize::MAX),
            ))
        })
        .collect()
}

/// Removes rows that are as old as the oldest message of UNRESOLVED. Returns their number.
pub(super) async fn expire(db: &mut PgConnection) -> Result<u64, sqlx::Error> {
    sqlx::query("delete from postponed where since < now() - interval '14 days'")
        .execute(db)
        .await
        .map(|done| done.rows_affected())
}

#[cfg(test)]
mod tests {
    use super::*;

    const LEASE: Duration = Duration::from_secs(60);

    fn registry() -> Registry {
        "registry.example.com".parse().unwrap()
    }

    /// Returns an entry that is due now.
    fn entry(source: &str, key: &str, body: &str) -> Entry {
        Entry {
            key: Key {
                work: Work::Question,
                registry: registry(),
                source: source.to_owned(),
                key: key.to_owned(),
            },
            body: body.as_bytes().to_vec(),
            trace: None,
            attempts: 1,
            due_at: OffsetDateTime::UNIX_EPOCH,
        }
    }

    async fn claimed(db: &mut PgConnection, most: usize, lease: Duration) -> Vec<(Row, Entry)> {
        let name = registry();
        claim(db, Work::Question, &[(&name, most)], lease)
            .await
            .unwrap()
    }

    #[tokio::test]
    async fn sources_take_turns() {
        let mut db = tagtrail_testkit::postgres().await.connect().await;
        let flood: Vec<Entry> = (0..1000)
            .map(|n| entry("flood", &format!("flood {n}"), ""))
            .collect();
        add(&mut db, &flood).await.unwrap();
        let others = ["a", "z"].map(|source| entry(source, source, ""));
        add(&mut db, &others).await.unwrap();
        let claims = claimed(&mut db, 10, LEASE).await;
        assert_eq!(claims.len(), 10);
        let sources = |source: &str| {
            claims
                .iter()
                .filter(|(_, entry)| entry.key.source == source)
                .count()
        };
        assert_eq!(["a", "flood", "z"].map(sources), [1, 8, 1]);
        // A claimed row is not claimed again until its lease ends.
        assert_eq!(claimed(&mut db, 2000, LEASE).await.len(), 992);
        assert_eq!(claimed(&mut db, 2000, LEASE).await, []);
    }

    #[tokio::test]
    async fn a_row_whose_lease_ended_is_claimed_again() {
        let mut db = tagtrail_testkit::postgres().await.connect().await;
        add(&mut db, &[entry("ci", "key", "body")]).await.unwrap();
        let first = claimed(&mut db, 5, Duration::ZERO).await;
        let second = claimed(&mut db, 5, LEASE).await;
        let attempts = |claims: &[(Row, Entry)]| claims[0].1.attempts;
        assert_eq!((attempts(&first), attempts(&second)), (2, 3));
        assert_eq!(first[0].1.body, b"body");
        // Put off until a time in the past.
        let row = second[0].0.clone();
        set_due(&mut db, &[(row.clone(), OffsetDateTime::UNIX_EPOCH)])
            .await
            .unwrap();
        assert_eq!(claimed(&mut db, 5, LEASE).await.len(), 1);
        remove(&mut db, &[row]).await.unwrap();
        assert_eq!(
            counts(&mut db, Work::Question).await.unwrap(),
            HashMap::new()
        );
    }

    #[tokio::test]
    async fn a_later_message_takes_the_place_of_an_earlier_one_and_stays_when_that_is_done() {
        let mut db = tagtrail_testkit::postgres().await.connect().await;
        let at = OffsetDateTime::now_utc() + time::Duration::hours(1);
        let earlier = Entry {
            attempts: 7,
            due_at: at,
            ..entry("ci", "key", "earlier")
        };
        let batch = [
            earlier,
            entry("ci", "key", "first"),
            entry("ci", "other", ""),
        ];
        add(&mut db, &batch).await.unwrap();
        let mut claims = claimed(&mut db, 5, LEASE).await;
        claims.sort_by(|(one, _), (two, _)| one.key.cmp(&two.key));
        let (row, of_key) = claims.remove(0);
        assert_eq!(
            (of_key.body.as_slice(), of_key.attempts),
            (&b"first"[..], 2)
        );
        // While the claimed one is in hand, another event arrives.
        add(&mut db, &[entry("ci", "key", "second")]).await.unwrap();
        remove(&mut db, &[row]).await.unwrap();
        let again = claimed(&mut db, 5, LEASE).await;
        assert_eq!(again.len(), 1);
        assert_eq!(again[0].1.body, b"second");
    }

    #[tokio::test]
    async fn only_rows_of_two_weeks_ago_expire() {
        let mut db = tagtrail_testkit::postgres().await.connect().await;
        let batch = [entry("ci", "old", ""), entry("ci", "new", "")];
        add(&mut db, &batch).await.unwrap();
        sqlx::query("update postponed set since = now() - interval '15 days' where key = 'old'")
            .execute(&mut db)
            .await
            .unwrap();
        assert_eq!(expire(&mut db).await.unwrap(), 1);
        let left = counts(&mut db, Work::Question).await.unwrap();
        assert_eq!(left, HashMap::from([(registry().to_string(), 1)]));
    }
}
