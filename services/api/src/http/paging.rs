//! Pages by key, not by number: what is added meanwhile neither repeats nor hides an item of a later page.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use schemars::JsonSchema;
use serde::Serialize;
use serde_json::json;
use tagtrail_history::instant::from_micros;

use crate::http::error::Error;
use crate::http::parameters::{Parameter, Parameters, optional, text};

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

/// A list that is read in pages. `N` numbers are the key of an item: they say where it stands in the list.
#[derive(Debug, Clone, Copy)]
pub(crate) struct List<const N: usize> {
    /// Name in its cursors, so that a cursor of another list is refused.
    pub(crate) name: &'static str,
    /// Index of the number of a key that is a time in microseconds, if one is.
    pub(crate) time: Option<usize>,
}

/// The page of a list that a request asks for.
#[derive(Debug)]
pub(crate) struct Page<const N: usize> {
    list: List<N>,
    limit: usize,
    /// Key of the last item of the page before.
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
    pub(crate) fn read(list: List<N>, parameters: &Parameters) -> Result<Page<N>, Error> {
        let limit = match parameters.text("limit") {
            None => USUAL,
            Some(text) => match text.parse() {
                Ok(limit @ 1..=MOST) => limit,
                _ => return Err(Error::Limit { most: MOST }),
            },
        };
        let after = match parameters.text("cursor") {
            None => None,
            Some(text) => Some(list.decode(text).ok_or(Error::Cursor)?),
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
        let next = last.map(|(key, _)| self.list.encode(*key));
        let items = fetched.into_iter().map(|(_, item)| item).collect();
        Items { items, next }
    }
}

impl<const N: usize> List<N> {
    /// `1 <list> <numbers>` in base64, so that nobody is tempted to make one up. The 1 is the version.
    fn encode(&self, key: [i64; N]) -> String {
        let numbers = key.map(|number| number.to_string()).join(" ");
        URL_SAFE_NO_PAD.encode(format!("1 {} {numbers}", self.name))
    }

    /// The inverse. `None`: this API did not issue the cursor for this list.
    fn decode(&self, text: &str) -> Option<[i64; N]> {
        if text.len() > LONGEST {
            return None;
        }
        let text = String::from_utf8(URL_SAFE_NO_PAD.decode(text).ok()?).ok()?;
        let numbers = text
            .strip_prefix("1 ")?
            .strip_prefix(self.name)?
            .strip_prefix(' ')?;
        let numbers: Option<Vec<i64>> = numbers
            .split(' ')
            .map(|number| number.parse().ok())
            .collect();
        let key: [i64; N] = numbers?.try_into().ok()?;
        if let Some(time) = self.time {
            from_micros(*key.get(time)?)?;
        }
        Some(key)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn list<const N: usize>(name: &'static str, time: Option<usize>) -> List<N> {
        List { name, time }
    }

    proptest! {
        #[test]
        fn a_cursor_is_read_as_it_was_written(key: [i64; 3]) {
            let list = list("digest", None);
            prop_assert_eq!(list.decode(&list.encode(key)), Some(key));
        }

        #[test]
        fn other_text_is_no_cursor(text in ".{0,300}", inner in "[0-9a-z -]{0,40}") {
            prop_assert_eq!(list::<2>("history", Some(0)).decode(&text), None);
            prop_assert_eq!(list::<2>("rollouts", Some(0)).decode(&URL_SAFE_NO_PAD.encode(inner)), None);
        }
    }

    #[test]
    fn a_cursor_of_another_list_is_refused() {
        let cursor = list("history", Some(0)).encode([1, 2]);
        assert_eq!(list::<2>("rollouts", Some(0)).decode(&cursor), None);
        assert_eq!(list::<3>("history", Some(0)).decode(&cursor), None);
        assert_eq!(list::<2>("hist", Some(0)).decode(&cursor), None);
    }

    #[test]
    fn a_cursor_with_a_time_out_of_range_is_refused() {
        let key = [1, i64::MAX];
        let cursor = list("history", None).encode(key);
        assert_eq!(list("history", None).decode(&cursor), Some(key));
        assert_eq!(list("history", Some(0)).decode(&cursor), Some(key));
        assert_eq!(list::<2>("history", Some(1)).decode(&cursor), None);
    }

    #[test]
    fn the_last_page_has_no_next_one() {
        let list = list("x", None);
        let page = |limit| Page::<1> {
            list,
            limit,
            after: None,
        };
        let fetched = || (0..3).map(|n| ([n], n)).collect();
        let next = |limit| page(limit).cut::<i64>(fetched()).next;
        assert_eq!(next(3), None);
        assert_eq!(next(2), Some(list.encode([1])));
        assert_eq!(page(2).cut::<i64>(fetched()).items, [0, 1]);
    }
}
