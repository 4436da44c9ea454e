//! The bus on a real nats-server.

#![expect(clippy::unwrap_used, reason = "in tests a panic is the report")]

use std::time::Duration;

use futures_util::StreamExt as _;
use tagtrail_bus::consume::{Position, ReadError};
use tagtrail_bus::fence::Fence;
use tagtrail_bus::publish::{Message, PublishError};
use tagtrail_bus::topology::Stream;
use tagtrail_bus::{Bus, BusArgs, BusError};
use tagtrail_proto::Subject;
use tagtrail_testkit::{SOON, TestNats, eventually};
use tokio_util::sync::CancellationToken;

#[path = "bus/pushes.rs"]
mod pushes;
#[path = "bus/servers.rs"]
mod servers;

fn args(url: &str) -> BusArgs {
    BusArgs::new(url)
}

async fn connect(nats: &TestNats) -> Bus {
    Bus::connect(&args(nats.url()), "test", &CancellationToken::new())
        .await
        .unwrap()
}

/// `tagtrail.revision.registry%2Eexample%2Ecom.foo.bar.<tag>`
fn subject(tag: &str) -> Subject {
    format!("tagtrail.revision.registry%2Eexample%2Ecom.foo.bar.{tag}")
        .parse()
        .unwrap()
}

async fn publish(bus: &Bus, tag: &str) -> Result<u64, PublishError> {
    let message = Message {
        subject: &subject(tag),
        id: None,
        payload: tag.to_owned().into(),
        trace: None,
    };
    bus.publish(message).await.map(|ack| ack.sequence)
}

async fn fenced(fence: &Fence, tag: &str) -> Result<u64, PublishError> {
    let message = Message {
        subject: &subject(tag),
        id: None,
        payload: tag.to_owned().into(),
        trace: None,
    };
    let sent = fence.send(message).await?;
    sent.acknowledged().await.map(|ack| ack.sequence)
}

