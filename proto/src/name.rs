//! Names, parsed once. Every value of these types is within the grammar, so that no other code
//! checks names again.
//!
//! The grammar is that of `distribution/reference` and of the OCI distribution specification 1.1.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use crate::Digest;

/// The error of text that is not a valid name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{kind} {text:?} is not valid: {rule}")]
pub struct NameError {
    kind: &'static str,
    text: String,
    rule: &'static str,
}

impl NameError {
    pub(crate) fn new(kind: &'static str, text: &str, rule: &'static str) -> NameError {
        /// Most characters of a name in the error: a hostile name can be long.
        const SHOWN: usize = 80;
        let shown: String = text.chars().take(SHOWN).collect();
        let cut = if shown.len() < text.len() { "…" } else { "" };
        NameError {
            kind,
            text: shown + cut,
            rule,
        }
    }
}

/// Implements the traits of a name that is text. Clones share the text: most names are copied
/// several times on their way.
macro_rules! text_name {
    ($name:ident, $about:literal, $pattern:literal) => {
        impl AsRef<str> for $name {
            fn as_ref(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        string_like!($name, $about, $pattern);
    };
}

/// Implements the traits of a type that is written as one string.
macro_rules! string_like {
    ($name:ident, $about:literal, $pattern:literal) => {
        impl TryFrom<String> for $name {
            type Error = NameError;

            fn try_from(text: String) -> Result<$name, NameError> {
                text.parse()
            }
        }

        impl serde::Serialize for $name {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl<'de> serde::Deserialize<'de> for $name {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<$name, D::Error> {
                struct Parse;

                impl serde::de::Visitor<'_> for Parse {
                    type Value = $name;

                    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                        f.write_str("a string")
                    }

                    // Not by way of a `Cow`, for which serde copies the text first.
                    fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<$name, E> {
                        text.parse().map_err(E::custom)
                    }
                }

                deserializer.deserialize_str(Parse)
            }
        }

        impl schemars::JsonSchema for $name {
            fn schema_name() -> std::borrow::Cow<'static, str> {
                stringify!($name).into()
            }

            fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
                schemars::json_schema!({ "type": "string", "description": $about, "pattern": $pattern })
            }
        }
    };
}

pub(crate) use string_like;

/// A registry: `host` or `host:port`, in lower case, with an IPv6 address in brackets.
///
/// A registry has a dot or a port, or is `localhost`: otherwise it could not be told apart from the
/// first part of a repository's path.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Registry(Arc<str>);

text_name!(
    Registry,
    "a registry: host or host:port",
    r"^([a-z0-9.-]+|\[[0-9a-f:.]+\])(:[0-9]{1,5})?$"
);

impl FromStr for Registry {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Registry, NameError> {
        let error = |rule| NameError::new("the registry", text, rule);
        if text.len() > 255 {
            return Err(error("it is longer than 255 bytes"));
        }
        let lower = text.to_ascii_lowercase();
        if lower.contains('/') || matches!(lower.as_str(), "http:" | "https:") {
            return Err(error(
                "it is a host without https:// and without a path, such as registry.example.com or localhost:5000",
            ));
        }
        let (host, port) = match lower
            .strip_prefix('[')
            .and_then(|rest| rest.split_once(']'))
        {
            Some((address, rest)) => {
                if !valid_ipv6(address) {
                    return Err(error("the address in brackets must be IPv6"));
                }
                (
                    None,
                    rest.strip_prefix(':')
                        .or_else(|| (!rest.is_empty()).then_some("")),
                )
            }
            None => match lower.split_once(':') {
                Some((host, port)) => (Some(host), Some(port)),
                None => (Some(lower.as_str()), None),
            },
        };
        if let Some(port) = port {
            let in_range = (1..=5).contains(&port.len())
                && port.bytes().all(|byte| byte.is_ascii_digit())
                && port.parse::<u16>().is_ok();
            if !in_range {
                return Err(error("the port must be a number up to 65535"));
            }
        }
        if let Some(host) = host {
            if !host.split('.').all(valid_label) {
                return Err(error(
                    "a host is labels of letters, digits and inner hyphens, joined by dots",
                ));
            }
            if port.is_none() && !host.contains('.') && host != "localhost" {
                return Err(error(
                    "it needs a dot or a port (or to be localhost), such as registry.example.com or registry:5000",
                ));
            }
        }
        Ok(Registry(lower.into()))
    }
}

