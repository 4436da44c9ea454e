//! Patterns over repositories and images.

use std::str::FromStr;

use serde::Deserialize;
use tagtrail_proto::{Image, Registry, Repository, Tag};

/// A pattern over the path of a repository. `*` matches any text within one part; `**` matches one
/// or more whole parts. `shop/**` matches every repository below `shop`, but not `shop` itself. A
/// registry before the path is understood: `registry.example.com/shop/**`. At most 255 bytes.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct Glob {
    /// The pattern as a path. The first part of a path may look like a registry (`shop.v2/web`).
    path: String,
    /// The pattern as a registry and a path.
    qualified: Option<(Registry, String)>,
}

impl TryFrom<String> for Glob {
    type Error = String;

    fn try_from(pattern: String) -> Result<Glob, String> {
        let allowed = |byte: u8| {
            byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"._-/*".contains(&byte)
        };
        let is_path = |path: &str| path.bytes().all(allowed) && path.split('/').all(is_part);
        let qualified = pattern.split_once('/').and_then(|(first, rest)| {
            let registry = first.parse::<Registry>().ok()?;
            is_path(rest).then(|| (registry, rest.to_owned()))
        });
        if pattern.len() <= 255 && (qualified.is_some() || is_path(&pattern)) {
            Ok(Glob {
                path: pattern,
                qualified,
            })
        } else {
            Err(format!(
                "{pattern:?} is not a pattern over repositories; write paths with * within a part and ** for any parts, such as \"shop/**\""
            ))
        }
    }
}

impl Glob {
    /// Returns true if the repository matches.
    #[must_use]
    pub fn matches(&self, registry: &Registry, repository: &Repository) -> bool {
        let repository = repository.as_ref();
        parts_match(&self.path, repository)
            || self
                .qualified
                .as_ref()
                .is_some_and(|(named, path)| named == registry && parts_match(path, repository))
    }

    /// Returns the pattern with another name of its registry.
    #[must_use]
    pub fn with_registry(self, name: impl FnOnce(Registry) -> Registry) -> Glob {
        Glob {
            qualified: self
                .qualified
                .map(|(registry, path)| (name(registry), path)),
            ..self
        }
    }
}

/// A pattern over images. Registry and path match part by part, as in [`Glob`]. A pattern whose
/// first part is no registry matches in any registry: `shop/**` is `**/shop/**`. A tag follows a
/// colon and may contain `*`; without a tag every tag matches. Examples:
/// `registry.example.com/shop/**:latest`, `shop/web`, `**`. At most 512 bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImageGlob {
    /// Patterns over registry and path; an image matches one of them.
    paths: Vec<String>,
    tag: Option<String>,
}

impl FromStr for ImageGlob {
    type Err = String;

    fn from_str(pattern: &str) -> Result<ImageGlob, String> {
        let refused = |reason: &str| {
            let shown: String = pattern.chars().take(80).collect();
            format!(
                "{shown:?} is not a pattern over images: {reason}; write * within a part and ** for any parts, such as \"registry.example.com/shop/**:latest\""
            )
        };
        if pattern.len() > 512 {
            return Err(refused("it is longer than 512 bytes"));
        }
        // A colon before the last slash belongs to the port of the registry.
        let last_part = pattern.rfind('/').map_or(0, |slash| slash + 1);
        let (path, tag) = match pattern[last_part..].split_once(':') {
            Some((name, tag)) => (&pattern[..last_part + name.len()], Some(tag)),
            None => (pattern, None),
        };
        if tag.is_some_and(|tag| !can_be::<Tag>(tag, "1")) {
            return Err(refused("no tag can match"));
        }
        let (first, rest) = match path.split_once('/') {
            Some((first, rest)) => (first, Some(rest)),
            None => (path, None),
        };
        let in_repository = |part: &str| part == "**" || can_be::<Repository>(part, "1");
        if rest.is_some_and(|rest| !rest.split('/').all(in_repository)) {
            return Err(refused("no repository can match"));
        }
        let anywhere = || format!("**/{path}");
        let paths = match rest {
            _ if first == "**" => vec![path.to_owned()],
            // A registry is written in lower case in every image.
            Some(rest) if is_registry(first) => {
                vec![format!("{}/{rest}", first.to_ascii_lowercase())]
            }
            None if is_registry(first) => {
                return Err(refused(&format!(
                    "{first} is a registry, without a repository ({first}/** is all of it)"
                )));
            }
            Some(_) if first == "*" => vec![path.to_owned()],
            // `shop*` may be a part of a path, and may be the beginning of a registry.
            _ if in_repository(first) && first.contains('*') => vec![path.to_owned(), anywhere()],
            _ if in_repository(first) => vec![anywhere()],
            _ if rest.is_some() && can_be::<Registry>(first, "1.1") => vec![path.to_owned()],
            _ => return Err(refused("no registry and no repository can match")),
        };
        Ok(ImageGlob {
            paths,
            tag: tag.map(str::to_owned),
        })
    }
}

