//! The envelope of every message on the bus: `CloudEvents` 1.0, structured mode, JSON.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use time::OffsetDateTime;

/// Content type of an [`Event`] in an HTTP body.
pub const CONTENT_TYPE: &str = "application/cloudevents+json";

/// The version of the `CloudEvents` specification.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum SpecVersion {
    /// 1.0
    #[default]
    #[serde(rename = "1.0")]
    V1,
}

/// The media type of `data`: always JSON.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum DataContentType {
    /// `application/json`
    #[default]
    #[serde(rename = "application/json")]
    Json,
}

/// An event about `subject`, with its payload.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Event<D> {
    /// Always `1.0`.
    pub specversion: SpecVersion,
    /// Unique within `source`.
    pub id: String,
    /// Repository or trigger: `tagtrail/<registry>/<repository>` or `tagtrail/trigger/<name>`.
    pub source: String,
    /// `dev.tagtrail.<type>.v1`. A breaking change gets a new version, never an edit.
    pub r#type: String,
    /// Image, repository, pinned reference or trigger that the event is about.
    pub subject: String,
    /// Time of the event, RFC 3339 in UTC.
    #[serde(with = "crate::instant")]
    #[schemars(with = "String", extend("format" = "date-time"))]
    pub time: OffsetDateTime,
    /// Media type of `data`.
    pub datacontenttype: DataContentType,
    /// The payload.
    pub data: D,
}

/// Defines an enum with one fixed word per variant, for JSON, Postgres and subjects.
macro_rules! words {
    ($(#[$doc:meta])* $name:ident { $($(#[$variant_doc:meta])* $variant:ident = $word:literal,)+ }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize, schemars::JsonSchema)]
        pub enum $name { $($(#[$variant_doc])* #[serde(rename = $word)] $variant,)+ }

        impl $name {
            /// Every variant.
            pub const ALL: &'static [$name] = &[$($name::$variant),+];

            /// Returns the fixed word of the variant.
            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self { $($name::$variant => $word,)+ }
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(self.as_str())
            }
        }

        impl std::str::FromStr for $name {
            type Err = $crate::NameError;

            fn from_str(text: &str) -> Result<$name, $crate::NameError> {
                match text {
                    $($word => Ok($name::$variant),)+
                    _ => Err($crate::NameError::new(stringify!($name), text, concat!("it must be one of:", $(" ", $word),+))),
                }
            }
        }
    };
}

pub(crate) use words;
