//! Reads JSON of strangers: fields as raw JSON, lists and maps within bounds.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;

use serde::de::{Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;
use tagtrail_proto::Manifest;

use super::MAX_DESCRIPTORS;

/// Labels and annotations read.
pub(super) const MAX_TEXTS: usize = 8 * Manifest::TEXTS;

pub(super) fn of(raw: &RawValue) -> &[u8] {
    raw.get().as_bytes()
}

pub(super) fn text(raw: Option<&RawValue>) -> Option<String> {
    serde_json::from_str(raw?.get()).ok()
}

/// Returns the fields with these names as raw JSON. Of two fields with the same name the last
/// counts, as in most parsers.
pub(super) fn fields<'a, const N: usize>(
    bytes: &'a [u8],
    names: [&str; N],
) -> [Option<&'a RawValue>; N] {
    struct Fields<'n, const N: usize>([&'n str; N]);
    impl<'a, const N: usize> Visitor<'a> for Fields<'_, N> {
        type Value = [Option<&'a RawValue>; N];

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("an object")
        }

        fn visit_map<A: MapAccess<'a>>(self, mut map: A) -> Result<Self::Value, A::Error> {
            let mut found: [Option<&'a RawValue>; N] = [None; N];
            while let Some(key) = map.next_key::<Cow<'_, str>>()? {
                match self.0.iter().position(|name| *name == key) {
                    Some(place) => found[place] = Some(map.next_value()?),
                    None => drop(map.next_value::<IgnoredAny>()?),
                }
            }
            // `null` counts as missing.
            Ok(found.map(|value| value.filter(|raw| raw.get() != "null")))
        }
    }
    let mut json = serde_json::Deserializer::from_slice(bytes);
    let read = json.deserialize_map(Fields(names));
    read.ok()
        .filter(|_| json.end().is_ok())
        .unwrap_or([None; N])
}

/// Returns the first items of a list.
pub(super) fn items(raw: Option<&RawValue>) -> Vec<&RawValue> {
    struct FirstItems;
    impl<'a> Visitor<'a> for FirstItems {
        type Value = Vec<&'a RawValue>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("a list")
        }

        fn visit_seq<A: SeqAccess<'a>>(self, mut list: A) -> Result<Self::Value, A::Error> {
            let mut items = Vec::new();
            while items.len() < MAX_DESCRIPTORS {
                match list.next_element()? {
                    Some(item) => items.push(item),
                    None => return Ok(items),
                }
            }
            while list.next_element::<IgnoredAny>()?.is_some() {}
            Ok(items)
        }
    }
    let read =
        raw.map(|raw| serde_json::Deserializer::from_str(raw.get()).deserialize_seq(FirstItems));
    read.and_then(Result::ok).unwrap_or_default()
}

/// Returns the string values of an object. Values of other types are left out.
pub(super) fn texts(raw: Option<&RawValue>) -> BTreeMap<String, String> {
    struct Texts;
    impl<'a> Visitor<'a> for Texts {
        type Value = BTreeMap<String, String>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("an object")
        }

        fn visit_map<A: MapAccess<'a>>(self, mut map: A) -> Result<Self::Value, A::Error> {
            let mut texts = BTreeMap::new();
            while let Some(key) = map.next_key::<Cow<'_, str>>()? {
                let value: &RawValue = map.next_value()?;
                if texts.len() < MAX_TEXTS
                    && let Some(value) = text(Some(value))
                {
                    texts.insert(key.into_owned(), value);
                }
            }
            Ok(texts)
        }
    }
    let read = raw.map(|raw| serde_json::Deserializer::from_str(raw.get()).deserialize_map(Texts));
    read.and_then(Result::ok).unwrap_or_default()
}
