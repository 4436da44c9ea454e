//! The effect of a resume, in words: one rule for the api, its pages and the conditions.

use std::fmt;

use tagtrail_proto::{CauseReason, Rollout, RolloutState};

/// The effect of ending the pause of a trigger. Gates may still hold a rollout up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Resumption {
    /// A freeze, a pin or a fault is in force, which the end of the pause does not end.
    Held,
    /// The present images are rolled out.
    RollsOut,
    /// The images of the last rollout are sent again: it failed, or they were adopted and never
    /// sent. With its number.
    SendsAgain(u64),
    /// The last rollout, with this number, has not ended and goes on.
    GoesOn(u64),
    /// The last rollout has the present images.
    Nothing,
}

impl Resumption {
    /// Returns the effect of a resume. `differs`: the wanted images are others than those of the
    /// last rollout. `held`: a hold about the trigger is in force.
    #[must_use]
    pub fn of(differs: bool, last: Option<&Rollout>, held: bool) -> Resumption {
        let Some(last) = last else {
            return if held { Self::Held } else { Self::RollsOut };
        };
        let adopted = last.cause.reason == CauseReason::Adopted;
        match last.state {
            _ if held => Resumption::Held,
            _ if differs => Resumption::RollsOut,
            RolloutState::Failed => Resumption::SendsAgain(last.number),
            _ if adopted => Resumption::SendsAgain(last.number),
            RolloutState::Held
            | RolloutState::AwaitingApproval
            | RolloutState::Pending
            | RolloutState::Running
            | RolloutState::Watching => Resumption::GoesOn(last.number),
            RolloutState::Succeeded
            | RolloutState::Superseded
            | RolloutState::Rejected
            | RolloutState::Cancelled => Resumption::Nothing,
        }
    }
}

/// Completes the sentence "resuming …".
impl fmt::Display for Resumption {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Resumption::Held => f.write_str("starts nothing before the hold ends"),
            Resumption::RollsOut => f.write_str("rolls the present images out"),
            Resumption::SendsAgain(number) => write!(f, "sends the images of #{number} again"),
            Resumption::GoesOn(number) => write!(f, "lets #{number} go on"),
            Resumption::Nothing => {
                f.write_str("starts nothing: the last rollout has the present images")
            }
        }
    }
}
