//! The checks of the triggers of teams after a storm, by brute force over the recorded history:
//! each is at its wanted set or shows the gate that holds it, no set is mixed, automation never
//! went down, and no attempt began behind a gate.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;
use sqlx::{PgConnection, Row as _};

use crate::checks::Tag;
use crate::clusters;
use crate::commands;
use crate::gates::{gates_are_shown, no_attempt_began_behind_a_gate};
use crate::oracle::{RecordedRevision, in_force};
use crate::paced;
use crate::repositories;
use crate::teams::{
    CHECKED, FROZEN, PAUSED, PINNED, REJECTED, REMOVED, RULED, Rule, TEAMS, Target, Team,
    TeamImage, UNAPPROVED, UNREPORTED, WINDOWED,
};
use crate::world::World;

type History = BTreeMap<Tag, Vec<RecordedRevision>>;

/// A recorded rollout of a team's trigger.
#[derive(Debug, Clone)]
pub(crate) struct Made {
    id: String,
    number: i64,
    pub(crate) state: String,
    cause: String,
    /// False if it was superseded before its first attempt.
    stands: bool,
    /// By the places of the images in the trigger.
    images: Vec<Pinned>,
}

/// An image of a rollout.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Pinned {
    tag: String,
    digest: String,
    /// The time of the revision, in microseconds since 1970.
    at: i64,
}

/// Runs all checks.
pub(crate) async fn teams(
    world: &World,
    db: &mut PgConnection,
    stored: &History,
) -> Result<(), String> {
    let made = made(db, stored).await?;
    let narrow = world.files.lock().await.narrow;
    let ids: BTreeSet<&str> = made.values().flatten().map(|one| one.id.as_str()).collect();
    for team in TEAMS.iter().filter(|team| team.name != REMOVED) {
        let of = made.get(team.name).map_or(&[][..], Vec::as_slice);
        never_down(team, of)?;
        never_mixed(team, of)?;
        let last = of.iter().rfind(|one| one.stands);
        // The pause may have come before the first push.
        if team.name == PAUSED {
            continue;
        }
        let last = last.ok_or_else(|| format!("{} has no rollout", team.name))?;
        match team.name {
            PINNED => {}
            name if ["succeeded", "cancelled"].contains(&last.state.as_str())
                || [FROZEN, UNAPPROVED, UNREPORTED, WINDOWED].contains(&name)
                || (name, last.state.as_str()) == (REJECTED, "rejected") =>
            {
                is_wanted(team, last, stored, narrow && name == RULED)?;
            }
            name => {
                return Err(format!(
                    "rollout {} of {name} is {}",
                    last.number, last.state
                ));
            }
        }
        let git = team.target == Target::Git && !repositories::is_release();
        if git && last.state == "succeeded" {
            let image = team.images[0];
            let name = format!("{}/{}", image.registry, image.repository);
            let of = (team.name, name.as_str());
            repositories::check(world.folder(), of, &last.images[0].digest, &ids)?;
        }
        if team.target == Target::Kubernetes && last.state == "succeeded" {
            let image = team.images[0];
            let name = format!("{}/{}", image.registry, image.repository);
            let last = (last.number, last.images[0].digest.as_str());
            clusters::check(&world.cluster, (team.name, &name), last)?;
        }
        if team.target == Target::Command && last.state == "succeeded" {
            let path = world.folder().join("notes").join(team.name);
            let notes = std::fs::read_to_string(path).unwrap_or_default();
            let word = if team.name == CHECKED {
                "passed"
            } else {
                "end"
            };
            commands::check(
                team.name,
                &notes,
                |id| ids.contains(id),
                (word, last.id.as_str()),
            )?;
        }
    }
    gates_are_shown(world, db, &made).await?;
    no_attempt_began_behind_a_gate(db).await?;
    paced::all(world, db).await
}

