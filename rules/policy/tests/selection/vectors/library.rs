//! Versions, ranges, expressions and calendar versions alone.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::{Value, json};
use tagtrail_policy::selection::{Calver, Parse, Pattern, Prereleases, Range, Template};

fn text<'a>(given: &'a Value, key: &str) -> &'a str {
    given[key].as_str().unwrap()
}

pub(super) fn parse(given: &Value) -> Value {
    let parse: Parse = serde_json::from_value(given["parse"].clone()).unwrap();
    json!(
        parse
            .version(text(given, "tag"))
            .map(|version| version.to_string())
    )
}

pub(super) fn compare(given: &Value) -> Value {
    let version = |key| Parse::Loose.version(text(given, key)).unwrap();
    json!(version("a").cmp(&version("b")) as i8)
}

pub(super) fn constraint(given: &Value) -> Value {
    let prereleases = match &given["prereleases"] {
        Value::Null => Prereleases::Range,
        prereleases => serde_json::from_value(prereleases.clone()).unwrap(),
    };
    let version = Parse::Loose.version(text(given, "version")).unwrap();
    match Range::parse(text(given, "range")) {
        Ok(range) => json!(range.has(&version, prereleases)),
        Err(_) => json!("error"),
    }
}

pub(super) fn regex(given: &Value) -> Value {
    let Ok(pattern) = Pattern::parse(text(given, "pattern")) else {
        return json!("error");
    };
    let (tag, extract) = (text(given, "tag"), text(given, "extract"));
    if extract.is_empty() {
        return json!(pattern.is_match(tag).then_some(tag));
    }
    let template = Template::parse(extract, &pattern).unwrap();
    json!(template.expand(&pattern, tag))
}

pub(super) fn calver(given: &Value) -> Value {
    let calver = Calver::parse(text(given, "calver")).unwrap();
    json!(calver.is_match(text(given, "tag")))
}

#[derive(Deserialize)]
struct Matrix {
    versions: Vec<String>,
    ranges: BTreeMap<String, String>,
}

/// Compares all answers of the matrix, and returns their number.
pub(super) fn matrix(text: &str) -> usize {
    let matrix: Matrix = serde_json::from_str(text).unwrap();
    let mut count = 0;
    for (text, expected) in &matrix.ranges {
        let range = Range::parse(text);
        let answer = |version: &String| match &range {
            Err(_) => 'e',
            Ok(range) => {
                let version = Parse::Loose.version(version).unwrap();
                if range.has(&version, Prereleases::Range) {
                    '1'
                } else {
                    '0'
                }
            }
        };
        let answers: String = matrix.versions.iter().map(answer).collect();
        assert_eq!(answers, *expected, "{text:?}");
        count += answers.len();
    }
    count
}
