//! Rows as the indexer and the trigger service write them.

use serde_json::{Value, json};
use sqlx::PgConnection;
use tagtrail_proto::{Digest, Image, instant};
use time::{Duration, OffsetDateTime};
use uuid::Uuid;

/// A database with rows.
pub(crate) struct Rows {
    pub(crate) db: PgConnection,
    /// The last ordinal of each partition. Tags alternate between the partitions.
    ordinals: [i64; 2],
}

/// A revision to be written. Times are seconds after 2026-03-03T14:00:00Z.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Revision {
    pub(crate) number: i64,
    /// Content that is pushed; 0: the tag is deleted.
    pub(crate) content: u8,
    pub(crate) at: i64,
    pub(crate) recorded: i64,
    pub(crate) previous: Option<i64>,
    pub(crate) head: i64,
}

/// Returns a revision that was recorded a second after its time, on top of the previous revision.
pub(crate) fn on_time(number: i64, content: u8, at: i64) -> Revision {
    Revision {
        number,
        content,
        at,
        recorded: at + 1,
        previous: Some(number - 1).filter(|before| *before > 0),
        head: number,
    }
}

/// Returns three revisions of a tag: content 1 at 10 s and 3 at 30 s, then content 2 with the time
/// 20 s, recorded late, at 40 s.
pub(crate) fn late_move() -> [Revision; 3] {
    let late = Revision {
        number: 3,
        content: 2,
        at: 20,
        recorded: 40,
        previous: Some(1),
        head: 2,
    };
    [on_time(1, 1, 10), on_time(2, 3, 30), late]
}

pub(crate) fn digest(content: u8) -> Digest {
    Digest::sha256_of(&[content])
}

/// Returns the contents of an image for linux/amd64: layers, each of a hundred bytes for its
/// number, and environment.
pub(crate) fn image(content: u8, layers: &[u8], environment: &Value) -> Value {
    let size = |layer: &u8| 100 * u64::from(*layer);
    let layer = |layer: &u8| json!({ "digest": digest(*layer), "size": size(layer), "created_by": format!("COPY {layer} /") });
    json!({
        "digest": digest(content), "platform": "linux/amd64", "size": layers.iter().map(size).sum::<u64>(),
        "layers": layers.iter().map(layer).collect::<Vec<_>>(), "layers_left_out": 0,
        "settings": {
            "environment": environment, "user": "65532", "ports": ["8080/tcp"], "entrypoint": ["/app/server"], "command": [],
            "left_out": { "environment": 0, "ports": 0, "entrypoint": 0, "command": 0 },
        },
    })
}

pub(crate) fn time(seconds: i64) -> OffsetDateTime {
    instant::parse("2026-03-03T14:00:00Z").unwrap() + Duration::seconds(seconds)
}

pub(crate) fn text(seconds: i64) -> String {
    instant::json(time(seconds)).unwrap()
}

impl Rows {
    pub(crate) async fn new(mut db: PgConnection) -> Rows {
        sqlx::query("insert into position (stream, partition) values ('PUSHES', 0), ('PUSHES', 1)")
            .execute(&mut db)
            .await
            .unwrap();
        Rows {
            db,
            ordinals: [0; 2],
        }
    }

    /// Writes a tag with revisions. The head is the `head` of the last revision.
    pub(crate) async fn tag(&mut self, image: &str, revisions: &[Revision]) {
        let tag = self.empty_tag(image).await;
        for revision in revisions {
            self.revision(tag, *revision).await;
        }
        let head = revisions.last().unwrap().head;
        let head = revisions
            .iter()
            .find(|revision| revision.number == head)
            .unwrap();
        sqlx::query(
            "update tag set issued = $2, head = $3, head_digest = $4, head_at = $5 where id = $1",
        )
        .bind(tag)
        .bind(i64::try_from(revisions.len()).unwrap())
        .bind(head.number)
        .bind(content(*head))
        .bind(time(head.at))
        .execute(&mut self.db)
        .await
        .unwrap();
        sqlx::query(
            "insert into moving select repository_id, id from tag where id = $1 and issued > 1",
        )
        .bind(tag)
        .execute(&mut self.db)
        .await
        .unwrap();
    }

