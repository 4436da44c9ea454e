//! Fills a store with the history of years, by COPY: each tag is created once; then few tags move
//! often, and most tags seldom.

use std::time::Instant;

use anyhow::Context as _;
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use sqlx::{AssertSqlSafe, PgConnection, Row as _};
use time::{Duration, OffsetDateTime};

use crate::ceiling::NOBODYS;

/// Bytes of COPY text in a message.
const CHUNK: usize = 1 << 20;
/// Tags in a repository, with the names of [`crate::stack::push`].
const TAGS: u32 = 10;

/// The size of a store.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Store {
    pub(crate) tags: u32,
    pub(crate) pushes: u64,
}

impl Store {
    /// Returns the tag of a push by its number: first each tag in turn, then at random, with a
    /// density that falls with the power 3/4.
    fn tag(self, number: u64, random: &mut StdRng) -> u32 {
        match u32::try_from(number) {
            Ok(number) if number < self.tags => number,
            _ => {
                let share: f64 = random.random();
                ((share.powi(4) * f64::from(self.tags)) as u32).min(self.tags - 1)
            }
        }
    }

    /// Returns the time of the first push, and the interval between two pushes.
    pub(crate) fn times(self) -> (OffsetDateTime, Duration) {
        let year = Duration::days(365);
        let start = OffsetDateTime::now_utc() - year - Duration::hours(1);
        (start, year / u32::try_from(self.pushes).unwrap_or(u32::MAX))
    }

    /// Fills the empty tables of a database.
    pub(crate) async fn fill(self, db: &mut PgConnection) -> anyhow::Result<()> {
        let begun = Instant::now();
        let indexes = drop_indexes(db).await?;
        let repositories = self.tags.div_ceil(TAGS);
        sqlx::query(
            "insert into repository (registry, name)
             select 'registry.example.com', 'team-' || n % 50 || '/app-' || n from generate_series(0, $1 - 1) n order by n",
        )
        .bind(i64::from(repositories))
        .execute(&mut *db)
        .await?;
        let (start, step) = self.times();
        let time = |number: u64| start + step * u32::try_from(number).unwrap_or(u32::MAX);
        for (table, columns) in [
            (
                "push",
                "id, tag_id, action, digest, occurred_at, effective_at, occurred_at_source, received_at, recorded_at, origin, source, event_id, actor, media_type, size_bytes, stream_seq",
            ),
            (
                "revision",
                "tag_id, number, kind, digest, effective_at, recorded_at, previous, head, push_id, partition, ordinal",
            ),
        ] {
            let mut random = StdRng::seed_from_u64(1);
            let mut numbers = vec![0_u32; self.tags as usize];
            let sql = format!("copy {table} ({columns}) from stdin");
            let mut copy = db.copy_in_raw(&sql).await?;
            let mut text = String::with_capacity(CHUNK + 1000);
            for push in 0..self.pushes {
                let tag = self.tag(push, &mut random);
                let number = numbers.get_mut(tag as usize).context("no such tag")?;
                *number += 1;
                row(&mut text, table, push, tag, *number, time(push))?;
                if text.len() > CHUNK {
                    copy.send(text.as_bytes()).await?;
                    text.clear();
                }
                if push % 1_000_000 == 999_999 {
                    eprintln!(
                        "{} million rows of {table}, after {:.0} s",
                        (push + 1) / 1_000_000,
                        begun.elapsed().as_secs_f64()
                    );
                }
            }
            copy.send(text.as_bytes()).await?;
            copy.finish().await?;
        }
        // The heads and the next ids follow from the revisions.
        sqlx::raw_sql(
            "alter table tag disable trigger all;
             insert into tag (id, repository_id, name, issued, head, head_digest, head_at, latest_at) overriding system value
             select tag_id, 1 + (tag_id - 1) % (select count(*) from repository), 'v' || (tag_id - 1) / (select count(*) from repository),
                    number, number, digest, effective_at, effective_at
             from (select distinct on (tag_id) * from revision order by tag_id, number desc) v;
             alter table tag enable trigger all;
             select setval(pg_get_serial_sequence('tag', 'id'), (select max(id) from tag));
             select setval(pg_get_serial_sequence('push', 'id'), (select max(id) from push));",
        )
        .execute(&mut *db)
        .await?;
        for index in indexes {
            sqlx::raw_sql(AssertSqlSafe(index))
                .execute(&mut *db)
                .await?;
        }
        // The numbers for pages, which the indexer would have counted.
        sqlx::raw_sql(AssertSqlSafe(format!(
            "insert into moving (repository_id, tag_id) select repository_id, id from tag where issued > 1;
             insert into tag_stats (repository_id, known, tags, signatures) select repository_id, count(*), count(*), 0 from tag group by repository_id;
             insert into half_hour_stats (half_hour, repository_id, changes, push_id)
             select floor(extract(epoch from v.recorded_at) / 1800), t.repository_id, count(*), max(v.push_id)
             from revision v join tag t on t.id = v.tag_id where v.recorded_at > now() - interval '2 days' group by 1, 2;
             insert into minute_stats (minute, changes)
             select floor(extract(epoch from recorded_at) / 60), count(*) from revision where recorded_at > now() - interval '2 days' group by 1;
             insert into day_stats (repository_id, day, changes, tags, reverted)
             select t.repository_id, (v.effective_at at time zone 'utc')::date, count(*), count(distinct v.tag_id), 0
             from revision v join tag t on t.id = v.tag_id where v.recorded_at > now() - interval '32 days' group by 1, 2;
             insert into stats_position (partition, counted) select {NOBODYS}, max(ordinal) from revision;
             insert into day_stats_position (partition, counted) select {NOBODYS}, max(ordinal) from revision"
        )))
        .execute(&mut *db)
        .await?;
        sqlx::raw_sql("vacuum (analyze)").execute(&mut *db).await?;
        sqlx::raw_sql("checkpoint").execute(&mut *db).await?;
        eprintln!(
            "loaded {} pushes of {} tags in {:.0} s",
            self.pushes,
            self.tags,
            begun.elapsed().as_secs_f64()
        );
        Ok(())
    }
}

