//! The generations of triggers, and the processes that know them.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use sqlx::postgres::PgRow;
use sqlx::types::Json;
use sqlx::{PgConnection, Row as _};
use time::OffsetDateTime;

use crate::act::Owner;
use crate::settings::{Hash, Settings};

/// The last good generation of a trigger, as recorded.
#[derive(Debug, Clone)]
pub(crate) struct Generation {
    pub(crate) name: String,
    pub(crate) number: i64,
    /// The file that had the entry.
    pub(crate) file: PathBuf,
    pub(crate) settings: serde_json::Value,
}

/// Returns the newest generation of each trigger of the files that is not removed, as far as its
/// settings can be used from here.
pub(crate) async fn of_files(db: &mut PgConnection) -> Result<Vec<Generation>, sqlx::Error> {
    let rows = sqlx::query(
        "select t.name, s.generation, s.file, s.spec
         from trigger t join trigger_spec s on s.trigger_id = t.id and s.generation = t.generation
         where t.door in ('file', 'folder') and s.spec is not null and s.complete",
    )
    .fetch_all(db)
    .await?;
    rows.iter().map(generation).collect()
}

/// Returns the triggers that the API has made and not removed.
pub(crate) async fn of_api(db: &mut PgConnection) -> Result<Vec<Generation>, sqlx::Error> {
    let rows = sqlx::query(
        "select t.name, s.generation, s.file, s.spec
         from trigger t join trigger_spec s on s.trigger_id = t.id and s.generation = t.generation
         where t.door = 'api' and s.spec is not null",
    )
    .fetch_all(db)
    .await?;
    rows.iter().map(generation).collect()
}

/// A trigger of an annotated object.
#[derive(Debug, Clone, Default)]
pub(crate) struct Discovered {
    /// The settings, if the annotations could ever be read and are not refused.
    pub(crate) generation: Option<Generation>,
    /// The mistake in the annotations, or the reason for which they have no effect.
    pub(crate) problem: Option<String>,
}

/// Returns the triggers of annotated objects, by name.
pub(crate) async fn of_clusters(
    db: &mut PgConnection,
) -> Result<BTreeMap<String, Discovered>, sqlx::Error> {
    let rows = sqlx::query(
        "select t.name, s.generation, s.file, s.spec, d.problem
         from (select trigger, string_agg(coalesce(refused, problem), '; ' order by coalesce(refused, problem)) as problem from discovered group by trigger) d
         join trigger t on t.name = d.trigger and t.door = 'kubernetes'
         left join trigger_spec s on s.trigger_id = t.id and s.generation = t.generation and s.spec is not null",
    )
    .fetch_all(db)
    .await?;
    let discovered = |row: &PgRow| {
        let there = row.try_get::<Option<i64>, _>("generation")?.is_some();
        let generation = there.then(|| generation(row)).transpose()?;
        let problem = row.try_get("problem")?;
        let one = Discovered {
            generation,
            problem,
        };
        Ok((row.try_get("name")?, one))
    };
    rows.iter().map(discovered).collect()
}

/// The place of the last change by the API or by an annotated object.
pub(crate) type Place = (i64, i64, Option<OffsetDateTime>);

/// Returns the place of the last change by the API or by an annotated object. Another one is a
/// change.
pub(crate) async fn last_of_doors(db: &mut PgConnection) -> Result<Place, sqlx::Error> {
    sqlx::query_as(
        "select (select coalesce(max(id), 0) from trigger_spec where door in ('api', 'kubernetes')), d.count, d.last
         from (select count(*), max(changed_at) as last from discovered) d",
    )
    .fetch_one(db)
    .await
}

fn generation(row: &PgRow) -> Result<Generation, sqlx::Error> {
    let Json(settings) = row.try_get("spec")?;
    Ok(Generation {
        name: row.try_get("name")?,
        number: row.try_get("generation")?,
        file: PathBuf::from(row.try_get::<String, _>("file")?),
        settings,
    })
}

