//! `TestAddTagEventToImageStream` of `OpenShift`: the rule by which a history grows.

use tagtrail_proto::Digest;
use tagtrail_timeline::{Effect, Fact, TagState};
use time::{Duration, OffsetDateTime};

/// Returns the history of a tag after pushes of these digests, as numbers and digests.
fn history(digests: &[u8]) -> Vec<(u64, Digest)> {
    let mut state = TagState::default();
    let mut history = Vec::new();
    for (second, digest) in (1i64..).zip(digests) {
        let at = OffsetDateTime::UNIX_EPOCH + Duration::seconds(second);
        let effect = Effect::Push(Digest::sha256_of(&[*digest]));
        let new = state.record(Fact {
            at,
            received: at,
            effect,
            push_id: second,
        });
        for one in new {
            let digest = one.revision.digest;
            history.extend(digest.map(|digest| (one.revision.number, digest)));
        }
    }
    history
}

#[test]
fn the_append_rule_of_openshift_without_its_overwriting() {
    let of = |digests: &[u8]| -> Vec<(u64, Digest)> {
        let digests = digests.iter().map(|n| Digest::sha256_of(&[*n]));
        (1..).zip(digests).collect()
    };
    // No entry yet, and the same image again.
    assert_eq!(history(&[1]), of(&[1]));
    assert_eq!(history(&[1, 1]), of(&[1]));
    // OpenShift overwrites the entry of the same reference, and its digest is lost.
    assert_eq!(history(&[1, 2]), of(&[1, 2]));
    // A tag that returns is a third entry in both.
    assert_eq!(history(&[1, 2, 1]), of(&[1, 2, 1]));
    assert_eq!(history(&[1, 2, 2, 2, 1, 1]), of(&[1, 2, 1]));
}