fn valid_label(label: &str) -> bool {
    let inner = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-';
    !label.is_empty()
        && label.bytes().all(inner)
        && !label.starts_with('-')
        && !label.ends_with('-')
}

/// Returns whether `address` is an IPv6 address, without a zone (`%eth0`).
fn valid_ipv6(address: &str) -> bool {
    address.parse::<std::net::Ipv6Addr>().is_ok()
}

/// A repository: a path within a registry, such as `library/nginx`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Repository(Arc<str>);

text_name!(
    Repository,
    "a repository's path",
    r"^[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*(?:/[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*)*$"
);

impl FromStr for Repository {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Repository, NameError> {
        let error = |rule| NameError::new("the repository", text, rule);
        if text.len() > 255 {
            return Err(error("it is longer than 255 bytes"));
        }
        if !text.split('/').all(valid_component) {
            return Err(error(
                "it must be lower-case letters and digits, with single `.`, `_`, `__` or hyphens inside, in parts joined by `/`",
            ));
        }
        Ok(Repository(text.into()))
    }
}

/// Returns whether `component` matches `[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*`.
fn valid_component(component: &str) -> bool {
    let alphanumeric = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    let bytes = component.as_bytes();
    let ends = |byte: Option<&u8>| byte.is_some_and(|byte| alphanumeric(*byte));
    ends(bytes.first())
        && ends(bytes.last())
        && bytes
            .chunk_by(|a, b| alphanumeric(*a) == alphanumeric(*b))
            .all(|run| match run {
                [b'.' | b'_'] | [b'_', b'_'] => true,
                _ => {
                    run.iter().all(|byte| alphanumeric(*byte))
                        || run.iter().all(|byte| *byte == b'-')
                }
            })
}

/// A tag, such as `latest`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Tag(Arc<str>);

text_name!(Tag, "a tag", r"^[A-Za-z0-9_][A-Za-z0-9._-]{0,127}$");

impl Tag {
    /// Returns `latest`, the tag that a reference without a tag means.
    #[must_use]
    pub fn latest() -> Tag {
        Tag("latest".into())
    }

    /// The rule of [`Tag::is_signature`] as a regular expression, for queries.
    pub const SIGNATURE: &str = r"^sha(256|512)-[0-9a-f]{64}([.].+)?$";

    /// Returns true if the tag is no image, but holds signatures, attestations or other content
    /// about a digest. Cosign names such a tag after the digest, with a suffix such as `.sig`; a
    /// client of a registry without the referrers API uses the name without a suffix, cut to 64
    /// digits (OCI distribution specification, "Referrers Tag Schema").
    #[must_use]
    pub fn is_signature(&self) -> bool {
        let named = |(hex, suffix): (&str, &str)| {
            let digit = |byte: u8| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
            let has_suffix = suffix.len() > 1 && suffix.starts_with('.');
            hex.bytes().all(digit) && (suffix.is_empty() || has_suffix)
        };
        ["sha256-", "sha512-"].iter().any(|prefix| {
            let rest = self.0.strip_prefix(prefix);
            rest.and_then(|rest| rest.split_at_checked(64))
                .is_some_and(named)
        })
    }

    /// Returns true if a pattern over tags names tags of [`Tag::is_signature`]: by the begin, which
    /// they have in common.
    #[must_use]
    pub fn names_signatures(pattern: &str) -> bool {
        pattern.starts_with("sha256-") || pattern.starts_with("sha512-")
    }

    /// Returns the tag in lower case, as a registry that folds the case of tags writes it.
    #[must_use]
    pub fn to_lowercase(&self) -> Tag {
        Tag(self.0.to_ascii_lowercase().into())
    }
}

impl FromStr for Tag {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Tag, NameError> {
        let allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'.' | b'-');
        let valid = (1..=128).contains(&text.len())
            && text.bytes().all(allowed)
            && !text.starts_with(['.', '-']);
        if valid {
            Ok(Tag(text.into()))
        } else {
            Err(NameError::new(
                "the tag",
                text,
                "it must be 1 to 128 of A-Z a-z 0-9 _ . -, not starting with `.` or `-`",
            ))
        }
    }
}

/// The name of a source or of a trigger: `[a-z0-9][a-z0-9-]{0,62}`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Name(Arc<str>);

