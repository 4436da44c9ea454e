//! Holds: freezes, pins and faults.

use sqlx::{Connection as _, PgConnection};
use time::OffsetDateTime;

use super::acts::{self, Effect, NewAct};

/// The SQL condition that the hold `h` is about the trigger with the name in this expression. Names
/// and patterns consist of a-z, 0-9, - and *.
macro_rules! is_about {
    ($name:literal) => {
        concat!(
            "(h.triggers = ",
            $name,
            " or position('*' in h.triggers) > 0 and ",
            $name,
            " ~ ('^' || replace(h.triggers, '*', '.*') || '$'))"
        )
    };
}

/// Records a freeze, and the act. Returns the id of the hold, also of a repeated order.
pub(crate) async fn freeze(
    db: &mut PgConnection,
    act: &NewAct<'_>,
    hard: bool,
    until: Option<OffsetDateTime>,
) -> Result<Result<i64, Effect>, sqlx::Error> {
    let mut tx = db.begin().await?;
    match acts::seen(&mut tx, act).await? {
        Some(Effect::Repeated) => {
            let before = acts::with_key(&mut tx, act.actor).await?;
            let hold = before.and_then(|(_, hold)| hold);
            return Ok(hold.ok_or(Effect::KeyReused));
        }
        Some(other) => return Ok(Err(other)),
        None => {}
    }
    let id: i64 = sqlx::query_scalar(
        "insert into hold (kind, triggers, reason, hard, actor, until)
         values ('freeze', $1, $2, $3, $4, $5) returning id",
    )
    .bind(act.trigger)
    .bind(act.reason)
    .bind(hard)
    .bind(act.actor.name())
    .bind(until)
    .fetch_one(&mut *tx)
    .await?;
    let act = NewAct {
        hold: Some(id),
        ..act.clone()
    };
    acts::record(&mut tx, &act).await?;
    touch(&mut tx, id).await?;
    tx.commit().await?;
    Ok(Ok(id))
}

/// Ends a freeze, and records the act.
pub(crate) async fn thaw(
    db: &mut PgConnection,
    id: i64,
    act: &NewAct<'_>,
) -> Result<Effect, sqlx::Error> {
    let mut tx = db.begin().await?;
    if let Some(repeated) = acts::seen(&mut tx, act).await? {
        return Ok(repeated);
    }
    let released = sqlx::query(
        "update hold set released_at = now(), released_by = $2
         where id = $1 and kind = 'freeze' and released_at is null",
    )
    .bind(id)
    .bind(act.actor.name())
    .execute(&mut *tx)
    .await?;
    touch(&mut tx, id).await?;
    let effect = acts::record_effect(&mut tx, act, released.rows_affected() > 0).await?;
    tx.commit().await?;
    Ok(effect)
}

/// Lets the planner evaluate the gates of the triggers that a hold is about.
async fn touch(tx: &mut PgConnection, hold: i64) -> Result<(), sqlx::Error> {
    sqlx::query(concat!(
        "update trigger t set touched = true from hold h where h.id = $1 and ",
        is_about!("t.name")
    ))
    .bind(hold)
    .execute(tx)
    .await
    .map(|_| ())
}
