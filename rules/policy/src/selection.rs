//! Image selection policies: which tag of a repository an image of a trigger stands for.

mod calver;
mod dialect;
mod duration;
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
