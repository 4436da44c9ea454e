//! The sources that can move the images of triggers, for `tagtrail config check`.

use tagtrail_config::{ConfigError, File};
use tagtrail_proto::Image;

use crate::config::{SourceRules, rules};

/// Returns a warning for each image of a trigger that more than one source can move, or a source
/// of any registry.
///
/// # Errors
/// A mistake in a source's entry, with line and cure.
pub fn warnings(file: &File) -> Result<Vec<String>, ConfigError> {
    let sources: Result<Vec<SourceRules>, ConfigError> =
        file.source.iter().map(|entry| rules(file, entry)).collect();
    let sources = sources?;
    let mut warnings = Vec::new();
    for (trigger, name, image) in file.trigger.iter().flat_map(|trigger| {
        let images = trigger.images.iter();
        images.map(move |(name, image)| (trigger.name.get_ref(), name, image))
    }) {
        let movers: Vec<&SourceRules> = sources
            .iter()
            .filter(|rules| can_move(rules, image))
            .collect();
        let mut warn = |message: String| {
            let key = format!("trigger {trigger}, images.{}", name.get_ref());
            let place = name.span().start;
            warnings.push(file.error_at(place, &key, message).to_string());
        };
        for any in movers.iter().filter(|rules| rules.registry.is_none()) {
            warn(format!(
                "source {}, which is of any registry, can move {image}; set `registry` of the source, or limit it with `repositories`",
                any.name
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
    Ok(warnings)
}

fn can_move(rules: &SourceRules, image: &Image) -> bool {
    rules
        .registry
        .as_ref()
        .is_none_or(|registry| *registry == image.registry)
        && rules.may_report(&image.registry, &image.repository)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn warned(sources: &[&str]) -> Vec<String> {
        let mut text = String::from(
            "[[trigger]]\nname = 'shop'\nimages.web = 'hub.example.com/shop/web'\ntarget.webhook = {}\n",
        );
        for (number, source) in sources.iter().enumerate() {
            text +=
                &format!("[[source]]\nname = 's{number}'\nsecret = {{ env = 'S' }}\n{source}\n");
        }
        let file = File::parse(&text, "tagtrail.toml".as_ref()).unwrap();
        warnings(&file).unwrap()
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
}
