//! Pages that a browser has already are answered with 304 while nothing has changed.

use reqwest::header::{COOKIE, ETAG, IF_NONE_MATCH};
use tagtrail_testkit::{SOON, TestPostgres, eventually};
use tracing_subscriber::filter::LevelFilter;

use crate::audit::Log;
use crate::rows::{Rows, on_time};
use crate::server::{Api, secret};

const IMAGE: &str = "registry.example.com/shop/web:latest";

/// The statements of this thread, one to a line.
struct Statements(Log);

impl Statements {
    /// Records the statements of this thread, on which the service and the test run, until the
    /// guards are dropped. While there is one subscriber, `tracing` asks the thread that meets a
    /// place in the code first, perhaps that of another test, and keeps its answer. So there are
    /// two.
    fn record() -> (
        Statements,
        (tracing::subscriber::DefaultGuard, tracing::Dispatch),
    ) {
        let log = Log::default();
        let writer = log.clone();
        let subscriber = tracing_subscriber::fmt()
            .with_ansi(false)
            .with_max_level(LevelFilter::DEBUG)
            .with_writer(move || writer.clone())
            .finish();
        let guard = tracing::subscriber::set_default(subscriber);
        let second = tracing::Dispatch::new(tracing_subscriber::registry());
        (Statements(log), (guard, second))
    }

    /// Returns the statements since the last call.
    fn take(&self) -> Vec<String> {
        let bytes = std::mem::take(&mut *self.0.0.lock().unwrap());
        let text = String::from_utf8(bytes).unwrap();
        let lines = text.lines().filter(|line| line.contains("sqlx::query"));
        // The part that keeps the row of the process, and the probe, run beside the pages.
        let beside = [
            "into service",
            "from service where",
            "SQLx ping",
            "\"BEGIN",
            "\"COMMIT\"",
        ];
        let own = |line: &&str| !beside.iter().any(|part| line.contains(part));
        lines.filter(own).map(ToOwned::to_owned).collect()
    }
}

/// Returns the tag of a page that must be 200.
async fn tag(api: &Api, path: &str) -> String {
    let response = api.request("GET", path).send().await.unwrap();
    assert_eq!(response.status(), 200, "{path}");
    let tag = response.headers().get(ETAG);
    tag.unwrap_or_else(|| panic!("{path} has no tag"))
        .to_str()
        .unwrap()
        .to_owned()
}

/// Returns the status of a page for a browser that has it with this tag.
async fn again(api: &Api, path: &str, tag: &str) -> u16 {
    let request = api.request("GET", path).header(IF_NONE_MATCH, tag);
    request.send().await.unwrap().status().as_u16()
}

/// Reads a page until the next request for it is answered with 304: a renewed row of a process and
/// the begin of a minute come in between. Returns the tag.
async fn unchanged(api: &Api, path: &str) -> String {
    eventually("an unchanged page", SOON, async || {
        let tag = tag(api, path).await;
        (again(api, path, &tag).await == 304).then_some(tag)
    })
    .await
}

#[tokio::test]
async fn an_unchanged_page_is_answered_without_the_page() {
    let server = TestPostgres::start().await;
    let db = server.db();
    let api = Api::over(&db).await;
    api.ctx.health.wait_ready().await;
    let mut rows = Rows::new(db.connect().await).await;
    rows.tag(IMAGE, &[on_time(1, 1, 10), on_time(2, 2, 20)])
        .await;
    rows.trigger("shop", true).await;
    let repository = format!("/i/{}", IMAGE.rsplit_once(':').unwrap().0);
    let paths = [
        "/",
        "/i",
        &repository,
        &format!("/i/{IMAGE}"),
        "/triggers",
        "/triggers/shop",
        "/rollouts",
        "/holds",
        "/reports",
    ];
    for (place, path) in paths.into_iter().enumerate() {
        let old = unchanged(&api, path).await;
        let request = api
            .request("GET", path)
            .header(IF_NONE_MATCH, format!("\"x\", {old}"));
        let response = request.send().await.unwrap();
        if response.status() == 304 {
            let header = |name: &str| response.headers()[name].to_str().unwrap().to_owned();
            assert_eq!(header("etag"), old);
            assert_eq!(header("cache-control"), "private, no-cache");
            assert_eq!(header("vary").to_lowercase().matches("cookie").count(), 1);
            assert!(header("content-security-policy").contains("default-src 'none'"));
            assert_eq!(response.text().await.unwrap(), "");
        }
        // A change of any kind.
        let image = format!("registry.example.com/shop/other:{place}");
        rows.tag(&image, &[on_time(1, 3, 30)]).await;
        assert_eq!(again(&api, path, &old).await, 200, "{path}");
        // Another address, another theme.
        let old = unchanged(&api, path).await;
        assert_eq!(again(&api, &format!("{path}?"), &old).await, 200, "{path}");
        let request = api.request("GET", path).header(IF_NONE_MATCH, &old);
        let dark = request.header(COOKIE, "theme=dark").send().await.unwrap();
        assert_eq!(dark.status(), 200, "{path}");
    }
}

