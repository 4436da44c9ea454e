//! The committer on a real nats-server that syncs each message.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};

use tagtrail_bus::BusArgs;
use tagtrail_testkit::{SOON, TestNats, eventually};
use tempfile::TempDir;
use tokio_util::sync::CancellationToken;

use super::*;
use crate::publish::Outlet;

/// A server, and a committer that does not run yet.
struct Room {
    nats: TestNats,
    bus: Bus,
    registry: tagtrail_daemon::Metrics,
    queue: Queue,
    committer: Option<Committer>,
    running: JoinSet<()>,
    _folder: TempDir,
}

impl Room {
    async fn new() -> Room {
        let folder = TempDir::new().unwrap();
        let nats = TestNats::start_in(folder.path(), true).await;
        let bus = connect(&nats, 1).await;
        assert!(bus.prefers_groups());
        let registry = tagtrail_daemon::Metrics::default();
        let (queue, committer) = committer(bus.clone(), Metrics::new(&registry));
        Room {
            nats,
            bus,
            registry,
            queue,
            committer: Some(committer),
            running: JoinSet::new(),
            _folder: folder,
        }
    }

    async fn push(&self, id: &str, size: usize) -> Answer {
        let subject = subject();
        self.queue.push(message(&subject, id, size)).await.unwrap()
    }

    fn run(&mut self) {
        self.running.spawn(self.committer.take().unwrap().run());
    }

    /// The ids and the groups of the messages of PUSHES, in order.
    async fn stored(&self) -> Vec<(String, Option<String>)> {
        let stream = self.nats.jetstream().await.get_stream("PUSHES").await;
        let stream = stream.unwrap();
        let mut stored = Vec::new();
        for sequence in 1..=stream.cached_info().state.last_sequence {
            let headers = stream.get_raw_message(sequence).await.unwrap().headers;
            let header = |name| headers.get(name).map(|value| value.as_str().to_owned());
            stored.push((header("Nats-Msg-Id").unwrap(), header("Nats-Batch-Id")));
        }
        stored
    }

    /// The numbers of stored and of failed groups.
    fn groups(&self) -> (u64, u64) {
        let text = self.registry.text().unwrap();
        let of = |outcome: &str| {
            let name = format!("tagtrail_gateway_groups_total{{outcome=\"{outcome}\"}} ");
            let line = text.lines().find_map(|line| line.strip_prefix(&name));
            line.unwrap().parse().unwrap()
        };
        (of("stored"), of("failed"))
    }
}

async fn connect(nats: &TestNats, streams: u16) -> Bus {
    let args = BusArgs {
        sync_always: Some(true),
        push_streams: Some(streams),
        ..BusArgs::new(nats.url())
    };
    let stop = CancellationToken::new();
    Bus::connect(&args, "gateway", &stop).await.unwrap()
}

fn subject() -> Subject {
    subject_of(3)
}

fn subject_of(partition: u16) -> Subject {
    format!("tagtrail.push.{partition}.registry%2Eexample%2Ecom.foo.bar.latest")
        .parse()
        .unwrap()
}

fn message<'a>(subject: &'a Subject, id: &'a str, size: usize) -> Message<'a> {
    Message {
        subject,
        id: Some(id),
        payload: vec![b'x'; size].into(),
        trace: None,
    }
}

