//! Orders of people that record or end rollouts: the planner carries them out.

use std::collections::BTreeMap;

use serde_json::Value;
use sqlx::types::Json;
use sqlx::{Connection as _, PgConnection, Row as _};
use tagtrail_postgres::{rollout_is_live, row};
use tagtrail_proto::{CauseReason, Digest, Image, Name, RolloutImage};
use time::OffsetDateTime;
use uuid::Uuid;

use super::acts::{self, Effect, NewAct};

type Set = BTreeMap<String, RolloutImage>;

/// An order on a trigger.
#[derive(Debug)]
pub(crate) enum Wish {
    /// The wanted set again: the pinned one, or the present heads. With these gates skipped.
    RollOut { skip: Vec<String> },
    /// The set of a rollout by its number, and a pin; `None`: the newest known set before the
    /// current one.
    RollBack {
        to: Option<u64>,
        until: Option<OffsetDateTime>,
    },
    /// These images, the others as they are, and a pin.
    Pin {
        images: BTreeMap<String, Choice>,
        until: Option<OffsetDateTime>,
    },
    /// Ends pin and faults.
    Release,
    /// Raises the numbers of the next rollouts above this one.
    Renumber { above: u64 },
}

/// A digest that a person chose.
#[derive(Debug, Clone)]
pub(crate) enum Choice {
    /// That of a revision.
    Revision(u64),
    Digest(Digest),
}

/// A refused order.
#[derive(Debug)]
pub(crate) enum Refusal {
    TriggerUnknown,
    Paused,
    /// No rollout of this number.
    NumberUnknown,
    /// No other set has succeeded before the current one.
    NoKnownSet,
    /// The set has other image names than the trigger.
    OtherImages,
    /// The trigger has no image of this name.
    ImageUnknown(String),
    /// The tag never had this digest, or has no such revision with a digest.
    NeverHad(Image, Choice),
    /// An image is not chosen, and no set is current.
    NotChosen(String),
}

/// A recorded order.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Placed {
    /// The planner has the order.
    Order(i64),
    Effect(Effect),
}

/// The trigger of an order, whose row is locked.
struct Ordered {
    id: i32,
    paused: bool,
    /// Of an image with a policy: the repository, without a tag.
    images: BTreeMap<String, String>,
}

/// Records an order on a trigger, with its act and its pin, in one transaction.
pub(crate) async fn place(
    db: &mut PgConnection,
    name: &Name,
    wish: &Wish,
    act: &NewAct<'_>,
) -> Result<Result<Placed, Refusal>, sqlx::Error> {
    let mut tx = db.begin().await?;
    if let Some(placed) = placed_before(&mut tx, act).await? {
        return Ok(Ok(placed));
    }
    let row = sqlx::query(
        "select id, state = 'paused' as paused, images from trigger where name = $1 and configured for update",
    )
    .bind(name.as_ref())
    .fetch_optional(&mut *tx)
    .await?;
    let Some(row) = row else {
        return Ok(Err(Refusal::TriggerUnknown));
    };
    let Json(images) = row.try_get("images")?;
    let trigger = Ordered {
        id: row.try_get("id")?,
        paused: row.try_get("paused")?,
        images,
    };
    if trigger.paused && !matches!(wish, Wish::Release | Wish::Renumber { .. }) {
        return Ok(Err(Refusal::Paused));
    }
    let (set, cause) = match chosen(&mut tx, &trigger, wish).await? {
        Ok(chosen) => chosen,
        Err(refusal) => return Ok(Err(refusal)),
    };
    let (pins, until, skip) = match wish {
        Wish::RollOut { skip } => (false, None, skip.as_slice()),
        Wish::RollBack { until, .. } | Wish::Pin { until, .. } => (true, *until, &[][..]),
        Wish::Release | Wish::Renumber { .. } => (false, None, &[][..]),
    };
    let mut act = act.clone();
    if pins || matches!(wish, Wish::Release) {
        let released = sqlx::query(
            "update hold set released_at = now(), released_by = $2
             where triggers = $1 and released_at is null and (until is null or until > now())
               and (kind = 'pin' or kind = 'fault' and not $3)",
        )
        .bind(name.as_ref())
        .bind(act.actor.name())
        .bind(pins)
        .execute(&mut *tx)
        .await?;
        if !pins && released.rows_affected() == 0 {
            let effect = acts::record_effect(&mut tx, &act, false).await?;
            tx.commit().await?;
            return Ok(Ok(Placed::Effect(effect)));
        }
    }
    if pins {
        let pin = sqlx::query_scalar(
            "insert into hold (kind, triggers, reason, images, actor, until)
             values ('pin', $1, $2, $3, $4, $5) returning id",
        )
        .bind(name.as_ref())
        .bind(act.reason)
        .bind(set.as_ref().map(Json))
        .bind(act.actor.name())
        .bind(until)
        .fetch_one(&mut *tx)
        .await?;
        act.hold = Some(pin);
    }
    let kind = match wish {
        Wish::Release => "release",
        Wish::Renumber { .. } => "renumber",
        _ => "rollout",
    };
    let set = set.as_ref();
    let above = match wish {
        Wish::Renumber { above } => Some(*above),
        _ => None,
    };
    let order = record(&mut tx, &act, (trigger.id, kind, cause), set, skip, above).await?;
    tx.commit().await?;
    Ok(Ok(Placed::Order(order)))
}