#[tokio::test]
async fn an_unchanged_page_costs_one_statement_that_reads_no_table() {
    let (statements, _guards) = Statements::record();
    let server = TestPostgres::start().await;
    let db = server.db();
    let api = Api::over(&db).await;
    api.ctx.health.wait_ready().await;
    let mut rows = Rows::new(db.connect().await).await;
    rows.tag(IMAGE, &[on_time(1, 1, 10)]).await;
    let cost = eventually("an unchanged page", SOON, async || {
        let tag = tag(&api, "/").await;
        statements.take();
        let status = again(&api, "/", &tag).await;
        let cost = statements.take();
        (status == 304).then_some(cost)
    })
    .await;
    assert_eq!(cost.len(), 1, "{cost:#?}");
    assert!(cost[0].contains("pg_current_snapshot"), "{cost:#?}");
}

#[tokio::test]
async fn the_tag_depends_on_the_reader() {
    let tokens = [
        ("ui", "read", ""),
        ("ops", "operate", "triggers = [\"*\"]\n"),
    ];
    let (api, mut rows, _folder) = Api::with_tokens(&tokens).await;
    rows.trigger("shop", true).await;
    let ask = async |name: &str, tag: &str| {
        let request = api
            .request("GET", "/triggers/shop")
            .bearer_auth(secret(name));
        request.header(IF_NONE_MATCH, tag).send().await.unwrap()
    };
    let first = ask("ui", "\"\"").await;
    assert_eq!(first.status(), 200);
    let tag = first.headers()[ETAG].to_str().unwrap().to_owned();
    assert_eq!(ask("ops", &tag).await.status(), 200);
    // Before signing in there is nothing that could be unchanged.
    let response = api.once("GET", "/triggers/shop").await;
    assert_eq!(
        (response.status().as_u16(), response.headers().get(ETAG)),
        (303, None)
    );
}

/// Pages, each with the most statements that it may take: the begin and the end of the snapshot,
/// and the question whether the page is unchanged, are three of them.
const MOST: [(&str, usize); 9] = [
    ("/", 13),
    ("/i", 4),
    ("/i/registry.example.com/shop/web", 9),
    ("/i/registry.example.com/shop/web:latest", 9),
    ("/triggers", 7),
    ("/triggers/shop", 10),
    ("/rollouts", 5),
    ("/holds", 6),
    ("/search?q=web", 15),
];

#[tokio::test]
async fn a_page_takes_few_statements_for_many_rows() {
    let (statements, _guards) = Statements::record();
    let (api, mut rows) = Api::start().await;
    for tag in 0..30 {
        let image = format!("registry.example.com/shop/web:{tag}");
        rows.tag(&image, &[on_time(1, 1, 10), on_time(2, 2, 20)])
            .await;
    }
    rows.tag(IMAGE, &[on_time(1, 1, 10), on_time(2, 2, 20)])
        .await;
    for name in ["shop", "shop-eu", "shop-us"] {
        let trigger = rows.trigger(name, true).await;
        for number in 1..4 {
            rows.rollout(trigger, number, "succeeded", 10 * number)
                .await;
        }
    }
    let mut counts = Vec::new();
    for (path, most) in MOST {
        statements.take();
        let response = api.request("GET", path).send().await.unwrap();
        assert_eq!(response.status(), 200, "{path}");
        let count = statements.take().len();
        assert!(count > 2, "{path}: no statement is recorded");
        counts.push((path, count, most));
    }
    let over = counts.iter().filter(|(_, count, most)| count > most);
    assert_eq!(over.count(), 0, "statements of pages: {counts:?}");
}
