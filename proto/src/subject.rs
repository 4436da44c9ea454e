//! Subjects of the bus: one function writes a subject, and one function, the inverse, reads it.
//!
//! In a token, every byte outside `A-Z a-z 0-9 _ -` is written `%XX`. Each part of a repository's
//! path is a token, so that wildcards work on paths. The subject of a push without a tag (a delete
//! of a digest or a repository) ends in the token `%`.

use std::fmt;
use std::str::FromStr;

use sha2::{Digest as _, Sha256};

use crate::{
    Action, Condition, Digest, Image, Name, NameError, Push, Registry, Repository, RolloutState,
    Tag,
};

/// Default number of partitions of PUSHES.
pub const PARTITIONS: u16 = 8;

/// A subject, by the kind of its messages.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Subject {
    /// `tagtrail.push.<partition>.<registry>.<repository…>.<tag or %>`
    Push {
        /// The partition; see [`partition_of`].
        partition: u16,
        /// The registry.
        registry: Registry,
        /// The repository.
        repository: Repository,
        /// The tag, if the push names one.
        tag: Option<Tag>,
    },
    /// `tagtrail.unresolved.<registry>.<repository…>.<tag>`
    Unresolved {
        /// The registry.
        registry: Registry,
        /// The repository.
        repository: Repository,
        /// The tag.
        tag: Tag,
    },
    /// `tagtrail.revision.<registry>.<repository…>.<tag>`
    Revision {
        /// The registry.
        registry: Registry,
        /// The repository.
        repository: Repository,
        /// The tag.
        tag: Tag,
    },
    /// `tagtrail.fence.<partition>`
    Fence {
        /// The partition that the fence guards.
        partition: u16,
    },
    /// `tagtrail.rollout.<trigger>.<state>`
    Rollout {
        /// The trigger.
        trigger: Name,
        /// The new state of the rollout.
        state: RolloutState,
    },
    /// `tagtrail.hold.<hash>`
    Hold {
        /// The hash of the triggers' name or pattern, of [`Subject::of_hold`]: a pattern may have
        /// characters that no subject may have.
        hash: u64,
    },
    /// `tagtrail.trigger.<trigger>.<condition>`
    Trigger {
        /// The trigger.
        trigger: Name,
        /// The new condition.
        condition: Condition,
    },
    /// `tagtrail.manifest.<algorithm>.<hex>`
    Manifest {
        /// The digest.
        digest: Digest,
    },
    /// `tagtrail.quarantine.<source>`
    Quarantine {
        /// The source.
        source: Name,
    },
}

/// The error of text that is not a subject of Tagtrail.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SubjectError {
    /// The text has another form.
    #[error("{0:?} is not a subject of Tagtrail")]
    Form(String),
    /// A name in the subject is not valid.
    #[error("the subject holds an invalid name")]
    Name(#[from] NameError),
}

impl Subject {
    /// Returns the subject of a push: of PUSHES, or of UNRESOLVED if the resolver must ask for the
    /// digest.
    #[must_use]
    pub fn of_push(push: &Push, partitions: u16) -> Subject {
        let (registry, repository) = (push.registry.clone(), push.repository.clone());
        match push.tag.clone() {
            Some(tag) if push.action == Action::Push && push.digest.is_none() => {
                Subject::Unresolved {
                    registry,
                    repository,
                    tag,
                }
            }
            tag => Subject::Push {
                partition: partition_of(&registry, &repository, partitions),
                registry,
                repository,
                tag,
            },
        }
    }

    /// Returns the subject of an image's revisions.
    #[must_use]
    pub fn of_revisions(image: &Image) -> Subject {
        Subject::Revision {
            registry: image.registry.clone(),
            repository: image.repository.clone(),
            tag: image.tag.clone(),
        }
    }

    /// Returns the subject of the holds of a trigger, or of a pattern over triggers: its hash is
    /// the first 8 bytes (big endian) of SHA-256 over the pattern.
    #[must_use]
    pub fn of_hold(triggers: &str) -> Subject {
        let hash = Sha256::digest(triggers);
        let first = hash.iter().take(8);
        Subject::Hold {
            hash: first.fold(0, |number, byte| number << 8 | u64::from(*byte)),
        }
    }

    /// The filter for all messages of Tagtrail: in REVISIONS, both revisions and fences.
    pub const EVERYTHING: &str = "tagtrail.>";
    /// The filter for the pushes of all partitions.
    pub const ALL_PUSHES: &str = "tagtrail.push.>";
    /// The filter for the revisions of all images.
    pub const ALL_REVISIONS: &str = "tagtrail.revision.>";
    /// The filter for the changes of all rollouts.
    pub const ALL_ROLLOUTS: &str = "tagtrail.rollout.>";
    /// The filter for the changes of all holds.
    pub const ALL_HOLDS: &str = "tagtrail.hold.*";
    /// The filter for all manifests.
    pub const ALL_MANIFESTS: &str = "tagtrail.manifest.>";

    /// Returns the filter for the pushes of one partition.
    #[must_use]
    pub fn all_pushes(partition: u16) -> String {
        format!("tagtrail.push.{partition}.>")
    }
}