impl ImageGlob {
    /// Returns true if registry, path and tag of the image match.
    #[must_use]
    pub fn matches(&self, image: &Image) -> bool {
        let tag = |glob: &String| within_part(glob.as_bytes(), image.tag.as_ref().as_bytes());
        self.tag.as_ref().is_none_or(tag)
            && self.matches_repository(&image.registry, &image.repository)
    }

    /// Returns true if registry and path match.
    #[must_use]
    pub fn matches_repository(&self, registry: &Registry, repository: &Repository) -> bool {
        let text = format!("{registry}/{repository}");
        self.paths.iter().any(|path| parts_match(path, &text))
    }

    /// Returns the pattern for a registry that writes every tag in lower case.
    #[must_use]
    pub fn with_lowercase_tag(&self) -> ImageGlob {
        ImageGlob {
            paths: self.paths.clone(),
            tag: self.tag.as_ref().map(|tag| tag.to_ascii_lowercase()),
        }
    }

    /// Returns the pattern over the tag, with `*` for any text. `None`: every tag matches.
    #[must_use]
    pub fn tag(&self) -> Option<&str> {
        self.tag.as_deref()
    }
}

/// Returns whether a part of a pattern is a registry, by the rule of image references: a dot, a
/// port, or `localhost`.
fn is_registry(part: &str) -> bool {
    // The second text is for a `*` in the brackets of an IPv6 address.
    can_be::<Registry>(part, "1") || can_be::<Registry>(part, "::1")
}

/// Returns whether a name matches a part of a pattern: the part with `text` for each `*`.
fn can_be<T: FromStr>(part: &str, text: &str) -> bool {
    !part.contains("**") && part.replace('*', text).parse::<T>().is_ok()
}

/// Returns true for `**`, and for a non-empty part without `**`.
fn is_part(part: &str) -> bool {
    part == "**" || (!part.is_empty() && !part.contains("**"))
}

fn parts_match(pattern: &str, text: &str) -> bool {
    let parts: Vec<&str> = text.split('/').collect();
    // `matched[n]`: the pattern parts so far match the first n parts of the text. One row for each
    // pattern part, so the time is the product of both lengths.
    let mut matched = vec![false; parts.len() + 1];
    matched[0] = true;
    for token in pattern.split('/') {
        let before = matched;
        matched = vec![false; parts.len() + 1];
        for n in 0..=parts.len() {
            matched[n] = if token == "**" {
                // `**` matches at least one part.
                n > 0 && (before[n - 1] || matched[n - 1])
            } else {
                n > 0 && before[n - 1] && within_part(token.as_bytes(), parts[n - 1].as_bytes())
            };
        }
    }
    matched[parts.len()]
}

