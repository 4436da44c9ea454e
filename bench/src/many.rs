//! A thousand triggers in as many files: memory, the change of one file, the list of all.

use std::path::Path;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http_body_util::Full;
use hyper::Request;
use tagtrail_testkit::{Sink, free_address};
use time::OffsetDateTime;

use crate::cpu::resident;
use crate::http::Connection;
use crate::policies::{pushed, send, trigger, until};
use crate::report::{Goal, Row, Series};
use crate::stack::{REGISTRY, Stack};

/// Triggers, each in a file of its own.
const TRIGGERS: usize = 1000;
/// The longest time for a piece of work.
const PATIENCE: Duration = Duration::from_secs(120);

/// Measures on a stack of its own: after an earlier process whose triggers are missing here, the
/// service would take its settings for older ones, and not plan for two minutes.
pub(crate) async fn measure(
    stack: &Stack,
    folder: &Path,
    rounds: usize,
) -> anyhow::Result<Vec<Row>> {
    let indexer = stack.service("indexer", &[]);
    indexer.ready().await?;
    let (sink, moved) = (Sink::start().await, Sink::start().await);
    let mut db = stack.db().await?;
    let place = folder.join("triggers.d");
    std::fs::create_dir_all(&place)?;
    let config = folder.join("many.toml");
    std::fs::write(&config, "triggers = \"triggers.d\"\n")?;
    let image = format!("\"{REGISTRY}/bench/many:latest\"");
    let name = |number: usize| format!("many-{number:04}");
    let write = |number: usize, url: &str| {
        let text = trigger(&name(number), &image, url);
        std::fs::write(place.join(format!("{}.toml", name(number))), text)
    };
    for number in 0..TRIGGERS {
        write(number, sink.url())?;
    }
    send(
        stack,
        &pushed("bench/many", "latest", OffsetDateTime::now_utc()),
    )
    .await?;
    let begun = Instant::now();
    let service = stack.trigger(&config).await?;
    let succeeded = "select count(*) from rollout o join trigger t on t.id = o.trigger_id where o.state = 'succeeded' and t.name like 'many-%'";
    until(&mut db, succeeded, TRIGGERS as i64).await?;
    let mut started = Series::default();
    started.push(begun.elapsed().as_secs_f64());
    tokio::time::sleep(Duration::from_secs(5)).await;
    let memory = resident(service.process.pid()).unwrap_or(f64::NAN);

    // Another receiver gets the images at once, so its first request ends the change.
    let mut changed = Series::default();
    for round in 0..rounds {
        eprintln!("a thousand files: round {} of {rounds}", round + 1);
        let before = moved.deliveries().len();
        write(round, moved.url())?;
        let begun = Instant::now();
        service.process.signal("HUP");
        while moved.deliveries().len() == before {
            anyhow::ensure!(
                begun.elapsed() < PATIENCE,
                "the change is not in force; log:\n{}",
                service.process.log()
            );
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        changed.push(begun.elapsed().as_secs_f64() * 1000.0);
        tokio::time::sleep(Duration::from_secs(2)).await;
    }
    let listed = listed(stack, rounds * 10).await?;
    service.stop().await;
    indexer.stop().await;
    let of = format!("{TRIGGERS} triggers");
    Ok(vec![
        Row::alone(
            format!("start until the first rollouts of {of} in as many files succeeded"),
            "s",
            started,
            Goal::None,
        ),
        Row::once(
            format!("memory of the trigger, {of}"),
            "MiB",
            memory,
            Goal::AtMost(100.0),
        ),
        Row::alone(
            format!("SIGHUP after a change of one of {TRIGGERS} files, until its webhook"),
            "ms",
            changed.warmed(),
            Goal::None,
        ),
        Row::alone(
            format!("list of {of}, GET /v1/triggers"),
            "ms",
            listed.warmed(),
            Goal::None,
        ),
    ])
}

/// Lists all triggers by the api, some times.
async fn listed(stack: &Stack, times: usize) -> anyhow::Result<Series> {
    let listen = free_address();
    let api = stack.service("api", &[("TAGTRAIL_API_LISTEN", &listen)]);
    api.ready().await?;
    let mut connection = Connection::connect(&listen).await?;
    let mut listed = Series::default();
    for _ in 0..times {
        let request = Request::get("/v1/triggers")
            .header("host", &listen)
            .body(Full::<Bytes>::default())?;
        let begun = Instant::now();
        let (status, body) = connection.ask(request).await?;
        listed.push(begun.elapsed().as_secs_f64() * 1000.0);
        let body: serde_json::Value = serde_json::from_slice(&body)?;
        let items = body["items"].as_array().map_or(0, Vec::len);
        anyhow::ensure!(
            status == 200 && items == TRIGGERS,
            "answered {status} with {items} triggers"
        );
    }
    api.stop().await;
    Ok(listed)
}
