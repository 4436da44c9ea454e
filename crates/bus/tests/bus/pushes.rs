//! One stream of pushes or several, and moves between them.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use async_nats::jetstream::stream::Config;
use tagtrail_bus::publish::Message;
use tagtrail_bus::topology::Stream;
use tagtrail_bus::{Bus, BusArgs, BusError};
use tagtrail_proto::Subject;
use tagtrail_testkit::TestNats;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

async fn connect(nats: &TestNats, push_streams: Option<u16>) -> Bus {
    let args = BusArgs {
        push_streams,
        ..BusArgs::new(nats.url())
    };
    let stop = CancellationToken::new();
    Bus::connect(&args, "test", &stop).await.unwrap()
}

fn subject(partition: u16) -> Subject {
    format!("tagtrail.push.{partition}.registry%2Eexample%2Ecom.foo.bar.%")
        .parse()
        .unwrap()
}

async fn publish(bus: &Bus, partition: u16, id: &str) -> bool {
    let subject = subject(partition);
    let message = Message {
        subject: &subject,
        id: Some(id),
        payload: id.to_owned().into(),
        trace: None,
    };
    bus.publish(message).await.is_ok()
}

/// The subjects of a stream without `tagtrail.push.`, or its name; `-` if it does not exist.
async fn subjects(nats: &TestNats, stream: &str) -> String {
    let Ok(stream) = nats.jetstream().await.get_stream(stream).await else {
        return "-".to_owned();
    };
    let mut subjects = stream.cached_info().config.subjects.clone();
    subjects.sort();
    subjects.join(" ").replace("tagtrail.push.", "")
}

/// The bodies of all pushes, by stream.
async fn kept(nats: &TestNats) -> Vec<String> {
    let messages = nats.messages("PUSHES").await.into_iter();
    let mut kept: Vec<String> = messages
        .map(|(_, body)| String::from_utf8(body).unwrap())
        .collect();
    kept.sort();
    kept
}

