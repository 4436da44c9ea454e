//! The parameters of a request, read strictly: a misspelt parameter would otherwise change the
//! answer without notice.

use std::collections::HashMap;
use std::str::FromStr;

use axum::extract::{FromRequestParts, Path, Query};
use axum::http::Uri;
use axum::http::request::Parts;
use serde_json::{Value, json};
use tagtrail_config::Names;
use tagtrail_history::instant::Instant;
use tagtrail_proto::{Image, clean_text, instant};
use time::OffsetDateTime;

use crate::http::error::Error;

/// A parameter of an operation.
#[derive(Debug)]
pub(crate) struct Parameter {
    pub(crate) name: &'static str,
    pub(crate) required: bool,
    pub(crate) description: &'static str,
    pub(crate) example: &'static str,
    /// The JSON Schema of the value.
    pub(crate) schema: fn() -> Value,
}

pub(crate) const fn optional(
    name: &'static str,
    description: &'static str,
    example: &'static str,
    schema: fn() -> Value,
) -> Parameter {
    Parameter {
        name,
        required: false,
        description,
        example,
        schema,
    }
}

pub(crate) fn text() -> Value {
    json!({ "type": "string" })
}

pub(crate) fn time() -> Value {
    json!({ "type": "string", "format": "date-time" })
}

pub(crate) const IMAGE: Parameter = Parameter {
    required: true,
    ..optional(
        "image",
        "The image; without a tag it is `latest`.",
        "registry.example.com/shop/web:latest",
        text,
    )
};
pub(crate) const AT: Parameter = optional(
    "at",
    "The revision in force at this time (RFC 3339).",
    "2026-03-03T14:02:00Z",
    time,
);
pub(crate) const KNOWN_AT: Parameter = optional(
    "known_at",
    "Ignore revisions recorded after this time (RFC 3339).",
    "2026-03-03T14:02:00Z",
    time,
);
pub(crate) const PART: Parameter = optional(
    "q",
    "Only names that contain this text, in any case.",
    "web",
    text,
);
pub(crate) const SINCE: Parameter = optional(
    "since",
    "Only revisions that took effect at this time or later (RFC 3339).",
    "2026-03-03T14:02:00Z",
    time,
);
pub(crate) const UNTIL: Parameter = optional(
    "until",
    "Only revisions that took effect before this time (RFC 3339).",
    "2026-03-03T15:00:00Z",
    time,
);
pub(crate) const SIGNATURES: Parameter = optional(
    "signatures",
    "`true`: also tags that hold signatures, attestations and other content about a digest (`sha256-…`, `sha256-….sig`). They are no images.",
    "true",
    || json!({ "type": "boolean", "default": false }),
);
pub(crate) const REVISION: Parameter = optional(
    "revision",
    "The revision with this number.",
    "17",
    || json!({ "type": "integer", "minimum": 1 }),
);

/// The name of a parameter that clients of many frameworks add to avoid cached answers. Its value
/// means nothing.
const CACHE_BUSTER: &str = "_";