impl fmt::Display for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let image = |f: &mut fmt::Formatter<'_>,
                     registry: &Registry,
                     repository: &Repository,
                     tag: Option<&Tag>| {
            write!(f, ".{}", escape(registry.as_ref()))?;
            for part in repository.as_ref().split('/') {
                write!(f, ".{}", escape(part))?;
            }
            match tag {
                Some(tag) => write!(f, ".{}", escape(tag.as_ref())),
                None => f.write_str(".%"),
            }
        };
        match self {
            Subject::Push {
                partition,
                registry,
                repository,
                tag,
            } => {
                write!(f, "tagtrail.push.{partition}")?;
                image(f, registry, repository, tag.as_ref())
            }
            Subject::Unresolved {
                registry,
                repository,
                tag,
            } => {
                f.write_str("tagtrail.unresolved")?;
                image(f, registry, repository, Some(tag))
            }
            Subject::Revision {
                registry,
                repository,
                tag,
            } => {
                f.write_str("tagtrail.revision")?;
                image(f, registry, repository, Some(tag))
            }
            Subject::Fence { partition } => write!(f, "tagtrail.fence.{partition}"),
            Subject::Rollout { trigger, state } => write!(f, "tagtrail.rollout.{trigger}.{state}"),
            Subject::Trigger { trigger, condition } => {
                write!(f, "tagtrail.trigger.{trigger}.{condition}")
            }
            Subject::Hold { hash } => write!(f, "tagtrail.hold.{hash:016x}"),
            Subject::Manifest { digest } => {
                // A digest has a single colon, between algorithm and hex.
                let tokens = digest.to_string().replace(':', ".");
                write!(f, "tagtrail.manifest.{tokens}")
            }
            Subject::Quarantine { source } => write!(f, "tagtrail.quarantine.{source}"),
        }
    }
}

impl FromStr for Subject {
    type Err = SubjectError;

    fn from_str(text: &str) -> Result<Subject, SubjectError> {
        let form = || SubjectError::Form(crate::clean_text(text, 200));
        let tokens: Vec<&str> = text.split('.').collect();
        let subject = match tokens.as_slice() {
            ["tagtrail", "push", partition, image @ ..] => {
                let (registry, repository, tag) = parse_image(image).ok_or_else(form)?;
                let tag = if tag == "%" {
                    None
                } else {
                    Some(unescape(tag).ok_or_else(form)?.parse()?)
                };
                Subject::Push {
                    partition: parse_partition(partition).ok_or_else(form)?,
                    registry: registry.parse()?,
                    repository: repository.parse()?,
                    tag,
                }
            }
            ["tagtrail", kind @ ("unresolved" | "revision"), image @ ..] => {
                let (registry, repository, tag) = parse_image(image).ok_or_else(form)?;
                let (registry, repository, tag) = (
                    registry.parse()?,
                    repository.parse()?,
                    unescape(tag).ok_or_else(form)?.parse()?,
                );
                if *kind == "revision" {
                    Subject::Revision {
                        registry,
                        repository,
                        tag,
                    }
                } else {
                    Subject::Unresolved {
                        registry,
                        repository,
                        tag,
                    }
                }
            }
            ["tagtrail", "fence", partition] => Subject::Fence {
                partition: parse_partition(partition).ok_or_else(form)?,
            },
            ["tagtrail", "rollout", trigger, state] => Subject::Rollout {
                trigger: trigger.parse()?,
                state: state.parse()?,
            },
            ["tagtrail", "trigger", trigger, condition] => Subject::Trigger {
                trigger: trigger.parse()?,
                condition: condition.parse()?,
            },
            ["tagtrail", "hold", hash] => Subject::Hold {
                hash: u64::from_str_radix(hash, 16).map_err(|_| form())?,
            },
            ["tagtrail", "manifest", algorithm, hex] => Subject::Manifest {
                digest: format!("{algorithm}:{hex}").parse()?,
            },
            ["tagtrail", "quarantine", source] => Subject::Quarantine {
                source: source.parse()?,
            },
            _ => return Err(form()),
        };
        // Each subject has a single spelling; any other spelling of the same names is refused.
        if subject.to_string() == text {
            Ok(subject)
        } else {
            Err(form())
        }
    }
}

fn parse_partition(text: &str) -> Option<u16> {
    text.parse().ok()
}

/// Returns the registry, the repository and the last token, still escaped.
fn parse_image<'a>(tokens: &[&'a str]) -> Option<(String, String, &'a str)> {
    let [registry, path @ .., tag] = tokens else {
        return None;
    };
    if path.is_empty() {
        return None;
    }
    let path: Option<Vec<String>> = path.iter().map(|part| unescape(part)).collect();
    Some((unescape(registry)?, path?.join("/"), tag))
}

/// Returns a name as one token of a subject.
#[must_use]
pub fn escape(name: &str) -> String {
    let mut token = String::with_capacity(name.len());
    for byte in name.bytes() {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-') {
            token.push(char::from(byte));
        } else {
            token.push_str(&format!("%{byte:02X}"));
        }
    }
    token
}

fn unescape(token: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(token.len());
    let mut rest = token.as_bytes();
    while let [first, after @ ..] = rest {
        rest = after;
        if *first == b'%' {
            let [high, low, after @ ..] = rest else {
                return None;
            };
            rest = after;
            let value = |digit: u8| char::from(digit).to_digit(16);
            bytes.push(u8::try_from(value(*high)? << 4 | value(*low)?).ok()?);
        } else {
            bytes.push(*first);
        }
    }
    String::from_utf8(bytes).ok()
}

/// Returns the partition of a repository: the first 8 bytes (big endian) of SHA-256 over
/// `registry/repository`, modulo `partitions`.
///
/// All pushes of a repository are in one partition, and so in one order.
#[must_use]
pub fn partition_of(registry: &Registry, repository: &Repository, partitions: u16) -> u16 {
    let hash = Sha256::new()
        .chain_update(registry.as_ref())
        .chain_update("/")
        .chain_update(repository.as_ref())
        .finalize();
    let first = hash
        .iter()
        .take(8)
        .fold(0_u64, |number, byte| number << 8 | u64::from(*byte));
    u16::try_from(first % u64::from(partitions.max(1))).unwrap_or(0)
}
