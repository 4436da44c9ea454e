//! Acting: attempts at targets.
//!
//! An attempt is a task of its own. It belongs to this process, which holds an advisory lock
//! ([`instance`]), and needs no database session while the target works.

mod attempt;
mod dispatcher;
mod drift;
mod instance;
mod keeper;
mod look;
mod observer;
mod slots;
mod takeover;
mod watches;

pub(crate) use attempt::InFlight;
pub(crate) use dispatcher::{dispatcher, start};
pub(crate) use drift::drift;
pub(crate) use instance::{Instance, Owner, hold_instance};
pub(crate) use keeper::keeper;
pub(crate) use observer::observer;
pub(crate) use slots::{Place, Slot, Slots};
pub(crate) use watches::watches;
