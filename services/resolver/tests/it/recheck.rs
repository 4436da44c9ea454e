//! From which time an answer counts, and how often a re-check asks.

use std::time::Duration;

use tagtrail_proto::{Action, Push};
use tagtrail_testkit::TestNats;
use time::OffsetDateTime;

use crate::{
    Fake, IMAGE, Resolver, absent, all_done, answers, ask, digest, found, question, registry,
    wait_answers,
};

/// The time by a clock that is eight seconds ahead, in microseconds.
fn ahead() -> OffsetDateTime {
    let at = OffsetDateTime::now_utc() + Duration::from_secs(8);
    at.replace_nanosecond(at.microsecond() * 1000).unwrap()
}

fn recheck(head_at: OffsetDateTime) -> Push {
    Push {
        occurred_at: head_at,
        ..question(IMAGE, &format!("doubt:{IMAGE}#2"))
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_answer_to_a_recheck_counts_after_its_head_and_is_confirmed_once() {
    let (nats, fake) = (TestNats::start().await, Fake::start(vec![found]).await);
    let resolver = Resolver::start(&nats, &registry("registry.example.com", &fake.url)).await;
    let head_at = ahead();
    ask(&nats, recheck(head_at)).await;
    let answer = wait_answers(&nats, 1).await.remove(0);
    assert_eq!(answer.digest, Some(digest()));
    assert_eq!(answer.occurred_at - head_at, time::Duration::MICROSECOND);
    all_done(&nats).await;
    assert_eq!((answers(&nats).await.len(), fake.asked()), (1, 2));
    // A head in the past: the moment of asking counts.
    let begun = OffsetDateTime::now_utc();
    ask(&nats, recheck(begun - Duration::from_secs(90))).await;
    let answer = wait_answers(&nats, 2).await.remove(1);
    assert!(answer.occurred_at >= begun, "{answer:?}");
    resolver.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_recheck_needs_two_lookups_to_report_a_deletion() {
    let (nats, fake) = (TestNats::start().await, Fake::start(vec![absent]).await);
    let resolver = Resolver::start(&nats, &registry("registry.example.com", &fake.url)).await;
    ask(&nats, recheck(ahead())).await;
    let answer = wait_answers(&nats, 1).await.remove(0);
    assert_eq!((answer.action, answer.digest), (Action::Delete, None));
    assert_eq!(fake.asked(), 4, "two lookups, by HEAD and GET each");
    resolver.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_counts_after_the_head_in_postgres_and_agrees_with_a_known_deletion_at_once() {
    let (nats, fake) = (TestNats::start().await, Fake::start(vec![absent]).await);
    let db = tagtrail_testkit::postgres().await;
    let mut connection = db.connect().await;
    let head_at = ahead();
    sqlx::query(
        "with r as (insert into repository (registry, name) values ('registry.example.com', 'shop/web') returning id)
         insert into tag (repository_id, name, issued, head, head_at, latest_at) select id, 'v1', 2, 2, $1, $1 from r",
    )
    .bind(head_at)
    .execute(&mut connection)
    .await
    .unwrap();
    let file = format!(
        "{}reconcile = \"0s\"\n",
        registry("registry.example.com", &fake.url)
    );
    let resolver = Resolver::with_database(&nats, &file, db.url()).await;
    ask(&nats, question("registry.example.com/shop/web:v1", "1")).await;
    let answer = wait_answers(&nats, 1).await.remove(0);
    assert_eq!(answer.action, Action::Delete);
    assert_eq!(answer.occurred_at - head_at, time::Duration::MICROSECOND);
    assert_eq!(fake.asked(), 2, "one lookup, by HEAD and GET");
    resolver.stop().await;
}
