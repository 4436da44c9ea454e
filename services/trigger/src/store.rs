//! All SQL of the trigger service. Functions that write expect the caller's transaction. Whoever changes a rollout holds its
//! trigger's row (`for update`), so the changes of one trigger are recorded in the order in which they are committed.

use std::collections::BTreeMap;
use std::time::Duration;

use sqlx::postgres::PgRow;
use sqlx::types::Json;
use sqlx::{PgConnection, Row as _};
use tagtrail_bus::consume::Position;
use tagtrail_proto::{Cause, Digest, Image, Rollout, RolloutImage, RolloutState};
use time::OffsetDateTime;
use uuid::Uuid;

use crate::error::Error;
use crate::wanted::Head;

const STREAM: &str = "REVISIONS";

/// What a session may hold; freed by the server when the session ends, however that comes about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Lock {
    /// The right to plan: one session of all instances.
    Plan,
    /// The right to publish changes of rollouts: one session of all instances.
    Ledger,
    /// The right to act on the target of this trigger.
    Target(i32),
}

impl Lock {
    /// Class and number of the advisory lock. The indexer's class is `0x7461_6731`.
    const fn key(self) -> (i32, i32) {
        const SERVICE: i32 = 0x7461_6732; // "tag2"
        const TARGET: i32 = 0x7461_6733; // "tag3"
        match self {
            Lock::Plan => (SERVICE, 0),
            Lock::Ledger => (SERVICE, 1),
            Lock::Target(trigger) => (TARGET, trigger),
        }
    }
}

/// Takes a lock for this session, if no other session has it.
pub(crate) async fn try_lock(db: &mut PgConnection, lock: Lock) -> Result<bool, sqlx::Error> {
    let (class, number) = lock.key();
    sqlx::query_scalar("select pg_try_advisory_lock($1, $2)")
        .bind(class)
        .bind(number)
        .fetch_one(db)
        .await
}

/// Frees a lock.
pub(crate) async fn unlock(db: &mut PgConnection, lock: Lock) -> Result<(), sqlx::Error> {
    let (class, number) = lock.key();
    sqlx::query("select pg_advisory_unlock($1, $2)")
        .bind(class)
        .bind(number)
        .execute(db)
        .await
        .map(|_| ())
}

/// Shows the server that the session lives, and us that it still does.
pub(crate) async fn ping(db: &mut PgConnection) -> Result<(), sqlx::Error> {
    sqlx::query("select 1").execute(db).await.map(|_| ())
}

/// A trigger as it is configured.
#[derive(Debug, Clone)]
pub(crate) struct Configured {
    pub(crate) name: String,
    pub(crate) images: BTreeMap<String, Image>,
    /// Kind of its target.
    pub(crate) target: String,
    pub(crate) settle: Duration,
}

/// Makes the table of triggers say what the configuration says. Those that are gone keep their rollouts.
pub(crate) async fn configure(
    db: &mut PgConnection,
    triggers: &[Configured],
) -> Result<(), sqlx::Error> {
    let names: Vec<&str> = triggers
        .iter()
        .map(|trigger| trigger.name.as_str())
        .collect();
    let images: Vec<_> = triggers
        .iter()
        .map(|trigger| Json(&trigger.images))
        .collect();
    let targets: Vec<&str> = triggers
        .iter()
        .map(|trigger| trigger.target.as_str())
        .collect();
    sqlx::query(
        "with gone as (update trigger set configured = false where configured and name <> all ($1))
         insert into trigger (name, images, target)
         select * from unnest($1::text[], $2::jsonb[], $3::text[])
         on conflict (name) do update set images = excluded.images, target = excluded.target, configured = true",
    )
    .bind(names)
    .bind(images)
    .bind(targets)
    .execute(db)
    .await
    .map(|_| ())
}

