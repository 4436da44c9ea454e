//! The statements about the tags that policies selected.

use std::collections::BTreeMap;

use sqlx::postgres::PgRow;
use sqlx::{PgConnection, Row as _};
use tagtrail_policy::choice::Chosen;
use tagtrail_policy::selection::Key;
use tagtrail_postgres::row;

/// Returns the selections of all configured triggers, by the names of trigger and image.
pub(crate) async fn selections(
    db: &mut PgConnection,
) -> Result<BTreeMap<(String, String), Chosen>, sqlx::Error> {
    let rows = sqlx::query(
        "select t.name as trigger, s.name, s.registry, s.repository, s.tag_id, s.tag, s.key, s.digest, s.revision, s.rule, s.selected_at
         from selection s join trigger t on t.id = s.trigger_id where t.configured",
    )
    .fetch_all(db)
    .await?;
    let selection = |row: &PgRow| {
        let names = (row.try_get("trigger")?, row.try_get("name")?);
        let selection = Chosen {
            registry: row::parsed(row.try_get("registry")?)?,
            repository: row::parsed(row.try_get("repository")?)?,
            tag_id: row.try_get("tag_id")?,
            tag: row::parsed(row.try_get("tag")?)?,
            key: Key::from_bytes(row.try_get("key")?),
            digest: row::digest(row.try_get("digest")?)?.ok_or(sqlx::Error::RowNotFound)?,
            revision: row::unsigned(row.try_get("revision")?),
            rule: row.try_get("rule")?,
            selected_at: row.try_get("selected_at")?,
        };
        Ok((names, selection))
    };
    rows.iter().map(selection).collect()
}

/// A selection to store.
#[derive(Debug, Clone)]
pub(crate) struct NewSelection {
    /// The id of the trigger.
    pub(crate) trigger: i32,
    /// Name of the image in the trigger.
    pub(crate) name: String,
    pub(crate) policy: i32,
    pub(crate) selection: Chosen,
}

/// Stores selections, at most one of each image of a trigger.
pub(crate) async fn store_selections(
    db: &mut PgConnection,
    new: &[&NewSelection],
) -> Result<(), sqlx::Error> {
    let each = |of: fn(&Chosen) -> String| new.iter().map(|one| of(&one.selection)).collect();
    let names: [Vec<String>; 3] = [
        each(|one| one.registry.to_string()),
        each(|one| one.repository.to_string()),
        each(|one| one.tag.to_string()),
    ];
    let [registries, repositories, tags] = names;
    let bytes = |of: fn(&Chosen) -> &[u8]| -> Vec<Vec<u8>> {
        new.iter().map(|one| of(&one.selection).to_vec()).collect()
    };
    sqlx::query(
        "insert into selection (trigger_id, name, policy_id, registry, repository, tag_id, tag, key, digest, revision, rule, selected_at)
         select * from unnest($1::int[], $2::text[], $3::int[], $4::text[], $5::text[], $6::bigint[], $7::text[], $8::bytea[], $9::bytea[], $10::bigint[], $11::bytea[], $12::timestamptz[])
         on conflict (trigger_id, name) do update
         set policy_id = excluded.policy_id, registry = excluded.registry, repository = excluded.repository, tag_id = excluded.tag_id, tag = excluded.tag,
             key = excluded.key, digest = excluded.digest, revision = excluded.revision, rule = excluded.rule, selected_at = excluded.selected_at",
    )
    .bind(new.iter().map(|one| one.trigger).collect::<Vec<_>>())
    .bind(new.iter().map(|one| one.name.as_str()).collect::<Vec<_>>())
    .bind(new.iter().map(|one| one.policy).collect::<Vec<_>>())
    .bind(registries)
    .bind(repositories)
    .bind(new.iter().map(|one| one.selection.tag_id).collect::<Vec<_>>())
    .bind(tags)
    .bind(bytes(|one| one.key.as_bytes()))
    .bind(bytes(|one| one.digest.as_bytes()))
    .bind(new.iter().map(|one| row::signed(one.selection.revision)).collect::<Vec<_>>())
    .bind(bytes(|one| &one.rule))
    .bind(new.iter().map(|one| one.selection.selected_at).collect::<Vec<_>>())
    .execute(db)
    .await
    .map(|_| ())
}
