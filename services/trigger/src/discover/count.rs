//! The numbers of annotated objects, for the metrics. Pure.

use std::collections::{BTreeMap, BTreeSet};

use super::kinds;
use crate::metrics::ObjectLabels;
use crate::settings::Discovering;
use crate::store::discovered::{Key, Row};

const TRIGGER: &str = "trigger";
const REFUSED: &str = "refused";
const LEFT_OUT: &str = "left_out";

/// Counts the objects by cluster, kind and result. Each kind that is followed has a number, so that
/// alerts see the first object.
pub(super) fn count(
    discovering: &BTreeMap<String, Discovering>,
    known: &BTreeMap<Key, Row>,
    left_out: &BTreeSet<Key>,
) -> BTreeMap<ObjectLabels, usize> {
    let mut counts = BTreeMap::new();
    for cluster in discovering.keys() {
        for (kind, _) in kinds() {
            for result in [TRIGGER, REFUSED, LEFT_OUT] {
                counts.insert(labels(cluster, kind, result), 0);
            }
        }
    }
    let known = known.iter().map(|(key, row)| match row.objection() {
        Some(_) => (key, REFUSED),
        None => (key, TRIGGER),
    });
    let left_out = left_out.iter().map(|key| (key, LEFT_OUT));
    for (key, result) in known.chain(left_out) {
        let labels = labels(&key.cluster, &key.object.kind, result);
        *counts.entry(labels).or_default() += 1;
    }
    counts
}

fn labels(cluster: &str, kind: &str, result: &'static str) -> ObjectLabels {
    ObjectLabels {
        cluster: cluster.to_owned(),
        kind: kind.to_owned(),
        result,
    }
}
