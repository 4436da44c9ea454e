//! The checks after a storm. Each returns an error that names the first violation. All are repeated
//! until they pass or time is up.

use std::collections::{BTreeMap, BTreeSet};

use sqlx::postgres::PgRow;
use sqlx::{Connection as _, PgConnection, Row as _};
use tagtrail_proto::{Event, Revision};

use crate::events::Key;
use crate::oracle::{self, RecordedPush, RecordedRevision, in_force};
use crate::rollouts::{ledger, rollouts};
use crate::skewed::{AskedRegistry, SKEWED};
use crate::wanted;
use crate::world::World;

pub(crate) type Tag = (String, String, String);

/// Numbers for the closing line.
#[derive(Debug, Default)]
pub(crate) struct Counts {
    pub(crate) pushes: usize,
    pub(crate) revisions: usize,
    pub(crate) late: i64,
    pub(crate) rollouts: i64,
    pub(crate) deliveries: usize,
    pub(crate) fences: usize,
}

/// Runs all checks. `pushes` are the accepted pushes of the senders.
pub(crate) async fn all(world: &World, pushes: &BTreeSet<Key>) -> Result<Counts, String> {
    let mut db = PgConnection::connect(world.postgres.db().url())
        .await
        .map_err(|error| error.to_string())?;
    let stored = stored_pushes(&mut db).await?;
    each_push_is_recorded_once(pushes, &stored)?;
    let revisions = stored_revisions(&mut db).await?;
    revisions_follow_the_rule(&stored, &revisions)?;
    heads(&mut db, &revisions).await?;
    heads_equal_the_registry(&world.asked, &revisions)?;
    all_messages_are_read(world, &mut db).await?;
    let fences = published(world, &revisions).await?;
    api_answers(world, &revisions).await?;
    let (rollouts, deliveries) = rollouts(world, &mut db, &revisions).await?;
    wanted::teams(world, &mut db, &revisions).await?;
    ledger(world, &mut db).await?;
    world.chats.were_told(&mut db).await?;
    let late = scalar(&mut db, "select count(*) from revision where late").await?;
    let sessions = scalar(
        &mut db,
        "select count(*) from pg_stat_activity where application_name like 'tagtrail-%'",
    )
    .await?;
    if sessions > 80 {
        return Err(format!("{sessions} sessions of Tagtrail at Postgres"));
    }
    Ok(Counts {
        pushes: stored.len(),
        revisions: revisions.values().map(Vec::len).sum(),
        late,
        rollouts,
        deliveries,
        fences,
    })
}

pub(crate) async fn scalar(db: &mut PgConnection, sql: &'static str) -> Result<i64, String> {
    sqlx::query_scalar(sql)
        .fetch_one(db)
        .await
        .map_err(|error| error.to_string())
}

async fn stored_pushes(db: &mut PgConnection) -> Result<Vec<RecordedPush>, String> {
    let rows = sqlx::query(
        "select r.registry, r.name as repository, t.name as tag, report.digest(p.digest) as digest,
                p.action = 'delete' as is_delete,
                (extract(epoch from p.occurred_at) * 1000000)::bigint as occurred,
                (extract(epoch from p.effective_at) * 1000000)::bigint as effective,
                (extract(epoch from p.received_at) * 1000000)::bigint as received,
                p.origin <> 'event' as answer, p.occurred_at_source = 'event' as timed
         from push p left join tag t on t.id = p.tag_id join repository r on r.id = coalesce(p.repository_id, t.repository_id)
         order by p.id",
    )
    .fetch_all(db)
    .await
    .map_err(|error| error.to_string())?;
    Ok(rows
        .iter()
        .map(|row| RecordedPush {
            registry: row.get("registry"),
            repository: row.get("repository"),
            tag: row.get("tag"),
            digest: row.get("digest"),
            delete: row.get("is_delete"),
            occurred: row.get("occurred"),
            effective: row.get("effective"),
            received: row.get("received"),
            answer: row.get("answer"),
            timed: row.get("timed"),
        })
        .collect())
}