#[tokio::test(flavor = "multi_thread")]
async fn several_streams_share_the_partitions_and_a_process_follows_what_is_there() {
    let nats = TestNats::start().await;
    let maker = connect(&nats, Some(3)).await;
    let follower = connect(&nats, None).await;
    let other = connect(&nats, Some(5)).await;
    for bus in [&maker, &follower, &other] {
        assert_eq!(bus.layout().owner(4), Some(Stream::PushesOf(1)));
        assert!(bus.has_streams_of_pushes(3) && !bus.has_streams_of_pushes(1));
    }
    assert_eq!(subjects(&nats, "PUSHES").await, "-");
    assert_eq!(subjects(&nats, "PUSHES_1").await, "1.> 4.> 7.>");
    assert_eq!(subjects(&nats, "PUSHES_3").await, "-");
    for partition in 0..8 {
        assert!(publish(&follower, partition, &partition.to_string()).await);
    }
    assert_eq!(kept(&nats).await.len(), 8);
    // A group goes to the stream of its partition.
    let (subject, ids) = (subject(5), ["a", "b"]);
    let group = ids.map(|id| Message {
        subject: &subject,
        id: Some(id),
        payload: "x".into(),
        trace: None,
    });
    assert_eq!(maker.publish_group(&group).await.unwrap().len(), 2);
    // A stream that is lost is made again, as it was.
    for (lost, expected) in [("PUSHES_2", "2.> 5.>"), ("PUSHES_0", "0.> 3.> 6.>")] {
        nats.jetstream().await.delete_stream(lost).await.unwrap();
        drop(connect(&nats, None).await);
        assert_eq!(subjects(&nats, lost).await, expected);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn pushes_that_are_acknowledged_during_moves_are_in_one_of_the_streams() {
    let nats = TestNats::start().await;
    let mover = connect(&nats, None).await;
    let ended = Arc::new(AtomicBool::new(false));
    let mut senders = JoinSet::new();
    for partition in 0..8 {
        let (bus, ended) = (connect(&nats, None).await, Arc::clone(&ended));
        senders.spawn(async move {
            let mut sent = Vec::new();
            while !ended.load(Ordering::Relaxed) {
                let id = format!("{partition}-{}", sent.len());
                if publish(&bus, partition, &id).await {
                    sent.push(id);
                }
            }
            sent
        });
    }
    let expected = [
        (3, ["PUSHES", "0.> 3.> 6.>", "1.> 4.> 7.>"]),
        (8, ["PUSHES", "0.>", "1.>"]),
        (2, ["PUSHES", "0.> 2.> 4.> 6.>", "1.> 3.> 5.> 7.>"]),
        (1, [">", "PUSHES_0", "PUSHES_1"]),
    ];
    for (streams, expected) in expected {
        let sources: HashMap<u16, String> = (0..8)
            .filter_map(|partition| {
                let owner = mover.layout().owner(partition)?;
                Some((partition, owner.name().to_owned()))
            })
            .collect();
        mover.move_pushes(streams, &sources).await.unwrap();
        assert!(mover.has_streams_of_pushes(streams));
        let mut found = Vec::new();
        for stream in ["PUSHES", "PUSHES_0", "PUSHES_1"] {
            found.push(subjects(&nats, stream).await);
        }
        assert_eq!(found, expected, "{streams}");
    }
    ended.store(true, Ordering::Relaxed);
    let mut sent: Vec<String> = senders.join_all().await.into_iter().flatten().collect();
    sent.sort();
    let mut kept = kept(&nats).await;
    // A push whose acknowledgement was lost may be in two streams.
    kept.dedup();
    assert_eq!(kept, sent);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_move_that_was_broken_off_is_completed() {
    let nats = TestNats::start().await;
    let bus = connect(&nats, None).await;
    assert!(publish(&bus, 0, "before").await);
    // As after the first requests of a move: nobody takes partition 0, and PUSHES_0 is still
    // missing.
    let jetstream = nats.jetstream().await;
    let stream = jetstream.get_stream("PUSHES").await.unwrap();
    let mut config: Config = stream.cached_info().config.clone();
    config.subjects = (1..8).map(Subject::all_pushes).collect();
    jetstream.update_stream(&config).await.unwrap();
    assert!(!publish(&bus, 0, "meanwhile").await);
    let follower = connect(&nats, None).await;
    assert_eq!(follower.layout().owner(0), None);
    assert_eq!(follower.partition_without_stream(), Some(0));
    assert_eq!(follower.layout().owner(1), Some(Stream::Pushes));

    let mover = connect(&nats, None).await;
    mover.move_pushes(2, &HashMap::new()).await.unwrap();
    assert!(mover.has_streams_of_pushes(2) && mover.partition_without_stream().is_none());
    assert!(publish(&bus, 0, "meanwhile").await);
    assert_eq!(kept(&nats).await, ["before", "meanwhile"]);
    // The same move once more changes nothing.
    mover.move_pushes(2, &HashMap::new()).await.unwrap();
    assert!(mover.has_streams_of_pushes(2));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_move_waits_until_the_streams_of_the_first_are_read() {
    let nats = TestNats::start().await;
    let bus = connect(&nats, None).await;
    bus.move_pushes(2, &HashMap::new()).await.unwrap();
    let mut sources: HashMap<u16, String> = (0..8)
        .map(|partition| (partition, format!("PUSHES_{}", partition % 2)))
        .collect();
    sources.remove(&5);
    let refused = bus.move_pushes(4, &sources).await.unwrap_err();
    assert!(
        matches!(&refused, BusError::Unsuitable(cause) if cause.starts_with("partition 5 has moved from PUSHES to PUSHES_1")),
        "{refused}"
    );
    sources.insert(5, "PUSHES_1".to_owned());
    bus.move_pushes(4, &sources).await.unwrap();
    assert!(bus.has_streams_of_pushes(4));
    // Nor from streams that no indexer has read at all.
    let nats = TestNats::start().await;
    let bus = connect(&nats, Some(8)).await;
    let refused = bus.move_pushes(2, &HashMap::new()).await;
    assert!(
        matches!(&refused, Err(BusError::Unsuitable(_))),
        "{refused:?}"
    );
}
