//! The table of pages.

use std::collections::BTreeSet;

use super::*;

#[test]
fn pages_have_ids_of_their_own() {
    let ids: BTreeSet<&str> = ALL.iter().map(|page| page.id).collect();
    assert_eq!(ids.len(), ALL.len());
    assert!(ALL.iter().all(|page| page.id.starts_with("page_")));
}