    /// Writes a tag without a revision. Returns the row id.
    pub(crate) async fn empty_tag(&mut self, image: &str) -> i64 {
        let image: Image = image.parse().unwrap();
        let repository: i64 = sqlx::query_scalar(
            "insert into repository (registry, name) values ($1, $2) on conflict (registry, name) do update set name = $2 returning id",
        )
        .bind(image.registry.as_ref())
        .bind(image.repository.as_ref())
        .fetch_one(&mut self.db)
        .await
        .unwrap();
        sqlx::query_scalar("insert into tag (repository_id, name) values ($1, $2) returning id")
            .bind(repository)
            .bind(image.tag.as_ref())
            .fetch_one(&mut self.db)
            .await
            .unwrap()
    }

    pub(crate) async fn revision(&mut self, tag: i64, revision: Revision) {
        self.revision_of(tag, revision, "event", "").await;
    }

    /// Writes a revision of another origin, whose push has an event id that begins with `prefix`.
    pub(crate) async fn revision_of(
        &mut self,
        tag: i64,
        revision: Revision,
        origin: &str,
        prefix: &str,
    ) {
        let partition = tag.rem_euclid(2);
        let ordinal = &mut self.ordinals[usize::try_from(partition).unwrap()];
        *ordinal += 1;
        let ordinal = *ordinal;
        let push: i64 = sqlx::query_scalar(
            "insert into push (tag_id, action, digest, occurred_at, effective_at, occurred_at_source, received_at, recorded_at, origin,
                               source, event_id, actor, media_type, size_bytes, stream_seq)
             values ($1, $2::push_action, $3, $4, $4, 'event', $4, $5, $7::push_origin, 'main', $8 || $6::text, 'ci-bot', 'application/json', $6, $6)
             returning id",
        )
        .bind(tag)
        .bind(if revision.content == 0 { "delete" } else { "push" })
        .bind(content(revision))
        .bind(time(revision.at))
        .bind(time(revision.recorded))
        .bind(ordinal)
        .bind(origin)
        .bind(prefix)
        .fetch_one(&mut self.db)
        .await
        .unwrap();
        let kind = match revision {
            Revision { content: 0, .. } => "deleted",
            Revision { previous: None, .. } => "created",
            _ => "moved",
        };
        sqlx::query(
            "insert into revision (tag_id, number, kind, digest, effective_at, recorded_at, previous, head, push_id, partition, ordinal)
             values ($1, $2, $3::revision_kind, $4, $5, $6, $7, $8, $9, $11, $10)",
        )
        .bind(tag)
        .bind(revision.number)
        .bind(kind)
        .bind(content(revision))
        .bind(time(revision.at))
        .bind(time(revision.recorded))
        .bind(revision.previous)
        .bind(revision.head)
        .bind(push)
        .bind(ordinal)
        .bind(i16::try_from(partition).unwrap())
        .execute(&mut self.db)
        .await
        .unwrap();
    }

    /// Writes many revisions of a tag at once, numbered from 1 on, each as [`on_time`] makes it.
    pub(crate) async fn burst(&mut self, tag: i64, count: i64) {
        let partition = tag.rem_euclid(2);
        let ordinal = &mut self.ordinals[usize::try_from(partition).unwrap()];
        let before = *ordinal;
        *ordinal += count;
        sqlx::query(
            "with n as (select n, $4 + n * interval '1 second' as at, sha256(n::text::bytea) as digest from generate_series(1, $2) n),
             p as (
                 insert into push (tag_id, action, digest, occurred_at, effective_at, occurred_at_source, received_at, recorded_at, origin,
                                   source, event_id, stream_seq)
                 select $1, 'push', digest, at, at, 'event', at, at, 'event', 'main', n::text, n from n
                 returning id, event_id::bigint as n)
             insert into revision (tag_id, number, kind, digest, effective_at, recorded_at, previous, head, push_id, partition, ordinal)
             select $1, n, case n when 1 then 'created'::revision_kind else 'moved' end, digest, at, at, nullif(n - 1, 0), n, p.id, $5, $3 + n
             from n join p using (n)",
        )
        .bind(tag)
        .bind(count)
        .bind(before)
        .bind(time(0))
        .bind(i16::try_from(partition).unwrap())
        .execute(&mut self.db)
        .await
        .unwrap();
    }

    /// Writes the manifest of an index of two platforms.
    pub(crate) async fn manifest(&mut self, content: u8) {
        let platforms = json!([
            { "os": "linux", "architecture": "amd64", "variant": null, "digest": digest(content + 1) },
            { "os": "linux", "architecture": "arm64", "variant": "v8", "digest": digest(content + 2) },
        ]);
        sqlx::query(
            "insert into manifest (digest, registry, repository, media_type, size_bytes, platforms, created, labels, annotations, revision, read_at)
             values ($1, 'registry.example.com', 'shop/web', 'application/vnd.oci.image.index.v1+json', 1234, $2, $3,
                     '{\"maintainer\": \"Ann\"}', '{\"org.opencontainers.image.revision\": \"9f2c\"}', '9f2c', $4)",
        )
        .bind(digest(content).as_bytes())
        .bind(platforms)
        .bind(time(-60))
        .bind(time(5))
        .execute(&mut self.db)
        .await
        .unwrap();
    }

    /// Adds the contents of image and index to a manifest.
    pub(crate) async fn contents(&mut self, content: u8, image: &Value, index: &Value) {
        let done = sqlx::query("update manifest set image = $2, index = $3 where digest = $1")
            .bind(digest(content).as_bytes())
            .bind(Some(image).filter(|image| !image.is_null()))
            .bind(Some(index).filter(|index| !index.is_null()))
            .execute(&mut self.db)
            .await
            .unwrap();
        assert_eq!(done.rows_affected(), 1);
    }

    /// Writes a trigger of `web`. Returns the row id.
    pub(crate) async fn trigger(&mut self, name: &str, configured: bool) -> i32 {
        sqlx::query_scalar("insert into trigger (name, images, target, configured, epoch) values ($1, $2, 'webhook', $3, $4) returning id")
            .bind(name)
            .bind(json!({ "web": "registry.example.com/shop/web:latest" }))
            .bind(configured)
            .bind(time(0))
            .fetch_one(&mut self.db)
            .await
            .unwrap()
    }

    /// Writes the changes of a rollout, whose trigger is in a group.
    pub(crate) async fn changes_of_group(
        &mut self,
        trigger: i32,
        rollout: &str,
        group: &str,
        changes: &[(&str, i64)],
    ) {
        sqlx::query("update trigger set group_name = $2 where id = $1")
            .bind(trigger)
            .bind(group)
            .execute(&mut self.db)
            .await
            .unwrap();
        let finished = changes.last().unwrap().1;
        sqlx::query("update rollout set finished_at = $2 where id = $1::uuid")
            .bind(rollout)
            .bind(time(finished))
            .execute(&mut self.db)
            .await
            .unwrap();
        for (state, at) in changes {
            sqlx::query(
                "insert into rollout_change (rollout_id, state, rollout, changed_at)
                 values ($1::uuid, $2::rollout_state, '{}', $3)",
            )
            .bind(rollout)
            .bind(state)
            .bind(time(*at))
            .execute(&mut self.db)
            .await
            .unwrap();
        }
    }

    /// Writes a rollout of `web`, recorded at a time. Returns the id.
    pub(crate) async fn rollout(
        &mut self,
        trigger: i32,
        number: i64,
        state: &str,
        at: i64,
    ) -> String {
        let finished = matches!(state, "succeeded" | "failed" | "superseded").then(|| time(at + 1));
        let id: Uuid = sqlx::query_scalar(
            "insert into rollout (id, trigger_id, number, state, images, cause, attempts, created_at, finished_at, error)
             values (gen_random_uuid(), $1, $2, $3::rollout_state, $4, $5, 1, $6, $7, $8) returning id",
        )
        .bind(trigger)
        .bind(number)
        .bind(state)
        .bind(images(number))
        .bind(json!({ "reason": "revision", "changed": ["web"] }))
        .bind(time(at))
        .bind(finished)
        .bind((state == "failed").then_some("the target said no"))
        .fetch_one(&mut self.db)
        .await
        .unwrap();
        id.to_string()
    }
}

/// Returns the images of the rollout with this number.
pub(crate) fn images(number: i64) -> Value {
    let digest = digest(u8::try_from(number).unwrap());
    let pinned = format!("registry.example.com/shop/web@{digest}");
    json!({ "web": { "image": "registry.example.com/shop/web:latest", "revision": number, "digest": digest, "pinned": pinned } })
}

fn content(revision: Revision) -> Option<Vec<u8>> {
    (revision.content != 0).then(|| digest(revision.content).as_bytes().to_vec())
}
