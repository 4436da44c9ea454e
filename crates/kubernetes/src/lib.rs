//! A client of Kubernetes that changes images and nothing else.
//! The rules are pure, and know no connection.

mod images;
mod object;

pub use images::{Place, Reference, places};
pub use object::{BuiltIn, ObjectName, pod_spec};
