//! Triggers that follow others: `follow`.

use std::collections::{BTreeMap, BTreeSet};

use tagtrail_policy::follow::FollowSettings;
use tagtrail_policy::watched::Watched;
use toml::Spanned;

use crate::broken::{Broken, Table};
use crate::cure::closest;
use crate::file::Mistake;
use crate::{File, Trigger};

impl Trigger {
    /// Returns the names of the triggers that this one follows.
    #[must_use]
    pub fn upstream(&self) -> &[String] {
        let follow = self.gates.follow.as_ref();
        follow.map_or(&[], |follow| &follow.upstream)
    }

    /// Returns the images by name, those of the triggers that this one follows included.
    #[must_use]
    pub fn all_images(&self) -> BTreeMap<String, Watched> {
        let own = self.images.iter();
        let own = own.map(|(name, image)| (name.get_ref().clone(), image.clone()));
        own.chain(self.taken_over.clone()).collect()
    }

    /// Checks that a trigger that follows others has no settings of images.
    pub(crate) fn check_follow(&self) -> Result<(), Mistake> {
        let Some(follow) = &self.follow else {
            return Ok(());
        };
        let useless = [
            ("images", !self.written.is_empty()),
            ("agree", self.agree.is_some()),
            ("settle", self.settle.is_some()),
            ("partial", self.partial),
        ];
        match useless.iter().find(|(_, is_there)| *is_there) {
            Some((key, _)) => {
                let message = format!(
                    "takes over the sets of other triggers, so {key} has no effect; remove follow, or {key}"
                );
                Err(follow_mistake(follow, "", message))
            }
            None => Ok(()),
        }
    }
}

impl File {
    /// Takes out the triggers that follow a trigger that is not configured, or that follow
    /// themselves through others. The others get the images of those that they follow. `others`:
    /// names of further triggers, of the API and of annotated objects, also of those whose settings
    /// can't be used.
    pub fn check_chains<'a>(&mut self, others: impl IntoIterator<Item = &'a str>) {
        self.check_chains_by(Some(others.into_iter().map(str::to_owned).collect()));
    }

    /// Checks the chains before the triggers of other doors are known. If the file has such a door,
    /// a name that no file has may be there.
    pub(crate) fn check_chains_of_files(&mut self) {
        let others = match self.has_other_doors() {
            true => None,
            false => Some(BTreeSet::new()),
        };
        self.check_chains_by(others);
    }

    fn has_other_doors(&self) -> bool {
        let mut clusters = self.cluster.iter();
        self.api_triggers.is_some() || clusters.any(|one| !one.discover.is_empty())
    }

    /// Returns a warning about each trigger that follows one that no file has.
    pub(crate) fn chain_warnings(&self) -> impl Iterator<Item = String> {
        let known = self.known_triggers();
        let chains = self.trigger.iter().filter_map(|trigger| {
            let follow = trigger.follow.as_ref()?;
            Some((trigger, follow.span().start))
        });
        chains.filter_map(move |(trigger, at)| {
            let unknown = trigger.upstream().iter().find(|one| !known.contains(*one))?;
            let mut message = format!(
                "no file has {unknown:?}: the trigger is broken until the API or an annotated object has a trigger of this name"
            );
            if let Some(one) = closest_other(unknown, trigger.name(), &known) {
                message += &format!("; did you mean {one:?}?");
            }
            Some(trigger.error_at(at, "trigger.follow", message).to_string())
        })
    }

    /// Returns the names of the triggers of the files. One whose entry has another mistake is
    /// there, and heals.
    fn known_triggers(&self) -> BTreeSet<String> {
        let broken = self.broken_of(Table::Trigger);
        let broken = broken.filter_map(|one| one.name.clone());
        let good = self.trigger.iter().map(|one| one.name().to_owned());
        broken.chain(good).collect()
    }

    /// `others`: `None` if there may be more triggers than those of the files.
    fn check_chains_by(&mut self, others: Option<BTreeSet<String>>) {
        let upstream: BTreeMap<String, Vec<String>> = self
            .trigger
            .iter()
            .map(|one| (one.name().to_owned(), one.upstream().to_vec()))
            .collect();
        let all_known = others.is_some();
        let mut known = self.known_triggers();
        known.extend(others.into_iter().flatten());
        let mut wrong = Vec::new();
        self.trigger.retain(|trigger| {
            let Some(follow) = &trigger.follow else {
                return true;
            };
            let name = trigger.name();
            let mut names = trigger.upstream().iter();
            let unknown = names.find(|one| all_known && !known.contains(*one));
            let message = match (unknown, circle(name, &upstream)) {
                (Some(unknown), _) => {
                    let mut message = format!("{unknown:?} is the name of no trigger");
                    match closest_other(unknown, name, &known) {
                        Some(one) => message += &format!("; did you mean {one:?}?"),
                        None => message += "; add a trigger of this name, or name another one",
                    }
                    message
                }
                (None, Some(circle)) => format!(
                    "the triggers follow each other in a circle: {}; one of them needs images",
                    circle.join(" follows ")
                ),
                (None, None) => return true,
            };
            let mistake = follow_mistake(follow, "", message);
            let problem = trigger.error_at(mistake.at, &mistake.key, mistake.message);
            wrong.push(Broken::new(Table::Trigger, name.to_owned(), problem));
            false
        });
        self.broken.extend(wrong);
        let all = self.trigger.iter();
        let own: BTreeMap<String, BTreeMap<String, Watched>> = all
            .map(|one| (one.name().to_owned(), one.all_images()))
            .collect();
        for trigger in &mut self.trigger {
            for name in all_upstream(trigger.name(), &upstream) {
                let images = own.get(name).cloned().unwrap_or_default();
                trigger.taken_over.extend(images);
            }
        }
    }
}