fn ids(stored: &[(String, Option<String>)]) -> Vec<&str> {
    stored.iter().map(|(id, _)| id.as_str()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn few_pushes_that_wait_are_published_singly_and_many_as_a_group() {
    let mut room = Room::new().await;
    let mut names: Vec<String> = (0..FEWEST).map(|number| number.to_string()).collect();
    let mut answers = Vec::new();
    for name in &names {
        answers.push(room.push(name, 400).await);
    }
    room.run();
    for (sequence, answer) in (1..).zip(answers) {
        let ack = answer.acknowledged().await.unwrap();
        assert_eq!((ack.sequence, ack.duplicate), (sequence, false));
    }
    assert_eq!(room.groups(), (1, 0));
    let answer = room.push("alone", 400).await;
    assert_eq!(answer.acknowledged().await.unwrap().sequence, 13);
    assert_eq!(room.groups(), (1, 0));
    let stored = room.stored().await;
    names.push("alone".to_owned());
    assert_eq!(ids(&stored), names);
    let group = stored[0].1.clone();
    assert!(group.is_some() && stored[..FEWEST].iter().all(|(_, of)| *of == group));
    assert_eq!(stored[FEWEST].1, None);
}

#[tokio::test(flavor = "multi_thread")]
async fn equal_pushes_in_a_group_are_stored_once_and_each_gets_the_answer() {
    let mut room = Room::new().await;
    let mut answers = Vec::new();
    for number in 0..60 {
        let id = (number % 20).to_string();
        answers.push((number, room.push(&id, 400).await));
    }
    room.run();
    for (number, answer) in answers {
        let ack = answer.acknowledged().await.unwrap();
        assert_eq!(
            (ack.sequence, ack.duplicate),
            (number % 20 + 1, number >= 20)
        );
    }
    assert_eq!((room.groups(), room.stored().await.len()), ((1, 0), 20));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_group_with_a_repeat_of_an_earlier_push_is_published_singly() {
    let mut room = Room::new().await;
    let subject = subject();
    let earlier = room.bus.publish(message(&subject, "7", 400)).await.unwrap();
    let mut answers = Vec::new();
    for number in 0..20 {
        answers.push(room.push(&number.to_string(), 400).await);
    }
    room.run();
    for (number, answer) in (0..).zip(answers) {
        let ack = answer.acknowledged().await.unwrap();
        assert_eq!(ack.duplicate, number == 7, "{number}");
        assert!(number != 7 || ack.sequence == earlier.sequence);
    }
    assert_eq!(room.groups(), (0, 1));
    let stored = room.stored().await;
    assert_eq!(stored.len(), 20);
    assert!(
        stored.iter().all(|(_, group)| group.is_none()),
        "{stored:?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_group_without_an_answer_is_published_singly_and_stored_once() {
    let mut room = Room::new().await;
    let mut answers = Vec::new();
    for number in 0..30 {
        answers.push(room.push(&number.to_string(), 400).await);
    }
    room.nats.pause().await;
    room.run();
    eventually("a failed group", SOON, async || {
        (room.groups() == (0, 1)).then_some(())
    })
    .await;
    room.nats.unpause().await;
    for answer in answers {
        // Stored as a member of the group.
        assert!(answer.acknowledged().await.unwrap().duplicate);
    }
    assert_eq!(room.stored().await.len(), 30);
}

#[tokio::test(flavor = "multi_thread")]
async fn large_pushes_are_stored_and_one_that_is_too_large_spoils_no_other() {
    let mut room = Room::new().await;
    let mut answers = Vec::new();
    for number in 0..40 {
        // PUSHES takes messages of 256 KiB.
        let size = if number == 20 { 256 << 10 } else { 250_000 };
        answers.push(room.push(&number.to_string(), size).await);
    }
    room.run();
    for (number, answer) in (0..).zip(answers) {
        match answer.acknowledged().await {
            Ok(ack) => assert!(!ack.duplicate && number != 20),
            Err(PublishError::TooLarge) => assert_eq!(number, 20),
            Err(other) => panic!("{number}: {other}"),
        }
    }
    // Each group has about 4 MiB.
    assert_eq!((room.groups(), room.stored().await.len()), ((1, 1), 39));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_queue_is_bounded_and_a_push_that_nobody_waits_for_is_not_published() {
    let mut room = Room::new().await;
    for number in 0..ROOM {
        drop(room.push(&number.to_string(), 100).await);
    }
    let subject = subject();
    let late = room.queue.push(message(&subject, "late", 100));
    let waits = timeout(Duration::from_millis(100), late).await;
    assert!(waits.is_err(), "the queue took more than fits");
    room.run();
    let late = timeout(SOON, room.push("late", 100)).await.unwrap();
    late.acknowledged().await.unwrap();
    assert_eq!(ids(&room.stored().await), ["late"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn crashes_of_the_server_lose_no_acknowledged_push_and_store_none_twice() {
    const SENDERS: usize = 64;
    let mut room = Room::new().await;
    room.run();
    let (stop, acknowledged) = (CancellationToken::new(), Arc::new(AtomicUsize::new(0)));
    let mut senders = JoinSet::new();
    for sender in 0..SENDERS {
        let (queue, stop, count) = (room.queue.clone(), stop.clone(), Arc::clone(&acknowledged));
        senders.spawn(async move {
            let (subject, mut acked) = (subject(), Vec::new());
            for number in 0.. {
                if stop.is_cancelled() {
                    break;
                }
                let id = format!("{sender}-{number}");
                // As a registry does, until the push is acknowledged.
                for _ in 0..100 {
                    let sent = async {
                        let answer = queue.push(message(&subject, &id, 400)).await.ok()?;
                        answer.acknowledged().await.ok()
                    };
                    if let Ok(Some(_)) = timeout(Duration::from_secs(1), sent).await {
                        count.fetch_add(1, Ordering::Relaxed);
                        acked.push(id);
                        break;
                    }
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
            }
            acked
        });
    }
    for crash in 1..=4 {
        let before = acknowledged.load(Ordering::Relaxed);
        eventually("acknowledgements", SOON, async || {
            (acknowledged.load(Ordering::Relaxed) > before + 2 * SENDERS).then_some(())
        })
        .await;
        assert!(room.groups().0 >= crash);
        room.nats.crash().await;
    }
    let before = acknowledged.load(Ordering::Relaxed);
    eventually("acknowledgements after the crashes", SOON, async || {
        (acknowledged.load(Ordering::Relaxed) > before + SENDERS).then_some(())
    })
    .await;
    stop.cancel();
    let acked: Vec<String> = senders.join_all().await.into_iter().flatten().collect();
    let mut stored = BTreeMap::new();
    for (id, _) in room.stored().await {
        *stored.entry(id).or_insert(0) += 1;
    }
    let twice: Vec<_> = stored.iter().filter(|(_, count)| **count > 1).collect();
    assert!(twice.is_empty(), "{twice:?}");
    let lost: Vec<_> = acked
        .iter()
        .filter(|id| !stored.contains_key(*id))
        .collect();
    assert!(lost.is_empty(), "of {} acknowledged: {lost:?}", acked.len());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_whose_pushes_wait_holds_up_no_other() {
    let folder = TempDir::new().unwrap();
    let nats = TestNats::start_in(folder.path(), true).await;
    let bus = connect(&nats, 8).await;
    let metrics = Metrics::new(&tagtrail_daemon::Metrics::default());
    let (mut queues, _running) = committers(&bus, &metrics);
    // A committer that does not come to its pushes.
    let (queue, _stuck) = committer(bus.clone(), metrics);
    queues.insert(Stream::PushesOf(2), queue);
    let outlet = Outlet::new(bus, queues);
    for partition in 0..8 {
        let subject = subject_of(partition);
        let sent = outlet.send(message(&subject, "one", 400)).await.unwrap();
        let answer = timeout(
            Duration::from_secs(if partition == 2 { 1 } else { 20 }),
            sent.acknowledged(),
        )
        .await;
        assert_eq!(answer.is_ok(), partition != 2, "{partition}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn pushes_go_on_one_by_one_after_their_partitions_have_moved() {
    let folder = TempDir::new().unwrap();
    let nats = TestNats::start_in(folder.path(), true).await;
    let bus = connect(&nats, 1).await;
    let registry = tagtrail_daemon::Metrics::default();
    let (queues, _running) = committers(&bus, &Metrics::new(&registry));
    let outlet = Outlet::new(bus.clone(), queues);
    bus.move_pushes(8, &HashMap::new()).await.unwrap();
    for partition in 0..8 {
        let subject = subject_of(partition);
        let sent = outlet.send(message(&subject, "one", 400)).await.unwrap();
        sent.acknowledged().await.unwrap();
    }
    assert_eq!(nats.messages("PUSHES").await.len(), 8);
}

/// Prints the rates of senders that each wait for the answer: one stream with single pushes, one
/// stream with groups, eight streams with groups.
/// `cargo test --release -p tagtrail-gateway --lib -- --ignored --nocapture rates`.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "measures"]
#[expect(clippy::print_stdout, reason = "the report")]
async fn rates_of_single_pushes_and_of_committers() {
    const ROUNDS: usize = 8;
    let folders = [TempDir::new().unwrap(), TempDir::new().unwrap()];
    let metrics = Metrics::new(&tagtrail_daemon::Metrics::default());
    let (mut servers, mut outlets, mut running) = (Vec::new(), Vec::new(), Vec::new());
    for (folder, streams) in folders.iter().zip([1, 8]) {
        let nats = TestNats::start_in(folder.path(), true).await;
        let bus = connect(&nats, streams).await;
        if streams == 1 {
            outlets.push(Arc::new(Outlet::new(bus.clone(), HashMap::new())));
        }
        let (queues, tasks) = committers(&bus, &metrics);
        outlets.push(Arc::new(Outlet::new(bus, queues)));
        running.push(tasks);
        servers.push(nats);
    }
    for senders in [32, 128] {
        let mut ratios = [Vec::new(), Vec::new()];
        for round in 0..ROUNDS {
            let mut order = [0, 1, 2];
            if round % 2 == 1 {
                order.reverse();
            }
            let mut rates = [0.0; 3];
            for variant in order {
                rates[variant] = rate(&outlets[variant], senders).await;
            }
            for (ratios, rate) in ratios.iter_mut().zip(&rates[1..]) {
                ratios.push(rate / rates[0]);
            }
            println!("{senders} senders: {rates:.0?} pushes/s");
        }
        for (name, mut ratios) in ["one stream", "eight streams"].into_iter().zip(ratios) {
            ratios.sort_by(f64::total_cmp);
            let median = ratios[ROUNDS / 2 - 1].midpoint(ratios[ROUNDS / 2]);
            println!("{senders} senders, {name}: median {median:.2} of {ratios:.2?}");
        }
    }
}

/// Pushes per second in two seconds.
async fn rate(outlet: &Arc<Outlet>, senders: usize) -> f64 {
    const SECONDS: u64 = 2;
    let end = tokio::time::Instant::now() + Duration::from_secs(SECONDS);
    let mut tasks = JoinSet::new();
    for sender in 0..senders {
        let outlet = Arc::clone(outlet);
        tasks.spawn(async move {
            let mut count = 0_u32;
            while tokio::time::Instant::now() < end {
                // Each push of another repository.
                let subject = subject_of((sender as u32 + count * 7) as u16 % 8);
                let id = format!("{end:?}-{sender}-{count}");
                let sent = outlet.send(message(&subject, &id, 430)).await.unwrap();
                sent.acknowledged().await.unwrap();
                count += 1;
            }
            count
        });
    }
    let count: u32 = tasks.join_all().await.into_iter().sum();
    f64::from(count) / SECONDS as f64
}