/// Reads the rollouts of the triggers of teams, by trigger, lowest number first.
async fn made(
    db: &mut PgConnection,
    stored: &History,
) -> Result<BTreeMap<String, Vec<Made>>, String> {
    let rows = sqlx::query(
        "select o.id::text as id, t.name as trigger, o.number, o.state::text as state, o.cause ->> 'reason' as cause,
             o.images, not (o.state = 'superseded' and o.attempts = 0) as stands
         from rollout o join trigger t on t.id = o.trigger_id where t.name like 't-%' order by t.name, o.number",
    )
    .fetch_all(db)
    .await
    .map_err(|error| error.to_string())?;
    let mut made: BTreeMap<String, Vec<Made>> = BTreeMap::new();
    for row in rows {
        let images: BTreeMap<String, Value> =
            serde_json::from_value(row.get("images")).map_err(|error| error.to_string())?;
        let images = images.values().map(|image| {
            let (name, tag) = image["image"].as_str()?.rsplit_once(':')?;
            let (registry, repository) = name.split_once('/')?;
            let key = (registry.to_owned(), repository.to_owned(), tag.to_owned());
            let revision = stored.get(&key)?.iter();
            let mut revision = revision.filter(|one| image["revision"] == one.number);
            Some(Pinned {
                tag: key.2.clone(),
                digest: image["digest"].as_str()?.to_owned(),
                at: revision.next()?.at,
            })
        });
        let of = made.entry(row.get("trigger")).or_default();
        of.push(Made {
            id: row.get("id"),
            number: row.get("number"),
            state: row.get("state"),
            cause: row.get("cause"),
            stands: row.get("stands"),
            images: images
                .collect::<Option<Vec<_>>>()
                .ok_or("a rollout has an image without a revision")?,
        });
    }
    Ok(made)
}

/// The place of a tag in the order of a policy; `None`: the policy passes the tag over. A second
/// implementation of the few rules of the storm.
fn place(rule: Rule, tag: &str, at: i64, narrow: bool) -> Option<Vec<i64>> {
    let version = || -> Option<Vec<i64>> {
        let parts: Vec<i64> = tag.split('.').map_while(|part| part.parse().ok()).collect();
        (parts.len() == 3 && parts[0] == 1 && tag.split('.').count() == 3).then_some(parts)
    };
    match rule {
        Rule::Tag(named) => (named == tag).then(Vec::new),
        Rule::Number => Some(vec![tag.parse().ok()?]),
        Rule::Version => version().filter(|parts| !narrow || parts[1] < 20),
        Rule::Newest => {
            version()?;
            Some([at].into_iter().chain(tag.bytes().map(i64::from)).collect())
        }
    }
}

/// The tags that a policy may select now, with their places and digests.
fn live(image: &TeamImage, stored: &History, narrow: bool) -> Vec<(Vec<i64>, Pinned)> {
    let of_repository = stored.iter().filter(|((registry, repository, _), _)| {
        registry == image.registry && repository == image.repository
    });
    let heads = of_repository.filter_map(|((.., tag), revisions)| {
        let head = in_force(revisions, i64::MAX)?;
        let place = place(image.rule, tag, head.at, narrow)?;
        let pinned = Pinned {
            tag: tag.clone(),
            digest: head.digest.clone()?,
            at: head.at,
        };
        Some((place, pinned))
    });
    heads.collect()
}

/// Checks that the last rollout has the wanted set: the best tags of now, or of tags that are
/// deleted a higher selection from before.
fn is_wanted(team: &Team, last: &Made, stored: &History, narrow: bool) -> Result<(), String> {
    let tags = |image| -> BTreeMap<String, (Vec<i64>, Pinned)> {
        let live = live(image, stored, narrow).into_iter();
        live.map(|(place, one)| (one.tag.clone(), (place, one)))
            .collect()
    };
    let live: Vec<BTreeMap<String, (Vec<i64>, Pinned)>> = team.images.iter().map(tags).collect();
    // The images of a group have the same tag; others are independent.
    let together = team.name == "t-group";
    for (number, image) in team.images.iter().enumerate() {
        let usable = live[number]
            .iter()
            .filter(|(tag, _)| !together || live.iter().all(|tags| tags.contains_key(*tag)));
        let Some((_, (highest, best))) = usable.max_by_key(|(_, (place, _))| place) else {
            continue;
        };
        let has = &last.images[number];
        if has.tag == best.tag && has.digest == best.digest {
            continue;
        }
        let kept = place(image.rule, &has.tag, has.at, false).is_some_and(|kept| kept > *highest);
        let gone = live.iter().any(|tags| {
            tags.get(&has.tag)
                .is_none_or(|(_, head)| !together && *head != *has)
        });
        if has.tag == best.tag || !kept || !gone {
            return Err(format!(
                "rollout {} of {} has {has:?}, and should have {best:?}",
                last.number, team.name
            ));
        }
    }
    Ok(())
}