/// Records the settings of the triggers of the files that have changed, and the removals, each as a
/// generation. A broken entry makes none. The triggers exist already.
pub(crate) async fn record(db: &mut PgConnection, settings: &Settings) -> Result<(), sqlx::Error> {
    let (mut names, mut hashes, mut specs, mut complete) = (vec![], vec![], vec![], vec![]);
    let (mut doors, mut files, mut labels, mut stale) = (vec![], vec![], vec![], vec![]);
    let mut loaded = vec![];
    for (name, trigger) in &settings.triggers {
        if !settings.targets.contains_key(name) {
            continue;
        }
        let shown = trigger.spec.shown();
        names.push(name.as_str());
        hashes.push(trigger.hash.to_vec());
        specs.push(Json(shown.settings));
        complete.push(shown.complete);
        doors.push(trigger.spec.door.as_str());
        files.push(trigger.spec.file.display().to_string());
        labels.push(Json(&trigger.labels));
        stale.push(settings.is_stale(name));
        loaded.push(settings.loaded.get(name).copied());
    }
    sqlx::query(
        "with entry as (
             select * from unnest($1::text[], $2::bytea[], $3::jsonb[], $4::boolean[], $5::text[], $6::text[], $7::jsonb[], $8::boolean[], $9::bigint[])
                 as e (name, hash, spec, complete, door, file, labels, stale, loaded)
         ), changed as (
             update trigger t set labels = e.labels, stale = e.stale,
                 -- Other doors record the generations of their triggers themselves.
                 generation = t.generation + case when e.door in ('file', 'folder') and t.spec_hash is distinct from e.hash then 1 else 0 end,
                 spec_hash = case when e.door in ('file', 'folder') then e.hash else t.spec_hash end, door = e.door, loaded = e.loaded
             from entry e, trigger before
             where t.name = e.name and before.id = t.id
                 and (t.spec_hash is distinct from e.hash or t.labels <> e.labels or t.stale <> e.stale
                      or t.door is distinct from e.door or t.loaded is distinct from e.loaded)
                 -- Another door has taken the name meanwhile.
                 and not (t.door in ('api', 'kubernetes') and t.spec_hash is not null and e.door <> t.door)
             returning t.id, t.generation, before.generation as earlier, e.door, e.file, e.spec, e.complete, e.hash
         ), removed as (
             update trigger t set generation = t.generation + 1, spec_hash = null
             where not t.configured and t.spec_hash is not null and t.door in ('file', 'folder') returning t.id, t.generation, t.door
         )
         insert into trigger_spec (trigger_id, generation, door, file, spec, complete, hash, actor)
         select id, generation, door, file, spec, complete, hash, 'configuration' from changed where generation > earlier
         union all
         select id, generation, door, '', null, true, null, 'configuration' from removed",
    )
    .bind(names)
    .bind(hashes)
    .bind(specs)
    .bind(complete)
    .bind(doors)
    .bind(files)
    .bind(labels)
    .bind(stale)
    .bind(loaded)
    .execute(&mut *db)
    .await?;
    // A broken trigger of the API is loaded too: its mistake is known.
    let (names, loaded): (Vec<&str>, Vec<i64>) = settings
        .loaded
        .iter()
        .filter(|(name, _)| !settings.targets.contains_key(*name))
        .map(|(name, generation)| (name.as_str(), *generation))
        .unzip();
    sqlx::query(
        "update trigger t set loaded = e.loaded from unnest($1::text[], $2::bigint[]) as e (name, loaded)
         where t.name = e.name and t.loaded is distinct from e.loaded",
    )
    .bind(names)
    .bind(loaded)
    .execute(&mut *db)
    .await?;
    // An entry that no process can read keeps its generation.
    let unread = settings.problems.keys();
    let unread = unread.filter(|name| !settings.targets.contains_key(*name));
    sqlx::query("update trigger set stale = false where stale and name = any ($1)")
        .bind(unread.map(String::as_str).collect::<Vec<_>>())
        .execute(db)
        .await
        .map(|_| ())
}

