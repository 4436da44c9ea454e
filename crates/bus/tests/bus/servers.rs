//! A nats-server that is replaced by another version, or that is not there.

use std::time::{Duration, Instant};

use tagtrail_bus::consume::ReadError;
use tagtrail_bus::publish::PublishError;
use tagtrail_bus::topology::Stream;
use tagtrail_bus::{Bus, BusError};
use tagtrail_daemon::Health;
use tagtrail_testkit::{SOON, TestNats, eventually};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::{args, publish};

/// A proxy in front of a server, which shows clients another version. A new version cuts all
/// connections, as the replacement of a server does.
struct Disguise {
    url: String,
    version: watch::Sender<Option<&'static str>>,
    _server: JoinSet<()>,
}

impl Disguise {
    async fn start(nats: &TestNats) -> Disguise {
        let (login, target) = nats.url().rsplit_once('@').unwrap();
        let target = target.to_owned();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("{login}@{}", listener.local_addr().unwrap());
        let (version, seen) = watch::channel(None);
        let mut server = JoinSet::new();
        server.spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((client, _)) = listener.accept().await {
                let (target, mut seen) = (target.clone(), seen.clone());
                connections.spawn(async move {
                    let shown = *seen.borrow_and_update();
                    tokio::select! {
                        _ = carry(client, &target, shown) => {}
                        _ = seen.changed() => {}
                    }
                });
            }
        });
        Disguise {
            url,
            version,
            _server: server,
        }
    }
}

async fn carry(mut client: TcpStream, target: &str, shown: Option<&str>) -> std::io::Result<()> {
    let mut server = TcpStream::connect(target).await?;
    let mut greeting = vec![0; 16_384];
    let read = server.read(&mut greeting).await?;
    let mut greeting = String::from_utf8_lossy(&greeting[..read]).into_owned();
    if let Some(shown) = shown {
        let (before, rest) = greeting.split_once("\"version\":\"").unwrap();
        let (_, after) = rest.split_once('"').unwrap();
        greeting = format!("{before}\"version\":\"{shown}\"{after}");
    }
    client.write_all(greeting.as_bytes()).await?;
    tokio::io::copy_bidirectional(&mut client, &mut server).await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_published_to_a_server_that_was_replaced_by_an_old_one() {
    let nats = TestNats::start().await;
    let disguise = Disguise::start(&nats).await;
    let stop = CancellationToken::new();
    let bus = Bus::connect(&args(&disguise.url), "test", &stop)
        .await
        .unwrap();
    let health = Health::default();
    let mut reporting = JoinSet::new();
    reporting.spawn(bus.clone().report_health(health.clone(), stop.clone()));
    health.wait_ready().await;
    let canary = nats.jetstream().await.get_stream("CANARY").await.unwrap();
    let message = canary.get_last_raw_message_by_subject("tagtrail.canary.test");
    let headers = message.await.unwrap().headers;
    assert_eq!(headers.get("content-type").unwrap().as_str(), "text/plain");
    publish(&bus, "before").await.unwrap();

    disguise.version.send_replace(Some("2.11.11"));
    nats.jetstream()
        .await
        .delete_stream("CANARY")
        .await
        .unwrap();
    eventually("the old version in the health", SOON, async || {
        let (_, state) = health.parts().pop()?;
        let text = state.err()?;
        text.contains("nats-server 2.11.11 is too old: Tagtrail needs 2.12 or newer")
            .then_some(())
    })
    .await;
    let refused = publish(&bus, "meanwhile").await.unwrap_err();
    assert!(matches!(refused, PublishError::Unsuitable(_)), "{refused}");
    let refused = bus.session().await.unwrap_err();
    assert!(matches!(refused, BusError::Unsuitable(_)), "{refused}");
    let missing = nats.jetstream().await.get_stream("CANARY").await;
    assert!(missing.is_err(), "an old server got a stream");

    disguise.version.send_replace(None);
    health.wait_ready().await;
    publish(&bus, "after").await.unwrap();
    assert_eq!(super::kept(&nats).await, ["before", "after"]);
    stop.cancel();
    reporting.join_next().await.unwrap().unwrap().unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_start_with_a_deadline_names_the_last_cause() {
    let nats = TestNats::stopped().await;
    let began = Instant::now();
    let wait = Duration::from_secs(1);
    let error = Bus::connect_within(&args(nats.url()), "test", wait)
        .await
        .unwrap_err();
    assert!(
        matches!(&error, BusError::Unreachable(cause) if cause.contains("refused")),
        "{error}"
    );
    assert!(
        began.elapsed() < Duration::from_secs(5),
        "{:?}",
        began.elapsed()
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_that_a_stream_refuses_is_too_large_or_names_the_full_stream() {
    let nats = TestNats::start().await;
    let bus = super::connect(&nats).await;
    let jetstream = nats.jetstream().await;
    let stream = jetstream.get_stream("REVISIONS").await.unwrap();
    let mut config = stream.cached_info().config.clone();
    (config.max_message_size, config.max_messages) = (3, 1);
    jetstream.update_stream(&config).await.unwrap();
    let refused = publish(&bus, "long").await.unwrap_err();
    assert!(matches!(refused, PublishError::TooLarge), "{refused}");
    config.max_message_size = -1;
    jetstream.update_stream(&config).await.unwrap();
    publish(&bus, "one").await.unwrap();
    let refused = publish(&bus, "two").await.unwrap_err();
    assert!(
        refused
            .to_string()
            .starts_with("the stream REVISIONS is full: "),
        "{refused}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn an_update_of_a_stream_resets_no_setting_of_the_newest_server() {
    let nats = TestNats::start().await;
    drop(super::connect(&nats).await);
    let jetstream = nats.jetstream().await;
    let stream = jetstream.get_stream("ROLLOUTS").await.unwrap();
    let mut config = stream.cached_info().config.clone();
    config.max_age = Duration::from_secs(3600);
    (config.allow_atomic_publish, config.allow_batch_publish) = (true, true);
    config.allow_message_counter = false;
    jetstream.update_stream(&config).await.unwrap();
    drop(super::connect(&nats).await);
    let stream = jetstream.get_stream("ROLLOUTS").await.unwrap();
    let updated = &stream.cached_info().config;
    assert_eq!(updated.max_age, Duration::from_secs(30 * 24 * 3600));
    assert!(updated.allow_atomic_publish && updated.allow_batch_publish);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_paused_consumer_is_an_error_that_names_it() {
    let nats = TestNats::start().await;
    let bus = super::connect(&nats).await;
    let open = async || bus.jobs(Stream::Unresolved, "questions", SOON).await;
    let jobs = open().await.unwrap();
    let stream = nats
        .jetstream()
        .await
        .get_stream("UNRESOLVED")
        .await
        .unwrap();
    let until = time::OffsetDateTime::now_utc() + time::Duration::hours(1);
    stream.pause_consumer("questions", until).await.unwrap();
    let paused = |error: ReadError| {
        assert!(
            matches!(&error, ReadError::Paused { consumer, .. } if consumer == "questions"),
            "{error}"
        );
    };
    // A consumer that is open notices the pause too.
    let noticed = tokio::time::timeout(SOON, jobs.check()).await.unwrap();
    paused(noticed.unwrap_err());
    paused(open().await.err().unwrap());
    stream.resume_consumer("questions").await.unwrap();
    open().await.unwrap();
}