/// Returns the name most like the one that a trigger follows, other than its own.
fn closest_other<'a>(unknown: &str, own: &str, known: &'a BTreeSet<String>) -> Option<&'a str> {
    let others = known.iter().map(String::as_str);
    let others: Vec<&str> = others.filter(|one| *one != own).collect();
    closest(unknown, &others)
}

/// Returns the mistake in a field of `follow`, or in the whole.
pub(crate) fn follow_mistake(
    follow: &Spanned<FollowSettings>,
    field: &str,
    message: impl Into<String>,
) -> Mistake {
    let key = match field {
        "" => "trigger.follow".to_owned(),
        field => format!("trigger.follow.{field}"),
    };
    Mistake::new(follow.span().start, key, message)
}

/// Returns the names of the triggers that one follows, also through others.
fn all_upstream<'a>(
    name: &str,
    upstream: &'a BTreeMap<String, Vec<String>>,
) -> BTreeSet<&'a String> {
    let mut found = BTreeSet::new();
    let mut next: Vec<&String> = upstream.get(name).into_iter().flatten().collect();
    while let Some(one) = next.pop() {
        if found.insert(one) {
            next.extend(upstream.get(one).into_iter().flatten());
        }
    }
    found
}

/// Returns a way from a trigger over those that it follows back to the trigger.
fn circle(name: &str, upstream: &BTreeMap<String, Vec<String>>) -> Option<Vec<String>> {
    let mut seen = BTreeSet::new();
    let mut ways = vec![vec![name.to_owned()]];
    while let Some(way) = ways.pop() {
        let end = way.last()?;
        for next in upstream.get(end).into_iter().flatten() {
            let mut longer = way.clone();
            longer.push(next.clone());
            if next == name {
                return Some(longer);
            }
            if seen.insert(next.clone()) {
                ways.push(longer);
            }
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    fn trigger(name: &str, more: &str) -> String {
        format!("[[trigger]]\nname = \"{name}\"\ntarget.command = {{ run = [\"true\"] }}\n{more}\n")
    }

    /// The names of the triggers that can be used, and the mistakes.
    fn read(triggers: &[String]) -> (Vec<String>, Vec<String>) {
        let file = File::parse(&triggers.concat(), Path::new("tagtrail.toml")).unwrap();
        let names = file.trigger.iter().map(|one| one.name().to_owned());
        let problems = file.broken.iter().map(|one| one.problem.to_string());
        (names.collect(), problems.collect())
    }

    const IMAGES: &str = "images.web = \"r.example.com/shop/web\"";

    #[test]
    fn triggers_may_follow_others_in_any_order_of_the_file() {
        let (names, problems) = read(&[
            trigger(
                "prod",
                "follow = { all = [\"eu\", \"us\"], soak = \"30m\" }",
            ),
            trigger("eu", "follow = { trigger = \"dev\", soak = \"1d\" }"),
            trigger("us", "follow = { any = [\"dev\", \"broken\"] }"),
            trigger("dev", IMAGES),
            trigger("broken", "settle = 3"),
        ]);
        assert_eq!(names, ["prod", "eu", "us", "dev"]);
        assert_eq!(problems.len(), 1, "{problems:?}");
    }

    #[test]
    fn an_unknown_upstream_and_a_circle_are_refused_and_break_no_other_trigger() {
        for (triggers, good, message) in [
            (
                vec![
                    trigger("prod", "follow = { trigger = \"dve\" }"),
                    trigger("dev", IMAGES),
                ],
                vec!["dev"],
                "tagtrail.toml:4: trigger.follow: \"dve\" is the name of no trigger; did you mean \"dev\"?",
            ),
            (
                vec![trigger("prod", "follow = { trigger = \"staging\" }")],
                vec![],
                "\"staging\" is the name of no trigger; add a trigger of this name",
            ),
            (
                vec![trigger("prod", "follow = { trigger = \"prod\" }")],
                vec![],
                "in a circle: prod follows prod",
            ),
            (
                vec![
                    trigger("a", "follow = { trigger = \"b\" }"),
                    trigger("b", "follow = { trigger = \"c\" }"),
                    trigger("c", "follow = { any = [\"dev\", \"a\"] }"),
                    trigger("d", "follow = { trigger = \"a\" }"),
                    trigger("dev", IMAGES),
                ],
                vec!["d", "dev"],
                "in a circle: a follows b follows c follows a",
            ),
        ] {
            let (names, problems) = read(&triggers);
            assert_eq!(names, good);
            assert!(problems[0].contains(message), "{problems:?}");
        }
    }

    #[test]
    fn a_trigger_of_another_door_may_be_followed_where_there_is_such_a_door() {
        let prod = trigger("prod", "follow = { trigger = \"team-web\" }");
        let circle = trigger("a", "follow = { trigger = \"a\" }");
        let cluster =
            "[[cluster]]\nname = \"test\"\ndiscover = [\"tagtrail\"]\nnamespaces = [\"shop\"]\n";
        for door in ["[api_triggers]\n", cluster] {
            let text = format!("{prod}{circle}{door}");
            let mut file = File::parse(&text, Path::new("tagtrail.toml")).unwrap();
            let names = |file: &File| -> Vec<String> {
                file.trigger
                    .iter()
                    .map(|one| one.name().to_owned())
                    .collect()
            };
            assert_eq!(names(&file), ["prod"]);
            let warnings = file.warnings();
            assert!(
                warnings[0]
                    .starts_with("tagtrail.toml:4: trigger.follow: no file has \"team-web\""),
                "{warnings:?}"
            );
            // The service knows the triggers of all doors.
            file.check_chains(["team-web"]);
            assert_eq!((names(&file).len(), file.broken.len()), (1, 1));
            file.check_chains(["team-wbe"]);
            assert_eq!(names(&file).len(), 0);
            let problem = file.broken.last().unwrap().problem.to_string();
            assert!(problem.ends_with("did you mean \"team-wbe\"?"), "{problem}");
        }
    }

    #[test]
    fn settings_of_images_beside_follow_are_refused() {
        for (more, message) in [
            (
                format!("follow = {{ trigger = \"dev\" }}\n{IMAGES}"),
                "so images has no effect",
            ),
            (
                "follow = { trigger = \"dev\" }\nsettle = \"5s\"".to_owned(),
                "so settle has no effect",
            ),
            (
                "follow = { trigger = \"dev\" }\nagree = \"tag\"".to_owned(),
                "so agree has no effect",
            ),
            (
                "follow = { trigger = \"dev\", all = [\"a\"] }".to_owned(),
                "exactly one of",
            ),
            ("follow = { triger = \"dev\" }".to_owned(), "triger"),
            (
                "follow = { trigger = \"dev\", soak = 30 }".to_owned(),
                "30 has no unit",
            ),
            (String::new(), "watches nothing"),
        ] {
            let (_, problems) = read(&[trigger("prod", &more), trigger("dev", IMAGES)]);
            assert!(problems[0].contains(message), "{more}: {problems:?}");
        }
    }
}
