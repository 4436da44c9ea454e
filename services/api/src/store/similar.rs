//! Known images with names like those of unknown ones: most unknown images are typing errors.

use std::collections::BTreeMap;

use sqlx::{PgConnection, Row as _};
use strsim::damerau_levenshtein as distance;
use tagtrail_proto::{Reason, ReasonCode};

/// The most images of one answer that names are looked up for.
const MOST: usize = 20;
/// The most names that one image is compared with.
const COMPARED: i64 = 2000;
/// The most names that are shown for an image.
const SHOWN: usize = 3;

/// Adds the names of known images to the cures of reasons about unknown ones, in one statement.
/// Without such a reason, nothing is asked.
pub(super) async fn suggest<'r>(
    db: &mut PgConnection,
    reasons: impl Iterator<Item = &'r mut Reason>,
) -> Result<(), sqlx::Error> {
    let unknown = reasons.filter(|reason| reason.code == ReasonCode::UnknownImage);
    let named = unknown.filter_map(|reason| Some((Name::of(reason.image.as_deref()?)?, reason)));
    let mut named: Vec<(Name, &mut Reason)> = named.take(MOST).collect();
    if named.is_empty() {
        return Ok(());
    }
    let mut known = known(db, named.iter().map(|(name, _)| name)).await?;
    for (place, (name, reason)) in named.iter_mut().enumerate() {
        let found = name.similar(&known.remove(&place).unwrap_or_default());
        if let (false, Some(cure)) = (found.is_empty(), &mut reason.cure) {
            *cure = format!("{cure}; known: {}", found.join(", "));
        }
    }
    Ok(())
}

/// Returns the names of known images that are like this one; a name without a registry is like
/// none.
pub(crate) async fn names(db: &mut PgConnection, image: &str) -> Result<Vec<String>, sqlx::Error> {
    let Some(name) = Name::of(image) else {
        return Ok(Vec::new());
    };
    let mut known = known(db, std::iter::once(&name)).await?;
    Ok(name.similar(&known.remove(&0).unwrap_or_default()))
}

/// The name of an unknown image. An image with a policy has no tag.
#[derive(Debug, PartialEq)]
struct Name {
    registry: String,
    repository: String,
    tag: Option<String>,
}

/// The names that an unknown image is compared with.
#[derive(Debug, Default)]
struct Known {
    /// Registry and repository of each.
    repositories: Vec<(String, String)>,
    /// The tags of the repository itself, the newest first.
    tags: Vec<String>,
}

impl Name {
    fn of(image: &str) -> Option<Name> {
        let (registry, rest) = image.split_once('/')?;
        let (repository, tag) = match rest.rsplit_once(':') {
            Some((repository, tag)) => (repository, Some(tag.to_owned())),
            None => (rest, None),
        };
        Some(Name {
            registry: registry.to_owned(),
            repository: repository.to_owned(),
            tag,
        })
    }

    /// Returns the names of known images that are most like this one.
    fn similar(&self, known: &Known) -> Vec<String> {
        let closest = |mut found: Vec<(usize, String)>| {
            found.sort_by_key(|(distance, _)| *distance);
            let names = found.into_iter().map(|(_, name)| name);
            names.take(SHOWN).collect::<Vec<_>>()
        };
        if let Some(tag) = self.tag.as_ref().filter(|_| !known.tags.is_empty()) {
            let image = |of: &String| format!("{}/{}:{of}", self.registry, self.repository);
            let tags = known.tags.iter();
            return closest(tags.map(|of| (distance(of, tag), image(of))).collect());
        }
        let most = 1 + self.repository.chars().count() / 6;
        let repositories = known.repositories.iter().filter_map(|(registry, name)| {
            // The same repository elsewhere: the registry has another name, or is another one.
            let found = distance(name, &self.repository);
            (found <= most).then(|| (found, format!("{registry}/{name}")))
        });
        closest(repositories.collect())
    }
}

/// Returns the names that each image is compared with, by its place.
async fn known(
    db: &mut PgConnection,
    names: impl Iterator<Item = &Name> + Clone,
) -> Result<BTreeMap<usize, Known>, sqlx::Error> {
    let rows = sqlx::query(
        "select w.place, r.registry, r.name, case when r.registry = w.registry and r.name = w.repository then array (
                 select t.name from tag t where t.repository_id = r.id and t.head_digest is not null order by t.id desc limit $3) end as tags
         from unnest($1::text[], $2::text[]) with ordinality as w (registry, repository, place)
         cross join lateral (
             (select * from repository o where o.registry = w.registry and abs(length(o.name) - length(w.repository)) <= 3 limit $3)
             union all
             (select * from repository o where o.name = w.repository and o.registry <> w.registry limit $3)
         ) r",
    )
    .bind(names.clone().map(|name| name.registry.as_str()).collect::<Vec<_>>())
    .bind(names.map(|name| name.repository.as_str()).collect::<Vec<_>>())
    .bind(COMPARED)
    .fetch_all(db)
    .await?;
    let mut known: BTreeMap<usize, Known> = BTreeMap::new();
    for row in &rows {
        let place = usize::try_from(row.try_get::<i64, _>("place")? - 1).unwrap_or(usize::MAX);
        let of = known.entry(place).or_default();
        match row.try_get::<Option<Vec<String>>, _>("tags")? {
            Some(tags) => of.tags = tags,
            None => {
                let name = (row.try_get("registry")?, row.try_get("name")?);
                of.repositories.push(name);
            }
        }
    }
    Ok(known)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn similar(image: &str, repositories: &[&str], tags: &[&str]) -> Vec<String> {
        let split = |one: &&str| {
            let (registry, name) = one.split_once('/').unwrap();
            (registry.to_owned(), name.to_owned())
        };
        let known = Known {
            repositories: repositories.iter().map(split).collect(),
            tags: tags.iter().map(ToString::to_string).collect(),
        };
        Name::of(image).unwrap().similar(&known)
    }

    #[test]
    fn a_letter_that_is_wrong_or_missing_is_found_and_other_names_are_not() {
        let known = [
            "r.example/shop/web",
            "r.example/shop/job",
            "r.example/log/web",
        ];
        assert_eq!(
            similar("r.example/shop/wbe:1", &known, &[]),
            ["r.example/shop/web"]
        );
        assert_eq!(
            similar("r.example/shop/we", &known, &[]),
            ["r.example/shop/web"]
        );
        assert_eq!(similar("r.example/other/api:1", &known, &[]), [""; 0]);
    }

    #[test]
    fn the_same_repository_of_another_registry_comes_first() {
        let known = ["r.example/shop/wep", "q.example/shop/web"];
        assert_eq!(
            similar("r.example/shop/web:1", &known, &[]),
            ["q.example/shop/web", "r.example/shop/wep"]
        );
    }

    #[test]
    fn of_a_known_repository_the_closest_tags_are_named() {
        let tags = ["v2", "stable", "latest", "main"];
        let found = similar("r.example:5000/web:lastest", &["r.example:5000/wep"], &tags);
        assert_eq!(found[0], "r.example:5000/web:latest");
        assert_eq!(found.len(), SHOWN);
    }
}
