//! A client of Kubernetes that changes images and nothing else.
//! The rules are pure, and know no connection.

mod health;
mod images;
mod object;
mod owners;
mod patch;

pub use health::{Health, failing, health};
pub use images::{Place, Reference, places};
pub use object::{BuiltIn, ObjectName, pod_spec};
pub use owners::{MANAGER, Owner, owner};
pub use patch::{CHANGE_CAUSE, Change, ROLLOUT, patch, remaining};
