//! The two rows of steps of a rollout: deciding in milliseconds, delivering in seconds. One scale
//! would hide the first.

use maud::{Markup, html};
use time::{Duration, OffsetDateTime};

use crate::pages::part::icon::icon_for;
use crate::pages::part::image;
use crate::pages::part::kind::{Tone, badge};
use crate::pages::part::lane::percent;
use crate::pages::part::standing::finder;
use crate::pages::part::text::{number, visible};
use crate::pages::part::when::{Form, span, time};
use crate::store::attempts::Attempt;
use crate::store::rollouts::RolloutWithAttempt;
use crate::store::times::Times;

/// Attempts that are drawn: the last ones.
const ATTEMPTS: usize = 12;
/// The least width of a bar, in percent.
const NARROWEST: f64 = 0.6;

/// A step, from a moment to another one.
struct Step {
    word: String,
    from: OffsetDateTime,
    until: OffsetDateTime,
    /// The class of the bar in the style sheet.
    class: &'static str,
    note: Markup,
}

impl Step {
    fn took(&self) -> Duration {
        self.until - self.from
    }
}

/// Returns a length of time with a decimal where it is short.
pub(super) fn exact(length: Duration) -> String {
    let micros = length.whole_microseconds();
    match micros {
        ..0 => format!("−{}", exact(-length)),
        0..10_000 => format!("{}.{} ms", micros / 1000, micros % 1000 / 100),
        10_000..1_000_000 => format!("{} ms", micros / 1000),
        _ => span(length),
    }
}

/// Returns the time since the beginning, in milliseconds up to a minute.
fn offset(length: Duration) -> String {
    let millis = length.whole_milliseconds();
    match (u64::try_from(millis), millis) {
        (Ok(_), 60_000..) => format!("+{}", span(length)),
        (Ok(millis), _) => format!("+{} ms", number(millis)),
        (Err(_), _) => format!(
            "−{} ms",
            number(millis.unsigned_abs().try_into().unwrap_or(u64::MAX))
        ),
    }
}

fn draw(title: &str, total: &str, start: OffsetDateTime, steps: &[Step]) -> Markup {
    let from = steps.iter().map(|step| step.from).min();
    let until = steps.iter().map(|step| step.until).max();
    let (from, until) = (from.unwrap_or(start), until.unwrap_or(start));
    let whole = (until - from).as_seconds_f64().max(0.000_001);
    let place =
        |at: OffsetDateTime| ((at - from).as_seconds_f64() / whole * 100.0).clamp(0.0, 100.0);
    html! {
        section class="card" {
            h2 { (title) " " span class="push q" { (total) } }
            table class="wf fix" {
                thead { tr {
                    th scope="col" class="w6" { "Step" } td {} th scope="col" class="r w8" { "From the start" }
                    th scope="col" class="r w6" { "Took" } td class="w28" {}
                } }
                tbody { @for step in steps {
                    @let wide = (place(step.until) - place(step.from)).max(NARROWEST);
                    tr {
                        th scope="row" { (step.word) }
                        td { svg class="wb" aria-hidden="true" { rect class=(step.class) x=(percent(place(step.from).min(100.0 - wide))) width=(percent(wide)) height="14" y="3" {} } }
                        td class="n r nw" { (offset(step.until - start)) }
                        td class="n r nw" { @if step.took() != Duration::ZERO { (exact(step.took())) } }
                        td class="s" { (step.note) }
                    }
                } }
            }
        }
    }
}

