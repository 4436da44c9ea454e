//! Images that several triggers change. Each of these triggers is right by itself, so nothing is
//! refused: people are told.

use std::collections::BTreeMap;

use super::Targets;

/// Images that a target changes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Claim {
    /// Where they are, such as an object with its namespace and cluster.
    pub(crate) place: String,
    /// The repository.
    pub(crate) repository: String,
    /// The containers that are named. Without any: all that have the repository.
    pub(crate) containers: Vec<String>,
}

/// A place whose images a trigger before changes, too.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct SharedImages {
    /// The place.
    pub(crate) place: String,
    /// The trigger before, in the order of names.
    pub(crate) with: String,
}

/// The triggers that claimed the images of a place before.
#[derive(Default)]
struct Claimed<'a> {
    containers: BTreeMap<&'a str, &'a str>,
    /// By repository, the first trigger with any claim, and the first without named containers.
    any: BTreeMap<&'a str, &'a str>,
    whole: BTreeMap<&'a str, &'a str>,
}

/// By name of a trigger, the first place whose images a trigger before changes, too.
#[derive(Debug, Default)]
pub(crate) struct SharedClaims(BTreeMap<String, SharedImages>);

impl SharedClaims {
    pub(crate) fn of(targets: &Targets) -> SharedClaims {
        let claims: Vec<(&str, Vec<Claim>)> = targets
            .iter()
            .map(|(name, target)| (name.as_str(), target.claims()))
            .collect();
        let (mut claimed, mut shared) = (BTreeMap::<&str, Claimed<'_>>::new(), BTreeMap::new());
        for (trigger, claims) in &claims {
            for claim in claims {
                let known = claimed.entry(&claim.place).or_default();
                let repository = claim.repository.as_str();
                let mut named = claim.containers.iter();
                let with = match claim.containers.is_empty() {
                    true => known.any.get(repository),
                    false => named
                        .find_map(|container| known.containers.get(container.as_str()))
                        .or_else(|| known.whole.get(repository)),
                };
                if let Some(with) = with.filter(|with| *with != trigger) {
                    let place = claim.place.clone();
                    let with = (*with).to_owned();
                    shared
                        .entry((*trigger).to_owned())
                        .or_insert(SharedImages { place, with });
                }
                known.any.entry(repository).or_insert(trigger);
                if claim.containers.is_empty() {
                    known.whole.entry(repository).or_insert(trigger);
                }
                for container in &claim.containers {
                    known.containers.entry(container).or_insert(trigger);
                }
            }
        }
        SharedClaims(shared)
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (&String, &SharedImages)> {
        self.0.iter()
    }

    pub(crate) fn get(&self, trigger: &str) -> Option<&SharedImages> {
        self.0.get(trigger)
    }

    /// Returns the text about images that this trigger and another one change, whichever of them
    /// comes first.
    pub(crate) fn about(&self, trigger: &str) -> Option<String> {
        let with_it = |(_, shared): &(&String, &SharedImages)| shared.with == trigger;
        let own = self.0.get_key_value(trigger);
        let found = own.or_else(|| self.iter().find(with_it));
        found.map(|(trigger, shared)| shared.text(trigger))
    }
}

impl SharedImages {
    /// Returns the text for people. `trigger`: the trigger that came second.
    pub(crate) fn text(&self, trigger: &str) -> String {
        let SharedImages { place, with } = self;
        format!(
            "trigger {trigger} and trigger {with} change the same images of {place}, in turn; name the object in one of them alone, or different containers"
        )
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use tagtrail_config::File;

    use super::super::{Clusters, targets};
    use super::*;

    #[test]
    fn triggers_that_change_the_same_images_are_found() {
        let trigger = |name: &str, image: &str, rest: &str| {
            format!(
                "[[trigger]]\nname = \"{name}\"\nimages.web = \"registry.example.com/shop/{image}\"\n\
                 target.kubernetes = {{ cluster = \"prod\", namespace = \"shop\", {rest} }}\n"
            )
        };
        let found = |one: &str, other: &str| {
            let text = format!("[[cluster]]\nname = \"prod\"\n{one}{other}");
            let file = File::parse(&text, Path::new("tagtrail.toml")).unwrap();
            let (targets, wrong) = targets(&file, &Clusters::of(&file, None), |_| None);
            assert_eq!(wrong, []);
            let shared = SharedClaims::of(&targets);
            // Both triggers have the text.
            assert_eq!(shared.about("a"), shared.about("b"));
            assert_eq!(shared.about("b").is_some(), shared.get("b").is_some());
            let place = |one: &SharedImages| (one.place.clone(), one.with.clone());
            shared.get("b").map(place)
        };
        let web = "objects = [\"deployment/web\"]";
        let a = trigger("a", "web", web);
        let expected = "deployment/web in namespace shop of cluster prod".to_owned();
        let expected = Some((expected, "a".to_owned()));
        for (rest, is_shared) in [
            ("objects = [\"statefulset/db\", \"deploy/web\"]", true),
            (
                "objects = [\"deployment/web\"], containers.web = [\"web\"]",
                true,
            ),
            ("objects = [\"deployment/web2\"]", false),
        ] {
            let b = trigger("b", "web", rest);
            assert_eq!(
                found(&a, &b),
                expected.clone().filter(|_| is_shared),
                "{rest}"
            );
        }
        assert_eq!(found(&a, &trigger("b", "api", web)), None);
        let named = |containers: &str| format!("{web}, containers.web = [{containers}]");
        let a = trigger("a", "web", &named("\"web\""));
        let b = |containers| trigger("b", "web", &named(containers));
        assert_eq!(found(&a, &b("\"canary\"")), None);
        assert_eq!(found(&a, &b("\"canary\", \"web\"")), expected);
        assert_eq!(found(&a, &trigger("b", "web", web)), expected);
        let other = trigger("b", "web", web).replace("namespace = \"shop\"", "namespace = \"pay\"");
        assert_eq!(found(&a, &other), None);
    }
}
