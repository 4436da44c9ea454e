//! The trigger service on real servers.

#![expect(clippy::unwrap_used, reason = "in tests a panic is the report")]

mod adoption;
mod answers;
mod attempts;
mod broken;
mod chains;
mod changes;
mod command;
mod compose;
mod discovery;
mod failures;
mod faults;
mod gates;
mod generations;
mod git;
mod holding;
mod kubernetes;
mod kubernetes_events;
mod kubernetes_faults;
mod kubernetes_front;
mod kubernetes_shapes;
mod kubernetes_watch;
mod notify;
mod openshift;
mod orders;
mod planning;
mod policies;
mod reading;
mod reasons;
mod receivers;
mod removal;
mod renames;
mod spacing;
mod verify;
mod watching;
mod world;