/// Checks that no rollout has a lower tag than the one that automation selected before. Only people
/// go down: by a rollback, a pin, or a change of the policy.
fn never_down(team: &Team, made: &[Made]) -> Result<(), String> {
    for (number, image) in team.images.iter().enumerate() {
        let mut highest: Option<Vec<i64>> = None;
        for one in made {
            if ["rollback", "order"].contains(&one.cause.as_str()) {
                continue;
            }
            let has = &one.images[number];
            let place = place(image.rule, &has.tag, has.at, false);
            if place < highest && team.name != RULED {
                return Err(format!(
                    "rollout {} of {} went down to {has:?} by itself ({})",
                    one.number, team.name, one.cause
                ));
            }
            highest = place;
        }
    }
    Ok(())
}

/// Checks that each set of a group is of one build.
fn never_mixed(team: &Team, made: &[Made]) -> Result<(), String> {
    let mixed = |one: &&Made| {
        one.images
            .iter()
            .any(|image| image.tag != one.images[0].tag)
    };
    match made.iter().find(mixed).filter(|_| team.name == "t-group") {
        None => Ok(()),
        Some(mixed) => Err(format!("{} has a mixed set: {mixed:?}", team.name)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn made(number: i64, cause: &str, tags: &[&str]) -> Made {
        let image = |tag: &&str| Pinned {
            tag: (*tag).to_owned(),
            digest: format!("of {tag}"),
            at: number,
        };
        Made {
            id: number.to_string(),
            number,
            state: "succeeded".to_owned(),
            cause: cause.to_owned(),
            stands: true,
            images: tags.iter().map(image).collect(),
        }
    }

    fn team(name: &str) -> &'static Team {
        TEAMS.iter().find(|team| team.name == name).unwrap()
    }

    #[test]
    fn only_people_go_down() {
        let up = [
            made(1, "start", &["1.9.0"]),
            made(2, "revision", &["1.10.0"]),
            made(3, "rollback", &["1.9.0"]),
            made(4, "release", &["1.10.0"]),
        ];
        assert_eq!(never_down(team("t-version"), &up), Ok(()));
        let down = [&up[..], &[made(5, "revision", &["1.9.1"])]].concat();
        let error = never_down(team("t-version"), &down).unwrap_err();
        assert!(error.contains("went down"), "{error}");
    }

    #[test]
    fn a_group_has_one_build() {
        let whole = [made(1, "start", &["7", "7"])];
        assert_eq!(never_mixed(team("t-group"), &whole), Ok(()));
        let mixed = [made(1, "rollback", &["7", "8"])];
        assert!(never_mixed(team("t-group"), &mixed).is_err());
    }

    #[test]
    fn the_wanted_set_is_the_best_or_a_higher_one_that_is_gone() {
        let head = |tag: &str, digest: Option<&str>| {
            let revision = RecordedRevision {
                number: 1,
                at: 1,
                digest: digest.map(ToOwned::to_owned),
                kind: String::new(),
            };
            let key = (
                "one.example.com".to_owned(),
                "rel/app".to_owned(),
                tag.to_owned(),
            );
            (key, vec![revision])
        };
        let stored: History = [
            head("1.9.0", Some("of 1.9.0")),
            head("1.10.0", Some("of 1.10.0")),
            head("1.11.0", None),
            head("latest", Some("of latest")),
        ]
        .into();
        let is_wanted = |tag: &str, narrow| {
            is_wanted(
                team("t-version"),
                &made(1, "start", &[tag]),
                &stored,
                narrow,
            )
        };
        assert_eq!(is_wanted("1.10.0", false), Ok(()));
        assert_eq!(is_wanted("1.11.0", false), Ok(()));
        assert!(is_wanted("1.9.0", false).is_err());
        // A tag that is there under the rule, and was passed over by an older one.
        assert!(is_wanted("latest", false).is_err());
        assert_eq!(place(Rule::Version, "1.20.0", 1, true), None);
    }
}
