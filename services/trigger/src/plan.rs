//! Planning: from news of REVISIONS to recorded rollouts.

mod adoption;
mod candidates;
mod chain;
mod choice;
mod conditions;
mod gating;
mod news;
mod orders;
mod planner;
mod question;
#[cfg(test)]
mod tests;
mod view;

pub(crate) use conditions::Change;
pub(crate) use planner::planner;
