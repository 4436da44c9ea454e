//! Image selection policies: which tag of a repository an image of a trigger stands for.

mod range;
mod semver;

pub use range::{Prereleases, Range};
pub use semver::{Parse, Version};
