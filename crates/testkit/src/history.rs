//! Rows of history that a test needs in number.

use sqlx::PgConnection;

/// Records the tags `v1` to `v20000` of `registry.example.com/shop/web` in an empty database, with
/// a revision each, but for the last one, which has 2,000, as `latest` beside the tags of builds.
/// The digest of its revision `n` is the SHA-256 of `later n`. Returns its row id.
///
/// # Panics
/// If Postgres refuses.
pub async fn busy_tag(db: &mut PgConnection) -> i64 {
    sqlx::raw_sql(
        "insert into repository (registry, name) values ('registry.example.com', 'shop/web');
         insert into tag (repository_id, name, issued, head, head_digest, head_at)
         select r.id, 'v' || n, 1, 1, sha256(n::text::bytea), now() from repository r, generate_series(1, 20000) n;
         insert into revision (tag_id, number, kind, digest, effective_at, recorded_at, head, push_id, partition, ordinal)
         select id, 1, 'created', head_digest, now(), now(), 1, id, 0, id from tag;
         insert into revision (tag_id, number, kind, digest, effective_at, recorded_at, previous, head, push_id, partition, ordinal)
         select (select max(id) from tag), n, 'moved', sha256(('later ' || n)::bytea), now(), now(), n - 1, n, 19999 + n, 1, n
         from generate_series(2, 2000) n;
         insert into push (tag_id, action, digest, occurred_at, effective_at, occurred_at_source, received_at, recorded_at, origin, source, event_id, stream_seq)
         select tag_id, 'push', digest, effective_at, effective_at, 'event', now(), now() - interval '1 day' + ordinal * interval '1 second', 'event', 'main', push_id::text, ordinal
         from revision order by push_id;
         update tag set issued = 2000, head = 2000, head_digest = sha256('later 2000') where id = (select max(id) from tag);
         analyze",
    )
    .execute(&mut *db)
    .await
    .unwrap();
    let last = sqlx::query_scalar("select max(id) from tag");
    last.fetch_one(db).await.unwrap()
}
