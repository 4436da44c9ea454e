//! Forms that ask a question: their fields, and addresses that hold the whole question.

use maud::{Markup, html};
use tagtrail_proto::instant;
use time::OffsetDateTime;

use crate::http::error::Error;
use crate::http::parameters::Parameters;
use crate::pages::part::when;

/// A time that a person asked about.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Past {
    pub(crate) at: OffsetDateTime,
    /// Whether the address has the form that always means the same. Other addresses lead there.
    pub(crate) lasts: bool,
}

/// Reads a time that a person typed, or that an address holds.
pub(crate) fn past(
    parameters: &Parameters,
    field: &'static str,
    now: OffsetDateTime,
) -> Result<Option<Past>, Error> {
    let Some(text) = parameters.written(field) else {
        return Ok(None);
    };
    let at = when::read_past(text, now).filter(|at| (0..=9999).contains(&at.year()));
    let at = at.ok_or(Error::PastTyped { field })?;
    if at > now {
        return Err(Error::NotPast { field });
    }
    let lasts = instant::parse(text).is_some() && text.ends_with('Z');
    Ok(Some(Past { at, lasts }))
}

/// Returns an address with the parameters that have a value.
pub(crate) fn address(path: &str, parameters: &[(&str, Option<&str>)]) -> String {
    let mut query = form_urlencoded::Serializer::new(String::new());
    for (name, value) in parameters {
        if let Some(value) = value {
            query.append_pair(name, value);
        }
    }
    match query.finish() {
        query if query.is_empty() => path.to_owned(),
        query => format!("{path}?{query}"),
    }
}

/// Draws a list of choices: word in the address, and text.
pub(crate) fn select(name: &str, label: &str, choices: &[(&str, String)], chosen: &str) -> Markup {
    html! {
        label { (label)
            select name=(name) {
                @for (word, text) in choices {
                    option value=(word) selected[*word == chosen] { (text) }
                }
            }
        }
    }
}

/// Draws a field for text.
pub(crate) fn field(name: &str, label: &str, size: u8, value: &str, hint: &str) -> Markup {
    html! {
        label { (label)
            input name=(name) size=(size) value=(value) placeholder=[Some(hint).filter(|hint| !hint.is_empty())] autocomplete="off";
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_holds_what_was_asked_alone() {
        assert_eq!(
            address("/i/r.example.com", &[("q", None)]),
            "/i/r.example.com"
        );
        let asked = [("q", Some("a&b")), ("class", None), ("at", Some("3 Mar"))];
        assert_eq!(address("/i", &asked), "/i?q=a%26b&at=3+Mar");
    }
}