/// Draws the steps from the push, or from the recording of the rollout, to the first attempt.
pub(super) fn deciding(one: &RolloutWithAttempt, times: &Times) -> Markup {
    let rollout = &one.rollout;
    let mut steps = Vec::new();
    let mut step = |word: &str, from, until, class, note| {
        steps.push(Step {
            word: word.to_owned(),
            from,
            until,
            class,
            note,
        });
    };
    let mut start = rollout.created_at;
    if let Some(push) = &times.push {
        start = push.occurred_at;
        let ahead = push.received_at < push.occurred_at;
        let pushed = html! {
            "clock: " (visible(&push.clock)) ", " (time(push.occurred_at, Form::Millis))
            @if ahead { " " (icon_for("warn", "warning")) " ahead of ours" }
        };
        match &push.found {
            None => step("Pushed", start, start, "u", pushed),
            Some(by) => {
                let found =
                    html! { "by " (finder(by)) ": the push was earlier, and no event reported it" };
                step("Found", start, start, "u", found);
            }
        }
        let stored = html! { "on PUSHES, the stream’s clock" };
        step("Stored", push.occurred_at, push.received_at, "u", stored);
        let recorded = html! {
            "revision " (number(push.revision)) " of "
            @match push.image.parse() { Ok(image) => (image::short_link(&image)), Err(_) => (visible(&push.image)) }
        };
        step("Recorded", push.received_at, push.recorded_at, "", recorded);
    }
    let before = times.push.as_ref().map_or(start, |push| push.recorded_at);
    let planned = html! {
        "rollout #" (number(rollout.number))
        @if !rollout.cause.changed.is_empty() { ": " (visible(&rollout.cause.changed.join(", "))) @match rollout.cause.changed.len() { 1 => " differs", _ => " differ" } }
    };
    step("Planned", before, rollout.created_at, "", planned);
    if let Some(started) = times.started_at {
        let note = html! { "attempt 1 began" };
        step("Started", rollout.created_at, started, "", note);
    }
    let end = times.started_at.unwrap_or(rollout.created_at);
    draw("Deciding", &exact(end - start), start, &steps)
}

/// Draws the attempts, the pauses between them, and the observation of the result.
pub(super) fn delivering(
    one: &RolloutWithAttempt,
    times: &Times,
    attempts: &[Attempt],
    now: OffsetDateTime,
) -> Markup {
    let rollout = &one.rollout;
    let Some(started) = times.started_at else {
        return html! {};
    };
    let start = times
        .push
        .as_ref()
        .map_or(rollout.created_at, |push| push.occurred_at);
    let mut steps = Vec::new();
    let mut before: Option<OffsetDateTime> = None;
    // The newest comes first.
    for attempt in attempts.iter().take(ATTEMPTS).rev() {
        if let Some(ended) = before.filter(|ended| attempt.started_at > *ended) {
            steps.push(Step {
                word: "Waited".to_owned(),
                from: ended,
                until: attempt.started_at,
                class: "u",
                note: html! {},
            });
        }
        let class = match attempt.outcome.as_deref() {
            Some("done" | "applied") => "k",
            Some(_) => "f",
            None => "",
        };
        let until = attempt.finished_at.unwrap_or(now).max(attempt.started_at);
        steps.push(Step {
            word: format!("Attempt {}", attempt.number),
            from: attempt.started_at,
            until,
            class,
            note: outcome(attempt),
        });
        before = attempt.finished_at;
    }
    if let Some(watch) = &one.watch {
        let until = rollout.finished_at.unwrap_or(now).max(watch.since);
        steps.push(Step {
            word: "Observed".to_owned(),
            from: watch.since,
            until,
            class: "",
            note: html! { @if let Some(seen) = &watch.seen { (visible(seen)) } },
        });
    }
    if let Some(end) = rollout.finished_at {
        steps.push(Step {
            word: "Done".to_owned(),
            from: end,
            until: end,
            class: "k",
            note: time(end, Form::Millis),
        });
    }
    let end = rollout.finished_at.unwrap_or(now);
    let count = match rollout.attempts {
        1 => "1 attempt".to_owned(),
        many => format!("{many} attempts"),
    };
    let total = format!("{}, {count}", exact((end - started).max(Duration::ZERO)));
    draw("Delivering", &total, start, &steps)
}

/// Draws the status of an attempt, and the error.
pub(super) fn outcome(attempt: &Attempt) -> Markup {
    let good = matches!(attempt.outcome.as_deref(), Some("done" | "applied"));
    let (tone, icon) = match (good, attempt.outcome.is_some()) {
        (true, _) => (Tone::Good, "ok"),
        (false, true) => (Tone::Bad, "fail"),
        (false, false) => (Tone::Marked, "run"),
    };
    let word = match (attempt.status, attempt.outcome.as_deref()) {
        (Some(status), _) => status.to_string(),
        (None, Some(outcome)) => outcome.to_owned(),
        (None, None) => "running".to_owned(),
    };
    html! {
        (badge(tone, icon, &word))
        @if let Some(error) = &attempt.error { " " (visible(error)) }
        @else if good { " accepted" }
    }
}
