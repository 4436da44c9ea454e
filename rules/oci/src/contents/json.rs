//! Reads JSON of strangers: fields as raw JSON, lists and maps within bounds.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;

use serde::de::{Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;
use tagtrail_proto::Manifest;

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

/// Visits the items of a list. Returns false if the value is missing or no list.
pub(super) fn each<'a>(raw: Option<&'a RawValue>, visit: impl FnMut(&'a RawValue)) -> bool {
    struct Items<F>(F);
    impl<'a, F: FnMut(&'a RawValue)> Visitor<'a> for Items<F> {
        type Value = ();

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("a list")
        }

        fn visit_seq<A: SeqAccess<'a>>(mut self, mut list: A) -> Result<(), A::Error> {
            while let Some(item) = list.next_element()? {
                (self.0)(item);
            }
            Ok(())
        }
    }
    let read =
        raw.map(|raw| serde_json::Deserializer::from_str(raw.get()).deserialize_seq(Items(visit)));
    read.is_some_and(|read| read.is_ok())
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

/// Returns the keys of an object, of which Docker makes sets. At most `most`; the number of the
/// others comes second.
pub(super) fn keys(raw: Option<&RawValue>, most: usize) -> (Vec<String>, u64) {
    struct Keys(usize);
    impl<'a> Visitor<'a> for Keys {
        type Value = (Vec<String>, u64);

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("an object")
        }

        fn visit_map<A: MapAccess<'a>>(self, mut map: A) -> Result<Self::Value, A::Error> {
            let (mut keys, mut others) = (Vec::new(), 0);
            while let Some(key) = map.next_key::<Cow<'_, str>>()? {
                map.next_value::<IgnoredAny>()?;
                if keys.len() < self.0 {
                    keys.push(key.into_owned());
                } else {
                    others += 1;
                }
            }
            Ok((keys, others))
        }
    }
    let read =
        raw.map(|raw| serde_json::Deserializer::from_str(raw.get()).deserialize_map(Keys(most)));
    read.and_then(Result::ok).unwrap_or_default()
}
