//! Planning: from news of REVISIONS to recorded rollouts.

mod candidates;
mod choice;
mod gating;
mod news;
mod orders;
mod planner;
mod question;
#[cfg(test)]
mod tests;

pub(crate) use planner::planner;
