//! The rules of triggers: the images that a trigger watches, the images that it wants, and the
//! pauses between attempts at a target.
//!
//! In scope: patterns over images ([`glob`]), the images that a trigger watches ([`watched`]), the
//! tag that a policy selects ([`selection`]) from its best candidates ([`choice`]), images of one
//! build ([`agree`]), the set that a trigger takes over from triggers before it ([`follow`]), the
//! decision for a new rollout ([`decide`]), the conditions that delay the recording of a rollout
//! ([`gates`]) and the begin of its attempts ([`begin`], [`window`]), the
//! next step after an attempt ([`retry`]), and the result of a rollout that its target took
//! ([`watch`]). A replay of history goes through all of them ([`replay`]), but for the result.
//! Policies of Keel are read as image policies ([`keel`]).
//! Everything here is pure: no I/O, no clock, no database; times are arguments.
//!
//! Out of scope: reading heads and recording rollouts (the trigger service), and the settings file
//! (`tagtrail-config`).

pub mod agree;
pub mod begin;
pub mod choice;
pub mod decide;
pub mod follow;
pub mod gates;
pub mod glob;
pub mod keel;
pub mod replay;
pub mod retry;
pub mod selection;
pub mod watch;
pub mod watched;
pub mod window;
