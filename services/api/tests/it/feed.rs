//! The live feed: every revision after a place, once, in order.

use std::time::Duration;

use serde_json::Value;
use tagtrail_testkit::SOON;

use crate::rows::{Rows, on_time, text};
use crate::server::{Answer, Api};

/// An open feed.
pub(crate) struct Feed {
    response: reqwest::Response,
    buffer: String,
    /// The last id, of an event or a heartbeat.
    pub(crate) id: String,
    /// The number of known images that match, if the feed sent it.
    images: Option<u64>,
}

/// An event: its name and data.
pub(crate) type Event = (String, Value);

impl Feed {
    async fn open(api: &Api, query: &str, last: Option<&str>) -> Feed {
        Feed::at(api, &format!("/v1/revisions{query}"), last).await
    }

    pub(crate) async fn at(api: &Api, path: &str, last: Option<&str>) -> Feed {
        let mut request = api.request("GET", path);
        if let Some(last) = last {
            request = request.header("last-event-id", last);
        }
        let response = request.send().await.unwrap();
        assert_eq!(response.status(), 200);
        assert_eq!(response.headers()["content-type"], "text/event-stream");
        let mut feed = Feed {
            response,
            buffer: String::new(),
            id: String::new(),
            images: None,
        };
        // The first event carries the place, as a heartbeat does.
        let (name, data) = feed.block().await.unwrap();
        assert_eq!(name, "place");
        feed.images = data["images"].as_u64();
        feed
    }

    /// Waits for the next event. `None`: the feed has ended.
    pub(crate) async fn block(&mut self) -> Option<Event> {
        loop {
            if let Some((block, rest)) = self.buffer.split_once("\n\n") {
                let (mut name, mut id, mut data) = (None, None, None);
                for line in block.lines() {
                    match line.split_once(": ") {
                        Some(("event", value)) => name = Some(value.to_owned()),
                        Some(("id", value)) => id = Some(value.to_owned()),
                        Some(("data", value)) => data = Some(serde_json::from_str(value).unwrap()),
                        _ => {}
                    }
                }
                // Some clients forget the id of an event without data, and some show an event
                // without a name to every listener.
                let (Some(name), Some(id), Some(data)) = (name, id, data) else {
                    panic!("an event without a name, an id or data: {block}")
                };
                self.id = id;
                self.buffer = rest.to_owned();
                return Some((name, data));
            }
            let chunk = tokio::time::timeout(SOON, self.response.chunk());
            let chunk = chunk.await.expect("nothing came").unwrap()?;
            self.buffer.push_str(std::str::from_utf8(&chunk).unwrap());
        }
    }

    pub(crate) async fn event(&mut self) -> Event {
        loop {
            let event = self.block().await.expect("the feed has ended");
            if event.0 != "place" {
                return event;
            }
        }
    }

    /// Waits for the next `count` revisions, as `image#number`.
    async fn revisions(&mut self, count: usize) -> Vec<String> {
        let mut revisions = Vec::new();
        while revisions.len() < count {
            let (name, event) = self.event().await;
            assert_eq!(name, "revision", "{event}");
            revisions.push(event["id"].as_str().unwrap().to_owned());
        }
        revisions
    }
}

const WEB: &str = "registry.example.com/shop/web:latest";
const BLOG: &str = "registry.example.com/blog:v1";

