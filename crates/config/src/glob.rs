//! Patterns over repository paths.

use serde::Deserialize;

/// A pattern over a repository's path: `*` is any text within one part, `**` any number of whole parts. `shop/**` is every
/// repository below `shop`, and `shop` itself is not.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct Glob(String);

impl TryFrom<String> for Glob {
    type Error = String;

    fn try_from(pattern: String) -> Result<Glob, String> {
        let allowed = |byte: u8| {
            byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"._-/*".contains(&byte)
        };
        let part = |part: &str| part == "**" || (!part.is_empty() && !part.contains("**"));
        if pattern.len() <= 255 && pattern.bytes().all(allowed) && pattern.split('/').all(part) {
            Ok(Glob(pattern))
        } else {
            Err(format!(
                "{pattern:?} is not a pattern over repositories; write paths with * within a part and ** for any parts, such as \"shop/**\""
            ))
        }
    }
}

impl Glob {
    /// Whether a repository's path matches.
    #[must_use]
    pub fn matches(&self, repository: &str) -> bool {
        let pattern: Vec<&str> = self.0.split('/').collect();
        let parts: Vec<&str> = repository.split('/').collect();
        // matched[n]: whether the pattern so far matches the first n parts. One row at a time, so no pattern is slow.
        let mut matched = vec![false; parts.len() + 1];
        matched[0] = true;
        for token in pattern {
            let before = matched;
            matched = vec![false; parts.len() + 1];
            for n in 0..=parts.len() {
                matched[n] = if token == "**" {
                    // `**` stands for at least one part.
                    n > 0 && (before[n - 1] || matched[n - 1])
                } else {
                    n > 0 && before[n - 1] && within_part(token.as_bytes(), parts[n - 1].as_bytes())
                };
            }
        }
        matched[parts.len()]
    }
}

/// `*` within one part: the usual backtracking to the last star, which is never worse than quadratic.
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
    fn what_can_match_no_repository_is_refused() {
        for pattern in ["", "/a", "a//b", "A", "a**", "a b", "../a?"] {
            assert!(Glob::try_from(pattern.to_owned()).is_err(), "{pattern}");
        }
    }
}
