//! The triggers that the API has made.

use serde_json::Value;
use sqlx::types::Json;
use sqlx::{Connection as _, PgConnection, Row as _};
use tagtrail_proto::Name;

use super::acts::{self, Effect, NewAct};

/// A change of a trigger of the API.
#[derive(Debug)]
pub(crate) struct Change<'a> {
    pub(crate) name: &'a Name,
    /// The settings, and their hash. `None`: the trigger is removed.
    pub(crate) spec: Option<(&'a Value, [u8; 32])>,
    /// The generation that the change replaces, as the caller knows it.
    pub(crate) replaces: Option<i64>,
    /// Most triggers that the API makes.
    pub(crate) most: u32,
}

/// The effect of a change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Applied {
    /// The trigger has this generation now.
    Generation { generation: i64, changed: bool },
    /// The trigger has this generation, and the caller knows another one, or none.
    Other { generation: i64, known: bool },
    /// The API has made as many triggers as it may.
    Full,
    /// A file has a trigger of this name.
    OfFile,
    /// There is no such trigger of the API.
    Unknown,
    /// The idempotency key belongs to another order.
    KeyReused,
}

/// Records a change as the next generation of the trigger, with its act.
pub(crate) async fn apply(
    db: &mut PgConnection,
    change: &Change<'_>,
    act: &NewAct<'_>,
) -> Result<Applied, sqlx::Error> {
    let mut tx = db.begin().await?;
    let seen = acts::seen(&mut tx, act).await?;
    if seen == Some(Effect::KeyReused) {
        return Ok(Applied::KeyReused);
    }
    if change.spec.is_some() && seen.is_none() {
        // The planner configures the trigger as soon as it has read the settings.
        sqlx::query(
            "insert into trigger (name, images, target, configured, door) values ($1, '{}', '', false, 'api') on conflict (name) do nothing",
        )
        .bind(change.name.as_ref())
        .execute(&mut *tx)
        .await?;
    }
    let row = sqlx::query(
        "select id, generation, configured and door is distinct from 'api' as of_file, door = 'api' and spec_hash is not null as there,
             spec_hash is not distinct from $2 as same
         from trigger where name = $1 for update",
    )
    .bind(change.name.as_ref())
    .bind(change.spec.as_ref().map(|(_, hash)| hash.to_vec()))
    .fetch_optional(&mut *tx)
    .await?;
    let Some(row) = row else {
        return Ok(Applied::Unknown);
    };
    let generation: i64 = row.try_get("generation")?;
    let there = row.try_get::<Option<bool>, _>("there")?.unwrap_or(false);
    if seen.is_some() {
        let changed = false;
        return Ok(Applied::Generation {
            generation,
            changed,
        });
    }
    if row.try_get("of_file")? {
        return Ok(Applied::OfFile);
    }
    if !there && change.spec.is_none() {
        return Ok(Applied::Unknown);
    }
    // A removal may leave the generation out, and so may a new trigger.
    let known = change.replaces;
    let must_know = there && change.spec.is_some();
    if known.is_none() && must_know
        || known.is_some_and(|known| known != generation && (there || known != 0))
    {
        return Ok(Applied::Other {
            generation,
            known: known.is_some(),
        });
    }
    if there && row.try_get("same")? {
        let changed = false;
        return Ok(Applied::Generation {
            generation,
            changed,
        });
    }
    if !there {
        // Two new triggers at the same moment may be one too many, which does no harm.
        let count: i64 = sqlx::query_scalar(
            "select count(*) from trigger where door = 'api' and spec_hash is not null",
        )
        .fetch_one(&mut *tx)
        .await?;
        if count >= i64::from(change.most) {
            return Ok(Applied::Full);
        }
    }
    let (id, generation): (i32, _) = (row.try_get("id")?, generation + 1);
    let hash = change.spec.as_ref().map(|(_, hash)| hash.to_vec());
    sqlx::query("update trigger set generation = $2, spec_hash = $3, door = 'api' where id = $1")
        .bind(id)
        .bind(generation)
        .bind(&hash)
        .execute(&mut *tx)
        .await?;
    sqlx::query(
        "insert into trigger_spec (trigger_id, generation, door, spec, complete, hash, actor)
         values ($1, $2, 'api', $3, true, $4, $5)",
    )
    .bind(id)
    .bind(generation)
    .bind(change.spec.as_ref().map(|(spec, _)| Json(*spec)))
    .bind(&hash)
    .bind(act.actor.name())
    .execute(&mut *tx)
    .await?;
    acts::record(&mut tx, act).await?;
    tx.commit().await?;
    let changed = true;
    Ok(Applied::Generation {
        generation,
        changed,
    })
}

/// The state of a trigger after a change.
#[derive(Debug, Default)]
pub(crate) struct State {
    /// Whether the planner has taken this generation.
    pub(crate) done: bool,
    /// The mistake in the settings.
    pub(crate) problem: Option<String>,
}

/// Returns whether the planner has taken a generation of a trigger, or its removal.
pub(crate) async fn state(
    db: &mut PgConnection,
    name: &Name,
    generation: i64,
) -> Result<State, sqlx::Error> {
    let row = sqlx::query(
        "select case when spec_hash is null then not configured else configured and coalesce(loaded >= $2, false) end as done,
             case when broken then problem end as problem
         from trigger where name = $1",
    )
    .bind(name.as_ref())
    .bind(generation)
    .fetch_optional(db)
    .await?;
    let Some(row) = row else {
        return Ok(State::default());
    };
    let done = row.try_get("done")?;
    Ok(State {
        done,
        problem: row
            .try_get::<Option<String>, _>("problem")?
            .filter(|_| done),
    })
}