/// Returns the triggers of which these settings have an older generation, replaced less than
/// `recent` ago: an earlier generation, or the absence before the first one. Each with the hash of
/// the newer generation; `None`: the trigger was removed. An entry with a mistake is no such
/// generation.
pub(crate) async fn replaced(
    db: &mut PgConnection,
    settings: &Settings,
    recent: Duration,
) -> Result<Vec<(String, Option<Hash>)>, sqlx::Error> {
    let (names, hashes) = own(settings);
    let rows = sqlx::query(
        "with own as (select * from unnest($1::text[], $2::bytea[]) as o (name, hash))
         select t.name, s.hash
         from trigger t
         join trigger_spec s on s.trigger_id = t.id and s.generation = t.generation
         left join own on own.name = t.name
         where s.door in ('file', 'folder') and s.changed_at > now() - make_interval(secs => $3)
             and s.hash is distinct from own.hash and t.name <> all ($4)
             and case when own.hash is null
                 -- Also an earlier name of the trigger.
                 then s.generation = 1 or exists (
                     select from trigger_spec e
                     where e.trigger_id = t.id and e.generation < s.generation and (e.spec is null or e.hash = any ($2)))
                 else exists (
                     select from trigger_spec e where e.trigger_id = t.id and e.generation < s.generation and e.hash = own.hash) end",
    )
    .bind(names)
    .bind(hashes)
    .bind(recent.as_secs_f64())
    .bind(settings.problems.keys().map(String::as_str).collect::<Vec<_>>())
    .fetch_all(db)
    .await?;
    let replaced = |row: &PgRow| {
        let hash: Option<Vec<u8>> = row.try_get("hash")?;
        let hash = hash.and_then(|hash| hash.try_into().ok());
        Ok((row.try_get("name")?, hash))
    };
    rows.iter().map(replaced).collect()
}

/// Notes that this process runs, and the triggers whose recorded settings are not its own. Forgets
/// processes that have ended.
pub(crate) async fn seen(
    db: &mut PgConnection,
    owner: &Owner,
    settings: &Settings,
) -> Result<(), sqlx::Error> {
    let (names, hashes) = own(settings);
    sqlx::query(
        "with gone as (delete from trigger_process where seen_at < now() - interval '1 hour')
         insert into trigger_process (instance, machine, pid, others)
         select $3, $4, $5, coalesce(jsonb_object_agg(t.name, (
                 select max(s.generation) from trigger_spec s where s.trigger_id = t.id and s.hash = own.hash)), '{}')
         from trigger t left join unnest($1::text[], $2::bytea[]) as own (name, hash) on own.name = t.name
         where t.configured and t.spec_hash is not null and t.spec_hash is distinct from own.hash
         on conflict (instance) do update set seen_at = now(), others = excluded.others",
    )
    .bind(names)
    .bind(hashes)
    .bind(owner.instance)
    .bind(&owner.machine)
    .bind(owner.pid)
    .execute(db)
    .await
    .map(|_| ())
}

/// Notes that this process has ended.
pub(crate) async fn ended(db: &mut PgConnection, owner: &Owner) -> Result<(), sqlx::Error> {
    sqlx::query("delete from trigger_process where instance = $1")
        .bind(owner.instance)
        .execute(db)
        .await
        .map(|_| ())
}

/// Returns names and hashes of the triggers that this process can act on.
fn own(settings: &Settings) -> (Vec<&str>, Vec<&[u8]>) {
    let own = settings.triggers.iter();
    let own = own.filter(|(name, _)| settings.targets.contains_key(*name));
    own.map(|(name, trigger)| (name.as_str(), &trigger.hash[..]))
        .unzip()
}