/// Records an order to cancel a rollout.
pub(crate) async fn cancel(
    db: &mut PgConnection,
    trigger: i32,
    act: &NewAct<'_>,
) -> Result<Placed, sqlx::Error> {
    let mut tx = db.begin().await?;
    if let Some(placed) = placed_before(&mut tx, act).await? {
        return Ok(placed);
    }
    let live: bool = sqlx::query_scalar(concat!(
        "select exists (select from rollout o where o.id = $1 and ",
        rollout_is_live!("o"),
        ")"
    ))
    .bind(act.rollout)
    .fetch_one(&mut *tx)
    .await?;
    if !live {
        let effect = acts::record_effect(&mut tx, act, false).await?;
        tx.commit().await?;
        return Ok(Placed::Effect(effect));
    }
    let of = (trigger, "cancel", CauseReason::Order);
    let order = record(&mut tx, act, of, None, &[], None).await?;
    tx.commit().await?;
    Ok(Placed::Order(order))
}

/// Returns the order of an earlier request with the same idempotency key.
async fn placed_before(
    tx: &mut PgConnection,
    act: &NewAct<'_>,
) -> Result<Option<Placed>, sqlx::Error> {
    let Some(effect) = acts::seen(tx, act).await? else {
        return Ok(None);
    };
    let before = match effect {
        Effect::Repeated => acts::with_key(tx, act.actor).await?,
        _ => None,
    };
    let Some((act, _)) = before else {
        return Ok(Some(Placed::Effect(effect)));
    };
    let order = sqlx::query_scalar("select id from rollout_order where act_id = $1")
        .bind(act)
        .fetch_optional(tx)
        .await?;
    Ok(Some(
        order.map_or(Placed::Effect(Effect::Repeated), Placed::Order),
    ))
}

async fn record(
    tx: &mut PgConnection,
    act: &NewAct<'_>,
    (trigger, kind, cause): (i32, &str, CauseReason),
    set: Option<&Set>,
    skip: &[String],
    above: Option<u64>,
) -> Result<i64, sqlx::Error> {
    // Only the plain order to roll out means: again, though nothing differs.
    let again = act.act == "rollout" && act.hold.is_none();
    let id = acts::record(tx, act).await?;
    sqlx::query_scalar(
        "insert into rollout_order (act_id, trigger_id, kind, cause, images, rollout_id, skip, actor, reason, again, above)
         values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11) returning id",
    )
    .bind(id)
    .bind(trigger)
    .bind(kind)
    .bind(cause.as_str())
    .bind(set.map(Json))
    .bind(act.rollout)
    .bind(skip)
    .bind(act.actor.name())
    .bind(act.reason)
    .bind(again)
    .bind(above.map(row::signed))
    .fetch_one(tx)
    .await
}

