//! Planning: from news of REVISIONS to recorded rollouts.

mod candidates;
mod choice;
mod gating;
mod news;
mod orders;
mod planner;
mod question;

pub(crate) use planner::planner;
