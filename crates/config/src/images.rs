//! The images of triggers: tags and policies.

use tagtrail_policy::selection::WatchedImage;
use tagtrail_policy::watched::Watched;
use tagtrail_proto::Image;

use crate::{Names, Trigger};

/// A mistake in an image.
pub(crate) struct Wrong {
    /// The setting of the policy, such as `.semver.range`; empty for the image itself.
    pub(crate) key: String,
    pub(crate) message: String,
}

/// Reads an image by the names of the registries.
pub(crate) fn read(written: &WatchedImage, names: &Names) -> Result<Watched, Wrong> {
    match written {
        WatchedImage::Reference(text) => {
            names.image(text).map(Watched::Tag).map_err(|error| Wrong {
                key: String::new(),
                message: error.to_string(),
            })
        }
        WatchedImage::Policy(policy) => names.policy(policy).map_err(|refused| Wrong {
            key: format!(".{}", refused.field),
            message: refused.cause,
        }),
    }
}

impl Trigger {
    /// Returns warnings about tags that are read in another spelling, and about policies that take
    /// other tags than most people expect.
    pub(crate) fn image_warnings(&self) -> Vec<String> {
        let mut warnings = Vec::new();
        for (name, written) in &self.written {
            let messages = match (written.get_ref(), self.images.get(name)) {
                (WatchedImage::Reference(text), Some(Watched::Tag(image))) => {
                    other_spelling(text, image).into_iter().collect()
                }
                (_, Some(Watched::Policy(policy))) => policy.policy.rule().warnings(),
                _ => Vec::new(),
            };
            let key = format!("trigger.images.{}", name.get_ref());
            let at = written.span().start;
            let warning = |message| self.error_at(at, &key, message).to_string();
            warnings.extend(messages.into_iter().map(warning));
        }
        warnings
    }
}

/// Returns the warning about a tag that its registry writes in lower case.
fn other_spelling(text: &str, image: &Image) -> Option<String> {
    let (_, tag) = text.rsplit_once(':')?;
    let read = image.tag.as_ref();
    (tag != read && tag.eq_ignore_ascii_case(read)).then(|| {
        let registry = &image.registry;
        format!("{registry} writes tags in lower case, so {text} is read as {image}")
    })
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use crate::File;

    fn parse(image: &str) -> Result<File, String> {
        let text = format!(
            "[[registry]]\nname = \"registry.example.com\"\nurl = \"https://registry.example.com\"\naliases = [\"hub\"]\n\n\
             [[trigger]]\nname = \"shop\"\ntarget.command = {{ run = [\"true\"] }}\nimages.api = {image}\n"
        );
        let file = File::parse(&text, Path::new("tagtrail.toml"));
        let file = file.map_err(|error| error.to_string())?;
        match file.broken.first() {
            Some(broken) => Err(broken.problem.to_string()),
            None => Ok(file),
        }
    }

    #[test]
    fn a_policy_is_read_under_the_name_of_its_registry() {
        let file = parse("{ repository = \"hub/shop/api\", semver = \"^1.4\" }").unwrap();
        let images: Vec<String> = file.trigger[0]
            .images
            .values()
            .map(ToString::to_string)
            .collect();
        assert_eq!(images, ["registry.example.com/shop/api (semver ^1.4)"]);
        assert_eq!(file.warnings(), Vec::<String>::new());
        let tag = parse("{ repository = \"hub/shop/api\", tag = \"latest\" }").unwrap();
        let image = tag.trigger[0].images.values().next().unwrap();
        assert_eq!(
            image.tag().unwrap().to_string(),
            "registry.example.com/shop/api:latest"
        );
    }

    #[test]
    fn a_wrong_policy_is_refused_with_line_key_and_cure() {
        for (image, message) in [
            (
                "{ repository = \"hub/shop/api\", semver = \"^1.x.\" }",
                "tagtrail.toml:9: trigger.images.api.semver.range: ",
            ),
            (
                "{ repository = \"hub/shop/api:1\", semver = \"^1\" }",
                "tagtrail.toml:9: trigger.images.api.repository: \"registry.example.com/shop/api:1\" is no repository; write registry and path",
            ),
            (
                "{ repository = \"hub/shop/api\" }",
                "tagtrail.toml:9: trigger.images.api.repository: nothing orders the tags; write one of tag, semver",
            ),
            (
                "{ repository = \"hub/shop/api\", semvr = \"^1\" }",
                "tagtrail.toml:9: trigger[0].images.semvr: unknown field `semvr`",
            ),
            (
                "{ repository = \"hub/shop/api\", newest = \"pushed\", min_age = \"soon\" }",
                "tagtrail.toml:9: trigger[0].images.min_age: \"soon\" is not a duration",
            ),
            (
                "7",
                "tagtrail.toml:9: trigger[0].images: invalid type: integer `7`, expected a string or a table",
            ),
        ] {
            let error = parse(image).unwrap_err();
            assert!(error.starts_with(message), "{error}");
        }
    }

    #[test]
    fn a_range_that_takes_other_tags_than_expected_has_a_warning() {
        let file = parse("{ repository = \"hub/shop/api\", semver = \"^*\" }").unwrap();
        let warnings = file.warnings();
        assert_eq!(warnings.len(), 1, "{warnings:?}");
        assert!(
            warnings[0].starts_with("tagtrail.toml:9: trigger.images.api: "),
            "{warnings:?}"
        );
    }
}
