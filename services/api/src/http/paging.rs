//! Pages by key, not by number: items that are added between two requests neither repeat nor hide
//! an item of a later page.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use schemars::JsonSchema;
use serde::Serialize;
use serde_json::json;
use tagtrail_history::instant::from_micros;

use crate::http::error::Error;
use crate::http::parameters::{Parameter, Parameters, optional, text};

/// Items of a page without `limit`.
pub(crate) const USUAL: usize = 50;
/// Most items of a page.
pub(crate) const MOST: usize = 1000;
/// Longest cursor that is decoded. The API issues shorter cursors.
const LONGEST: usize = 200;

pub(crate) const LIMIT: Parameter = optional(
    "limit",
    "Most items of a page.",
    "50",
    || json!({ "type": "integer", "minimum": 1, "maximum": MOST, "default": USUAL }),
);
pub(crate) const CURSOR: Parameter = optional(
    "cursor",
    "The `next` of the previous page.",
    "MSBoaXN0b3J5IDE3NzI1NDY1MjAwMDAwMDAgMTc",
    text,
);

/// A list that is read in pages. The key of an item is `N` numbers, by which the list is ordered.
#[derive(Debug, Clone, Copy)]
pub(crate) struct List<const N: usize> {
    /// Name in cursors, so that a cursor of another list is refused.
    pub(crate) name: &'static str,
    /// Index of the number that is a time in microseconds, if the key has a time.
    pub(crate) time: Option<usize>,
}

/// The page of a list that a request asks for.
#[derive(Debug)]
pub(crate) struct Page<const N: usize> {
    list: List<N>,
    limit: usize,
    /// Key of the last item of the previous page.
    pub(crate) after: Option<[i64; N]>,
}

/// A page of a list.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct Items<T> {
    pub(crate) items: Vec<T>,
    /// Cursor of the next page, if there is one.
    pub(crate) next: Option<String>,
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

    /// Returns the page with another number of items.
    pub(crate) fn with(self, limit: usize) -> Page<N> {
        Page { limit, ..self }
    }

    /// Returns the number of items to fetch: an item more than the page has, to find out whether
    /// there is a next page.
    pub(crate) fn fetch(&self) -> i64 {
        i64::try_from(self.limit)
            .unwrap_or(i64::MAX)
            .saturating_add(1)
    }

    /// Bounds the number of items.
    pub(crate) fn at_most(self, limit: usize) -> Page<N> {
        Page {
            limit: self.limit.min(limit),
            ..self
        }
    }

    /// Returns the number of items of a full page.
    pub(crate) fn limit(&self) -> usize {
        self.limit
    }

    /// Makes the page of a list that may end early, with the key at which it continues.
    pub(crate) fn of<T>(&self, items: Vec<T>, next: Option<[i64; N]>) -> Items<T> {
        Items {
            items,
            next: next.map(|key| self.list.encode(key)),
        }
    }

    /// Makes the page of the items that were fetched.
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
    /// Writes `1 <list> <numbers>` in base64, so that clients do not build cursors by themselves.
    /// The 1 is the version of the format.
    pub(crate) fn encode(&self, key: [i64; N]) -> String {
        let numbers = key.map(|number| number.to_string()).join(" ");
        URL_SAFE_NO_PAD.encode(format!("1 {} {numbers}", self.name))
    }

    /// Reads a cursor. `None`: the API did not issue this cursor for this list.
    pub(crate) fn decode(&self, text: &str) -> Option<[i64; N]> {
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
            // No answer names a year before 0, and Postgres has none before -4713.
            let time = from_micros(*key.get(time)?)?;
            (time.year() >= 0).then_some(())?;
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
        fn a_cursor_survives_writing_and_reading(key: [i64; 3]) {
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
        // Of the years -4713, which Postgres has not in whole, and -1.
        for micros in [-210_866_803_200_000_001, -62_167_219_200_000_001] {
            let cursor = list("history", None).encode([micros, 4]);
            assert_eq!(list::<2>("history", Some(0)).decode(&cursor), None);
        }
        let cursor = list("history", None).encode([-62_167_219_200_000_000, 4]);
        assert!(list::<2>("history", Some(0)).decode(&cursor).is_some());
    }

    #[test]
    fn the_last_page_has_no_next_page() {
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
