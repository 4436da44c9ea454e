//! Pages by key, not by number: what is added meanwhile neither repeats nor hides an item of a later page.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use schemars::JsonSchema;
use serde::Serialize;
use serde_json::json;
use time::OffsetDateTime;

use crate::http::error::Error;
use crate::http::parameters::{Parameter, Parameters, optional, text};
use crate::instant::from_micros;

/// Items on a page, unless the question says otherwise.
pub(crate) const USUAL: usize = 50;
/// Items that a page may have.
pub(crate) const MOST: usize = 1000;
/// Longer than any cursor of ours.
const LONGEST: usize = 200;

pub(crate) const LIMIT: Parameter = optional(
    "limit",
    "Most items on a page.",
    "50",
    || json!({ "type": "integer", "minimum": 1, "maximum": MOST, "default": USUAL }),
);
pub(crate) const CURSOR: Parameter = optional(
    "cursor",
    "The `next` of the page before.",
    "MSBoaXN0b3J5IDE3NzI1NDY1MjAwMDAwMDAgMTc",
    text,
);

/// Which page is asked for. `N` numbers are the place of an item in its list.
#[derive(Debug)]
pub(crate) struct Page<const N: usize> {
    /// Name of the list, so that a cursor of another one is refused.
    list: &'static str,
    limit: usize,
    /// Place of the last item of the page before.
    pub(crate) after: Option<[i64; N]>,
}

/// A page.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct Items<T> {
    items: Vec<T>,
    /// Cursor of the next page, if there is one.
    next: Option<String>,
}

impl<const N: usize> Page<N> {
    /// Reads `limit` and `cursor`.
    pub(crate) fn read(list: &'static str, parameters: &Parameters) -> Result<Page<N>, Error> {
        let limit = match parameters.text("limit") {
            None => USUAL,
            Some(text) => match text.parse() {
                Ok(limit @ 1..=MOST) => limit,
                _ => return Err(Error::Limit { most: MOST }),
            },
        };
        let after = match parameters.text("cursor") {
            None => None,
            Some(text) => Some(decode(list, text).ok_or(Error::Cursor)?),
        };
        Ok(Page { list, limit, after })
    }

    /// How many items to fetch: one more than are shown, which tells whether there is a next page.
    pub(crate) fn fetch(&self) -> i64 {
        i64::try_from(self.limit)
            .unwrap_or(i64::MAX)
            .saturating_add(1)
    }

    /// Makes the page of what was fetched.
    pub(crate) fn cut<T>(&self, mut fetched: Vec<([i64; N], T)>) -> Items<T> {
        let more = fetched.len() > self.limit;
        fetched.truncate(self.limit);
        let last = fetched.last().filter(|_| more);
        let next = last.map(|(place, _)| encode(self.list, *place));
        let items = fetched.into_iter().map(|(_, item)| item).collect();
        Items { items, next }
    }
}

/// The time in a cursor: one that never was is not of ours.
pub(crate) fn time_of(micros: i64) -> Result<OffsetDateTime, Error> {
    from_micros(micros).ok_or(Error::Cursor)
}

/// `1 <list> <numbers>` in base64, so that nobody is tempted to make one up. The 1 is the version.
fn encode<const N: usize>(list: &str, place: [i64; N]) -> String {
    let numbers = place.map(|number| number.to_string()).join(" ");
    URL_SAFE_NO_PAD.encode(format!("1 {list} {numbers}"))
}

fn decode<const N: usize>(list: &str, text: &str) -> Option<[i64; N]> {
    if text.len() > LONGEST {
        return None;
    }
    let text = String::from_utf8(URL_SAFE_NO_PAD.decode(text).ok()?).ok()?;
    let numbers = text
        .strip_prefix("1 ")?
        .strip_prefix(list)?
        .strip_prefix(' ')?;
    let numbers: Option<Vec<i64>> = numbers
        .split(' ')
        .map(|number| number.parse().ok())
        .collect();
    numbers?.try_into().ok()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_cursor_is_read_as_it_was_written(place: [i64; 3]) {
            prop_assert_eq!(decode("digest", &encode("digest", place)), Some(place));
        }

        #[test]
        fn other_text_is_no_cursor(text in ".{0,300}", inner in "[0-9a-z -]{0,40}") {
            prop_assert_eq!(decode::<2>("history", &text), None);
            prop_assert_eq!(decode::<2>("rollouts", &URL_SAFE_NO_PAD.encode(inner)), None);
        }
    }

    #[test]
    fn a_cursor_of_another_list_is_refused() {
        let cursor = encode("history", [1, 2]);
        assert_eq!(decode::<2>("rollouts", &cursor), None);
        assert_eq!(decode::<3>("history", &cursor), None);
        assert_eq!(decode::<2>("hist", &cursor), None);
    }

    #[test]
    fn the_last_page_has_no_next_one() {
        let page = |limit| Page::<1> {
            list: "x",
            limit,
            after: None,
        };
        let fetched = || (0..3).map(|n| ([n], n)).collect();
        let next = |limit| page(limit).cut::<i64>(fetched()).next;
        assert_eq!(next(3), None);
        assert_eq!(next(2), Some(encode("x", [1])));
        assert_eq!(page(2).cut::<i64>(fetched()).items, [0, 1]);
    }
}
