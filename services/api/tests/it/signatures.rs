//! Tags that hold signatures and the like are no images.

use tagtrail_proto::Tag;

#[test]
fn the_documented_query_leaves_out_signatures_by_the_same_rule() {
    let reports = include_str!("../../../../docs/reports.md");
    assert!(reports.contains(&format!("tag !~ '{}'", Tag::SIGNATURE)));
}
