//! The ceilings: simple programs without any rule, with the same servers, settings, rows and
//! payloads as the product.

use std::time::{Duration, Instant};

use anyhow::Context as _;
use async_nats::jetstream::consumer::{AckPolicy, pull};
use async_nats::jetstream::message::PublishMessage;
use async_nats::jetstream::stream::Config;
use futures_util::StreamExt as _;
use sqlx::{Connection as _, PgConnection, Row as _};
use tagtrail_bus::topology;
use tagtrail_proto::PARTITIONS;
use time::OffsetDateTime;

use crate::report::percentile;
use crate::stack::{Stack, publish};

/// Rows in a transaction.
const BATCH: usize = 1000;
/// A partition number that no indexer holds.
pub(crate) const NOBODYS: i16 = 9999;

/// Creates a stream with the settings of a stream of the product. Returns its subject prefix.
pub(crate) async fn stream(stack: &Stack, like: topology::Stream) -> anyhow::Result<String> {
    let name = format!("CEILING_{}", like.name());
    let subjects = vec![format!("ceiling.{}.>", like.name())];
    let config = Config {
        name: name.clone(),
        subjects,
        ..like.config(PARTITIONS, 1)
    };
    stack.jetstream.get_or_create_stream(config).await?;
    Ok(format!("ceiling.{}", like.name()))
}

/// Returns the last payload in REVISIONS, so that the ceiling sends a real revision.
async fn payload(stack: &Stack) -> anyhow::Result<Vec<u8>> {
    let stream = stack.jetstream.get_stream("REVISIONS").await?;
    let last = stream.get_raw_message(stream.cached_info().state.last_sequence);
    Ok(last.await?.payload.to_vec())
}

/// Returns messages per second, published with a `Nats-Msg-Id` on 20,000 subjects.
pub(crate) async fn published(stack: &Stack, count: usize) -> anyhow::Result<f64> {
    let prefix = stream(stack, topology::Stream::Revisions).await?;
    let payload = payload(stack).await?;
    let round = OffsetDateTime::now_utc().unix_timestamp_nanos();
    let messages = (0..count).map(|number| {
        let subject = format!("{prefix}.{}.{}", number % 2000, number % 20_000);
        Ok((subject, format!("{round}-{number}"), payload.clone()))
    });
    let begun = Instant::now();
    publish(&stack.jetstream, messages).await?;
    Ok(count as f64 / begun.elapsed().as_secs_f64())
}

/// Returns messages per second, read from PUSHES without acks.
pub(crate) async fn fetched(stack: &Stack, count: usize) -> anyhow::Result<f64> {
    let stream = stack.jetstream.get_stream("PUSHES").await?;
    let config = pull::Config {
        ack_policy: AckPolicy::None,
        memory_storage: true,
        inactive_threshold: Duration::from_secs(30),
        ..pull::Config::default()
    };
    let consumer = stream.create_consumer(config).await?;
    let begun = Instant::now();
    let mut messages = consumer
        .stream()
        .max_messages_per_batch(2000)
        .messages()
        .await?;
    for _ in 0..count {
        messages.next().await.context("PUSHES ended")??;
    }
    Ok(count as f64 / begun.elapsed().as_secs_f64())
}

/// The database ceiling: lock the rows of the tags, compare, and write the same rows as the
/// product.
#[derive(Debug)]
pub(crate) struct Rows {
    db: PgConnection,
    tags: Vec<i64>,
    ordinal: i64,
    /// The number of the next push.
    number: usize,
}