/// Returns the set that an order is about (`None`: the present heads), and the cause.
async fn chosen(
    tx: &mut PgConnection,
    trigger: &Ordered,
    wish: &Wish,
) -> Result<Result<(Option<Set>, CauseReason), Refusal>, sqlx::Error> {
    let set = match wish {
        Wish::Release => return Ok(Ok((None, CauseReason::Release))),
        Wish::Renumber { .. } => return Ok(Ok((None, CauseReason::Order))),
        Wish::RollOut { .. } => {
            let pinned: Option<Json<Set>> = sqlx::query_scalar(
                "select h.images from hold h join trigger t on t.name = h.triggers
                 where t.id = $1 and h.kind = 'pin' and h.released_at is null and (h.until is null or h.until > now())
                 order by h.id desc limit 1",
            )
            .bind(trigger.id)
            .fetch_optional(tx)
            .await?;
            return Ok(Ok((pinned.map(|Json(set)| set), CauseReason::Order)));
        }
        Wish::RollBack {
            to: Some(number), ..
        } => {
            let set: Option<Json<Set>> = sqlx::query_scalar(
                "select images from rollout where trigger_id = $1 and number = $2",
            )
            .bind(trigger.id)
            .bind(row::signed(*number))
            .fetch_optional(tx)
            .await?;
            match set {
                Some(Json(set)) => set,
                None => return Ok(Err(Refusal::NumberUnknown)),
            }
        }
        Wish::RollBack { to: None, .. } => {
            let set: Option<Json<Set>> = sqlx::query_scalar(
                "select o.images from rollout o, lateral (
                     select number, images from rollout where trigger_id = $1 and state = 'succeeded'
                     order by number desc limit 1) c
                 where o.trigger_id = $1 and o.state = 'succeeded' and o.number < c.number
                   and image_set(o.images) <> image_set(c.images)
                 order by o.number desc limit 1",
            )
            .bind(trigger.id)
            .fetch_optional(tx)
            .await?;
            match set {
                Some(Json(set)) => set,
                None => return Ok(Err(Refusal::NoKnownSet)),
            }
        }
        Wish::Pin { images, .. } => match pinned(tx, trigger, images).await? {
            Ok(set) => set,
            Err(refusal) => return Ok(Err(refusal)),
        },
    };
    // The images of a trigger that follows others are those of its sets.
    if !trigger.images.is_empty() && !set.keys().eq(trigger.images.keys()) {
        return Ok(Err(Refusal::OtherImages));
    }
    let cause = match wish {
        Wish::Pin { .. } => CauseReason::Order,
        _ => CauseReason::Rollback,
    };
    Ok(Ok((Some(set), cause)))
}

