//! Image selection policies: which tag of a repository an image of a trigger stands for.

mod calver;
mod dialect;
mod key;
mod pattern;
mod platform;
mod range;
mod reason;
mod semver;

pub use calver::Calver;
pub use key::Key;
pub use pattern::{Pattern, TagGlob, Template};
pub use platform::PlatformRule;
pub use range::{Prereleases, Range};
pub use reason::Reason;
pub use semver::{Parse, Version};
