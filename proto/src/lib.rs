//! The contract between the programs on the bus: names, events and subjects.
//!
//! In scope: names parsed once ([`Registry`], [`Repository`], [`Tag`], [`Digest`], [`Image`],
//! [`Pinned`]); the events ([`Push`], [`Revision`], [`Rollout`], [`Held`], [`ConditionChange`],
//! [`Manifest`], [`Quarantined`]) in their `CloudEvents` envelope ([`Event`]); the subjects of
//! messages ([`Subject`]), the place of a reader in a stream ([`Position`]) and the trace of a
//! message ([`TraceContext`]); the closed gates of a trigger ([`Waiting`]) and of a recorded
//! rollout ([`ClosedGate`]), the condition of a trigger and the reasons ([`Condition`],
//! [`Reason`]). The JSON Schemas of the events are in `proto/schemas`.
//!
//! Out of scope: any I/O, and the rules of history (`rules/timeline`).

mod condition;
mod contents;
mod digest;
mod event;
mod hold;
pub mod instant;
mod manifest;
mod name;
mod position;
mod push;
mod quarantine;
mod reason;
mod replaying;
mod revision;
mod rollout;
pub mod schema;
mod subject;
mod trace;
mod waiting;

pub use condition::ConditionChange;
pub use contents::{Child, ImageContents, ImageSettings, IndexContents, Layer, LeftOut};
pub use digest::{Algorithm, Digest};
pub use event::{CONTENT_TYPE, DataContentType, Event, SpecVersion};
pub use hold::{Held, HoldChange};
pub use manifest::{Manifest, Platform};
pub use name::{Image, Name, NameError, Pinned, Registry, Repository, Tag, clean_text};
pub use position::{Position, nanoseconds};
pub use push::{Action, Origin, Push, PushError, Scope, TimeSource};
pub use quarantine::Quarantined;
pub use reason::{Condition, Reason, ReasonCode};
pub use replaying::{ReplayAnswer, ReplayRequest, Replayed};
pub use revision::{Kind, Point, Revision};
pub use rollout::{Cause, CauseReason, RanBefore, Rollout, RolloutImage, RolloutState};
pub use subject::{PARTITIONS, Subject, SubjectError, escape, partition_of};
pub use trace::{TRACEPARENT, TraceContext, TraceError};
pub use waiting::{ClosedGate, Gate, Waiting};
