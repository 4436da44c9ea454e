//! Tests of the selection policies.

#![expect(clippy::unwrap_used, reason = "in tests a panic is the report")]

mod patterns;
mod refusals;
mod settings;
mod vectors;
