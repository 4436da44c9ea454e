//! Planning with policies over a large repository, and a healthy trigger beside dead targets.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use sqlx::{PgConnection, Row as _};
use tagtrail_proto::{Digest, Image, PARTITIONS, Push, Subject};
use tagtrail_testkit::Sink;
use time::OffsetDateTime;
use tokio::net::TcpListener;
use tokio::task::JoinSet;

use crate::latency::published;
use crate::report::{Goal, Row, Series, percentile};
use crate::stack::{REGISTRY, ServiceProcess, Stack, parsed, publish, push};

/// Policies over the repository, each with another rule.
const POLICIES: usize = 200;
/// Triggers whose target never answers.
const DEAD: usize = 200;
/// Versions of a minor version: tag `n` is `1.(n / PATCHES).(n % PATCHES)`.
const PATCHES: usize = 500;
const REPOSITORY: &str = "bench/versions";
/// The secret of the webhooks.
pub(crate) const SECRET: (&str, &str) = ("BENCH_SECRET", "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw");
/// The longest time for a piece of work.
const PATIENCE: Duration = Duration::from_secs(600);

/// Measures on a stack of its own, with a repository of `tags` tags.
pub(crate) async fn measure(
    stack: &Stack,
    folder: &Path,
    tags: usize,
    rounds: usize,
    count: usize,
) -> anyhow::Result<Vec<Row>> {
    let mut db = stack.db().await?;
    let indexer = stack.service("indexer", &[]);
    indexer.ready().await?;
    let start = OffsetDateTime::now_utc() - time::Duration::seconds(30);
    let messages = (0..tags).map(|number| {
        let at = start + time::Duration::microseconds(number as i64);
        message(&pushed(REPOSITORY, &version(number), at))
    });
    publish(&stack.jetstream, messages).await?;
    let recorded = "select count(*) from revision";
    until(&mut db, recorded, tags as i64).await?;

    let sink = Sink::start().await;
    let mut rows = decisions(stack, folder, &sink, &mut db, tags, (rounds, count)).await?;
    rows.extend(beside_dead_targets(stack, folder, &sink, &mut db, (rounds, count)).await?);
    indexer.stop().await;
    Ok(rows)
}

/// Two hundred policies over the whole repository: the first decision, and news that concern all.
async fn decisions(
    stack: &Stack,
    folder: &Path,
    sink: &Sink,
    db: &mut PgConnection,
    tags: usize,
    (rounds, count): (usize, usize),
) -> anyhow::Result<Vec<Row>> {
    let minors = tags.div_ceil(PATCHES);
    let rule = |policy: usize| policy % minors;
    let triggers = (0..POLICIES).map(|policy| {
        let image = format!(
            "{{ repository = \"{REGISTRY}/{REPOSITORY}\", semver = \">=1.{}.0, <9.{policy}\" }}",
            rule(policy)
        );
        trigger(&format!("policy-{policy}"), &image, sink.url())
    });
    let begun = Instant::now();
    let service = serve(stack, folder, &triggers.collect::<String>()).await?;
    let succeeded = "select count(*) from rollout where state = 'succeeded'";
    until(db, succeeded, POLICIES as i64).await?;
    let mut first = Series::default();
    first.push(begun.elapsed().as_secs_f64());
    equals_brute_force(db, tags, rule).await?;

    let [mut concerned, mut unconcerned, mut decided] = [(); 3].map(|()| Series::default());
    for round in 0..rounds {
        eprintln!("policies: round {} of {rounds}", round + 1);
        // The second best tag moves: all policies decide, and nothing is rolled out.
        let of_all = planned(stack, db, REPOSITORY, &version(tags - 2), count).await?;
        let of_none = planned(stack, db, "bench/other", "latest", count).await?;
        decided.push(of_all - of_none);
        concerned.push(of_all);
        unconcerned.push(of_none);
    }
    equals_brute_force(db, tags, rule).await?;
    service.stop().await;
    let mut rates = Series::default();
    rates.push(POLICIES as f64 / (decided.median() / 1000.0));
    let of = format!("{POLICIES} policies over {tags} tags");
    Ok(vec![
        Row::alone(
            format!("start until the first rollouts of {of} succeeded"),
            "s",
            first,
            Goal::None,
        ),
        Row::against(
            format!("news that concern {of}, until planned, p50; ceiling: no trigger"),
            "ms",
            concerned,
            unconcerned,
            Goal::None,
        ),
        Row::alone(
            format!("{of} decided in one snapshot"),
            "ms",
            decided,
            Goal::AtMost(10.0),
        ),
        Row::alone("decisions of policies", "1/s", rates, Goal::None),
    ])
}

