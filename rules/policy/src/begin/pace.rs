//! The gates that space rollouts: `window`, `gap` and `group`.

use super::{Closed, Facts, Look};

/// Closed outside the window of the trigger, also for further attempts.
pub(super) fn window(facts: &Facts<'_>) -> Look {
    let Some(window) = &facts.settings.window else {
        return Look::Open(None);
    };
    let state = window.at(facts.now);
    match state.closed {
        None => Look::Open(state.changes_at),
        Some(why) => Look::Closed(Closed::until(state.changes_at, why)),
    }
}

/// Closed for a time after the begin of the last rollout.
pub(super) fn gap(facts: &Facts<'_>) -> Look {
    let gap = facts.settings.gap.zip(facts.last_begun);
    let opens_at = gap.map(|(gap, begun)| begun + gap);
    match opens_at.filter(|opens_at| *opens_at > facts.now) {
        None => Look::Open(None),
        opens_at => {
            let why = "the last rollout began less than `gap` ago".to_owned();
            Look::Closed(Closed::until(opens_at, why))
        }
    }
}

/// Closed while another trigger of the group is rolled out.
pub(super) fn group(facts: &Facts<'_>) -> Look {
    match (&facts.settings.group, facts.busy) {
        (Some(group), Some(busy)) => {
            let why = format!("{busy} of the group {group} is rolled out");
            Look::Closed(Closed::until(None, why))
        }
        _ => Look::Open(None),
    }
}