/// The parameters after the `?`: only known names, each at most once.
#[derive(Debug)]
pub(crate) struct Parameters(Vec<(&'static str, String)>);

impl Parameters {
    /// Reads the parameters of an operation that knows only the `known` parameters.
    pub(crate) fn read(uri: &Uri, known: &'static [Parameter]) -> Result<Parameters, Error> {
        Parameters::read_also(uri, known, &[])
    }

    /// As [`Parameters::read`], with names that the description of the API leaves out.
    pub(crate) fn read_also(
        uri: &Uri,
        known: &'static [Parameter],
        also: &'static [&'static str],
    ) -> Result<Parameters, Error> {
        let Ok(Query(given)) = Query::<Vec<(String, String)>>::try_from_uri(uri) else {
            return Err(Error::NotFound);
        };
        let names = || known.iter().map(|parameter| parameter.name);
        let mut read: Vec<(&'static str, String)> = Vec::new();
        for (given, value) in given {
            if given == CACHE_BUSTER {
                continue;
            }
            let mut accepted = names().chain(also.iter().copied());
            let Some(name) = accepted.find(|name| *name == given) else {
                let name = clean_text(&given, 80);
                let known = names().collect();
                return Err(Error::ParameterUnknown { name, known });
            };
            if read.iter().any(|(before, _)| *before == name) {
                return Err(Error::ParameterRepeated(name));
            }
            read.push((name, value));
        }
        Ok(Parameters(read))
    }

    /// Leaves out the parameters without a value: those of empty fields of a form.
    pub(crate) fn filled(mut self) -> Parameters {
        self.0.retain(|(_, value)| !value.trim().is_empty());
        self
    }

    /// Returns a parameter as it was sent.
    pub(crate) fn text(&self, name: &str) -> Option<&str> {
        let found = self.0.iter().find(|(given, _)| *given == name);
        found.map(|(_, value)| value.as_str())
    }

    /// Returns a parameter that is not empty: a form sends its empty fields, too.
    pub(crate) fn written(&self, name: &str) -> Option<&str> {
        self.text(name)
            .map(str::trim)
            .filter(|text| !text.is_empty())
    }

    /// Parses a parameter that is one of a few words.
    pub(crate) fn choice<T: Copy>(
        &self,
        parameter: &'static str,
        choices: &[T],
        word: fn(T) -> &'static str,
    ) -> Result<Option<T>, Error> {
        let Some(text) = self.written(parameter) else {
            return Ok(None);
        };
        let found = choices.iter().copied().find(|one| word(*one) == text);
        let unknown = || Error::Choice {
            parameter,
            choices: choices.iter().map(|one| word(*one).to_owned()).collect(),
        };
        found.ok_or_else(unknown).map(Some)
    }

    /// Parses a parameter that is true or false; false if it is missing.
    pub(crate) fn flag(&self, parameter: &'static str) -> Result<bool, Error> {
        match self.text(parameter) {
            None | Some("false") => Ok(false),
            Some("true") => Ok(true),
            Some(_) => Err(Error::Flag { parameter }),
        }
    }

    /// Parses `image`, whose registry may be written under an alias. The default of the tag is
    /// `latest`.
    pub(crate) fn image(&self, names: &Names) -> Result<Image, Error> {
        let text = self.text("image").ok_or(Error::ImageMissing)?;
        names.image(text).map_err(Error::Image)
    }

    /// Parses a time.
    pub(crate) fn time(&self, parameter: &'static str) -> Result<Option<OffsetDateTime>, Error> {
        let Some(text) = self.text(parameter) else {
            return Ok(None);
        };
        instant::parse(text)
            .ok_or(Error::Time { parameter })
            .map(Some)
    }

    /// Parses `since` and `until`.
    pub(crate) fn range(&self) -> Result<(Option<OffsetDateTime>, Option<OffsetDateTime>), Error> {
        let [since, until] = [self.time(SINCE.name)?, self.time(UNTIL.name)?];
        match (since, until) {
            (Some(since), Some(until)) if since > until => Err(Error::RangeEmpty {
                since: Instant(since),
                until: Instant(until),
            }),
            range => Ok(range),
        }
    }

    /// Parses `revision`.
    pub(crate) fn revision(&self) -> Result<Option<u64>, Error> {
        let Some(text) = self.text("revision") else {
            return Ok(None);
        };
        match text.parse::<u64>() {
            Ok(number @ 1..) if i64::try_from(number).is_ok() => Ok(Some(number)),
            _ => Err(Error::Revision),
        }
    }
}

/// The values in the path of a request, by the names in the path of the operation.
#[derive(Debug)]
pub(crate) struct PathValues(HashMap<String, String>);

impl<S: Send + Sync> FromRequestParts<S> for PathValues {
    type Rejection = Error;

    /// A path that is not UTF-8 is not found.
    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<PathValues, Error> {
        match Path::from_request_parts(parts, state).await {
            Ok(Path(values)) => Ok(PathValues(values)),
            Err(_) => Err(Error::NotFound),
        }
    }
}

impl PathValues {
    /// Parses the value of a parameter.
    pub(crate) fn parse<T: FromStr>(&self, parameter: &Parameter) -> Result<T, T::Err> {
        // The routes come from the same table: the value is always there.
        let value = self.0.get(parameter.name);
        value.map_or("", String::as_str).parse()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(query: &str) -> Result<Parameters, Error> {
        let uri = format!("/v1/x?{query}").parse().unwrap();
        Parameters::read(&uri, &[IMAGE, AT, REVISION])
    }

    #[test]
    fn an_unknown_parameter_is_refused_with_the_known_names() {
        let error = read("image=a.b/c&At=x").unwrap_err().to_string();
        assert_eq!(
            error,
            r#"there is no parameter "At"; the operation takes image, at, revision"#
        );
    }

    #[test]
    fn a_parameter_against_caches_is_ignored_also_if_it_is_repeated() {
        let given = read("_=1764230400123&at=x&_=1764230400123").unwrap();
        assert_eq!((given.text("at"), given.text("_")), (Some("x"), None));
        assert!(read("_").is_ok() && read("__=1").is_err());
    }

    #[test]
    fn a_parameter_may_be_given_once() {
        assert!(matches!(
            read("at=1&at=1").unwrap_err(),
            Error::ParameterRepeated("at")
        ));
    }

    #[test]
    fn times_have_any_offset_if_its_plus_is_escaped() {
        let time = |query| read(query).unwrap().time("at");
        let expected = instant::parse("2026-03-03T14:02:00Z");
        assert_eq!(time("at=2026-03-03T15:02:00%2B01:00").unwrap(), expected);
        assert_eq!(time("at=2026-03-03T09:02:00-05:00").unwrap(), expected);
        assert_eq!(time("image=x").unwrap(), None);
        for wrong in [
            "at=2026-03-03T15:02:00+01:00",
            "at=2026-03-03",
            "at=",
            "at=now",
        ] {
            let error = time(wrong).unwrap_err().to_string();
            assert!(error.contains("%2B"), "{wrong}: {error}");
        }
    }

    #[test]
    fn revisions_are_numbers_from_one_on() {
        let revision = |query| read(query).unwrap().revision();
        assert_eq!(revision("revision=17").unwrap(), Some(17));
        for wrong in [
            "revision=0",
            "revision=-1",
            "revision=",
            "revision=9223372036854775808",
            "revision=1.0",
        ] {
            assert!(revision(wrong).is_err(), "{wrong}");
        }
    }
}
