//! The statements about triggers that come back under another name.

use std::collections::{BTreeMap, BTreeSet};

use sqlx::{PgConnection, Row as _};

use super::specs;
use crate::settings::Settings;

/// A trigger that goes on under another name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Renamed {
    pub(crate) old: String,
    pub(crate) new: String,
    /// Whether the entry of the new name says so. Otherwise the entries are equal but for the name.
    pub(crate) told: bool,
}

/// A new trigger whose `renamed_from` had no effect.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct NotRenamed {
    pub(crate) trigger: String,
    pub(crate) old: String,
    /// The cause, and the effect on the new trigger.
    pub(crate) why: &'static str,
}

/// A recorded trigger.
#[derive(Debug)]
struct Known {
    id: i32,
    configured: bool,
    likeness: Option<Vec<u8>>,
    /// Whether the API or an object has made it. Such a trigger is never taken for one of a file.
    of_api: bool,
}

/// Gives triggers their new names, before the entries are written: rollouts, numbers, holds and
/// pause stay. A freeze by a pattern that the new name does not match goes on for the new name.
pub(super) async fn rename(
    db: &mut PgConnection,
    settings: &Settings,
) -> Result<(Vec<Renamed>, Vec<NotRenamed>), sqlx::Error> {
    let rows = sqlx::query("select name, id, configured, likeness, coalesce(door in ('api', 'kubernetes'), false) as of_api from trigger")
        .fetch_all(&mut *db)
        .await?;
    let mut known = BTreeMap::new();
    for row in &rows {
        let one = Known {
            id: row.try_get("id")?,
            configured: row.try_get("configured")?,
            likeness: row.try_get("likeness")?,
            of_api: row.try_get("of_api")?,
        };
        known.insert(row.try_get::<String, _>("name")?, one);
    }
    let renamed = renamed(&known, settings);
    let not_renamed = not_renamed(&known, settings, &renamed);
    for Renamed { old, new, .. } in &renamed {
        sqlx::query(
            "with renamed as (
                 update trigger set name = $3 where id = $1
             ), old_name as (
                 insert into trigger_name (name, trigger_id) values ($2, $1)
                 on conflict (name) do update set trigger_id = excluded.trigger_id, ended_at = now()
             ), frozen as (
                 insert into hold (kind, triggers, reason, hard, actor, until)
                 select 'freeze', $3, h.reason, h.hard, h.actor, h.until from hold h
                 where h.kind = 'freeze' and h.released_at is null and (h.until is null or h.until > now())
                   and position('*' in h.triggers) > 0
                   and $2 ~ ('^' || replace(h.triggers, '*', '.*') || '$') and not $3 ~ ('^' || replace(h.triggers, '*', '.*') || '$')
             )
             update hold set triggers = $3 where triggers = $2 and released_at is null",
        )
        .bind(known.get(old).map(|one| one.id))
        .bind(old)
        .bind(new)
        .execute(&mut *db)
        .await?;
    }
    // A name in use is nobody's old name.
    sqlx::query("delete from trigger_name where name = any ($1)")
        .bind(specs::names(settings))
        .execute(db)
        .await?;
    Ok((renamed, not_renamed))
}

/// Returns the new triggers whose `renamed_from` names no trigger that they can go on from.
fn not_renamed(
    known: &BTreeMap<String, Known>,
    settings: &Settings,
    renamed: &[Renamed],
) -> Vec<NotRenamed> {
    let present: BTreeSet<&str> = specs::names(settings).into_iter().collect();
    let specs = settings.triggers.values();
    let new = specs.filter(|spec| !known.contains_key(&spec.name));
    let told = new.filter_map(|spec| Some((&spec.name, spec.renamed_from.as_ref()?)));
    let without = told.filter(|(name, _)| renamed.iter().all(|one| one.new != **name));
    let why = |old: &str| match (present.contains(old), known.contains_key(old)) {
        (true, _) => "is still configured, so both triggers go on",
        (_, true) => "goes on under another name already, so the new trigger begins without a past",
        (_, false) => "was never recorded, so the new trigger begins without a past",
    };
    without
        .map(|(name, old)| NotRenamed {
            trigger: name.clone(),
            old: old.clone(),
            why: why(old),
        })
        .collect()
}