/// Checks that every accepted push is recorded exactly once, and no other push but answers of the
/// registry.
fn each_push_is_recorded_once(sent: &BTreeSet<Key>, stored: &[RecordedPush]) -> Result<(), String> {
    let (mut found, mut answers) = (BTreeMap::<Key, u32>::new(), BTreeSet::new());
    for push in stored {
        let key = (
            push.registry.clone(),
            push.repository.clone(),
            push.tag.clone(),
            push.occurred,
            push.digest.clone(),
            push.delete,
        );
        *found.entry(key.clone()).or_default() += 1;
        let ahead = push.received + 60_000_000;
        let effective = match (push.answer, push.timed) {
            (true, _) => push.occurred.min(ahead),
            (false, true) if push.occurred <= ahead => push.occurred,
            (false, _) => push.occurred.min(push.received),
        };
        if push.effective != effective {
            return Err(format!("a wrong effective time: {push:?}"));
        }
        if push.answer {
            answers.insert(key.clone());
        }
    }
    if let Some((key, count)) = found.iter().find(|(_, count)| **count > 1) {
        return Err(format!("recorded {count} times: {key:?}"));
    }
    let missing: Vec<&Key> = sent
        .iter()
        .filter(|key| !found.contains_key(*key))
        .collect();
    let invented: Vec<&Key> = found
        .keys()
        .filter(|key| !sent.contains(*key) && !answers.contains(*key))
        .collect();
    if missing.is_empty() && invented.is_empty() {
        return Ok(());
    }
    Err(format!(
        "{} pushes are missing and {} invented, such as {:?} and {:?}",
        missing.len(),
        invented.len(),
        missing.first(),
        invented.first()
    ))
}

fn tag_of(row: &PgRow) -> Tag {
    (row.get("registry"), row.get("repository"), row.get("tag"))
}

async fn stored_revisions(
    db: &mut PgConnection,
) -> Result<BTreeMap<Tag, Vec<RecordedRevision>>, String> {
    let rows = sqlx::query(
        "select r.registry, r.name as repository, t.name as tag, v.number,
                (extract(epoch from v.effective_at) * 1000000)::bigint as at,
                report.digest(v.digest) as digest, v.kind::text as kind
         from revision v join tag t on t.id = v.tag_id join repository r on r.id = t.repository_id
         order by r.registry, r.name, t.name, v.number",
    )
    .fetch_all(db)
    .await
    .map_err(|error| error.to_string())?;
    let mut revisions: BTreeMap<Tag, Vec<RecordedRevision>> = BTreeMap::new();
    for row in rows {
        let tag = tag_of(&row);
        revisions.entry(tag).or_default().push(RecordedRevision {
            number: row.get("number"),
            at: row.get("at"),
            digest: row.get("digest"),
            kind: row.get("kind"),
        });
    }
    Ok(revisions)
}

/// Checks that the recorded revisions equal the oracle's: numbers, kinds, times and digests.
fn revisions_follow_the_rule(
    pushes: &[RecordedPush],
    stored: &BTreeMap<Tag, Vec<RecordedRevision>>,
) -> Result<(), String> {
    let right = oracle::revisions(pushes);
    for (tag, revisions) in &right {
        let found = stored.get(tag).map_or(&[][..], Vec::as_slice);
        if found != revisions.as_slice() {
            let at = (0..).find(|n| found.get(*n) != revisions.get(*n)).unwrap();
            return Err(format!(
                "{tag:?} has {:?} as revision {}, and should have {:?}",
                found.get(at),
                at + 1,
                revisions.get(at)
            ));
        }
    }
    match stored.keys().find(|tag| !right.contains_key(*tag)) {
        Some(tag) => Err(format!("{tag:?} has revisions without pushes")),
        None => Ok(()),
    }
}

/// Checks that each tag's head is the revision in force, and that the tag's last number is right.
async fn heads(
    db: &mut PgConnection,
    revisions: &BTreeMap<Tag, Vec<RecordedRevision>>,
) -> Result<(), String> {
    let rows = sqlx::query(
        "select r.registry, r.name as repository, t.name as tag, t.head, t.issued
         from tag t join repository r on r.id = t.repository_id where t.head is not null",
    )
    .fetch_all(db)
    .await
    .map_err(|error| error.to_string())?;
    for row in &rows {
        let tag = tag_of(row);
        let of = revisions
            .get(&tag)
            .ok_or_else(|| format!("{tag:?} has a head, but no revision"))?;
        let head = in_force(of, i64::MAX).map(|head| head.number);
        let is = (
            row.get::<Option<i64>, _>("head"),
            row.get::<i64, _>("issued"),
        );
        let should = (head, i64::try_from(of.len()).unwrap());
        if is != should {
            return Err(format!(
                "{tag:?} has head and numbers {is:?}, and should have {should:?}"
            ));
        }
    }
    Ok(())
}

/// Checks that each tag of the registry that can be asked has the registry's digest as its head,
/// however wrong the senders' clocks were.
fn heads_equal_the_registry(
    asked: &AskedRegistry,
    revisions: &BTreeMap<Tag, Vec<RecordedRevision>>,
) -> Result<(), String> {
    for (name, digest) in asked.tags() {
        let tag = revisions
            .iter()
            .find(|((registry, _, tag), _)| registry == SKEWED.1 && *tag == name);
        let head = tag.and_then(|(_, revisions)| in_force(revisions, i64::MAX));
        let is = head.and_then(|head| head.digest.clone());
        if is != digest {
            return Err(format!(
                "{name} has the head {head:?}, and the registry has {digest:?}"
            ));
        }
    }
    Ok(())
}

