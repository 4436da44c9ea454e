//! Publishing revisions again, for subscribers that lost theirs.

use std::collections::BTreeMap;

use tagtrail_bus::{Bus, BusArgs};
use tagtrail_indexer::{Republish, RepublishCounts, republish};
use tagtrail_testkit::TestNats;

use crate::bench::*;

async fn bus(nats: &TestNats) -> Bus {
    let args = BusArgs::new(nats.url());
    Bus::connect(&args, "test", &Default::default())
        .await
        .unwrap()
}

async fn purge(nats: &TestNats) {
    let jetstream = nats.jetstream().await;
    jetstream
        .get_stream("REVISIONS")
        .await
        .unwrap()
        .purge()
        .await
        .unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn lost_revisions_are_published_again_with_the_same_identity() {
    let (db, nats) = (tagtrail_testkit::postgres().await, TestNats::start().await);
    let indexer = Indexer::start(db.url(), nats.url());
    indexer.ctx.health.wait_ready().await;
    for n in 1..=5 {
        send(
            &nats,
            ["a", "b"].map(|name| {
                push(
                    &format!("registry.example.com/x/{name}:latest"),
                    n,
                    n.unsigned_abs(),
                )
            }),
        )
        .await;
        // Each round has a time of recording of its own.
        wait_published(&nats, usize::try_from(2 * n).unwrap()).await;
    }
    let before = published(&nats).await;
    indexer.stop().await;
    purge(&nats).await;
    let (mut connection, bus) = (db.connect().await, bus(&nats).await);
    let of = |name: &str| -> Vec<_> {
        let name = format!("x/{name}");
        before
            .iter()
            .filter(|revision| revision.repository.to_string() == name)
            .cloned()
            .collect()
    };

    let one = Republish::Image(image("registry.example.com/x/a"));
    let total = republish(&mut connection, &bus, one, |_| {}).await.unwrap();
    assert_eq!(
        total,
        RepublishCounts {
            images: 1,
            revisions: 5
        }
    );
    assert_eq!(
        published(&nats).await,
        of("a"),
        "the very same events, in order"
    );

    let since = Republish::Since(of("b")[2].recorded_at);
    let expected = before
        .iter()
        .filter(|revision| revision.recorded_at >= of("b")[2].recorded_at)
        .count();
    let total = republish(&mut connection, &bus, since, |_| {})
        .await
        .unwrap();
    assert_eq!(total.revisions, u64::try_from(expected).unwrap());
    let b: Vec<_> = published(&nats)
        .await
        .into_iter()
        .filter(|revision| revision.repository.to_string() == "x/b")
        .collect();
    assert!(b == of("b")[2..], "{} of them", b.len());

    let nobody = Republish::Image(image("registry.example.com/x/nobody"));
    assert_eq!(
        republish(&mut connection, &bus, nobody, |_| {})
            .await
            .unwrap(),
        RepublishCounts::default()
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn revisions_recorded_meanwhile_still_come_last() {
    let (db, nats) = (tagtrail_testkit::postgres().await, TestNats::start().await);
    let indexer = Indexer::start(db.url(), nats.url());
    indexer.ctx.health.wait_ready().await;
    let pushes = |from: i64, to: i64| {
        (from..to).map(|n| {
            push(
                &format!("registry.example.com/load/r:t{}", n % 5),
                n,
                n.unsigned_abs(),
            )
        })
    };
    send(&nats, pushes(0, 200)).await;
    wait_published(&nats, 200).await;
    let (mut connection, bus) = (db.connect().await, bus(&nats).await);
    let everything = Republish::Since(time::OffsetDateTime::UNIX_EPOCH);
    let (total, ()) = tokio::join!(
        async {
            republish(&mut connection, &bus, everything, |_| {})
                .await
                .unwrap()
        },
        async {
            for n in 0..20 {
                send(&nats, pushes(200 + n * 5, 205 + n * 5)).await;
            }
        }
    );
    assert_eq!(total.images, 5);
    let mut watch = db.connect().await;
    wait_applied(&mut watch, &nats).await;
    // A late subscriber starts from the last message of each subject.
    let stored = stored(&mut watch).await;
    tagtrail_testkit::eventually(
        "each newest revision to stand last",
        tagtrail_testkit::SOON,
        async || {
            let mut last: BTreeMap<String, u64> = BTreeMap::new();
            for revision in published(&nats).await {
                last.insert(revision.image().to_string(), revision.revision);
            }
            stored
                .iter()
                .all(|(image, revisions)| {
                    last.get(image) == Some(&revisions.last().unwrap().0.unsigned_abs())
                })
                .then_some(())
        },
    )
    .await;
    indexer.stop().await;
}