/// Returns the set of the current rollout with the chosen images.
async fn pinned(
    tx: &mut PgConnection,
    trigger: &Ordered,
    choices: &BTreeMap<String, Choice>,
) -> Result<Result<Set, Refusal>, sqlx::Error> {
    let current: Option<Json<Set>> = sqlx::query_scalar(
        "select images from rollout where trigger_id = $1 and state = 'succeeded' order by number desc limit 1",
    )
    .bind(trigger.id)
    .fetch_optional(&mut *tx)
    .await?;
    let current = current.map(|Json(set)| set).unwrap_or_default();
    // A trigger that follows others has those of its current set.
    let own = !trigger.images.is_empty();
    let taken = current.iter().filter(|_| !own);
    let taken = taken.map(|(name, image)| (name.clone(), image.image.to_string()));
    let mut watched: BTreeMap<String, String> = taken.collect();
    if own {
        watched.clone_from(&trigger.images);
    }
    if let Some(name) = choices.keys().find(|name| !watched.contains_key(*name)) {
        return Ok(Err(Refusal::ImageUnknown(name.clone())));
    }
    let mut set = Set::new();
    // A trigger has few images.
    for (name, text) in &watched {
        let Some(choice) = choices.get(name) else {
            match current.get(name) {
                Some(kept) => set.insert(name.clone(), kept.clone()),
                None => return Ok(Err(Refusal::NotChosen(name.clone()))),
            };
            continue;
        };
        let has_tag = text
            .rsplit('/')
            .next()
            .is_some_and(|last| last.contains(':'));
        let image = match (has_tag, current.get(name)) {
            (true, _) => row::parsed(text)?,
            // The tag that the policy selected last.
            (false, Some(kept)) => kept.image.clone(),
            (false, None) => return Ok(Err(Refusal::NotChosen(name.clone()))),
        };
        let (number, digest) = match choice {
            Choice::Revision(number) => (Some(row::signed(*number)), None),
            Choice::Digest(digest) => (None, Some(digest.as_bytes())),
        };
        let found = sqlx::query(
            "select v.number, v.digest from repository r join tag t on t.repository_id = r.id
             join revision v on v.tag_id = t.id
             where r.registry = $1 and r.name = $2 and t.name = $3 and v.digest is not null
               and ($4::bigint is null or v.number = $4) and ($5::bytea is null or v.digest = $5)
             order by v.number desc limit 1",
        )
        .bind(image.registry.as_ref())
        .bind(image.repository.as_ref())
        .bind(image.tag.as_ref())
        .bind(number)
        .bind(digest)
        .fetch_optional(&mut *tx)
        .await?;
        let Some(found) = found else {
            return Ok(Err(Refusal::NeverHad(image, choice.clone())));
        };
        let digest = row::digest(found.try_get("digest")?)?
            .ok_or_else(|| sqlx::Error::Decode("a revision without a digest".into()))?;
        let chosen = RolloutImage {
            actor: None,
            previous: None,
            revision: row::unsigned(found.try_get("number")?),
            pinned: image.pinned(&digest),
            digest,
            image,
        };
        set.insert(name.clone(), chosen);
    }
    Ok(Ok(set))
}

/// The state of an order.
#[derive(Debug)]
pub(crate) struct Progress {
    /// The effect; `None` until the planner has carried the order out.
    pub(crate) answer: Option<String>,
    /// The rollout that the planner recorded, or that the order ended.
    pub(crate) rollout: Option<Value>,
}

/// Returns the progress of an order.
pub(crate) async fn progress(
    db: &mut PgConnection,
    order: i64,
) -> Result<Option<Progress>, sqlx::Error> {
    let found = sqlx::query(concat!(
        "select r.answer, case when o.id is not null then ",
        tagtrail_postgres::rollout_json!("o"),
        " end as rollout
         from rollout_order r left join rollout o on o.id = coalesce(r.recorded, r.rollout_id)
         left join trigger t on t.id = o.trigger_id where r.id = $1"
    ))
    .bind(order)
    .fetch_optional(db)
    .await?;
    found
        .map(|row| {
            Ok(Progress {
                answer: row.try_get("answer")?,
                rollout: row.try_get("rollout")?,
            })
        })
        .transpose()
}

/// Returns row id and name of the trigger of a rollout.
pub(crate) async fn trigger_of(
    db: &mut PgConnection,
    rollout: Uuid,
) -> Result<Option<(i32, String)>, sqlx::Error> {
    sqlx::query_as(
        "select t.id, t.name from rollout o join trigger t on t.id = o.trigger_id where o.id = $1",
    )
    .bind(rollout)
    .fetch_optional(db)
    .await
}
