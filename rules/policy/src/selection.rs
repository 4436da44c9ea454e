//! Image selection policies: which tag of a repository an image of a trigger stands for.
//!
//! In scope: the settings ([`ImagePolicy`]), the rule that they compile to ([`Rule`]: filters, an
//! order, and the demands on the manifest), and the selection ([`Policy::select`]). Out of scope:
//! reading tags, heads and manifests, and keeping candidates and selections.
//!
//! ```
//! # use tagtrail_policy::selection::{ImagePolicy, Fit, Last, Outcome, TagHead, Times};
//! # use tagtrail_proto::Digest;
//! # use time::OffsetDateTime;
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let now = OffsetDateTime::UNIX_EPOCH;
//! // 1. Settings become a policy. An error names the setting and the cure.
//! let settings = r#"repository = "registry.example.com/shop/api"
//!     semver = "^1.4"
//!     ignore = ["1.5.0"]"#;
//! let policy = toml::from_str::<ImagePolicy>(settings)?.compile()?;
//! let rule = policy.rule(); // `rule.canonical()` identifies it, `rule.warnings()` are for people
//! // 2. News: the key of a tag decides whether the tag belongs to the best hundred. Keys are
//! // compared as bytes. A rule over names ignores the times.
//! let times = Times { pushed: now, created: None };
//! assert!(rule.key(&"1.4.10".parse()?, times)? > rule.key(&"1.4.9".parse()?, times)?);
//! assert_eq!(rule.key(&"1.5.0".parse()?, times).unwrap_err().code(), "ignore");
//! // 3. The heads of the best tags, with the answer about the manifest of each digest.
//! let head = |tag: &str| TagHead {
//!     tag: tag.parse().unwrap(),
//!     digest: Some(Digest::sha256_of(tag.as_bytes())),
//!     times, recorded_at: now, tombstone: false,
//!     fit: rule.fit(None), // `Some(&manifest)` once it is read
//! };
//! // 4. The selection, with a reason for each other tag. `again` is the time to select again.
//! let heads = [head("1.4.9"), head("1.4.10"), head("2.0.0")];
//! let first = policy.select(&heads, None, now);
//! let Outcome::Select { head, key, .. } = &first.outcome else { panic!("{first:?}") };
//! assert_eq!(head.tag.as_ref(), "1.4.10");
//! assert_eq!(first.passed_over.len(), 2);
//! // 5. Next time the last selection is an argument: automation never selects a lower tag.
//! let last = Last {
//!     tag: head.tag.clone(), key: key.clone(), digest: head.digest.clone().ok_or("deleted")?,
//!     rule_changed: false, released: false,
//! };
//! assert!(matches!(policy.select(&heads[..1], Some(&last), now).outcome, Outcome::Keep(_)));
//! # Ok(())
//! # }
//! ```
//!
//! Regular expressions are those of RE2, with a few forms refused that Go reads in another way:
//! see `selection/dialect.rs`. Pattern and compiled program are bounded, and matching takes time in
//! proportion to the tag.

mod calver;
mod canonical;
mod compile;
mod dialect;
pub(crate) mod duration;
mod key;
mod order;
mod outcome;
mod pattern;
mod platform;
mod range;
mod reason;
mod rule;
mod select;
mod semver;
mod spec;

pub use calver::Calver;
pub use compile::Refused;
pub use duration::parse as parse_duration;
pub use key::Key;
pub use order::Times;
pub use outcome::{Change, Fault, Kept, Last, Outcome, PassedOver, Selection, TagHead};
pub use pattern::{Pattern, TagGlob, Template};
pub use platform::PlatformRule;
pub use range::{Prereleases, Range};
pub use reason::Reason;
pub use rule::{Fit, Rule};
pub use select::Policy;
pub use semver::{Parse, Version};
pub use spec::{
    Alphabetical, AnyPlatform, ImagePolicy, Newest, Numeric, OnMoved, OnRemoved, OneOrMany,
    Platforms, SemverRule, Suffix, WatchedImage, Within,
};