/// How far REVISIONS was read; `None` the first time.
pub(crate) async fn position(db: &mut PgConnection) -> Result<Option<Position>, sqlx::Error> {
    let row = sqlx::query(
        "select stream_created_ns, applied_seq, applied_time_ns from position where stream = $1 and partition = 0",
    )
    .bind(STREAM)
    .fetch_optional(db)
    .await?;
    row.map(|row| {
        Ok(Position {
            stream_created_ns: row.try_get(0)?,
            sequence: unsigned(row.try_get(1)?),
            time_ns: row.try_get(2)?,
        })
    })
    .transpose()
}

/// Notes how far REVISIONS was read.
pub(crate) async fn set_position(
    db: &mut PgConnection,
    position: Position,
) -> Result<(), sqlx::Error> {
    sqlx::query(
        "insert into position (stream, partition, stream_created_ns, applied_seq, applied_time_ns) values ($1, 0, $2, $3, $4)
         on conflict (stream, partition) do update
         set stream_created_ns = excluded.stream_created_ns, applied_seq = excluded.applied_seq, applied_time_ns = excluded.applied_time_ns",
    )
    .bind(STREAM)
    .bind(position.stream_created_ns)
    .bind(signed(position.sequence))
    .bind(position.time_ns)
    .execute(db)
    .await
    .map(|_| ())
}

/// What the planner must know of a trigger besides its configuration.
#[derive(Debug, Clone)]
pub(crate) struct Known {
    pub(crate) id: i32,
    pub(crate) name: String,
    pub(crate) paused: bool,
    /// It was resumed, and nothing was planned since.
    pub(crate) resuming: bool,
    /// The images of its last rollout.
    pub(crate) last: Option<BTreeMap<String, RolloutImage>>,
}

/// The triggers of these names.
pub(crate) async fn known(db: &mut PgConnection, names: &[&str]) -> Result<Vec<Known>, Error> {
    let rows = sqlx::query(
        "select t.id, t.name, t.state = 'paused', t.state = 'resuming', o.images
         from trigger t
         left join lateral (select images from rollout o where o.trigger_id = t.id order by o.number desc limit 1) o on true
         where t.configured and t.name = any ($1)",
    )
    .bind(names)
    .fetch_all(db)
    .await?;
    rows.iter()
        .map(|row| {
            Ok(Known {
                id: row.try_get(0)?,
                name: row.try_get(1)?,
                paused: row.try_get(2)?,
                resuming: row.try_get(3)?,
                last: row
                    .try_get::<Option<Json<_>>, _>(4)?
                    .map(|Json(images)| images),
            })
        })
        .collect()
}

/// Names of the triggers that were resumed and not planned since.
pub(crate) async fn resuming(db: &mut PgConnection) -> Result<Vec<String>, sqlx::Error> {
    sqlx::query_scalar("select name from trigger where configured and state = 'resuming'")
        .fetch_all(db)
        .await
}

/// The planner has looked at a resumed trigger: workers may go on.
pub(crate) async fn resumed(db: &mut PgConnection, trigger: i32) -> Result<(), sqlx::Error> {
    sqlx::query("update trigger set state = 'active' where id = $1 and state = 'resuming'")
        .bind(trigger)
        .execute(db)
        .await
        .map(|_| ())
}

