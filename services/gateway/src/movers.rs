//! The sources that can move the images of triggers, for `tagtrail config check`.

use tagtrail_config::{File, Source, Watched};
use tagtrail_proto::Registry;

use crate::config::{SourceRules, rules};

/// Returns a warning for each image of a trigger that more than one source can move, or a source
/// of any registry, or nothing; and for each source whose events lack digests that nothing can
/// look up.
/// Sources with a mistake count for nothing.
#[must_use]
pub fn warnings(file: &File) -> Vec<String> {
    let read = |entry| Some((rules(file, entry).ok()?, entry));
    let (sources, entries): (Vec<SourceRules>, Vec<&Source>) =
        file.source.iter().filter_map(read).unzip();
    let mut warnings: Vec<String> = sources
        .iter()
        .zip(entries)
        .filter_map(|(rules, entry)| without_digests(file, rules, entry))
        .collect();
    for (trigger, name, image) in file.trigger.iter().flat_map(|trigger| {
        let images = trigger.images.iter();
        images.map(move |(name, image)| (trigger, name, image))
    }) {
        let movers: Vec<&SourceRules> = sources
            .iter()
            .filter(|rules| can_move(rules, image))
            .collect();
        let mut warn = |message: String| {
            let key = format!(
                "trigger {}, images.{}",
                trigger.name.get_ref(),
                name.get_ref()
            );
            let place = name.span().start;
            warnings.push(trigger.error_at(place, &key, message).to_string());
        };
        for any in movers.iter().filter(|rules| rules.registry.is_none()) {
            warn(format!(
                "source {}, which is of any registry, can move {image}; set `registry` of the source, or limit it with `repositories`",
                any.name
            ));
        }
        if movers.is_empty() && !asked(file, image.registry()) {
            warn(format!(
                "nothing can move {image}: no [[source]] reports {registry} and no [[registry]] asks it; {}",
                cure(file, &sources, image.registry()),
                registry = image.registry(),
            ));
        }
        if movers.len() > 1 {
            let names: Vec<&str> = movers.iter().map(|rules| rules.name.as_ref()).collect();
            warn(format!(
                "each of the sources {} can move {image}; limit with `repositories` the sources that should not",
                names.join(", ")
            ));
        }
    }
    warnings
}

/// Returns whether the resolver asks this registry.
fn asked(file: &File, registry: &Registry) -> bool {
    let mut all = file.registry.iter();
    all.any(|access| access.name.get_ref() == registry)
}

/// Returns the cure for an image of a registry that nothing names.
fn cure(file: &File, sources: &[SourceRules], registry: &Registry) -> String {
    let of_sources = sources.iter().filter_map(|rules| rules.registry.as_ref());
    let asked = file.registry.iter().map(|access| access.name.get_ref());
    let known: Vec<&str> = of_sources.chain(asked).map(AsRef::as_ref).collect();
    match tagtrail_config::closest(registry.as_ref(), &known) {
        Some(meant) => format!("did you mean {meant}?"),
        None => "correct the image, or add a [[source]] of its registry".to_owned(),
    }
}

/// Returns the warning about a source whose events name no digests, if no registry can be asked.
fn without_digests(file: &File, rules: &SourceRules, entry: &Source) -> Option<String> {
    let can_ask = match &rules.registry {
        Some(registry) => asked(file, registry),
        None => !file.registry.is_empty(),
    };
    if rules.kind.has_digest || can_ask {
        return None;
    }
    let registry = rules
        .registry
        .as_ref()
        .map_or("registry.example.com", AsRef::as_ref);
    let message = format!(
        "events of kind {:?} name no digests, so no push of source {} is recorded; add a [[registry]] with name = \"{registry}\" and url = \"https://{registry}\", which is asked for them",
        rules.kind.name, rules.name
    );
    let warning = file.error_at(entry.kind.span().start, "source.kind", message);
    Some(warning.to_string())
}

