//! Tests of the selection policies.

#![expect(clippy::unwrap_used, reason = "in tests a panic is the report")]

mod changes;
mod patterns;
mod properties;
mod refusals;
mod select;
mod settings;
mod vectors;
