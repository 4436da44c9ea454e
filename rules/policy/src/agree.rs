//! Images of one build: the newest value that all images of a trigger have.

use std::collections::BTreeSet;

use serde::Deserialize;
use time::OffsetDateTime;

use crate::selection::{Kept, Last, Outcome, Policy, TagHead};

/// The value that all images of a trigger must share.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Agree {
    /// The tag.
    Tag,
    /// The commit: `org.opencontainers.image.revision` of the manifest.
    Commit,
}

/// A tag that may be selected, with the commit of its image, if the manifest is read and names one.
#[derive(Debug, Clone)]
pub struct AgreeingTag {
    /// The tag.
    pub head: TagHead,
    /// The commit.
    pub commit: Option<String>,
}

/// An image of the trigger.
#[derive(Debug)]
pub struct Side<'a> {
    /// The policy.
    pub policy: &'a Policy,
    /// The best tags, and the selected one.
    pub tags: &'a [AgreeingTag],
    /// The last selection.
    pub last: Option<&'a Last>,
}

impl Agree {
    /// Returns the value of a tag.
    #[must_use]
    pub fn value(self, tag: &AgreeingTag) -> Option<&str> {
        match self {
            Agree::Tag => Some(tag.head.tag.as_ref()),
            Agree::Commit => tag.commit.as_deref(),
        }
    }

    /// Returns the newest value that all images have, in the order of the first image. A value that
    /// would lower an image does not count, unless the policy of the image lowers it.
    #[must_use]
    pub fn newest<'a>(self, sides: &[Side<'a>], now: OffsetDateTime) -> Option<&'a str> {
        let first = sides.first()?;
        let mut keys: Vec<_> = first
            .tags
            .iter()
            .filter_map(|tag| {
                let key = first.policy.rule().key(&tag.head.tag, tag.head.times);
                Some((key.ok()?, self.value(tag)?))
            })
            .collect();
        keys.sort_unstable_by(|a, b| b.0.cmp(&a.0));
        let mut tried = BTreeSet::new();
        let mut values = keys.into_iter().map(|(_, value)| value);
        values.find(|value| {
            tried.insert(*value) && sides.iter().all(|side| self.has(side, value, now))
        })
    }

    /// Returns the tags of an image with this value, and the selected one.
    #[must_use]
    pub fn tags_of(self, side: &Side<'_>, value: &str) -> Vec<TagHead> {
        let agrees = |tag: &&AgreeingTag| {
            self.value(tag) == Some(value) || side.last.is_some_and(|last| last.tag == tag.head.tag)
        };
        let tags = side.tags.iter().filter(agrees);
        tags.map(|tag| tag.head.clone()).collect()
    }

    /// Returns whether an image would have this value, or waits for a manifest to have it.
    fn has(self, side: &Side<'_>, value: &str, now: OffsetDateTime) -> bool {
        let tags = self.tags_of(side, value);
        let chosen = match side.policy.select(&tags, side.last, now).outcome {
            Outcome::Select { head, .. } => &head.tag,
            Outcome::Wait { tag, .. } => tag,
            Outcome::Keep(Kept::Best) => match side.last {
                Some(last) => &last.tag,
                None => return false,
            },
            Outcome::Keep(_) | Outcome::Hold(_) | Outcome::Nothing => return false,
        };
        let mut all = side.tags.iter();
        let tag = all.find(|tag| tag.head.tag == *chosen);
        tag.and_then(|tag| self.value(tag)) == Some(value)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::selection::{Fit, ImagePolicy, Times};
    use tagtrail_proto::Digest;

    const NOW: OffsetDateTime = OffsetDateTime::UNIX_EPOCH;

    fn policy(settings: &str) -> Policy {
        let text = format!("repository = \"registry.example.com/shop/api\"\n{settings}");
        let settings: ImagePolicy = toml::from_str(&text).unwrap();
        settings.compile().unwrap()
    }

    fn tags(tags: &[(&str, &str)]) -> Vec<AgreeingTag> {
        let tag = |(tag, commit): &(&str, &str)| AgreeingTag {
            head: TagHead {
                tag: tag.parse().unwrap(),
                digest: Some(Digest::sha256_of(tag.as_bytes())),
                times: Times {
                    pushed: NOW,
                    created: None,
                },
                recorded_at: NOW,
                tombstone: false,
                fit: Fit::Fits,
            },
            commit: Some((*commit).to_owned()),
        };
        tags.iter().map(tag).collect()
    }

    fn last(policy: &Policy, tag: &AgreeingTag) -> Last {
        Last {
            tag: tag.head.tag.clone(),
            key: policy.rule().key(&tag.head.tag, tag.head.times).unwrap(),
            digest: tag.head.digest.clone().unwrap(),
            rule_changed: false,
            released: false,
        }
    }

    #[test]
    fn the_newest_tag_that_all_images_have_is_agreed_on() {
        let highest = policy("numeric = \"highest\"");
        let (web, worker) = (
            tags(&[("1", ""), ("2", ""), ("3", "")]),
            tags(&[("1", ""), ("2", "")]),
        );
        let side = |tags| Side {
            policy: &highest,
            tags,
            last: None,
        };
        let newest = |web, worker| Agree::Tag.newest(&[side(web), side(worker)], NOW);
        assert_eq!(newest(&web, &worker), Some("2"));
        assert_eq!(newest(&web[2..], &worker), None);
    }

    #[test]
    fn a_value_that_lowers_an_image_does_not_count() {
        let highest = policy("numeric = \"highest\"");
        let (web, worker) = (tags(&[("1", ""), ("2", "")]), tags(&[("1", "")]));
        let before = last(&highest, &web[1]);
        let sides = [
            Side {
                policy: &highest,
                tags: &web,
                last: Some(&before),
            },
            Side {
                policy: &highest,
                tags: &worker,
                last: None,
            },
        ];
        assert_eq!(Agree::Tag.newest(&sides, NOW), None);
    }

    #[test]
    fn tags_of_different_names_agree_by_their_commit() {
        let (web, worker) = (policy("semver = \"*\""), policy("tag = \"latest\""));
        let web_tags = tags(&[("1.0.0", "a"), ("1.1.0", "b"), ("1.2.0", "c")]);
        for (commit, value) in [("b", Some("b")), ("d", None)] {
            let worker_tags = tags(&[("latest", commit)]);
            let side = |policy, tags| Side {
                policy,
                tags,
                last: None,
            };
            let sides: [Side<'_>; 2] = [side(&web, &web_tags), side(&worker, &worker_tags)];
            assert_eq!(Agree::Commit.newest(&sides, NOW), value);
        }
    }
}
