//! Image selection policies: which tag of a repository an image of a trigger stands for.

mod semver;

pub use semver::{Parse, Version};