fn can_move(rules: &SourceRules, image: &Watched) -> bool {
    rules
        .registry
        .as_ref()
        .is_none_or(|registry| registry == image.registry())
        && rules.may_report(image.registry(), image.repository())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn warned(sources: &[&str]) -> Vec<String> {
        let mut text = String::from(
            "[[trigger]]\nname = 'shop'\nimages.web = 'hub.example.com/shop/web'\ntarget.webhook = {}\n",
        );
        for registry in ["hub.example.com", "docker.io"] {
            text += &format!("[[registry]]\nname = '{registry}'\nurl = 'https://{registry}'\n");
        }
        warned_by(text, sources)
    }

    fn warned_by(mut text: String, sources: &[&str]) -> Vec<String> {
        for (number, source) in sources.iter().enumerate() {
            text +=
                &format!("[[source]]\nname = 's{number}'\nsecret = {{ env = 'S' }}\n{source}\n");
        }
        let file = File::parse(&text, "tagtrail.toml".as_ref()).unwrap();
        warnings(&file)
    }

    #[test]
    fn an_image_that_several_sources_can_move_is_warned_about() {
        const HUB: &str = "kind = 'generic'\nregistry = 'hub.example.com'";
        const OTHER: &str = "kind = 'harbor'\nregistry = 'other.example.com'";
        let narrow = |pattern: &str| format!("{HUB}\nrepositories = ['{pattern}']");
        for quiet in [
            vec![],
            vec![HUB],
            vec![HUB, OTHER],
            vec![HUB, &narrow("base/*")],
            vec![HUB, "kind = 'dockerhub'"],
            vec![
                HUB,
                "kind = 'quay'\nregistry = 'any'\nrepositories = ['quay.io/shop/*']",
            ],
        ] {
            assert_eq!(warned(&quiet), Vec::<String>::new(), "{quiet:?}");
        }
        for both in [narrow("shop/*"), narrow("hub.example.com/**")] {
            assert_eq!(
                warned(&[OTHER, HUB, &both]),
                [
                    "tagtrail.toml:3: trigger shop, images.web: each of the sources s1, s2 can move hub.example.com/shop/web:latest; limit with `repositories` the sources that should not"
                ]
            );
        }
        for any in ["kind = 'harbor'\nregistry = 'any'", "kind = 'gitlab'"] {
            let warned = warned(&[any]);
            assert!(
                warned.len() == 1
                    && warned[0].contains("source s0, which is of any registry, can move hub"),
                "{warned:?}"
            );
        }
    }

    #[test]
    fn an_image_that_nothing_can_move_is_warned_about() {
        let warned = |image: &str| {
            let text = format!(
                "[[trigger]]\nname = 'shop'\nimages.web = '{image}'\ntarget.webhook = {{}}\n"
            );
            warned_by(text, &["kind = 'harbor'\nregistry = 'hub.example.com'"])
        };
        assert_eq!(warned("hub.example.com/shop/web"), Vec::<String>::new());
        for (image, cure) in [
            ("hub.exmaple.com/shop/web", "did you mean hub.example.com?"),
            (
                "127.0.0.1:5000/shop/web",
                "add a [[source]] of its registry",
            ),
        ] {
            let warned = warned(image);
            let start = "tagtrail.toml:3: trigger shop, images.web: nothing can move ";
            let right = |warning: &String| warning.starts_with(start) && warning.ends_with(cure);
            assert!(warned.len() == 1 && warned.iter().all(right), "{warned:?}");
        }
    }

    #[test]
    fn a_source_without_digests_needs_a_registry_to_ask() {
        let warned = |registry: &str, more: &str| {
            let source = format!("kind = 'quay'\nregistry = '{registry}'\n{more}");
            warned_by(String::new(), &[&source])
        };
        let access = |name: &str| format!("[[registry]]\nname = '{name}'\nurl = 'https://{name}'");
        assert!(warned("quay.io", &access("quay.io")).is_empty());
        assert!(warned("any", &access("quay.io")).is_empty());
        for (registry, more) in [
            ("quay.io", String::new()),
            ("any", String::new()),
            ("quay.io", access("other.io")),
        ] {
            let warned = warned(registry, &more);
            let line = warned
                .iter()
                .all(|warning| warning.starts_with("tagtrail.toml:4: source.kind: "));
            assert!(warned.len() == 1 && line, "{warned:?}");
        }
    }
}
