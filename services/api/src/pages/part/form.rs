//! Forms that act: the fields that all of them have, and reading them.

use axum::extract::{DefaultBodyLimit, Form, FromRequest, Request};
use maud::{Markup, html};
use tagtrail_proto::Digest;
use time::{Duration, OffsetDateTime};
use uuid::Uuid;

use crate::http::error::Error;
use crate::pages::part::digest::digits;
use crate::pages::part::icon::icon;
use crate::pages::part::text::number;
use crate::pages::part::when;

/// Largest form, in bytes.
const MAX_SIZE: usize = 16_384;

/// The fields of a form that was sent.
#[derive(Debug)]
pub(crate) struct Fields(Vec<(String, String)>);

impl<S: Send + Sync> FromRequest<S> for Fields {
    type Rejection = Error;

    async fn from_request(request: Request, state: &S) -> Result<Fields, Error> {
        match Form::from_request(request, state).await {
            Ok(Form(fields)) => Ok(Fields(fields)),
            Err(_) => Err(Error::Form),
        }
    }
}

impl Fields {
    /// Returns the layer that refuses larger forms.
    pub(crate) fn limit() -> DefaultBodyLimit {
        DefaultBodyLimit::max(MAX_SIZE)
    }

    /// Returns a field; one of spaces alone counts as absent.
    pub(crate) fn text(&self, name: &str) -> Option<&str> {
        let found = self.0.iter().find(|(given, _)| given == name);
        found
            .map(|(_, value)| value.trim())
            .filter(|text| !text.is_empty())
    }

    /// Returns the fields whose names begin with this text, without it.
    pub(crate) fn of<'a>(&'a self, start: &'a str) -> impl Iterator<Item = (&'a str, &'a str)> {
        let rest = move |(name, value): &'a (String, String)| {
            Some((name.strip_prefix(start)?, value.trim()))
        };
        self.0.iter().filter_map(rest)
    }

    /// Returns the end of a hold as `/v1` takes it.
    pub(crate) fn until(&self, now: OffsetDateTime) -> Result<Option<String>, Error> {
        let Some(text) = self.text("until") else {
            return Ok(None);
        };
        let wrong = || Error::TimeTyped { field: "until" };
        let at = later(text, now).ok_or_else(wrong)?;
        // To the minute: a form with `for 2 days` that is sent twice is one order.
        let whole = at - Duration::seconds(i64::from(at.second()));
        let whole = whole.replace_nanosecond(0).map_err(|_| wrong())?;
        tagtrail_proto::instant::json(whole)
            .map(Some)
            .map_err(|_| wrong())
    }
}

/// Returns the identity of the state that a person looks at. A form carries it, so that an act on
/// another state is not carried out.
pub(crate) fn seen(state: &serde_json::Value) -> String {
    let digest = Digest::sha256_of(state.to_string().as_bytes());
    digits(&digest, 32)
}

/// Draws the hidden fields of a form: its idempotency key, and the state that the page shows.
pub(crate) fn hidden(seen: &str) -> Markup {
    html! {
        input type="hidden" name="key" value=(Uuid::now_v7());
        input type="hidden" name="seen" value=(seen);
    }
}

/// Draws the field of the reason, which the record of acts keeps.
pub(crate) fn reason(required: bool) -> Markup {
    html! {
        label {
            "Reason (kept)" @if !required { ", optional" }
            input name="reason" maxlength="200" required[required];
        }
    }
}

/// Draws the field of the end of a hold.
pub(crate) fn until() -> Markup {
    html! {
        label { "Until (UTC), optional" input name="until" placeholder="for 2 days, or YYYY-MM-DD 08:00"; }
    }
}

/// Draws the button that acts, with its icon.
pub(crate) fn button(main: bool, icon_name: &str, word: &str) -> Markup {
    html! { button class=[main.then_some("pri")] { (icon(icon_name)) (word) } }
}

/// Draws the fields of the form that makes the next attempt at a rollout due.
pub(crate) fn retry(rollout: u64) -> Markup {
    html! {
        p class="s" { "The next attempt at #" (number(rollout)) " begins now, with short pauses between attempts again." }
        (reason(false))
        (button(true, "run", "Retry"))
    }
}

/// The note above a page whose form was out of date.
pub(crate) fn news() -> Markup {
    html! {
        p class="note bad" role="alert" {
            b { "This changed meanwhile, and nothing was done." }
            " The page shows the present state: look at it, and press again if you still want to."
        }
    }
}

/// Reads a time to come that a person typed: in one of the forms of [`when::read`], or as a length
/// of time, such as `for 2 days`.
fn later(text: &str, now: OffsetDateTime) -> Option<OffsetDateTime> {
    let lower = text.trim().to_ascii_lowercase();
    if let Some(clock) = lower.strip_prefix("tomorrow") {
        let today = when::read(&format!("yesterday {}", clock.trim()), now)?;
        return today.checked_add(Duration::days(2));
    }
    let length = lower.strip_prefix("for ").or(lower.strip_prefix("in "));
    let length = length.unwrap_or(&lower).trim();
    if let Some(past) = when::read(&format!("{length} ago"), now) {
        return now.checked_add(now - past);
    }
    let at = when::read(text, now)?;
    // A day without a year is one to come.
    if at <= now && !lower.contains(&format!("{:04}", at.year())) {
        return at.replace_year(at.year() + 1).ok();
    }
    Some(at)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_to_come_are_read_as_people_write_them() {
        let now = tagtrail_proto::instant::parse("2026-11-23T14:31:08Z").unwrap();
        for (typed, expected) in [
            ("for 2 days", "2026-11-25 14:31:08"),
            ("In 90 min", "2026-11-23 16:01:08"),
            ("2 h", "2026-11-23 16:31:08"),
            ("tomorrow 08:00", "2026-11-24 08:00:00"),
            ("2026-11-25 08:00", "2026-11-25 08:00:00"),
            ("2026-11-25T08:00:00Z", "2026-11-25 08:00:00"),
            ("24 Nov 10:00", "2026-11-24 10:00:00"),
            ("3 Mar", "2027-03-03 00:00:00"),
            // The operation refuses a time that has passed.
            ("2026-11-22 08:00", "2026-11-22 08:00:00"),
        ] {
            let read = later(typed, now).map(|at| when::written(at, when::Form::Full));
            assert_eq!(read.as_deref(), Some(expected), "{typed}");
        }
        for wrong in ["", "soon", "for", "for ever", "99999999999 days"] {
            assert_eq!(later(wrong, now), None, "{wrong}");
        }
    }

    #[test]
    fn fields_of_spaces_count_as_absent() {
        let field = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        let fields = Fields(vec![
            field("reason", "  "),
            field("image.web", " sha256:00 "),
        ]);
        assert_eq!((fields.text("reason"), fields.text("x")), (None, None));
        let images: Vec<_> = fields.of("image.").collect();
        assert_eq!(images, [("web", "sha256:00")]);
    }
}
