//! Measures stores of several sizes.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use bytes::Bytes;
use http_body_util::Full;
use hyper::Request;
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use serde_json::Value;
use sqlx::{AssertSqlSafe, PgConnection, Row as _};
use tagtrail_proto::instant;
use tagtrail_testkit::{TestPostgres, free_address};
use time::OffsetDateTime;

use crate::drain::{Pids, drain};
use crate::http::Connection;
use crate::load::{Store, digest};
use crate::report::{Goal, Row, percentile};
use crate::stack::{self, Stack};
use crate::up::Up;

/// Most tags of a store. A small store has half as many tags as pushes, so that some tags have a
/// long history.
const TAGS: u32 = 1_000_000;
/// Pushes of the backlog that the indexer drains.
const DRAINED: usize = 100_000;
/// Pages of a long history, with an item each.
const FAR: usize = 10_000;
/// Requests of each kind.
const REQUESTS: usize = 3_000;

/// Requests of each page.
const PAGES: usize = 300;

/// Names of the requests with a goal, and the percentile.
const AS_OF: (&str, &str) = ("as of a time", "p99");
const OF_REPOSITORY: (&str, &str) = ("page of a repository", "p50");

/// Compares the requests about the past, and the page of a repository with its rows of time, in the
/// largest store with the smallest.
pub(crate) fn compared(rows: &[Row]) -> Vec<Row> {
    let both = [AS_OF, OF_REPOSITORY].into_iter();
    both.filter_map(|name| compared_by(rows, name)).collect()
}

fn compared_by(rows: &[Row], (name, percentile): (&str, &str)) -> Option<Row> {
    let begin = format!("{name}, {percentile}");
    let same = |row: &&Row| row.name.starts_with(&begin);
    let first = rows.iter().find(same)?;
    let last = rows.iter().rev().find(same)?;
    let ratio = last.value.median() / first.value.median();
    Some(Row::once(
        format!("{} against {}", last.name, first.name),
        "",
        ratio,
        Goal::AtMost(2.0),
    ))
}

/// Measures a store with this many million pushes.
pub(crate) async fn measure(folder: &Path, millions: u64) -> anyhow::Result<Vec<Row>> {
    let pushes = millions * 1_000_000;
    let store = Store {
        tags: u32::try_from(pushes / 2).unwrap_or(TAGS).min(TAGS),
        pushes,
    };
    let of = format!("{millions} M pushes");
    let data = folder.join(format!("data-{millions}"));
    let postgres = TestPostgres::start_in(&data).await;
    store.fill(&mut postgres.db().connect().await).await?;
    postgres.stop().await;
    drop(postgres);
    let mut rows = vec![Row::once(
        format!("start of `tagtrail up`, {of}"),
        "s",
        started(&data).await?,
        Goal::AtMost(2.0),
    )];

    let postgres = TestPostgres::start_in(&data).await;
    let bus = folder.join(format!("nats-{millions}"));
    let stack = Stack::start(&bus, false, postgres.db().url().to_owned()).await?;
    rows.extend(sizes(&mut stack.db().await?, store.pushes, &of).await?);
    rows.extend(questions(&stack, store, &of).await?);
    rows.extend(reports(&mut stack.db().await?, &of).await?);
    let pids = Pids::of(&stack, &postgres).await?;
    stack.prefill(DRAINED).await?;
    let drained = drain(&stack, pids, DRAINED, true).await?;
    rows.push(Row::once(
        format!("drain, {of}"),
        "pushes/s",
        drained.rate,
        Goal::None,
    ));
    rows.push(Row::once(
        format!("memory of the indexer, {of}"),
        "MiB",
        drained.resident,
        Goal::AtMost(100.0),
    ));
    stack.nats.stop().await;
    postgres.stop().await;
    std::fs::remove_dir_all(&data)?;
    Ok(rows)
}

/// Returns the seconds until `tagtrail up` on this folder is ready. The first start creates the
/// streams, and does not count.
async fn started(data: &Path) -> anyhow::Result<f64> {
    let mut times = Vec::new();
    for _ in 0..4 {
        let begun = Instant::now();
        let mut up = Up::start(data, &[]).await?.process;
        times.push(begun.elapsed().as_secs_f64());
        up.signal("TERM");
        up.ended(Duration::from_secs(60)).await;
    }
    Ok(percentile(times.get(1..).unwrap_or_default(), 0.5))
}

/// Measures the bytes per push of each table and of each index.
async fn sizes(db: &mut PgConnection, pushes: u64, of: &str) -> anyhow::Result<Vec<Row>> {
    let found = sqlx::query(
        "select relname::text, pg_relation_size(oid) as size from pg_class
         where relkind in ('r', 'i') and relnamespace = 'public'::regnamespace and pg_relation_size(oid) > 1000000
         order by pg_relation_size(oid) desc",
    )
    .fetch_all(db)
    .await?;
    let mut rows = Vec::new();
    let mut all = 0.0;
    for row in found {
        let (name, size): (String, i64) = (row.try_get("relname")?, row.try_get("size")?);
        all += size as f64 / pushes as f64;
        rows.push(Row::once(
            format!("{name}, {of}"),
            "bytes/push",
            size as f64 / pushes as f64,
            Goal::None,
        ));
    }
    rows.push(Row::once(
        format!("all tables and indexes, {of}"),
        "bytes/push",
        all,
        Goal::None,
    ));
    Ok(rows)
}

/// A client of the api that sends requests in turn.
struct ApiClient {
    connection: Connection,
    address: String,
}

