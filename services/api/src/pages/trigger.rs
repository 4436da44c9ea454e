//! The pages of a trigger.

pub(crate) mod standing;