/// The heads of those of these images that have one: one statement, so one snapshot for all.
pub(crate) async fn heads(
    db: &mut PgConnection,
    images: &[&Image],
) -> Result<BTreeMap<Image, Head>, Error> {
    let rows = sqlx::query(
        "select r.registry, r.name, t.name, v.number, v.digest, p.origin::text, v.recorded_at
         from unnest($1::text[], $2::text[], $3::text[]) as w (registry, repository, tag)
         join repository r on r.registry = w.registry and r.name = w.repository
         join tag t on t.repository_id = r.id and t.name = w.tag
         join revision v on v.tag_id = t.id and v.number = t.head
         join push p on p.id = v.push_id",
    )
    .bind(
        images
            .iter()
            .map(|image| image.registry.as_ref())
            .collect::<Vec<_>>(),
    )
    .bind(
        images
            .iter()
            .map(|image| image.repository.as_ref())
            .collect::<Vec<_>>(),
    )
    .bind(
        images
            .iter()
            .map(|image| image.tag.as_ref())
            .collect::<Vec<_>>(),
    )
    .fetch_all(db)
    .await?;
    rows.iter()
        .map(|row| {
            let image = Image {
                registry: parsed(row.try_get(0)?)?,
                repository: parsed(row.try_get(1)?)?,
                tag: parsed(row.try_get(2)?)?,
            };
            let digest = row
                .try_get::<Option<&[u8]>, _>(4)?
                .map(|bytes| {
                    Digest::from_bytes(bytes).ok_or(Error::Inconsistent(
                        "a digest in the database has a wrong length",
                    ))
                })
                .transpose()?;
            let head = Head {
                revision: unsigned(row.try_get(3)?),
                digest,
                origin: parsed(row.try_get(5)?)?,
                recorded_at: row.try_get(6)?,
            };
            Ok((image, head))
        })
        .collect()
}

/// Columns of a rollout, as [`rollout`] reads them.
macro_rules! columns {
    () => {
        "o.id, t.name as trigger, o.number, o.state::text as state, o.images, o.cause, o.attempts, o.created_at, o.finished_at, o.error"
    };
}

/// Records a new rollout, which takes the place of those that have not begun. `None` if the trigger was paused meanwhile.
pub(crate) async fn start(
    db: &mut PgConnection,
    trigger: i32,
    images: &BTreeMap<String, RolloutImage>,
    cause: &Cause,
) -> Result<Option<Rollout>, Error> {
    let number: Option<i64> = sqlx::query_scalar(
        "update trigger set issued = issued + 1, state = 'active' where id = $1 and state <> 'paused' returning issued",
    )
    .bind(trigger)
    .fetch_optional(&mut *db)
    .await?;
    let Some(number) = number else {
        return Ok(None);
    };
    let row = sqlx::query(concat!(
        "with o as (insert into rollout (id, trigger_id, number, images, cause) values ($1, $2, $3, $4, $5) returning *)
         select ", columns!(), " from o join trigger t on t.id = o.trigger_id"
    ))
    .bind(Uuid::now_v7())
    .bind(trigger)
    .bind(number)
    .bind(Json(images))
    .bind(Json(cause))
    .fetch_one(&mut *db)
    .await?;
    let new = rollout(&row)?;
    let rows = sqlx::query(concat!(
        "with o as (
             update rollout set state = 'superseded', finished_at = now() where trigger_id = $1 and state = 'pending' and number < $2 returning *)
         select ", columns!(), " from o join trigger t on t.id = o.trigger_id order by o.number"
    ))
    .bind(trigger)
    .bind(number)
    .fetch_all(&mut *db)
    .await?;
    let mut changed = rows.iter().map(rollout).collect::<Result<Vec<_>, _>>()?;
    changed.push(new.clone());
    record(db, &changed).await?;
    Ok(Some(new))
}

/// What is waiting for a worker.
#[derive(Debug, Default)]
pub(crate) struct Waiting {
    /// Triggers with a rollout whose attempt is due (it may be under way already).
    pub(crate) due: Vec<i32>,
    /// Until the next one is due.
    pub(crate) next: Option<Duration>,
}

/// Looks for work among the triggers of these names.
pub(crate) async fn waiting(db: &mut PgConnection, names: &[&str]) -> Result<Waiting, sqlx::Error> {
    let rows = sqlx::query(
        "select o.trigger_id, greatest(extract(epoch from o.next_attempt_at - now()), 0)::float8
         from rollout o join trigger t on t.id = o.trigger_id
         where o.state in ('pending', 'running') and t.configured and t.state = 'active' and t.name = any ($1)
         order by o.next_attempt_at limit 256",
    )
    .bind(names)
    .fetch_all(db)
    .await?;
    let mut waiting = Waiting::default();
    for row in &rows {
        let seconds: f64 = row.try_get(1)?;
        if seconds > 0.0 {
            waiting.next = Some(Duration::from_secs_f64(seconds));
            break;
        }
        waiting.due.push(row.try_get(0)?);
    }
    waiting.due.dedup();
    Ok(waiting)
}

