//! The condition of each trigger, and the reasons for which it does not roll out.
//!
//! In scope: reading the facts about triggers, all of them in one statement ([`read`]), and the
//! rule that judges them ([`judge`]), which is pure. The api answers with the result, and the
//! trigger service shows it in metrics and events, so both say the same. Also reading the recorded
//! changes of conditions, holds and rollouts ([`changes`]).
//!
//! Out of scope: the decision of a plan (`tagtrail-policy`); the planner stores the images that it
//! wants, and the reasons about images, with the trigger.

pub mod changes;
mod facts;
mod hold;
mod judge;
mod resumption;

pub use facts::{Facts, OpenAttempt, Pause, SelectedTag, Wanted, read, read_removed};
pub use hold::{Hold, HoldKind};
pub use judge::{Judged, judge};
pub use resumption::Resumption;
