//! The vectors of `fixtures/`: answers of the code of Masterminds/semver, Flux, Go's `regexp`,
//! Argo CD Image Updater, Kargo and Keel, and answers by definition. The field `about` of each file
//! has the versions. Every case is run.

mod importers;
mod library;
mod policies;
mod sequences;

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::Value;

#[derive(Deserialize)]
struct Vectors {
    cases: Vec<Case>,
}

#[derive(Deserialize)]
struct Case {
    id: String,
    group: String,
    given: Value,
    expect: Value,
}

/// Each group with its number of cases, and the function that answers one.
type Group = (&'static str, usize, fn(&Value) -> Value);

const GROUPS: [Group; 22] = [
    ("parse", 121, library::parse),
    ("compare", 17, library::compare),
    ("constraint", 195, library::constraint),
    ("constraint-prereleases-all", 8, library::constraint),
    ("regex", 20, library::regex),
    ("as-flux", 28, importers::as_flux),
    ("as-argo", 12, importers::as_argo),
    ("as-kargo", 11, importers::as_kargo),
    ("as-keel", 12, importers::as_keel),
    ("numeric", 7, policies::select),
    ("alphabetical", 2, policies::select),
    ("calver-parse", 26, library::calver),
    ("calver", 5, policies::select),
    ("typed", 4, policies::select),
    ("glob", 4, policies::select),
    ("ignore", 3, policies::select),
    ("semver", 8, policies::select),
    ("newest-pushed", 6, policies::select),
    ("newest-created", 3, policies::select),
    ("platform", 6, policies::select),
    ("labels", 2, policies::select),
    ("sequence", 22, sequences::run),
];

#[test]
fn every_case_has_its_answer() {
    let vectors: Vectors =
        serde_json::from_str(include_str!("fixtures/policies-vectors.json")).unwrap();
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    let mut wrong = Vec::new();
    for case in &vectors.cases {
        let group = GROUPS.iter().find(|(name, ..)| *name == case.group);
        let (name, _, answer) = group.unwrap_or_else(|| panic!("no test of {}", case.group));
        *counts.entry(name).or_default() += 1;
        let answer = answer(&case.given);
        let expected = importers::expected(&case.id)
            .unwrap_or(&case.expect)
            .clone();
        if answer != expected {
            wrong.push(format!(
                "{}: {} gives {answer}, not {expected}",
                case.id, case.given
            ));
        }
    }
    assert!(
        wrong.is_empty(),
        "{}\n{} wrong",
        wrong.join("\n"),
        wrong.len()
    );
    let wanted: BTreeMap<&str, usize> = GROUPS
        .iter()
        .map(|(name, count, _)| (*name, *count))
        .collect();
    assert_eq!(counts, wanted);
    assert_eq!(vectors.cases.len(), 522);
}

/// Where Tagtrail answers otherwise than the other system on purpose, the two answers must differ:
/// else the row of the table is out of date.
#[test]
fn each_exception_is_one() {
    let vectors: Vectors =
        serde_json::from_str(include_str!("fixtures/policies-vectors.json")).unwrap();
    for (id, ours, why) in importers::exceptions() {
        let case = vectors.cases.iter().find(|case| case.id == *id).unwrap();
        assert_ne!(case.expect, *ours, "{id}: {why}");
    }
}

#[test]
fn every_answer_of_the_matrix_is_that_of_the_library() {
    assert_eq!(
        library::matrix(include_str!("fixtures/policies-matrix.json")),
        8307
    );
}