/// Returns the renamed triggers. A trigger whose new name has a past of its own is not renamed.
fn renamed(known: &BTreeMap<String, Known>, settings: &Settings) -> Vec<Renamed> {
    let present: BTreeSet<&str> = specs::names(settings).into_iter().collect();
    let specs = settings.triggers.values();
    let new: Vec<_> = specs
        .filter(|spec| !known.contains_key(&spec.name))
        .collect();
    let mut renamed: Vec<Renamed> = Vec::new();
    let taken = |renamed: &[Renamed], old: &str| renamed.iter().any(|one| one.old == old);
    for spec in &new {
        let Some(old) = spec.renamed_from.as_deref() else {
            continue;
        };
        if known.contains_key(old) && !present.contains(old) && !taken(&renamed, old) {
            renamed.push(Renamed {
                old: old.to_owned(),
                new: spec.name.clone(),
                told: true,
            });
        }
    }
    if !settings.whole {
        return renamed;
    }
    let told: BTreeSet<String> = renamed.iter().map(|one| one.new.clone()).collect();
    let new = new.into_iter().filter(|spec| !told.contains(&spec.name));
    let mut like: BTreeMap<&[u8], (Vec<&str>, Vec<&str>)> = BTreeMap::new();
    for spec in new {
        like.entry(&spec.likeness[..])
            .or_default()
            .1
            .push(&spec.name);
    }
    let vanished = known.iter().filter(|(name, one)| {
        one.configured && !one.of_api && !present.contains(name.as_str()) && !taken(&renamed, name)
    });
    for (name, one) in vanished {
        let likeness = one.likeness.as_deref();
        if let Some(pair) = likeness.and_then(|likeness| like.get_mut(likeness)) {
            pair.0.push(name);
        }
    }
    // Of several equal ones it can't be told which one became which.
    let found = like.values().filter_map(|pair| match pair {
        (old, new) if old.len() == 1 && new.len() == 1 => Some(Renamed {
            old: old[0].to_owned(),
            new: new[0].to_owned(),
            told: false,
        }),
        _ => None,
    });
    renamed.extend(found.collect::<Vec<_>>());
    renamed
}

#[cfg(test)]
mod tests {
    use tagtrail_config::File;

    use super::*;
    use crate::settings::Recorded;

    fn entry(name: &str, more: &str) -> String {
        format!(
            "[[trigger]]\nname = \"{name}\"\n{more}\nimages.web = \"registry.example.com/shop/web:latest\"\ntarget.command = {{ run = [\"true\"] }}\n"
        )
    }

    /// Returns the trigger, and the begin of the reason, of each `renamed_from` without an effect.
    fn without_effect(known: &[&str], entries: &[String]) -> Vec<(String, String)> {
        let file = File::parse(&entries.concat(), "tagtrail.toml".as_ref()).unwrap();
        let settings = Settings::read(&file, &Recorded::default(), None);
        let known = known.iter().enumerate().map(|(id, name)| {
            let one = Known {
                id: i32::try_from(id).unwrap(),
                configured: true,
                likeness: None,
                of_api: false,
            };
            ((*name).to_owned(), one)
        });
        let known = known.collect();
        let found = not_renamed(&known, &settings, &renamed(&known, &settings));
        let found = found.into_iter();
        found
            .map(|one| (one.trigger, one.why.split(',').next().unwrap().to_owned()))
            .collect()
    }

    #[test]
    fn a_renamed_from_without_an_effect_is_named_with_its_cause() {
        let store = || entry("store", "renamed_from = \"shop\"");
        assert_eq!(without_effect(&["shop"], &[store()]), []);
        // The key may stay after the renaming.
        assert_eq!(without_effect(&["store"], &[store()]), []);
        let why = |why: &str| vec![("store".to_owned(), why.to_owned())];
        assert_eq!(
            without_effect(&["shop"], &[store(), entry("shop", "")]),
            why("is still configured")
        );
        assert_eq!(without_effect(&[], &[store()]), why("was never recorded"));
        let other = entry("market", "renamed_from = \"shop\"");
        assert_eq!(
            without_effect(&["shop"], &[other, store()]),
            why("goes on under another name already")
        );
    }
}