/// Checks that the indexer has read PUSHES to the end of each partition, and the planner REVISIONS.
async fn all_messages_are_read(world: &World, db: &mut PgConnection) -> Result<(), String> {
    let client = world
        .nats
        .client()
        .await
        .ok_or("nats-server does not answer")?;
    let context = async_nats::jetstream::new(client);
    for partition in 0..8_i16 {
        let stream = world.pushes(partition.unsigned_abs().into());
        let stream = context.get_stream(stream).await;
        let stream = stream.map_err(|error| error.to_string())?;
        let subject = format!("tagtrail.push.{partition}.>");
        let Ok(last) = stream.get_last_raw_message_by_subject(&subject).await else {
            continue;
        };
        let applied: Option<i64> = sqlx::query_scalar(
            "select applied_seq from position where stream = 'PUSHES' and partition = $1",
        )
        .bind(partition)
        .fetch_optional(&mut *db)
        .await
        .map_err(|error| error.to_string())?;
        if applied < i64::try_from(last.sequence).ok() {
            return Err(format!(
                "partition {partition} is read to {applied:?} of {}",
                last.sequence
            ));
        }
    }
    let revisions = context.get_stream("REVISIONS").await;
    let revisions = revisions.map_err(|error| error.to_string())?;
    let last = revisions
        .get_last_raw_message_by_subject("tagtrail.revision.>")
        .await
        .map_err(|error| error.to_string())?;
    let applied = scalar(
        db,
        "select coalesce(max(applied_seq), 0) from planner_position",
    )
    .await?;
    if applied < i64::try_from(last.sequence).unwrap() {
        return Err(format!(
            "the trigger service has read REVISIONS to {applied} of {}",
            last.sequence
        ));
    }
    Ok(())
}

/// Checks that REVISIONS has the last hundred revisions of each tag in order, equal to the recorded
/// revisions. Returns the number of fences.
async fn published(
    world: &World,
    stored: &BTreeMap<Tag, Vec<RecordedRevision>>,
) -> Result<usize, String> {
    let messages = world.nats.messages("REVISIONS").await?;
    let mut published: BTreeMap<Tag, Vec<Revision>> = BTreeMap::new();
    let mut fences = 0;
    for (subject, body) in &messages {
        if subject.starts_with("tagtrail.fence.") {
            fences += 1;
            continue;
        }
        let event: Event<Revision> =
            serde_json::from_slice(body).map_err(|error| format!("{subject}: {error}"))?;
        let tag = (
            event.data.registry.to_string(),
            event.data.repository.to_string(),
            event.data.tag.to_string(),
        );
        published.entry(tag).or_default().push(event.data);
    }
    for (tag, revisions) in stored {
        let of_tag = published.get(tag).map_or(&[][..], Vec::as_slice);
        let numbers: Vec<i64> = of_tag
            .iter()
            .map(|event| i64::try_from(event.revision).unwrap())
            .collect();
        let last = i64::try_from(revisions.len()).unwrap();
        let first = (last - 99).max(1);
        if numbers != (first..=last).collect::<Vec<_>>() {
            return Err(format!(
                "REVISIONS holds {numbers:?} of {tag:?}, and should hold {first} to {last}"
            ));
        }
        for event in of_tag {
            let stored = &revisions[usize::try_from(event.revision).unwrap() - 1];
            let digest = event.digest.as_ref().map(ToString::to_string);
            let at = i64::try_from(event.occurred_at.unix_timestamp_nanos() / 1000).unwrap();
            let fields = (digest, at, event.kind.as_str());
            if fields != (stored.digest.clone(), stored.at, stored.kind.as_str()) {
                return Err(format!(
                    "REVISIONS has {event:?}, but {stored:?} is recorded"
                ));
            }
        }
    }
    Ok(fences)
}

/// Checks that the API resolves each image to the revision in force.
async fn api_answers(
    world: &World,
    stored: &BTreeMap<Tag, Vec<RecordedRevision>>,
) -> Result<(), String> {
    // A client is expensive to make.
    let client = reqwest::Client::new();
    for ((registry, repository, tag), revisions) in stored {
        let url = format!(
            "http://{}/v1/resolve?image={registry}/{repository}:{tag}",
            world.api
        );
        let answer = client
            .get(&url)
            .send()
            .await
            .map_err(|error| error.to_string())?;
        let status = answer.status().as_u16();
        let body: serde_json::Value = answer.json().await.map_err(|error| error.to_string())?;
        let head = in_force(revisions, i64::MAX).and_then(|head| head.digest.as_deref());
        let right = match head {
            Some(digest) => status == 200 && body["digest"] == digest,
            None => status == 404 && body["code"] == "tag_deleted",
        };
        if !right {
            return Err(format!(
                "{url} is answered {status} {body}, and should be {head:?}"
            ));
        }
    }
    Ok(())
}