/// An attempt that is about to be made.
#[derive(Debug)]
pub(crate) struct Begun {
    pub(crate) rollout: Rollout,
    /// When the first attempt began.
    pub(crate) started_at: OffsetDateTime,
}

/// Begins an attempt of the newest live rollout of a trigger, in the place of all older ones. `None` if there is none that
/// may be attempted now. The caller holds the lock of the trigger's target, so no attempt is under way.
pub(crate) async fn begin(db: &mut PgConnection, trigger: i32) -> Result<Option<Begun>, Error> {
    if !may_act(db, trigger).await? {
        return Ok(None);
    }
    let rows = sqlx::query(concat!(
        "with newest as (select max(number) as number from rollout where trigger_id = $1 and state in ('pending', 'running')),
         o as (
             update rollout set state = 'superseded', finished_at = now()
             where trigger_id = $1 and state in ('pending', 'running') and number < (select number from newest) returning *)
         select ", columns!(), " from o join trigger t on t.id = o.trigger_id order by o.number"
    ))
    .bind(trigger)
    .fetch_all(&mut *db)
    .await?;
    let mut changed = rows.iter().map(rollout).collect::<Result<Vec<_>, _>>()?;
    let row = sqlx::query(concat!(
        "with before as (select id, state from rollout where trigger_id = $1 and state in ('pending', 'running') and next_attempt_at <= now()
                         order by number desc limit 1),
         o as (
             update rollout o set state = 'running', attempts = attempts + 1, started_at = coalesce(started_at, now())
             from before where o.id = before.id returning o.*, before.state = 'pending' as first)
         select o.first, o.started_at, ", columns!(), " from o join trigger t on t.id = o.trigger_id"
    ))
    .bind(trigger)
    .fetch_optional(&mut *db)
    .await?;
    let begun = match row {
        Some(row) => {
            let begun = Begun {
                rollout: rollout(&row)?,
                started_at: row.try_get("started_at")?,
            };
            if row.try_get("first")? {
                changed.push(begun.rollout.clone());
            }
            Some(begun)
        }
        None => None,
    };
    record(db, &changed).await?;
    Ok(begun)
}

/// Takes the trigger's row; says whether it may act.
async fn may_act(db: &mut PgConnection, trigger: i32) -> Result<bool, sqlx::Error> {
    sqlx::query_scalar(
        "select configured and state = 'active' from trigger where id = $1 for update",
    )
    .bind(trigger)
    .fetch_one(db)
    .await
}

/// Whether a newer rollout of the trigger waits; takes the trigger's row. Also tells the time by the database's clock.
pub(crate) async fn newer(
    db: &mut PgConnection,
    trigger: i32,
    number: u64,
) -> Result<(bool, OffsetDateTime), sqlx::Error> {
    let row = sqlx::query(
        "with held as (select id from trigger where id = $1 for update)
         select exists (select from rollout o where o.trigger_id = held.id and o.number > $2 and o.state in ('pending', 'running')), clock_timestamp()
         from held",
    )
    .bind(trigger)
    .bind(signed(number))
    .fetch_one(db)
    .await?;
    Ok((row.try_get(0)?, row.try_get(1)?))
}