impl ApiClient {
    /// Returns the answer, and its time in milliseconds.
    async fn ask(&mut self, path: &str) -> anyhow::Result<(Value, f64)> {
        let (body, took) = self.load(path).await?;
        Ok((serde_json::from_slice(&body)?, took))
    }

    /// Returns the body, and its time in milliseconds.
    async fn load(&mut self, path: &str) -> anyhow::Result<(Bytes, f64)> {
        let request = Request::get(path)
            .header("host", &self.address)
            .body(Full::default())?;
        let begun = Instant::now();
        let (status, body) = self.connection.ask(request).await?;
        let took = begun.elapsed().as_secs_f64() * 1000.0;
        anyhow::ensure!(
            status == 200,
            "{path}: {status}: {}",
            String::from_utf8_lossy(&body)
        );
        Ok((body, took))
    }
}

async fn questions(stack: &Stack, store: Store, of: &str) -> anyhow::Result<Vec<Row>> {
    let address = free_address();
    let api = stack.service("api", &[("TAGTRAIL_API_LISTEN", &address)]);
    api.ready().await?;
    let connection = Connection::connect(&address).await?;
    let mut api_client = ApiClient {
        connection,
        address,
    };
    let mut random = StdRng::seed_from_u64(2);
    let repositories = store.tags / 10;
    let image = |place: u32| stack::image(place as usize, repositories as usize);
    let (start, step) = store.times();
    let made = start + step * (store.tags + 1);
    let seconds = (OffsetDateTime::now_utc() - made).whole_seconds();
    let mut rows = Vec::new();
    let mut note = |name: &str, times: &[f64]| {
        rows.push(Row::once(
            format!("{name}, p50, {of}"),
            "ms",
            percentile(times, 0.5),
            Goal::None,
        ));
        rows.push(Row::once(
            format!("{name}, p99, {of}"),
            "ms",
            percentile(times, 0.99),
            Goal::None,
        ));
    };
    let mut times = Vec::with_capacity(REQUESTS);
    for number in 0..2 * REQUESTS {
        let at = instant::format(made + time::Duration::seconds(random.random_range(0..seconds)))?;
        // Half of the requests ask for tags that moved often.
        let place = (random.random::<f64>().powi(4) * f64::from(store.tags)) as u32;
        let (_, took) = api_client
            .ask(&format!("/v1/resolve?image={}&at={at}", image(place)))
            .await?;
        if number >= REQUESTS {
            times.push(took);
        }
    }
    note(AS_OF.0, &times);
    times.clear();
    for _ in 0..REQUESTS {
        let digest = digest(random.random_range(0..store.pushes));
        times.push(
            api_client
                .ask(&format!("/v1/digests/sha256:{digest}"))
                .await?
                .1,
        );
    }
    note("images with a digest", &times);
    let (mut first, mut far, mut cursor) = (Vec::new(), Vec::new(), None::<String>);
    for page in 0..FAR {
        let after = cursor
            .as_ref()
            .map(|cursor| format!("&cursor={cursor}"))
            .unwrap_or_default();
        let (answer, took) = api_client
            .ask(&format!("/v1/history?image={}&limit=1{after}", image(0)))
            .await?;
        match page {
            0..100 => first.push(took),
            _ if page >= FAR - 100 => far.push(took),
            _ => {}
        }
        cursor = Some(
            answer["next"]
                .as_str()
                .context("the history ends early")?
                .to_owned(),
        );
    }
    note("history, pages 1 to 100", &first);
    note(&format!("history, pages {} to {FAR}", FAR - 99), &far);
    // Pages of people, beside the smallest question to Postgres.
    let mut db = stack.db().await?;
    let mut smallest = Vec::with_capacity(PAGES);
    for _ in 0..PAGES {
        let begun = Instant::now();
        sqlx::query("select 1").execute(&mut db).await?;
        smallest.push(begun.elapsed().as_secs_f64() * 1000.0);
    }
    note("`select 1`", &smallest);
    for name in [
        "home page",
        "page of all folders",
        OF_REPOSITORY.0,
        "page of a tag",
    ] {
        times.clear();
        for _ in 0..PAGES {
            let place = (random.random::<f64>().powi(4) * f64::from(store.tags)) as u32;
            let tag = image(place);
            let path = match name {
                "home page" => "/".to_owned(),
                "page of all folders" => "/i".to_owned(),
                "page of a tag" => format!("/i/{tag}"),
                _ => format!("/i/{}", tag.rsplit_once(':').context("no tag")?.0),
            };
            times.push(api_client.load(&path).await?.1);
        }
        note(name, &times);
    }
    api.stop().await;
    Ok(rows)
}

/// Measures the views for people and BI tools.
async fn reports(db: &mut PgConnection, of: &str) -> anyhow::Result<Vec<Row>> {
    let mut rows = Vec::new();
    for (name, sql) in [
        (
            "report: the history of an image",
            "select count(*) from report.history where registry = 'registry.example.com' and repository = 'team-40/app-40' and tag = 'v9'",
        ),
        (
            "report: the heads of a repository",
            "select count(*) from report.head where registry = 'registry.example.com' and repository = 'team-40/app-40'",
        ),
        (
            "report: images moved in the last day",
            "select count(*) from (select image from report.history where recorded_at > now() - interval '1 day' group by image) i",
        ),
    ] {
        let mut times = Vec::new();
        for _ in 0..3 {
            let begun = Instant::now();
            sqlx::raw_sql(AssertSqlSafe(sql)).execute(&mut *db).await?;
            times.push(begun.elapsed().as_secs_f64() * 1000.0);
        }
        rows.push(Row::once(
            format!("{name}, {of}"),
            "ms",
            percentile(&times, 0.5),
            Goal::None,
        ));
    }
    Ok(rows)
}
