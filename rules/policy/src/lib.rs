//! The rules of triggers: which images a trigger watches, which images it wants, and how attempts at a target are spaced.
//!
//! In scope: patterns over images ([`glob`]), the decision whether a trigger needs a new rollout ([`decide`]), and the next step
//! after an attempt ([`retry`]). All of it is pure: no I/O, no clock, no database; times are arguments.
//!
//! Out of scope: reading heads and recording rollouts (the trigger service), and the settings' file (`tagtrail-config`).

pub mod decide;
pub mod glob;
pub mod retry;
