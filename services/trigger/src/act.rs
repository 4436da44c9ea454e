//! Acting: from recorded rollouts to attempts at targets.

mod worker;

pub(crate) use worker::worker;