/// Returns whether a part matches a pattern in which `*` is any text, by backtracking to the last
/// star: quadratic at worst.
#[must_use]
pub fn within_part(pattern: &[u8], text: &[u8]) -> bool {
    let (mut p, mut t, mut star) = (0, 0, None);
    while t < text.len() {
        if pattern.get(p) == Some(&b'*') {
            star = Some((p, t));
            p += 1;
        } else if pattern.get(p) == text.get(t) {
            (p, t) = (p + 1, t + 1);
        } else if let Some((at, from)) = star {
            (p, t) = (at + 1, from + 1);
            star = Some((at, from + 1));
        } else {
            return false;
        }
    }
    pattern[p..].iter().all(|byte| *byte == b'*')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_star_stays_within_its_part_and_two_do_not() {
        for (pattern, path, expected) in [
            ("shop/web", "shop/web", true),
            ("shop/web", "shop/webs", false),
            ("shop/*", "shop/web", true),
            ("shop/*", "shop/web/api", false),
            ("shop/**", "shop/web/api", true),
            ("shop/**", "shop", false),
            ("shop/**", "shopping/web", false),
            ("**/api", "a/b/api", true),
            ("**", "a", true),
            ("s*p/*-api", "shop/web-api", true),
            ("s*p/*-api", "shop/web-apis", false),
            ("a*b*c", "axbxbc", true),
            ("a/**/z/**/y", "a/b/z/z/c/y", true),
        ] {
            let registry = "registry.example.com".parse().unwrap();
            assert_eq!(
                Glob::try_from(pattern.to_owned())
                    .unwrap()
                    .matches(&registry, &path.parse().unwrap()),
                expected,
                "{pattern} {path}"
            );
        }
    }

    #[test]
    fn a_registry_before_the_path_of_a_repository_is_understood() {
        for (pattern, registry, path, expected) in [
            (
                "hub.example.com/shop/**",
                "hub.example.com",
                "shop/web",
                true,
            ),
            ("hub.example.com/shop/**", "hub.example.com", "base", false),
            (
                "hub.example.com/shop/**",
                "a.example.com",
                "shop/web",
                false,
            ),
            ("localhost:5000/*", "localhost:5000", "web", true),
            ("[2001:db8::1]:5000/*", "[2001:db8::1]:5000", "web", true),
            ("localhost/*", "hub.example.com", "localhost/web", true),
            ("shop.v2/**", "hub.example.com", "shop.v2/web", true),
            // A part with `*` is a part of a path: `*/web` is no `web` of each registry.
            ("*/web", "hub.example.com", "web", false),
            ("*.example.com/web", "hub.example.com", "web", false),
        ] {
            let glob = Glob::try_from(pattern.to_owned()).unwrap();
            let matched = glob.matches(&registry.parse().unwrap(), &path.parse().unwrap());
            assert_eq!(matched, expected, "{pattern} {registry}/{path}");
        }
        for wrong in [
            "localhost:5000",
            "a/localhost:5000/b",
            "localhost:5000/",
            "localhost:5000/A",
        ] {
            assert!(Glob::try_from(wrong.to_owned()).is_err(), "{wrong}");
        }
    }

    #[test]
    fn an_image_matches_by_registry_path_and_tag() {
        for (pattern, image, expected) in [
            ("**", "registry.example.com/foo/bar:latest", true),
            ("**:latest", "registry.example.com/foo/bar:latest", true),
            ("**:latest", "registry.example.com/foo/bar:v1", false),
            (
                "registry.example.com/foo/**:latest",
                "registry.example.com/foo/bar/baz:latest",
                true,
            ),
            (
                "registry.example.com/foo/**:latest",
                "registry.example.com/foo:latest",
                false,
            ),
            (
                "registry.example.com/foo/bar",
                "registry.example.com/foo/bar:v1",
                true,
            ),
            (
                "registry.example.com/foo/bar:v1*",
                "registry.example.com/foo/bar:v1.2",
                true,
            ),
            (
                "*.example.com/foo/*",
                "registry.example.com/foo/bar:x",
                true,
            ),
            ("registry:5000/foo", "registry:5000/foo:x", true),
            ("registry:5000/foo:y", "registry:5000/foo:x", false),
            ("registry:*/foo", "registry:5000/foo:x", true),
            (
                "**/bar:Latest",
                "registry.example.com/foo/bar:latest",
                false,
            ),
        ] {
            let glob: ImageGlob = pattern.parse().unwrap();
            assert_eq!(
                glob.matches(&image.parse().unwrap()),
                expected,
                "{pattern} {image}"
            );
        }
    }

    #[test]
    fn a_pattern_without_a_registry_matches_in_any_registry() {
        for (pattern, image, expected) in [
            ("team/**", "registry.example.com/team/api:v1", true),
            ("team/**", "localhost:5000/org/team/api:v1", true),
            ("team/**", "registry.example.com/team:v1", false),
            ("team/**", "registry.example.com/teams/api:v1", false),
            ("api", "[::1]:5000/api:v1", true),
            ("api:v*", "registry.example.com/team/api:v1", true),
            ("api:v*", "registry.example.com/team/api:latest", false),
            ("*", "registry.example.com/team/api:v1", true),
            ("*:v1", "registry.example.com/api:v1", true),
            // A first part with a dot, a port or the name localhost is a registry.
            ("team.io/api", "registry.example.com/team.io/api:v1", false),
            (
                "localhost/api",
                "registry.example.com/localhost/api:v1",
                false,
            ),
            ("Team.IO/api", "team.io/api:v1", true),
            ("[fd00::*]:*/api", "[fd00::7]:5000/api:v1", true),
            // A star alone is one part, here a registry.
            ("*/api", "registry.example.com/api:v1", true),
            ("*/api", "registry.example.com/team/api:v1", false),
            // A part with a star may be a registry or a part of a path.
            ("reg*/api", "registry.example.com/api:v1", true),
            ("te*/api", "registry.example.com/team/api:v1", true),
            ("te*/api", "registry.example.com/a/api:v1", false),
        ] {
            let glob: ImageGlob = pattern.parse().unwrap();
            let matched = glob.matches(&image.parse().unwrap());
            assert_eq!(matched, expected, "{pattern} {image}");
        }
    }

    #[test]
    fn a_pattern_that_can_match_no_image_is_refused() {
        for wrong in [
            "",
            "a/",
            "/a",
            "a/b:",
            "a**",
            "a/***",
            "a/b:c:d",
            "a b",
            "a/b@sha256:00",
            "[",
            "]",
            "[a]/b",
            "team/[ab]",
            "team/a?i",
            "Team/api",
            "team/Api",
            "team/../api",
            "team/-*",
            "registry.example.com/a:b/c",
            "registry.example.com:*",
            "*.example.com",
            "registry.example.com/team/api:.v1",
            "localhost",
            "registry.example.com:70000/api",
        ] {
            assert!(wrong.parse::<ImageGlob>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_pattern_that_can_match_no_repository_is_refused() {
        for pattern in ["", "/a", "a//b", "A", "a**", "a b", "../a?"] {
            assert!(Glob::try_from(pattern.to_owned()).is_err(), "{pattern}");
        }
    }
}
