//! Patterns over repositories and images.

use serde::Deserialize;
use tagtrail_proto::Image;

/// A pattern over the path of a repository. `*` matches any text within one part; `**` matches one
/// or more whole parts. `shop/**` matches every repository below `shop`, but not `shop` itself. At
/// most 255 bytes.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct Glob(String);

impl TryFrom<String> for Glob {
    type Error = String;

    fn try_from(pattern: String) -> Result<Glob, String> {
        let allowed = |byte: u8| {
            byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"._-/*".contains(&byte)
        };
        if pattern.len() <= 255 && pattern.bytes().all(allowed) && pattern.split('/').all(is_part) {
            Ok(Glob(pattern))
        } else {
            Err(format!(
                "{pattern:?} is not a pattern over repositories; write paths with * within a part and ** for any parts, such as \"shop/**\""
            ))
        }
    }
}

impl Glob {
    /// Returns true if the path of the repository matches.
    #[must_use]
    pub fn matches(&self, repository: &str) -> bool {
        parts_match(&self.0, repository)
    }
}

/// A pattern over images. Registry and path match part by part, as in [`Glob`]. A tag follows a
/// colon and may contain `*`; without a tag every tag matches. Examples:
/// `registry.example.com/shop/**:latest`, `**/web`, `**`. At most 512 bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImageGlob {
    repository: String,
    tag: Option<String>,
}

impl std::str::FromStr for ImageGlob {
    type Err = String;

    fn from_str(pattern: &str) -> Result<ImageGlob, String> {
        // A colon before the last slash belongs to the port of the registry.
        let last_part = pattern.rfind('/').map_or(0, |slash| slash + 1);
        let (repository, tag) = match pattern[last_part..].split_once(':') {
            Some((name, tag)) => (&pattern[..last_part + name.len()], Some(tag)),
            None => (pattern, None),
        };
        let in_name = |byte: u8| byte.is_ascii_alphanumeric() || b"._-/*:[]".contains(&byte);
        let in_tag = |byte: u8| byte.is_ascii_alphanumeric() || b"._-*".contains(&byte);
        let good = pattern.len() <= 512
            && repository.bytes().all(in_name)
            && repository.split('/').all(is_part)
            && tag.is_none_or(|tag| !tag.is_empty() && tag.bytes().all(in_tag));
        if good {
            Ok(ImageGlob {
                repository: repository.to_owned(),
                tag: tag.map(str::to_owned),
            })
        } else {
            let shown: String = pattern.chars().take(80).collect();
            Err(format!(
                "{shown:?} is not a pattern over images; write * within a part and ** for any parts, such as \"registry.example.com/shop/**:latest\""
            ))
        }
    }
}

impl ImageGlob {
    /// Returns true if registry, path and tag of the image match.
    #[must_use]
    pub fn matches(&self, image: &Image) -> bool {
        let tag = |tag: &String| within_part(tag.as_bytes(), image.tag.as_ref().as_bytes());
        self.tag.as_ref().is_none_or(tag)
            && parts_match(
                &self.repository,
                &format!("{}/{}", image.registry, image.repository),
            )
    }
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

/// Matches `*` within one part by backtracking to the last star: quadratic at worst.
fn within_part(pattern: &[u8], text: &[u8]) -> bool {
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
            ("a*b*c", "aXbXbc", true),
            ("a/**/z/**/y", "a/b/z/z/c/y", true),
        ] {
            assert_eq!(
                Glob::try_from(pattern.to_owned()).unwrap().matches(path),
                expected,
                "{pattern} {path}"
            );
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
        for wrong in [
            "",
            "a/",
            "/a",
            "a/b:",
            "a**",
            "a/b:c:d",
            "a b",
            "a/b@sha256:00",
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
