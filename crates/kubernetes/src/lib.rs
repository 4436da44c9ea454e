//! A client of Kubernetes that changes images and nothing else.
//!
//! [`Cluster`] makes the requests, and [`Watch`] keeps the state of an object at hand. The rules
//! are pure: [`places`] finds the images of an object, [`patch`] makes a JSON Patch with tests,
//! [`health`] reads the result of a change, [`owner`] names who changed an image, and [`discovery`]
//! reads the annotations by which an object is a trigger.

mod adopt;
mod cluster;
pub mod discovery;
mod entries;
mod event;
mod health;
mod images;
mod kept;
mod object;
mod owners;
mod patch;
mod problem;
mod sightings;
mod stuck;
mod watch;

pub use adopt::adoption;
pub use cluster::{Access, Cluster, check_kubeconfig};
pub use entries::{Entry, entries, written_reference};
pub use event::Event;
pub use health::{Health, failing, health};
pub use images::{Place, Reference, places};
pub use object::{BuiltIn, ObjectName, pod_spec};
pub use owners::{MANAGER, Owner, owner};
pub use patch::{CHANGE_CAUSE, Change, ROLLOUT, patch, remaining, tests_version};
pub use problem::Problem;
pub use sightings::{News, Scope, Sighting};
pub use stuck::{Pod, stuck};
pub use watch::{Notice, Watch};