/// A trigger whose target answers, alone and beside triggers whose target never does.
async fn beside_dead_targets(
    stack: &Stack,
    folder: &Path,
    sink: &Sink,
    db: &mut PgConnection,
    (rounds, count): (usize, usize),
) -> anyhow::Result<Vec<Row>> {
    let silent = TcpListener::bind("127.0.0.1:0").await?;
    let url = format!("http://{}/", silent.local_addr()?);
    let mut silence = JoinSet::new();
    silence.spawn(async move {
        let mut accepted = Vec::new();
        while let Ok((connection, _)) = silent.accept().await {
            accepted.push(connection);
        }
    });
    let image = |repository: &str| format!("\"{REGISTRY}/{repository}:latest\"");
    let dead = (0..DEAD).map(|n| trigger(&format!("dead-{n}"), &image("bench/dead"), &url));
    let healthy = trigger("healthy", &image("bench/healthy"), sink.url());
    let triggers = dead.chain([healthy]).collect::<String>();
    let service = serve(stack, folder, &triggers).await?;
    let [mut alone, mut beside, mut longest] = [(); 3].map(|()| Series::default());
    for _ in 0..rounds {
        alone.push(percentile(&delivered(stack, sink, count).await?, 0.5));
    }
    send(
        stack,
        &pushed("bench/dead", "latest", OffsetDateTime::now_utc()),
    )
    .await?;
    let open = "select count(*) from rollout_attempt where finished_at is null";
    until(db, open, DEAD as i64).await?;
    for _ in 0..rounds {
        let times = delivered(stack, sink, count).await?;
        beside.push(percentile(&times, 0.5));
        longest.push(percentile(&times, 1.0));
    }
    drop(silence);
    service.stop().await;
    Ok(vec![
        Row::against(
            format!("revision to webhook, p50, beside {DEAD} dead targets; ceiling: alone"),
            "ms",
            beside,
            alone,
            Goal::AtMost(1.5),
        ),
        Row::alone(
            format!("revision to webhook, the longest, beside {DEAD} dead targets"),
            "ms",
            longest,
            Goal::AtMost(2000.0),
        ),
    ])
}

fn version(number: usize) -> String {
    format!("1.{}.{}", number / PATCHES, number % PATCHES)
}

pub(crate) fn trigger(name: &str, image: &str, url: &str) -> String {
    format!(
        "[[trigger]]\nname = \"{name}\"\nsettle = \"0s\"\nimages.app = {image}\n\
         target.webhook = {{ url = \"{url}\", secret = {{ env = \"{}\" }} }}\n",
        SECRET.0
    )
}

async fn serve(stack: &Stack, folder: &Path, triggers: &str) -> anyhow::Result<ServiceProcess> {
    let config = folder.join("policies.toml");
    std::fs::write(&config, triggers)?;
    stack.trigger(&config).await
}

pub(crate) fn pushed(repository: &str, tag: &str, at: OffsetDateTime) -> Push {
    Push {
        repository: parsed(repository),
        tag: Some(parsed(tag)),
        digest: Some(Digest::sha256_of(
            format!("{at}/{repository}:{tag}").as_bytes(),
        )),
        event_id: format!("{}/{repository}:{tag}", at.unix_timestamp_nanos()),
        ..push(0, at)
    }
}

fn message(push: &Push) -> anyhow::Result<(String, String, Vec<u8>)> {
    let subject = Subject::of_push(push, PARTITIONS).to_string();
    let id = push.message_id();
    Ok((subject, id, serde_json::to_vec(&push.clone().event())?))
}

