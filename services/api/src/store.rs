//! The SQL of the tables of triggers, rollouts and acts. Each reading function is a single
//! statement, and so reads a single snapshot. Lists are read by key, never by offset.

pub(crate) mod acts;
pub(crate) mod api_triggers;
pub(crate) mod approvals;
pub(crate) mod attempts;
pub(crate) mod explain;
pub(crate) mod found;
pub(crate) mod generations;
pub(crate) mod groups;
pub(crate) mod heads;
pub(crate) mod holds;
pub(crate) mod orders;
pub(crate) mod outcome;
pub(crate) mod rolled_out;
pub(crate) mod rollouts;
pub(crate) mod running;
pub(crate) mod services;
pub(crate) mod similar;
pub(crate) mod snapshot;
pub(crate) mod times;
pub(crate) mod triggers;
