//! The SQL of the triggers' and rollouts' tables. Each function is a single statement, and so reads
//! a single snapshot. Lists are read by key, never by offset.

pub(crate) mod rollouts;
pub(crate) mod triggers;
