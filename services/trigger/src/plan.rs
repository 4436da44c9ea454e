//! Planning: from news of REVISIONS to recorded rollouts.

mod news;
mod planner;

pub(crate) use planner::planner;
