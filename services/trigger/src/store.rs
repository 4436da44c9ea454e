//! All SQL of the trigger service, one file for each task. A change that must be atomic is one
//! statement: one round trip and one transaction.
//!
//! A statement that changes a rollout first locks the row of its trigger (`for update`), so the
//! entries of one trigger are recorded in the order of their commits. Under READ COMMITTED a
//! statement that waited for the row lock still sees other rows as of its start. So each `update`
//! repeats its condition in `where`, which Postgres re-checks against the newest row version.

pub(crate) mod adoption;
pub(crate) mod attempts;
pub(crate) mod background;
pub(crate) mod candidates;
pub(crate) mod chains;
mod columns;
pub(crate) mod condition_changes;
pub(crate) mod discovered;
pub(crate) mod drift;
pub(crate) mod faults;
pub(crate) mod filling;
pub(crate) mod gates;
pub(crate) mod generations;
pub(crate) mod hold_changes;
mod holds;
pub(crate) mod ledger;
pub(crate) mod looks;
pub(crate) mod notify;
pub(crate) mod orders;
pub(crate) mod planning;
mod renames;
pub(crate) mod selections;
pub(crate) mod specs;
pub(crate) mod states;
pub(crate) mod working;