text_name!(
    Name,
    "the name of a source or a trigger",
    r"^[a-z0-9][a-z0-9-]{0,62}$"
);

impl FromStr for Name {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Name, NameError> {
        let allowed = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
        let valid =
            (1..=63).contains(&text.len()) && text.bytes().all(allowed) && !text.starts_with('-');
        if valid {
            Ok(Name(text.into()))
        } else {
            Err(NameError::new(
                "the name",
                text,
                "it must be 1 to 63 of a-z 0-9 -, not starting with a hyphen",
            ))
        }
    }
}

/// An image: a full reference with a tag, such as `registry.example.com/foo/bar:latest`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Image {
    /// The registry.
    pub registry: Registry,
    /// The repository.
    pub repository: Repository,
    /// The tag.
    pub tag: Tag,
}

impl Image {
    /// Returns the reference of `digest` in the repository of the image.
    #[must_use]
    pub fn pinned(&self, digest: &Digest) -> Pinned {
        Pinned {
            registry: self.registry.clone(),
            repository: self.repository.clone(),
            digest: digest.clone(),
        }
    }
}

impl fmt::Display for Image {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}:{}", self.registry, self.repository, self.tag)
    }
}

impl FromStr for Image {
    type Err = NameError;

    /// Reads `registry/repository:tag`. The tag defaults to `latest`.
    fn from_str(text: &str) -> Result<Image, NameError> {
        let error = |rule| NameError::new("the image", text, rule);
        if text.contains('@') {
            return Err(error(
                "it must name a tag, not a digest: a digest never changes",
            ));
        }
        let (registry, rest) = text.split_once('/').ok_or_else(|| {
            error("it must start with its registry, such as registry.example.com/foo/bar:latest")
        })?;
        let (repository, tag) = match rest.split_once(':') {
            Some((repository, tag)) => (repository, tag.parse()?),
            None => (rest, Tag::latest()),
        };
        Ok(Image {
            registry: registry.parse()?,
            repository: repository.parse()?,
            tag,
        })
    }
}

string_like!(
    Image,
    "an image with its tag: registry/repository:tag",
    r"^[^/]+/[^:@]+:[A-Za-z0-9_][A-Za-z0-9._-]{0,127}$"
);

/// A pinned reference, such as `registry.example.com/foo/bar@sha256:…`. Its content never changes.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Pinned {
    /// The registry.
    pub registry: Registry,
    /// The repository.
    pub repository: Repository,
    /// The digest of the manifest.
    pub digest: Digest,
}

impl fmt::Display for Pinned {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}@{}", self.registry, self.repository, self.digest)
    }
}

impl FromStr for Pinned {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Pinned, NameError> {
        let error = || {
            NameError::new(
                "the pinned reference",
                text,
                "it must be registry/repository@algorithm:hex",
            )
        };
        let (name, digest) = text.split_once('@').ok_or_else(error)?;
        let (registry, repository) = name.split_once('/').ok_or_else(error)?;
        Ok(Pinned {
            registry: registry.parse()?,
            repository: repository.parse()?,
            digest: digest.parse()?,
        })
    }
}

string_like!(
    Pinned,
    "a reference by digest: registry/repository@digest",
    r"^[^/]+/[^:@]+@(sha256:[0-9a-f]{64}|sha512:[0-9a-f]{128})$"
);

/// Returns foreign text in a form that can be stored and shown: control characters become U+FFFD
/// (Postgres refuses NUL), and so do characters that reorder or hide the text around them. The text
/// ends with the last whole character within `max_bytes`.
#[must_use]
pub fn clean_text(text: &str, max_bytes: usize) -> String {
    let mut clean = String::with_capacity(text.len().min(max_bytes));
    for character in text.chars().map(|character| {
        if character.is_control() || is_deceptive(character) {
            char::REPLACEMENT_CHARACTER
        } else {
            character
        }
    }) {
        if clean.len() + character.len_utf8() > max_bytes {
            break;
        }
        clean.push(character);
    }
    clean
}

/// Returns true for a character without a picture of its own that changes how other text
/// looks: marks of direction, zero-width spaces, separators of lines, tags. The joiners
/// U+200C and U+200D stay, since words of some languages and emoji need them.
fn is_deceptive(character: char) -> bool {
    matches!(character,
        '\u{61c}' | '\u{180e}' | '\u{200b}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}'
        | '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e007f}')
}

#[cfg(test)]
mod tests;