/// The bodies of the revisions that the stream holds.
async fn kept(nats: &TestNats) -> Vec<String> {
    let messages = nats.messages("REVISIONS").await.into_iter();
    messages
        .filter(|(subject, _)| subject.starts_with("tagtrail.revision"))
        .map(|(_, body)| String::from_utf8(body).unwrap())
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_start_changes_no_stream_and_keeps_what_an_operator_set() {
    let nats = TestNats::start().await;
    drop(connect(&nats).await);
    let jetstream = nats.jetstream().await;
    let mut config = jetstream
        .get_stream("PUSHES")
        .await
        .unwrap()
        .cached_info()
        .config
        .clone();
    config.max_bytes = 123_456_789;
    jetstream.update_stream(&config).await.unwrap();
    let client = nats.client().await.unwrap();
    let mut updates = client
        .subscribe("$JS.EVENT.ADVISORY.STREAM.UPDATED.>")
        .await
        .unwrap();
    client.flush().await.unwrap();
    drop(connect(&nats).await);
    // An error of the server about the update would have come before the answer to this request.
    client
        .publish("$JS.EVENT.ADVISORY.STREAM.UPDATED.end", "".into())
        .await
        .unwrap();
    assert_eq!(
        updates.next().await.unwrap().subject.as_str(),
        "$JS.EVENT.ADVISORY.STREAM.UPDATED.end"
    );
    assert_eq!(
        jetstream
            .get_stream("PUSHES")
            .await
            .unwrap()
            .cached_info()
            .config
            .max_bytes,
        123_456_789
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_of_an_earlier_version_takes_groups_after_the_start() {
    let nats = TestNats::start().await;
    let earlier = async_nats::jetstream::stream::Config {
        allow_atomic_publish: false,
        ..Stream::Pushes.config(8, 1)
    };
    let jetstream = nats.jetstream().await;
    jetstream.create_stream(earlier).await.unwrap();
    let bus = connect(&nats).await;
    let subject: Subject = "tagtrail.push.1.registry%2Eexample%2Ecom.foo.bar.%"
        .parse()
        .unwrap();
    let message = |id| Message {
        subject: &subject,
        id: Some(id),
        payload: "x".into(),
        trace: None,
    };
    let acks = bus
        .publish_group(&[message("a"), message("b")])
        .await
        .unwrap();
    let acks: Vec<_> = acks
        .iter()
        .map(|ack| (ack.sequence, ack.duplicate))
        .collect();
    assert_eq!(acks, [(1, false), (2, false)]);
    // A group that the stream refuses leaves no message and no id behind.
    let refused = bus
        .publish_group(&[message("c"), message("b"), message("d")])
        .await;
    assert!(
        matches!(refused, Err(PublishError::Unacknowledged(_))),
        "{refused:?}"
    );
    assert_eq!(nats.messages("PUSHES").await.len(), 2);
    assert!(!bus.publish(message("c")).await.unwrap().duplicate);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_id_is_stored_once() {
    let nats = TestNats::start().await;
    let bus = connect(&nats).await;
    let subject = subject("latest");
    let message = || Message {
        subject: &subject,
        id: Some("one"),
        payload: "x".into(),
        trace: None,
    };
    let first = bus.publish(message()).await.unwrap();
    let second = bus.publish(message()).await.unwrap();
    assert!(!first.duplicate && second.duplicate);
    assert_eq!(first.sequence, second.sequence);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_manifest_is_published_once() {
    let nats = TestNats::start().await;
    let bus = connect(&nats).await;
    let subject = Subject::Manifest {
        digest: tagtrail_proto::Digest::sha256_of(b"one"),
    };
    let message = |text: &'static str| Message {
        subject: &subject,
        id: None,
        payload: text.into(),
        trace: None,
    };
    assert!(bus.publish_first(message("first")).await.unwrap());
    assert!(!bus.publish_first(message("second")).await.unwrap());
    // A publisher that sets no condition is refused too.
    assert!(matches!(
        bus.publish(message("third")).await,
        Err(PublishError::Unacknowledged(_))
    ));
    let kept = nats.messages("MANIFESTS").await;
    assert_eq!(kept, [(subject.to_string(), b"first".to_vec())]);
}

#[tokio::test(flavor = "multi_thread")]
async fn jobs_are_those_that_match() {
    let nats = TestNats::start().await;
    let bus = connect(&nats).await;
    publish(&bus, "a").await.unwrap();
    bus.fence(3).await.unwrap();
    publish(&bus, "b").await.unwrap();
    let opening = bus.jobs_of(Stream::Revisions, "test", "tagtrail.revision.>", SOON, 1);
    let mut jobs = opening.await.unwrap();
    for expected in ["a", "b"] {
        let job = jobs.next().await.unwrap();
        assert_eq!(job.payload, expected);
        job.ack().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_fenced_out_holder_can_publish_nothing() {
    let nats = TestNats::start().await;
    let (sleeper, holder) = (connect(&nats).await, connect(&nats).await);
    let old = sleeper.fence(3).await.unwrap();
    fenced(&old, "a").await.unwrap();
    // A message that was sent before the holder slept, and that the server reads only now.
    let new = holder.fence(3).await.unwrap();
    assert!(matches!(fenced(&old, "b").await, Err(PublishError::Fenced)));
    fenced(&new, "c").await.unwrap();
    // Another partition has its own fence.
    let other = sleeper.fence(4).await.unwrap();
    fenced(&other, "d").await.unwrap();
    fenced(&new, "e").await.unwrap();
    assert_eq!(kept(&nats).await, ["a", "c", "d", "e"]);
}

/// The client buffers unwritten messages for its next connection. A session must not: the server
/// may have lost earlier messages, and the buffered ones would hide the loss.
#[tokio::test(flavor = "multi_thread")]
async fn a_lost_session_never_writes_its_unwritten_messages() {
    let nats = TestNats::start().await;
    // A synced stream: one that loses its end in the crash would lose the fence too, and refuse
    // everything.
    let remembering = async_nats::jetstream::stream::Config {
        persist_mode: None,
        ..Stream::Revisions.config(8, 1)
    };
    nats.jetstream()
        .await
        .create_stream(remembering)
        .await
        .unwrap();
    let bus = connect(&nats).await;
    let fence = bus.fence(3).await.unwrap();
    fenced(&fence, "before").await.unwrap();
    nats.pause().await;
    // More than the socket buffers hold while the server is stopped, so that the rest waits inside
    // the client.
    let subject = subject("queued");
    let body = bytes::Bytes::from(vec![b'x'; 100_000]);
    let mut sent = Vec::new();
    for _ in 0..500 {
        let message = Message {
            subject: &subject,
            id: None,
            payload: body.clone(),
            trace: None,
        };
        match tokio::time::timeout(Duration::from_millis(100), fence.send(message)).await {
            Ok(one) => sent.push(one.unwrap()),
            Err(_) => break,
        }
    }
    nats.crash().await;
    tokio::time::timeout(SOON, fence.lost()).await.unwrap();
    fenced(&fence, "after").await.unwrap_err();
    drop(sent);
    // The other connection reconnects.
    eventually("a message to be stored again", SOON, async || {
        publish(&bus, "other").await.ok()
    })
    .await;
    let again = eventually("a new fence", SOON, async || bus.fence(3).await.ok()).await;
    fenced(&again, "new").await.unwrap();
    let kept = kept(&nats).await;
    let queued = kept.iter().filter(|body| body.starts_with('x')).count();
    assert_eq!(queued, 0, "of {}", kept.len());
    assert_eq!(kept, ["before", "other", "new"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_is_read_in_order_from_a_position_and_a_new_one_from_its_start() {
    let nats = TestNats::start().await;
    let bus = connect(&nats).await;
    for tag in ["a", "b", "c"] {
        publish(&bus, tag).await.unwrap();
    }
    let end = bus.end_of(Stream::Revisions).await.unwrap();
    assert_eq!(end.sequence, 3);
    let mut reader = bus
        .read(
            Stream::Revisions,
            "tagtrail.revision.>",
            Position { sequence: 1, ..end },
        )
        .await
        .unwrap();
    assert_eq!(reader.restarted_because(), None);
    for expected in ["b", "c"] {
        assert_eq!(reader.next().await.unwrap().payload, expected);
    }
    publish(&bus, "d").await.unwrap();
    assert_eq!(reader.next().await.unwrap().payload, "d");

    // The stream is recreated under the reader, which ends; a reader opened from the old position
    // starts at the first message.
    let jetstream = nats.jetstream().await;
    let config = jetstream
        .get_stream("REVISIONS")
        .await
        .unwrap()
        .cached_info()
        .config
        .clone();
    jetstream.delete_stream("REVISIONS").await.unwrap();
    jetstream.create_stream(config).await.unwrap();
    publish(&bus, "first").await.unwrap();
    let error = tokio::time::timeout(SOON, reader.next())
        .await
        .unwrap()
        .unwrap_err();
    assert!(!matches!(error, ReadError::Gap { .. }), "{error}");
    let mut reader = bus
        .read(Stream::Revisions, "tagtrail.revision.>", end)
        .await
        .unwrap();
    assert_eq!(
        reader.restarted_because(),
        Some("the stream was created anew")
    );
    assert_eq!(reader.next().await.unwrap().payload, "first");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_crash_of_the_server_ends_readers_and_the_connection_comes_back() {
    let nats = TestNats::start().await;
    let bus = connect(&nats).await;
    publish(&bus, "a").await.unwrap();
    let mut reader = bus
        .read(
            Stream::Revisions,
            "tagtrail.revision.>",
            Position::default(),
        )
        .await
        .unwrap();
    assert_eq!(reader.next().await.unwrap().payload, "a");
    nats.crash().await;
    tokio::time::timeout(SOON, reader.next())
        .await
        .unwrap()
        .unwrap_err();
    eventually("a message to be stored again", SOON, async || {
        publish(&bus, "b").await.ok()
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn errors_that_waiting_can_not_heal_are_returned_at_once() {
    let nats = TestNats::start().await;
    let stop = CancellationToken::new();
    let wrong = nats.url().replacen("tagtrail:", "tagtrail:wrong", 1);
    assert!(matches!(
        Bus::connect(&args(&wrong), "test", &stop).await,
        Err(BusError::Refused(_))
    ));
    drop(connect(&nats).await);
    let other = BusArgs {
        partitions: 4,
        ..args(nats.url())
    };
    let refused = Bus::connect(&other, "test", &stop)
        .await
        .unwrap_err()
        .to_string();
    assert_eq!(
        refused,
        "stream PUSHES has 8 partitions, but this process is configured for 4: start it with --partitions 8"
    );
    stop.cancel();
    nats.stop().await;
    assert!(matches!(
        Bus::connect(&args(nats.url()), "test", &stop).await,
        Err(BusError::Stopped)
    ));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_stores_nothing_is_not_ready() {
    let nats = TestNats::start().await;
    let bus = connect(&nats).await;
    let (health, stop) = (tagtrail_daemon::Health::default(), CancellationToken::new());
    health.register("nats");
    let mut reporting = tokio::task::JoinSet::new();
    reporting.spawn(bus.report_health(health.clone(), stop.clone()));
    health.wait_ready().await;
    // Drops the stored messages' acknowledgements alone: the server answers everything else.
    let stuck = async_nats::jetstream::stream::Config {
        no_ack: true,
        ..Stream::Canary.config(8, 1)
    };
    nats.jetstream().await.update_stream(stuck).await.unwrap();
    let reason = eventually("the server to be found wanting", SOON, async || {
        health.parts().remove(0).1.err()
    })
    .await;
    assert!(
        reason.contains("stores no messages") && reason.contains("disk"),
        "{reason}"
    );
    nats.jetstream()
        .await
        .update_stream(Stream::Canary.config(8, 1))
        .await
        .unwrap();
    tokio::time::timeout(SOON, health.wait_ready())
        .await
        .unwrap();
    stop.cancel();
    reporting.join_next().await.unwrap().unwrap().unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn every_message_has_its_content_type() {
    let nats = TestNats::start().await;
    let bus = connect(&nats).await;
    publish(&bus, "a").await.unwrap();
    bus.fence(0).await.unwrap();
    for (subject, stream, content_type) in [
        (
            "tagtrail.rollout.shop.pending",
            "ROLLOUTS",
            "application/cloudevents+json",
        ),
        (
            "tagtrail.revision.registry%2Eexample%2Ecom.foo.bar.a",
            "REVISIONS",
            "application/cloudevents+json",
        ),
        ("tagtrail.fence.0", "REVISIONS", "application/json"),
        ("tagtrail.quarantine.ci", "QUARANTINE", "application/json"),
    ] {
        let of: Subject = subject.parse().unwrap();
        if stream != "REVISIONS" {
            let message = Message::of(&of, &"any").unwrap().with_id("1");
            bus.publish(message).await.unwrap();
        }
        let stream = nats.jetstream().await.get_stream(stream).await.unwrap();
        let stored = stream
            .get_last_raw_message_by_subject(subject)
            .await
            .unwrap();
        let header = stored.headers.get("content-type").map(ToString::to_string);
        assert_eq!(header.as_deref(), Some(content_type), "{subject}");
    }
}