pub(crate) async fn send(stack: &Stack, push: &Push) -> anyhow::Result<()> {
    publish(&stack.jetstream, std::iter::once(message(push))).await
}

/// Waits until a query returns at least `count`.
pub(crate) async fn until(
    db: &mut PgConnection,
    query: &'static str,
    count: i64,
) -> anyhow::Result<()> {
    let begun = Instant::now();
    loop {
        let is: i64 = sqlx::query_scalar(query).fetch_one(&mut *db).await?;
        if is >= count {
            return Ok(());
        }
        anyhow::ensure!(begun.elapsed() < PATIENCE, "{query}: {is} of {count}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// Returns the median milliseconds from the storing of a revision until the planner has decided.
async fn planned(
    stack: &Stack,
    db: &mut PgConnection,
    repository: &str,
    tag: &str,
    count: usize,
) -> anyhow::Result<f64> {
    let image: Image = format!("{REGISTRY}/{repository}:{tag}").parse()?;
    let mut times = Vec::with_capacity(count);
    for _ in 0..count {
        let before: i64 = position(db).await?;
        let push = pushed(repository, tag, OffsetDateTime::now_utc());
        let digest = push.digest.clone().context("no digest")?.to_string();
        send(stack, &push).await?;
        let begun = Instant::now();
        while position(db).await? == before {
            anyhow::ensure!(begun.elapsed() < PATIENCE, "the planner stands still");
        }
        let at = OffsetDateTime::now_utc();
        let stored = published(stack, &image, &digest).await?;
        times.push((at - stored).as_seconds_f64() * 1000.0);
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    Ok(percentile(&times, 0.5))
}

async fn position(db: &mut PgConnection) -> anyhow::Result<i64> {
    let query = "select coalesce(max(applied_seq), 0) from planner_position";
    Ok(sqlx::query_scalar(query).fetch_one(db).await?)
}

/// Returns the milliseconds from the storing of each revision to the webhook of the healthy
/// trigger.
async fn delivered(stack: &Stack, sink: &Sink, count: usize) -> anyhow::Result<Vec<f64>> {
    let image: Image = format!("{REGISTRY}/bench/healthy:latest").parse()?;
    let mut times = Vec::with_capacity(count);
    for _ in 0..count {
        let before = sink.deliveries().len();
        let push = pushed("bench/healthy", "latest", OffsetDateTime::now_utc());
        let digest = push.digest.clone().context("no digest")?.to_string();
        send(stack, &push).await?;
        let begun = Instant::now();
        while sink.deliveries().len() == before {
            anyhow::ensure!(begun.elapsed() < PATIENCE, "no webhook");
            tokio::time::sleep(Duration::from_micros(200)).await;
        }
        let at = OffsetDateTime::now_utc();
        let stored = published(stack, &image, &digest).await?;
        times.push((at - stored).as_seconds_f64() * 1000.0);
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    Ok(times)
}

/// Checks that each trigger has the tag that brute force over all tags selects: the highest version
/// from its minor version on.
async fn equals_brute_force(
    db: &mut PgConnection,
    tags: usize,
    rule: impl Fn(usize) -> usize,
) -> anyhow::Result<()> {
    let rows = sqlx::query(
        "select distinct on (t.name) t.name, o.images -> 'app' ->> 'image' as image
         from rollout o join trigger t on t.id = o.trigger_id where t.name like 'policy-%' order by t.name, o.number desc",
    )
    .fetch_all(db)
    .await?;
    let selected: BTreeMap<String, String> = rows
        .iter()
        .map(|row| (row.get("name"), row.get("image")))
        .collect();
    for policy in 0..POLICIES {
        let versions = (0..tags).map(|number| (number / PATCHES, number % PATCHES));
        let best = versions.filter(|(minor, _)| *minor >= rule(policy)).max();
        let (minor, patch) = best.context("no tag")?;
        let wanted = format!("{REGISTRY}/{REPOSITORY}:1.{minor}.{patch}");
        let is = selected.get(&format!("policy-{policy}"));
        anyhow::ensure!(
            is == Some(&wanted),
            "policy {policy} has {is:?}, and brute force {wanted}"
        );
    }
    Ok(())
}
