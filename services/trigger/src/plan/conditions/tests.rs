//! On a real Postgres.

use tagtrail_daemon::Context;
use tagtrail_testkit::stand;

use super::*;

#[tokio::test]
async fn the_condition_of_every_reason_is_a_metric_and_a_removed_trigger_has_one_too() {
    let db = tagtrail_testkit::postgres().await;
    let mut sql = db.connect().await;
    let mut standing = Vec::new();
    for code in ReasonCode::ALL {
        standing.push((*code, stand(&mut sql, *code).await.0));
    }
    let ctx = Context::default();
    let metrics = crate::metrics::Metrics::new(&ctx.metrics);
    let mut known = Known::default();
    let facts = tagtrail_condition::read(&mut sql, None).await.unwrap();
    let (standings, changes) = known.update(facts, Instant::now());
    changes.iter().for_each(|change| metrics.condition(change));
    let text = ctx.metrics.text().unwrap();
    for (code, name) in &standing {
        let change = changes
            .iter()
            .find(|change| change.trigger == *name)
            .unwrap();
        let place = standings
            .iter()
            .find(|one| one.reasons.iter().any(|reason| reason.code == *code));
        assert!(place.is_some(), "{code}");
        // A removed tag and adopted images stay as they are wanted.
        let settled = matches!(
            code,
            ReasonCode::Removed | ReasonCode::Adopted | ReasonCode::Freeze | ReasonCode::Pin
        );
        assert_eq!(
            change.now == Condition::Settled,
            settled,
            "{code} {change:?}"
        );
        for condition in Condition::ALL {
            let value = u8::from(*condition == change.now);
            let line = format!(
                "tagtrail_trigger_condition{{trigger=\"{name}\",condition=\"{condition}\"}} {value}"
            );
            assert!(text.contains(&line), "{line}");
        }
    }
    let (_, changes) = known.update(Vec::new(), Instant::now());
    let removed = changes
        .iter()
        .filter(|change| change.now == Condition::Removed);
    assert!(removed.count() >= ReasonCode::ALL.len());
}