/// Ends a rollout.
pub(crate) async fn finish(
    db: &mut PgConnection,
    id: &str,
    state: RolloutState,
    error: Option<&str>,
) -> Result<Rollout, Error> {
    let row = sqlx::query(concat!(
        "with o as (update rollout set state = $2::rollout_state, finished_at = now(), error = $3 where id = $1::uuid returning *)
         select ", columns!(), " from o join trigger t on t.id = o.trigger_id"
    ))
    .bind(id)
    .bind(state.as_str())
    .bind(error)
    .fetch_one(&mut *db)
    .await?;
    let ended = rollout(&row)?;
    record(db, std::slice::from_ref(&ended)).await?;
    Ok(ended)
}

/// Notes when to try a rollout again, and why it did not work.
pub(crate) async fn retry(
    db: &mut PgConnection,
    id: &str,
    at: OffsetDateTime,
    error: &str,
) -> Result<(), sqlx::Error> {
    sqlx::query("update rollout set next_attempt_at = $2, error = $3 where id = $1::uuid")
        .bind(id)
        .bind(at)
        .bind(error)
        .execute(db)
        .await
        .map(|_| ())
}

/// Adds changes of state to the ledger.
async fn record(db: &mut PgConnection, changed: &[Rollout]) -> Result<(), sqlx::Error> {
    if changed.is_empty() {
        return Ok(());
    }
    sqlx::query(
        "insert into rollout_change (rollout_id, state, rollout)
         select id::uuid, state::rollout_state, rollout from unnest($1::text[], $2::text[], $3::jsonb[]) as c (id, state, rollout)",
    )
    .bind(changed.iter().map(|rollout| rollout.id.as_str()).collect::<Vec<_>>())
    .bind(changed.iter().map(|rollout| rollout.state.as_str()).collect::<Vec<_>>())
    .bind(changed.iter().map(Json).collect::<Vec<_>>())
    .execute(db)
    .await
    .map(|_| ())
}

/// A change of state to be published.
#[derive(Debug)]
pub(crate) struct Change {
    pub(crate) ordinal: i64,
    pub(crate) rollout: Rollout,
    pub(crate) changed_at: OffsetDateTime,
}

/// The oldest changes that are not published.
pub(crate) async fn unpublished(db: &mut PgConnection) -> Result<Vec<Change>, sqlx::Error> {
    let rows = sqlx::query(
        "select ordinal, rollout, changed_at from rollout_change where not published order by ordinal limit 256",
    )
    .fetch_all(db)
    .await?;
    rows.iter()
        .map(|row| {
            let Json(rollout) = row.try_get(1)?;
            Ok(Change {
                ordinal: row.try_get(0)?,
                rollout,
                changed_at: row.try_get(2)?,
            })
        })
        .collect()
}

/// Notes that these changes were acknowledged.
pub(crate) async fn published(db: &mut PgConnection, ordinals: &[i64]) -> Result<(), sqlx::Error> {
    sqlx::query("update rollout_change set published = true where ordinal = any ($1)")
        .bind(ordinals)
        .execute(db)
        .await
        .map(|_| ())
}

fn rollout(row: &PgRow) -> Result<Rollout, Error> {
    let (Json(images), Json(cause)) = (row.try_get("images")?, row.try_get("cause")?);
    Ok(Rollout {
        id: row.try_get::<Uuid, _>("id")?.to_string(),
        trigger: row.try_get("trigger")?,
        number: unsigned(row.try_get("number")?),
        state: parsed(row.try_get("state")?)?,
        images,
        cause,
        attempts: u32::try_from(row.try_get::<i32, _>("attempts")?).unwrap_or(0),
        created_at: row.try_get("created_at")?,
        finished_at: row.try_get("finished_at")?,
        error: row.try_get("error")?,
    })
}

fn parsed<T: std::str::FromStr>(text: &str) -> Result<T, Error> {
    text.parse()
        .map_err(|_| Error::Inconsistent("a name in the database does not parse"))
}

/// Postgres has no unsigned numbers. Ours stay far below the limit.
fn signed(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

fn unsigned(number: i64) -> u64 {
    u64::try_from(number).unwrap_or(0)
}
