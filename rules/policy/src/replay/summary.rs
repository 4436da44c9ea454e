//! The result of a replay in one line.

use std::time::Duration;

use super::report::{Kind, Report};

impl Kind {
    /// Returns the word of the kind; of a move, the order of the policy.
    #[must_use]
    pub fn as_str(&self) -> &'static str {
        match self {
            Kind::Start => "start",
            Kind::Adopted => "adopted",
            Kind::Move(order) => order,
            Kind::RePush => "re-push",
        }
    }

    fn count(&self, count: u64) -> String {
        match self {
            Kind::Start => "the first one".to_owned(),
            Kind::Adopted => "the first one adopted".to_owned(),
            Kind::Move(order) => format!("{count} {order} move{}", plural(count)),
            Kind::RePush if count == 1 => "1 re-push".to_owned(),
            Kind::RePush => format!("{count} re-pushes"),
        }
    }
}

impl Report {
    /// Returns the result in one line, such as
    /// `2 rollouts (1 semver move, 1 re-push); held 31 h by settle; 0 downgrades (3 prevented)`.
    #[must_use]
    pub fn summary(&self) -> String {
        let mut parts = vec![format!("{} rollout{}", self.count, plural(self.count))];
        let kinds: Vec<String> = self.kinds.iter().map(|(kind, n)| kind.count(*n)).collect();
        if let (Some(first), false) = (parts.first_mut(), kinds.is_empty()) {
            *first += &format!(" ({})", kinds.join(", "));
        }
        for (name, time) in &self.held {
            if !time.is_zero() {
                parts.push(format!("held {} by {name}", text(*time)));
            }
        }
        if self.gave_way > 0 {
            let count = self.gave_way;
            parts.push(format!("{count} held rollout{} gave way", plural(count)));
        }
        if self.approvals > 0 {
            let count = self.approvals;
            let verb = if count == 1 { "waits" } else { "wait" };
            parts.push(format!("{count} {verb} for approval"));
        }
        if let Some(min_age) = self.min_age {
            let (count, age) = (self.too_short, text(min_age));
            parts.push(format!("{count} image{} never lasted {age}", plural(count)));
        }
        parts.push(format!(
            "{} downgrade{} ({} prevented)",
            self.downgrades,
            plural(self.downgrades),
            self.downgrades_prevented
        ));
        if let Some(waits) = &self.waits {
            let gates = waits.gates.iter().map(|closed| closed.gate.as_str());
            let gates: Vec<&str> = gates.collect();
            parts.push(format!(
                "the last one is held by {} at the end",
                gates.join(", ")
            ));
        }
        if self.paused {
            parts.push("the trigger begins paused, and nobody resumes it".to_owned());
        }
        if self.unreported {
            parts.push("the first one only if the target runs other images".to_owned());
        }
        if !self.missing.is_empty() {
            parts.push(format!("no tag was found for {}", self.missing.join(", ")));
        }
        parts.join("; ")
    }
}

fn plural(count: u64) -> &'static str {
    if count == 1 { "" } else { "s" }
}

/// Returns a duration in its greatest whole unit: days only above two of them.
fn text(time: Duration) -> String {
    let seconds = time.as_secs();
    match seconds {
        0..120 => format!("{} s", (time.as_millis() + 500) / 1000),
        120..7200 => format!("{} min", (seconds + 30) / 60),
        7200..172_800 => format!("{} h", (seconds + 1800) / 3600),
        _ => format!("{} d", (seconds + 43_200) / 86_400),
    }
}
