//! Receivers of bodies: HTTP requests, messages of a NATS subject, and quarantined bodies that are replayed.

pub(crate) mod body;
pub(crate) mod hook;
pub(crate) mod nats;
pub(crate) mod replay;
