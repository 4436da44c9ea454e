//! Groups behind a fence on a cluster, whose streams have three copies.

#![expect(clippy::unwrap_used, reason = "in tests a panic is the report")]

use tagtrail_bus::fence::Fence;
use tagtrail_bus::publish::{Message, PublishError};
use tagtrail_bus::{Bus, BusArgs};
use tagtrail_proto::Subject;
use tagtrail_testkit::TestCluster;
use tokio_util::sync::CancellationToken;

/// Bodies of messages; each is the tag of its subject too.
type Bodies = &'static [&'static str];

async fn connect(cluster: &TestCluster) -> Bus {
    let args = BusArgs {
        replicas: 3,
        ..BusArgs::new(&cluster.url())
    };
    Bus::connect(&args, "test", &CancellationToken::new())
        .await
        .unwrap()
}

fn subject(tag: &str) -> Subject {
    format!("tagtrail.revision.registry%2Eexample%2Ecom.foo.bar.{tag}")
        .parse()
        .unwrap()
}

fn message<'a>(subject: &'a Subject, body: &str) -> Message<'a> {
    Message {
        subject,
        id: None,
        payload: body.to_owned().into(),
        trace: None,
    }
}

/// Returns the bodies of all revisions, in the order of the stream.
async fn revisions(cluster: &TestCluster) -> Vec<String> {
    let context = async_nats::jetstream::new(cluster.client().await.unwrap());
    let messages = tagtrail_testkit::messages(&context, "REVISIONS").await;
    messages
        .into_iter()
        .filter(|(subject, _)| subject.starts_with("tagtrail.revision."))
        .map(|(_, body)| String::from_utf8(body).unwrap())
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_group_behind_a_fence_is_stored_whole_and_in_order_or_not_at_all() {
    let cluster = TestCluster::start(true).await;
    let (sleeper, holder) = (connect(&cluster).await, connect(&cluster).await);
    let old = sleeper.fence(3).await.unwrap();
    assert!(old.takes_groups());
    let group = async |fence: &Fence, bodies: Bodies| {
        let subjects: Vec<Subject> = bodies.iter().map(|body| subject(&body[..1])).collect();
        let messages = bodies.iter().zip(&subjects);
        let messages: Vec<_> = messages.map(|(body, to)| message(to, body)).collect();
        fence.publish_group(&messages).await
    };
    // Several messages of one subject keep their order.
    let acks = group(&old, &["a1", "b1", "a2", "a3"]).await.unwrap();
    assert!(acks.is_sorted_by_key(|ack| ack.sequence));
    let new = holder.fence(3).await.unwrap();
    let refused = group(&old, &["a4", "b2"]).await;
    assert!(matches!(refused, Err(PublishError::Fenced)), "{refused:?}");
    let other = sleeper.fence(4).await.unwrap();
    group(&other, &["c1", "c2"]).await.unwrap();
    group(&new, &["a5", "b3"]).await.unwrap();
    assert_eq!(
        revisions(&cluster).await,
        ["a1", "b1", "a2", "a3", "c1", "c2", "a5", "b3"]
    );

    // One identifier twice: none of the group is stored, and the fence still holds.
    let (to, twice) = (subject("d"), Some("twice"));
    let messages = ["d1", "d2"].map(|body| Message {
        id: twice,
        ..message(&to, body)
    });
    let refused = new.publish_group(&messages).await;
    assert!(
        matches!(refused, Err(PublishError::Unacknowledged(_))),
        "{refused:?}"
    );
    group(&new, &["d3", "d4"]).await.unwrap();
    assert_eq!(revisions(&cluster).await[8..], ["d3", "d4"]);
}
