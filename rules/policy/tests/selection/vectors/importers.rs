//! The policies of other systems, by the settings that the importers write for them.

use std::sync::LazyLock;

use serde_json::{Value, json};
use tagtrail_policy::selection::TagGlob;

use super::policies::answer_for;

/// Cases with another answer than that of the other system, our answer, and the reason: the mapping
/// calls `numerical` of Flux, and tags with the same extracted text, close and not exact.
static EXCEPTIONS: LazyLock<Vec<(&str, Value, &str)>> = LazyLock::new(|| {
    vec![
        (
            "as-flux-012",
            json!("1.50"),
            "equal values: the highest bytes",
        ),
        (
            "as-flux-013",
            json!("7"),
            "a tag that is no number is passed over",
        ),
        (
            "as-flux-015",
            json!("20260101123456789"),
            "exact beyond 2^53",
        ),
        ("as-flux-016", json!("999"), "no floats in words"),
        (
            "as-flux-017",
            json!("15"),
            "a tag that is no number is passed over",
        ),
        ("as-flux-018", json!("5"), "no floats in words"),
        (
            "as-flux-024",
            json!("x-1-b"),
            "equal texts: the highest bytes of the tag",
        ),
    ]
});

pub(super) fn exceptions() -> &'static [(&'static str, Value, &'static str)] {
    &EXCEPTIONS
}

pub(super) fn expected(id: &str) -> Option<&'static Value> {
    let exception = EXCEPTIONS.iter().find(|(exception, ..)| *exception == id);
    exception.map(|(_, ours, _)| ours)
}

fn text<'a>(given: &'a Value, key: &str) -> &'a str {
    given[key].as_str().unwrap()
}

fn set(settings: &mut Value, key: &str, value: &str) {
    if !value.is_empty() {
        settings[key] = json!(value);
    }
}

pub(super) fn as_flux(given: &Value) -> Value {
    let mut settings = match (text(given, "policy"), text(given, "arg")) {
        ("semver", range) => json!({ "semver": { "range": range, "parse": "three-part" } }),
        ("alphabetical", "asc") => json!({ "alphabetical": "last" }),
        ("alphabetical", "desc") => json!({ "alphabetical": "first" }),
        ("numerical", "asc") => json!({ "numeric": "highest" }),
        ("numerical", "desc") => json!({ "numeric": "lowest" }),
        // The importer refuses another order.
        _ => return json!("error"),
    };
    set(&mut settings, "match", text(given, "pattern"));
    set(&mut settings, "extract", text(given, "extract"));
    match answer_for(settings, &given["tags"]) {
        // Flux reports an error where it selects no tag.
        Value::Null => json!("error"),
        tag => tag,
    }
}

pub(super) fn as_argo(given: &Value) -> Value {
    let constraint = match text(given, "constraint") {
        "" => "*",
        constraint => constraint,
    };
    let mut settings = match text(given, "strategy") {
        "semver" => json!({ "semver": { "range": constraint, "parse": "loose" } }),
        "alphabetical" => json!({ "alphabetical": "last" }),
        other => panic!("{other}"),
    };
    // A glob that Argo cannot read ignores nothing, so the importer leaves it out.
    let ignore: Vec<&Value> = given["ignore"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|glob| TagGlob::parse(glob.as_str().unwrap()).is_ok())
        .collect();
    settings["ignore"] = json!(ignore);
    answer_for(settings, &given["tags"])
}

pub(super) fn as_kargo(given: &Value) -> Value {
    let constraint = match text(given, "constraint") {
        "" => "*-0",
        constraint => constraint,
    };
    let parse = if given["strict"] == json!(true) {
        "strict-v"
    } else {
        "loose"
    };
    let mut settings = json!({ "semver": { "range": constraint, "parse": parse } });
    let allow: Vec<&str> = given["allow"]
        .as_array()
        .unwrap()
        .iter()
        .map(|one| one.as_str().unwrap())
        .collect();
    set(&mut settings, "match", &allow.join("|"));
    settings["ignore_match"] = given["ignore"].clone();
    answer_for(settings, &given["tags"])
}

pub(super) fn as_keel(given: &Value) -> Value {
    let within = text(given, "policy");
    let mut semver = json!({ "within": within, "from": given["current"], "parse": "loose" });
    match (within, given["match_prerelease"] == json!(true)) {
        ("all", _) => {}
        (_, true) => semver["suffix"] = json!("same"),
        (_, false) => semver["prereleases"] = json!("all"),
    }
    // To Keel, a text without a dot is no version.
    answer_for(json!({ "semver": semver, "match": r"\." }), &given["tags"])
}