/// Returns the digest of a push by its number, in hexadecimal. All digests differ.
pub(crate) fn digest(push: u64) -> String {
    (0..4_u64)
        .map(|part| {
            format!(
                "{:016x}",
                (push * 4 + part + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15)
            )
        })
        .collect()
}

/// Appends a row in the format of COPY.
fn row(
    text: &mut String,
    table: &str,
    push: u64,
    tag: u32,
    number: u32,
    at: OffsetDateTime,
) -> std::fmt::Result {
    use std::fmt::Write as _;
    let (id, tag) = (push + 1, u64::from(tag) + 1);
    let digest = digest(push);
    let at = at.unix_timestamp_nanos() / 1000;
    let (seconds, micros) = (at / 1_000_000, at % 1_000_000);
    let at = time(seconds, micros);
    match table {
        "push" => writeln!(
            text,
            "{id}\t{tag}\tpush\t\\\\x{digest}\t{at}\t{at}\tevent\t{at}\t{at}\tevent\tmain\te-{push}\tci\tapplication/vnd.oci.image.manifest.v1+json\t1234\t{id}"
        ),
        _ => {
            let kind = if number == 1 { "created" } else { "moved" };
            let previous = if number == 1 {
                "\\N".to_owned()
            } else {
                (number - 1).to_string()
            };
            writeln!(
                text,
                "{tag}\t{number}\t{kind}\t\\\\x{digest}\t{at}\t{at}\t{previous}\t{number}\t{id}\t{NOBODYS}\t{id}"
            )
        }
    }
}

/// Formats a time for Postgres.
fn time(seconds: i128, micros: i128) -> String {
    let seconds = i64::try_from(seconds).unwrap_or_default();
    let at = OffsetDateTime::from_unix_timestamp(seconds).unwrap_or(OffsetDateTime::UNIX_EPOCH);
    format!(
        "{}-{:02}-{:02} {:02}:{:02}:{:02}.{micros:06}+00",
        at.year(),
        u8::from(at.month()),
        at.day(),
        at.hour(),
        at.minute(),
        at.second()
    )
}

/// Drops the indexes, which would slow the load. Returns the statements that create them again.
async fn drop_indexes(db: &mut PgConnection) -> anyhow::Result<Vec<String>> {
    let rows = sqlx::query(
        "select i.indexrelid::regclass::text as name, pg_get_indexdef(i.indexrelid) as definition, i.indisprimary,
                i.indrelid::regclass::text as table_name, pg_get_constraintdef(c.oid) as constraint_definition
         from pg_index i left join pg_constraint c on c.conindid = i.indexrelid and c.contype = 'p'
         where i.indrelid in ('push'::regclass, 'revision'::regclass)",
    )
    .fetch_all(&mut *db)
    .await?;
    let mut again = Vec::with_capacity(rows.len());
    for row in rows {
        let (index, definition, primary, table): (String, String, bool, String) = (
            row.try_get("name")?,
            row.try_get("definition")?,
            row.try_get("indisprimary")?,
            row.try_get("table_name")?,
        );
        let (gone, back) = if primary {
            let constraint: String = row.try_get("constraint_definition")?;
            (
                format!("alter table {table} drop constraint {index}"),
                format!("alter table {table} add constraint {index} {constraint}"),
            )
        } else {
            (format!("drop index {index}"), definition)
        };
        sqlx::raw_sql(AssertSqlSafe(gone)).execute(&mut *db).await?;
        again.push(back);
    }
    Ok(again)
}