impl Rows {
    /// Inserts tags for this ceiling into the database.
    pub(crate) async fn new(stack: &Stack) -> anyhow::Result<Rows> {
        let mut db = stack.db().await?;
        let tags = sqlx::query_scalar(
            "with r as (
                 insert into repository (registry, name)
                 select 'ceiling.example.com', 'team/app-' || n from generate_series(1, 2000) n
                 on conflict (registry, name) do update set name = excluded.name returning id
             )
             insert into tag (repository_id, name) select r.id, 'v' || n from generate_series(1, 10) n, r
             on conflict (repository_id, name) do update set name = excluded.name returning id",
        )
        .fetch_all(&mut db)
        .await?;
        let last = "select coalesce(max(ordinal), 0) from revision where partition = $1";
        let ordinal = sqlx::query_scalar(last)
            .bind(NOBODYS)
            .fetch_one(&mut db)
            .await?;
        Ok(Rows {
            db,
            tags,
            ordinal,
            number: 0,
        })
    }

    /// Returns rows per second, in transactions of 1,000 rows.
    pub(crate) async fn written(&mut self, count: usize) -> anyhow::Result<f64> {
        let begun = Instant::now();
        for _ in 0..count.div_ceil(BATCH) {
            self.write(BATCH).await?;
        }
        Ok(count as f64 / begun.elapsed().as_secs_f64())
    }

    /// Returns the median milliseconds of a transaction with a single row.
    pub(crate) async fn single(&mut self, count: usize) -> anyhow::Result<f64> {
        let mut times = Vec::with_capacity(count);
        for _ in 0..count {
            let begun = Instant::now();
            self.write(1).await?;
            times.push(begun.elapsed().as_secs_f64() * 1000.0);
        }
        Ok(percentile(&times, 0.5))
    }

    async fn write(&mut self, count: usize) -> anyhow::Result<()> {
        let now = OffsetDateTime::now_utc();
        let ids: Vec<i64> = (self.number..self.number + count)
            // Spread over all tags, like the pushes of a partition.
            .filter_map(|number| self.tags.get(number * 7919 % self.tags.len()).copied())
            .collect();
        self.number += count;
        let mut tx = self.db.begin().await?;
        let rows = sqlx::query("select id, issued, head, head_digest, head_at from tag where id = any($1) order by id for update")
            .bind(&ids)
            .fetch_all(&mut *tx)
            .await?;
        let (mut tags, mut numbers, mut previous) = (Vec::new(), Vec::new(), Vec::new());
        let (mut digests, mut events, mut ordinals) = (Vec::new(), Vec::new(), Vec::new());
        for row in rows {
            let (tag, issued): (i64, i64) = (row.try_get("id")?, row.try_get("issued")?);
            let digest: [u8; 32] = rand::random();
            // The product's comparison with the head, which is never equal here.
            if row
                .try_get::<Option<Vec<u8>>, _>("head_digest")?
                .is_some_and(|head| head == digest)
            {
                continue;
            }
            self.ordinal += 1;
            tags.push(tag);
            numbers.push(issued + 1);
            previous.push((issued > 0).then_some(issued));
            digests.push(digest.to_vec());
            events.push(format!("{}-{}", now.unix_timestamp_nanos(), self.ordinal));
            ordinals.push(self.ordinal);
        }
        sqlx::query(
            "update tag t set issued = n.issued, head = n.issued, head_digest = n.digest, head_at = $4, latest_at = $4
             from unnest($1::bigint[], $2::bigint[], $3::bytea[]) as n (id, issued, digest) where t.id = n.id",
        )
        .bind(&tags)
        .bind(&numbers)
        .bind(&digests)
        .bind(now)
        .execute(&mut *tx)
        .await?;
        let pushes: Vec<i64> = sqlx::query_scalar(
            "insert into push (tag_id, action, digest, occurred_at, effective_at, occurred_at_source, received_at, recorded_at,
                               origin, source, event_id, actor, media_type, size_bytes, stream_seq)
             select tag_id, 'push', digest, $4, $4, 'event', $4, $4, 'event', 'main', event_id, 'ci',
                    'application/vnd.oci.image.manifest.v1+json', 1234, ordinal
             from unnest($1::bigint[], $2::bytea[], $3::text[], $5::bigint[]) as f (tag_id, digest, event_id, ordinal)
             returning id",
        )
        .bind(&tags)
        .bind(&digests)
        .bind(&events)
        .bind(now)
        .bind(&ordinals)
        .fetch_all(&mut *tx)
        .await?;
        sqlx::query(
            "insert into revision (tag_id, number, kind, digest, effective_at, recorded_at, previous, head, push_id, partition, ordinal)
             select tag_id, number, case when previous is null then 'created' else 'moved' end::revision_kind, digest, $7, $7, previous,
                    number, push_id, $8, ordinal
             from unnest($1::bigint[], $2::bigint[], $3::bytea[], $4::bigint[], $5::bigint[], $6::bigint[])
                  as r (tag_id, number, digest, previous, push_id, ordinal)",
        )
        .bind(&tags)
        .bind(&numbers)
        .bind(&digests)
        .bind(&previous)
        .bind(&pushes)
        .bind(&ordinals)
        .bind(now)
        .bind(NOBODYS)
        .execute(&mut *tx)
        .await?;
        Ok(tx.commit().await?)
    }
}

/// Returns the median milliseconds from a publish to its ack, with a single message under way.
pub(crate) async fn acknowledged(
    stack: &Stack,
    like: topology::Stream,
    count: usize,
) -> anyhow::Result<f64> {
    let prefix = stream(stack, like).await?;
    let payload = payload(stack).await?;
    let round = OffsetDateTime::now_utc().unix_timestamp_nanos();
    let mut times = Vec::with_capacity(count);
    for number in 0..count {
        let message = PublishMessage::build()
            .message_id(format!("{round}-{number}"))
            .payload(payload.clone().into());
        let begun = Instant::now();
        let subject = format!("{prefix}.{}", number % 2000);
        stack
            .jetstream
            .send_publish(subject, message)
            .await?
            .await?;
        times.push(begun.elapsed().as_secs_f64() * 1000.0);
    }
    Ok(percentile(&times, 0.5))
}