fn numbered(image: &str, numbers: impl IntoIterator<Item = i64>) -> Vec<String> {
    numbers
        .into_iter()
        .map(|number| format!("{image}#{number}"))
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_recorded_revision_is_sent_as_the_event_on_the_bus() {
    let (api, mut rows) = Api::start().await;
    let tag = rows.empty_tag(WEB).await;
    rows.revision(tag, on_time(1, 1, 10)).await;
    let mut feed = Feed::open(&api, "", None).await;
    rows.revision(tag, on_time(2, 2, 20)).await;
    let (name, event) = feed.event().await;
    assert_eq!(
        (name.as_str(), event["id"].as_str().unwrap()),
        ("revision", format!("{WEB}#2").as_str())
    );
    assert_eq!(event["type"], "dev.tagtrail.revision.v1");
    let parsed: tagtrail_proto::Event<tagtrail_proto::Revision> =
        serde_json::from_value(event).unwrap();
    assert_eq!(parsed.data.previous.unwrap().revision, 1);
    assert_eq!(parsed.data.head.revision, 2);
    assert_eq!(parsed.data.actor.as_deref(), Some("ci-bot"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_follower_receives_the_revisions_that_match_its_pattern() {
    let (api, mut rows) = Api::start().await;
    let (web, blog) = (rows.empty_tag(WEB).await, rows.empty_tag(BLOG).await);
    let mut shop = Feed::open(&api, "?match=registry.example.com/shop/**:latest", None).await;
    let mut v1 = Feed::open(&api, "?match=**:v1", None).await;
    let mut nothing = Feed::open(&api, "?match=**:v2", None).await;
    for number in 1..=3 {
        rows.revision(web, on_time(number, 1, number)).await;
        rows.revision(blog, on_time(number, 2, number)).await;
    }
    assert_eq!(shop.revisions(3).await, numbered(WEB, 1..=3));
    assert_eq!(v1.revisions(3).await, numbered(BLOG, 1..=3));
    // Without a registry, in any registry.
    let mut any = Feed::open(&api, "?match=shop/**", None).await;
    rows.revision(web, on_time(4, 1, 4)).await;
    assert_eq!(any.revisions(1).await, numbered(WEB, [4]));
    let quiet = tokio::time::timeout(Duration::from_millis(300), nothing.event()).await;
    assert!(quiet.is_err(), "{quiet:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn tags_that_hold_signatures_are_sent_only_on_request() {
    let (api, mut rows) = Api::start().await;
    let hex = "0123456789abcdef".repeat(4);
    let [list, signature] =
        ["", ".sig"].map(|suffix| format!("registry.example.com/shop/web:sha256-{hex}{suffix}"));
    let (web, list_tag) = (rows.empty_tag(WEB).await, rows.empty_tag(&list).await);
    let signature_tag = rows.empty_tag(&signature).await;
    let mut images = Feed::open(&api, "?match=**", None).await;
    let mut all = Feed::open(&api, "?signatures=true", None).await;
    let mut by_name = Feed::open(&api, "?match=shop/web:sha256-*", None).await;
    // Tags alternate between the partitions.
    rows.revision(list_tag, on_time(1, 1, 1)).await;
    rows.revision(signature_tag, on_time(1, 2, 1)).await;
    rows.revision(web, on_time(1, 3, 1)).await;
    assert_eq!(images.revisions(1).await, numbered(WEB, [1]));
    for feed in [&mut all, &mut by_name] {
        let mut found = feed.revisions(2).await;
        if found.contains(&format!("{WEB}#1")) {
            found.extend(feed.revisions(1).await);
        }
        for image in [&list, &signature] {
            assert!(found.contains(&format!("{image}#1")), "{found:?}");
        }
    }
    let wrong = api.get("/v1/revisions?signatures=yes").await;
    assert_eq!(wrong.problem(), "400 flag_invalid");
}

#[tokio::test(flavor = "multi_thread")]
async fn tags_that_hold_signatures_are_counted_only_on_request() {
    let (api, mut rows) = Api::start().await;
    let signature = format!("{BLOG}x").replace("v1x", &format!("sha256-{}.att", "0".repeat(64)));
    for image in [WEB, BLOG, signature.as_str()] {
        rows.tag(image, &[on_time(1, 1, 1)]).await;
    }
    for (query, images) in [
        ("match=**", 2),
        ("match=**&signatures=false", 2),
        ("match=**&signatures=true", 3),
        ("match=blog:sha256-*", 1),
    ] {
        let feed = Feed::open(&api, &format!("?{query}"), None).await;
        assert_eq!(feed.images, Some(images), "{query}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_follower_continues_after_restarts_without_a_gap_or_a_repeat() {
    let db = tagtrail_testkit::postgres().await;
    let mut rows = Rows::new(db.connect().await).await;
    let (web, blog) = (rows.empty_tag(WEB).await, rows.empty_tag(BLOG).await);
    let mut seen = Vec::new();
    let mut id: Option<String> = None;
    for round in 0..4 {
        let api = Api::over(&db).await;
        api.ctx.health.wait_ready().await;
        let mut feed = Feed::open(&api, "", id.as_deref()).await;
        for n in 1..=5 {
            let number = round * 10 + n;
            rows.revision(web, on_time(number, 1, number)).await;
            rows.revision(blog, on_time(number, 2, number)).await;
        }
        // In the first round only 7 of 10: the others must come after the restart.
        seen.extend(feed.revisions(if round == 0 { 7 } else { 20 }).await);
        id = Some(feed.id.clone());
        api.stop().await;
        // Also while the api is down, revisions are recorded.
        for n in 6..=10 {
            let number = round * 10 + n;
            rows.revision(web, on_time(number, 1, number)).await;
            rows.revision(blog, on_time(number, 2, number)).await;
        }
    }
    let of = |image: &str| -> Vec<String> {
        seen.iter()
            .filter(|id| id.starts_with(image))
            .cloned()
            .collect()
    };
    assert_eq!(seen.len(), 67);
    for image in [WEB, BLOG] {
        let count = i64::try_from(of(image).len()).unwrap();
        assert_eq!(of(image), numbered(image, 1..=count));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_first_event_has_the_number_of_known_images_that_match() {
    let (api, mut rows) = Api::start().await;
    for image in [
        WEB,
        BLOG,
        "registry.example.com/blog:v_1",
        "other.example.com/blog:vx1",
    ] {
        rows.tag(image, &[on_time(1, 1, 1)]).await;
    }
    // Known to the ids only: a tag without a revision is no image yet.
    rows.empty_tag("registry.example.com/blog:v2").await;
    for (pattern, images) in [
        ("**", 4),
        ("blog", 3),
        ("blog:v*", 3),
        ("blog:v_1", 1),
        ("registry.example.com/**", 3),
        ("nothing/**", 0),
    ] {
        let feed = Feed::open(&api, &format!("?match={pattern}"), None).await;
        assert_eq!(feed.images, Some(images), "{pattern}");
        let again = Feed::open(&api, &format!("?match={pattern}"), Some(&feed.id)).await;
        assert_eq!(again.images, None, "only at the first connection");
    }
    assert_eq!(Feed::open(&api, "", None).await.images, None);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_cut_before_the_first_revision_loses_none() {
    let (api, mut rows) = Api::start().await;
    let (web, blog) = (rows.empty_tag(WEB).await, rows.empty_tag(BLOG).await);
    let first = Feed::open(&api, "?match=**:latest", None).await;
    let id = first.id.clone();
    drop(first);
    for number in 1..=3 {
        rows.revision(blog, on_time(number, 2, number)).await;
        rows.revision(web, on_time(number, 1, number)).await;
    }
    let mut again = Feed::open(&api, "?match=**:latest", Some(&id)).await;
    assert_eq!(again.revisions(3).await, numbered(WEB, 1..=3));
}

#[tokio::test(flavor = "multi_thread")]
async fn since_begins_with_the_revisions_recorded_at_that_time_or_later() {
    let (api, mut rows) = Api::start().await;
    let (web, blog) = (rows.empty_tag(WEB).await, rows.empty_tag(BLOG).await);
    for number in 1..=40 {
        // Recorded a second later.
        rows.revision(web, on_time(number, 1, number * 10)).await;
        rows.revision(blog, on_time(number, 2, number * 10)).await;
    }
    for (since, first) in [(0, 1), (101, 10), (102, 11), (391, 39)] {
        let query = format!("?match={WEB}&since={}", text(since));
        let mut feed = Feed::open(&api, &query, None).await;
        let count = usize::try_from(41 - first).unwrap();
        assert_eq!(
            feed.revisions(count).await,
            numbered(WEB, first..=40),
            "since {since}"
        );
    }
    // A time after the last revision: the feed begins with the next revision.
    let mut feed = Feed::open(&api, &format!("?since={}", text(402)), None).await;
    rows.revision(web, on_time(41, 1, 410)).await;
    assert_eq!(feed.revisions(1).await, numbered(WEB, [41]));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_burst_larger_than_the_memory_is_read_from_the_store() {
    let (api, mut rows) = Api::start().await;
    let (web, blog) = (rows.empty_tag(WEB).await, rows.empty_tag(BLOG).await);
    let mut feeds = Vec::new();
    for _ in 0..5 {
        feeds.push(Feed::open(&api, "", None).await);
    }
    rows.burst(web, 5000).await;
    rows.burst(blog, 300).await;
    for feed in &mut feeds {
        let seen = feed.revisions(5300).await;
        for (image, count) in [(WEB, 5000), (BLOG, 300)] {
            let of: Vec<String> = seen
                .iter()
                .filter(|id| id.starts_with(image))
                .cloned()
                .collect();
            assert_eq!(of, numbered(image, 1..=count));
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn heartbeats_carry_the_place_so_that_a_quiet_follower_does_not_fall_behind() {
    let (api, mut rows) = Api::with_quick_heartbeats().await;
    let web = rows.empty_tag(WEB).await;
    let mut feed = Feed::open(&api, "?match=**:v1", None).await;
    let before = feed.id.clone();
    rows.burst(web, 100).await;
    while feed.id == before {
        let (name, data) = feed.block().await.unwrap();
        assert_eq!((name.as_str(), data), ("place", serde_json::json!({})));
    }
    // A follower that continues from there is after the burst.
    let mut again = Feed::open(&api, "", Some(&feed.id)).await;
    let blog = rows.empty_tag(BLOG).await;
    rows.revision(blog, on_time(1, 2, 1)).await;
    let next = again.revisions(1).await;
    assert!(
        next == numbered(BLOG, [1]) || next[0].starts_with(WEB),
        "{next:?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_follower_that_does_not_read_receives_dropped_and_can_continue() {
    let db = tagtrail_testkit::postgres().await;
    let api = Api::with(&db, |config| config.pace.patience = Duration::from_secs(1)).await;
    api.ctx.health.wait_ready().await;
    let mut rows = Rows::new(db.connect().await).await;
    let web = rows.empty_tag(WEB).await;
    let mut slow = Feed::open(&api, "", None).await;
    let mut brisk = Feed::open(&api, "", None).await;
    // More than the buffers of the sockets hold.
    let count = 20_000;
    rows.burst(web, count).await;
    assert_eq!(brisk.revisions(20_000).await, numbered(WEB, 1..=count));
    tokio::time::sleep(Duration::from_secs(2)).await; // longer than `patience`
    let mut seen = Vec::new();
    let problem = loop {
        let (name, event) = slow.event().await;
        if name == "dropped" {
            break event;
        }
        seen.push(event["id"].as_str().unwrap().to_owned());
    };
    assert_eq!(problem["code"], "reader_too_slow");
    assert_eq!(slow.block().await, None, "that was the last event");
    // It continues there, and misses nothing.
    let mut again = Feed::open(&api, "", Some(&slow.id)).await;
    seen.extend(again.revisions(20_000 - seen.len()).await);
    assert_eq!(seen, numbered(WEB, 1..=count));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_feed_waits_for_postgres_and_continues() {
    let postgres = tagtrail_testkit::TestPostgres::start().await;
    let api = Api::over(&postgres.db()).await;
    api.ctx.health.wait_ready().await;
    let mut rows = Rows::new(postgres.db().connect().await).await;
    let web = rows.empty_tag(WEB).await;
    let mut feed = Feed::open(&api, "", None).await;
    rows.revision(web, on_time(1, 1, 1)).await;
    assert_eq!(feed.revisions(1).await, numbered(WEB, [1]));
    postgres.stop().await;
    postgres.resume().await;
    rows.db = postgres.db().connect().await;
    rows.revision(web, on_time(2, 2, 2)).await;
    assert_eq!(feed.revisions(1).await, numbered(WEB, [2]));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_last_id_may_stand_in_the_query_as_polyfills_send_it() {
    let (api, mut rows) = Api::start().await;
    let tag = rows.empty_tag(WEB).await;
    let start = Feed::open(&api, "?_=1", None).await.id;
    rows.revision(tag, on_time(1, 1, 1)).await;
    rows.revision(tag, on_time(2, 2, 2)).await;
    let mut feed = Feed::open(&api, &format!("?lastEventId={start}&_=2"), None).await;
    assert_eq!(feed.revisions(1).await, numbered(WEB, [1]));
    let first = feed.id;
    for (query, last) in [
        (format!("?Last-Event-ID={first}&match=shop/**"), None),
        (format!("?lastEventId={first}&Last-Event-ID={start}"), None),
        (format!("?lastEventId=&Last-Event-ID={first}"), None),
        // A client that sends both has the newer one in the header.
        (format!("?lastEventId={start}"), Some(first.as_str())),
    ] {
        let mut feed = Feed::open(&api, &query, last).await;
        assert_eq!(feed.revisions(1).await, numbered(WEB, [2]), "{query}");
    }
    let wrong = api.request("GET", "/v1/revisions?lastEventId=17");
    let wrong = Answer::read(wrong.send().await.unwrap()).await.problem();
    assert_eq!(wrong, "400 cursor_invalid");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_parameter_of_the_feed_is_refused_with_its_code() {
    let (api, _rows) = Api::start().await;
    let problem = async |query: &str, last: Option<&str>| {
        let mut request = api.request("GET", &format!("/v1/revisions{query}"));
        if let Some(last) = last {
            request = request.header("last-event-id", last);
        }
        Answer::read(request.send().await.unwrap()).await.problem()
    };
    assert_eq!(problem("?match=a//b", None).await, "400 match_invalid");
    for pattern in ["", "[", "shop/[a", "registry.example.com", "shop/Web"] {
        let query = format!("?match={pattern}");
        assert_eq!(problem(&query, None).await, "400 match_invalid");
    }
    assert_eq!(problem("?since=yesterday", None).await, "400 time_invalid");
    assert_eq!(problem("?limit=1", None).await, "400 parameter_unknown");
    for last in ["17", "MSBoaXN0b3J5IDE3", &"x".repeat(9000)] {
        assert_eq!(problem("", Some(last)).await, "400 cursor_invalid");
    }
}
