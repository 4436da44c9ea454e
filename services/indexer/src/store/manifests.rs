//! Manifests, and the position in MANIFESTS.

use sqlx::PgConnection;
use sqlx::types::Json;
use tagtrail_bus::consume::Position;
use tagtrail_postgres::{position, row};
use tagtrail_proto::Manifest;

/// The row of MANIFESTS in the table `position`.
const STREAM: &str = "MANIFESTS";

/// Returns the position in MANIFESTS.
pub(crate) async fn position(db: &mut PgConnection) -> Result<Position, sqlx::Error> {
    let found = sqlx::query(
        "select stream_created_ns, applied_seq, applied_time_ns from position where stream = $1 and partition = 0",
    )
    .bind(STREAM)
    .fetch_optional(db)
    .await?;
    found.map_or(Ok(Position::default()), |found| position::of_row(&found))
}

/// Inserts manifests and moves the position in one statement, so that both happen or neither.
/// Recorded manifests stay unchanged. Returns the number of new manifests.
pub(crate) async fn add(
    db: &mut PgConnection,
    manifests: &[Manifest],
    to: Position,
) -> Result<u64, sqlx::Error> {
    fn each<'a, T>(manifests: &'a [Manifest], of: impl Fn(&'a Manifest) -> T) -> Vec<T> {
        manifests.iter().map(of).collect()
    }
    let added: i64 = sqlx::query_scalar(
        "with added as (
             insert into manifest (digest, registry, repository, media_type, size_bytes, artifact_type, platforms, created, labels,
                                   annotations, revision, source, version, tombstone, image, index, read_at)
             select * from unnest($1::bytea[], $2::text[], $3::text[], $4::text[], $5::bigint[], $6::text[], $7::jsonb[], $8::timestamptz[],
                                  $9::jsonb[], $10::jsonb[], $11::text[], $12::text[], $13::text[], $14::boolean[], $15::jsonb[], $16::jsonb[], $17::timestamptz[])
             on conflict (digest) do nothing returning 1
         ), moved as (
             insert into position (stream, partition, stream_created_ns, applied_seq, applied_time_ns) values ($18, 0, $19, $20, $21)
             on conflict (stream, partition) do update
             set stream_created_ns = excluded.stream_created_ns, applied_seq = excluded.applied_seq, applied_time_ns = excluded.applied_time_ns
         )
         select count(*) from added",
    )
    .bind(each(manifests, |one| one.digest.as_bytes()))
    .bind(each(manifests, |one| one.registry.as_ref()))
    .bind(each(manifests, |one| one.repository.as_ref()))
    .bind(each(manifests, |one| one.media_type.as_str()))
    .bind(each(manifests, |one| row::signed(one.size)))
    .bind(each(manifests, |one| one.artifact_type.as_deref()))
    .bind(each(manifests, |one| Json(&one.platforms)))
    .bind(each(manifests, |one| one.created))
    .bind(each(manifests, |one| Json(&one.labels)))
    .bind(each(manifests, |one| Json(&one.annotations)))
    .bind(each(manifests, |one| one.revision.as_deref()))
    .bind(each(manifests, |one| one.source.as_deref()))
    .bind(each(manifests, |one| one.version.as_deref()))
    .bind(each(manifests, |one| one.tombstone))
    .bind(each(manifests, |one| one.image.as_ref().map(Json)))
    .bind(each(manifests, |one| one.index.as_ref().map(Json)))
    .bind(each(manifests, |one| one.read_at))
    .bind(STREAM)
    .bind(to.stream_created_ns)
    .bind(row::signed(to.sequence))
    .bind(to.time_ns)
    .fetch_one(db)
    .await?;
    Ok(row::unsigned(added))
}
