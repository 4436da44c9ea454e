//! A body with several events, each of which is decoded by itself.

use std::cell::OnceCell;
use std::fmt;

use serde::de::{Deserialize, DeserializeOwned, Deserializer, Error as _, SeqAccess, Visitor};
use serde_json::value::RawValue;
use tagtrail_proto::Digest;

use super::{DecodeError, Meaning};

/// The events of a body, as unparsed JSON.
#[derive(Debug)]
pub(crate) struct Parts<'a>(pub(super) Vec<&'a RawValue>);

impl Parts<'_> {
    /// Most events in a body, so that every body can be published before the sender stops waiting.
    pub(super) const MOST: usize = 1000;
    /// The beginning of the error for more events.
    pub(crate) const TOO_MANY: &'static str = "more than 1000 events in one body";

    /// Decodes each event separately. `decode` receives the event, and a function that makes an
    /// identifier for an event without an identifier.
    pub(super) fn decode(
        &self,
        body: &[u8],
        decode: impl Fn(&RawValue, &dyn Fn() -> String) -> Result<Meaning, DecodeError>,
    ) -> Vec<Meaning> {
        let all = self.0.len();
        let whole = OnceCell::new();
        let each = |(number, part): (usize, &&RawValue)| {
            let body_id = || {
                let whole = whole.get_or_init(|| body_id(body));
                if all > 1 {
                    format!("{whole}#{number}")
                } else {
                    whole.clone()
                }
            };
            decode(part, &body_id).unwrap_or_else(|malformed| {
                let reason = format!("event {} of {all}: {malformed}", number + 1);
                Meaning::Malformed(DecodeError::new(reason))
            })
        };
        self.0.iter().enumerate().map(each).collect()
    }
}

/// Returns an identifier made from the body, for an event without an identifier.
pub(super) fn body_id(body: &[u8]) -> String {
    let hash = Digest::sha256_of(body).to_string();
    format!("{BODY_ID}{}", &hash["sha256:".len()..][..32])
}

/// The prefix of the identifiers that are made from bodies.
pub(crate) const BODY_ID: &str = "body:";

impl<'de: 'a, 'a> Deserialize<'de> for Parts<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Parts<'a>, D::Error> {
        struct Events;
        impl<'de> Visitor<'de> for Events {
            type Value = Vec<&'de RawValue>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a list of events")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Self::Value, A::Error> {
                let mut parts = Vec::new();
                while let Some(part) = list.next_element()? {
                    if parts.len() == Parts::MOST {
                        return Err(A::Error::custom(Parts::TOO_MANY));
                    }
                    parts.push(part);
                }
                Ok(parts)
            }
        }
        deserializer.deserialize_seq(Events).map(Parts)
    }
}

/// Deserialises a descriptive field. A value of a wrong type counts as absent.
pub(super) fn lenient<'de, D: Deserializer<'de>, T: DeserializeOwned>(
    de: D,
) -> Result<Option<T>, D::Error> {
    let raw = <&RawValue>::deserialize(de)?;
    Ok(serde_json::from_str(raw.get()).ok())
}
