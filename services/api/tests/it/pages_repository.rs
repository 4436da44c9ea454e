//! The pages of folders and repositories.

use serde_json::Value;
use time::{Duration, OffsetDateTime};

use crate::rows::{Rows, digest, on_time};
use crate::server::Api;

const WEB: &str = "registry.example.com/shop/web";

/// A page, as text.
pub(crate) struct Shown {
    status: u16,
    pub(crate) text: String,
}

pub(crate) async fn show(api: &Api, path: &str) -> Shown {
    let answer = api.once("GET", path).await;
    let kind = answer.headers()["content-type"]
        .to_str()
        .unwrap()
        .to_owned();
    assert!(kind.starts_with("text/html"), "{path}: {kind}");
    Shown {
        status: answer.status().as_u16(),
        text: answer.text().await.unwrap(),
    }
}

impl Shown {
    /// Returns the tags of the page, in order.
    fn tags(&self) -> Vec<String> {
        let rows = self
            .text
            .split("<th scope=\"row\"><a class=\"im\" href=\"")
            .skip(1);
        let name = |row: &str| {
            row.split_once('"')
                .unwrap()
                .0
                .rsplit(':')
                .next()
                .unwrap()
                .to_owned()
        };
        rows.map(name).collect()
    }

    fn next(&self) -> Option<String> {
        let (_, rest) = self.text.split_once("rel=\"next\" href=\"")?;
        Some(rest.split_once('"').unwrap().0.replace("&amp;", "&"))
    }

    /// Checks the rules of all pages.
    #[track_caller]
    fn check(&self) -> &Shown {
        assert_eq!(self.status, 200, "{}", self.text);
        assert!(self.text.len() <= 60_000, "{} bytes", self.text.len());
        let elements = self.text.matches('<').count() - self.text.matches("</").count();
        assert!(elements <= 1500, "{elements} elements");
        for forbidden in [" style=", "<script>", "onclick", "javascript:"] {
            assert!(!self.text.contains(forbidden), "{forbidden}");
        }
        assert_eq!(self.text.matches("<h1").count(), 1);
        self
    }
}

/// Writes many tags at once: each with one revision, of the last days.
pub(crate) async fn many(rows: &mut Rows, repository: &str, count: i64) {
    rows.empty_tag(&format!("{repository}:seed")).await;
    // A partition of their own.
    sqlx::query(
        "insert into position (stream, partition) values ('PUSHES', 2) on conflict do nothing",
    )
    .execute(&mut rows.db)
    .await
    .unwrap();
    sqlx::query(
        "with r as (select id from repository where registry || '/' || name = $1),
         n as (select n, now() - n * interval '1 minute' as at, sha256(('d' || n)::bytea) as digest from generate_series(1, $2) n),
         t as (insert into tag (repository_id, name, issued, head, head_digest, head_at)
               select r.id, 'sha-' || n, 1, 1, digest, at from r, n returning id, head_digest, head_at),
         p as (insert into push (tag_id, action, digest, occurred_at, effective_at, occurred_at_source, received_at, recorded_at, origin,
                                 source, event_id, actor, stream_seq)
               select t.id, 'push', head_digest, head_at, head_at, 'event', head_at, head_at, 'event', 'main', t.id::text, '<b>bot', t.id from t
               returning id, tag_id)
         insert into revision (tag_id, number, kind, digest, effective_at, recorded_at, head, push_id, partition, ordinal)
         select t.id, 1, 'created', t.head_digest, t.head_at, t.head_at, 1, p.id, 2,
                (select coalesce(max(e.ordinal), 0) from revision e where e.partition = 2) + row_number() over (order by t.id)
         from t join p on p.tag_id = t.id",
    )
    .bind(repository)
    .bind(count)
    .execute(&mut rows.db)
    .await
    .unwrap();
}

#[tokio::test]
async fn a_repository_shows_its_tags_over_time() {
    let (api, mut rows) = Api::start().await;
    rows.tag(
        &format!("{WEB}:latest"),
        &[on_time(1, 1, 10), on_time(2, 2, 90_000)],
    )
    .await;
    rows.tag(
        &format!("{WEB}:1.0.0"),
        &[on_time(1, 1, 10), on_time(2, 2, 40)],
    )
    .await;
    rows.tag(&format!("{WEB}:edge"), &[on_time(1, 2, 50)]).await;
    rows.tag(
        &format!("{WEB}:gone"),
        &[on_time(1, 1, 10), on_time(2, 0, 30)],
    )
    .await;
    let signature = format!("{WEB}:sha256-{}.sig", "a".repeat(64));
    rows.tag(&signature, &[on_time(1, 3, 10)]).await;
    let page = show(&api, &format!("/i/{WEB}")).await;
    page.check();
    assert_eq!(page.tags(), ["latest", "edge", "1.0.0", "gone"]);
    for text in [
        "<b>4</b> tags",
        "<b>3</b> move",
        "1 was written once",
        "1 release moved",
        "1 tag holds signatures",
        "moved after release",
        "also 1.0.0, edge",
        "class=\"gone\"",
        "first seen",
    ] {
        let found = page.text.contains(text);
        // The window ends now, long after the deletion: its lane is dashed from begin to end.
        assert!(found, "{text}: {}", page.text);
    }
    for (query, expected) in [
        ("class=moving&sort=name", vec!["1.0.0", "gone", "latest"]),
        ("class=release", vec!["1.0.0"]),
        ("class=once", vec!["edge"]),
        ("class=deleted", vec!["gone"]),
        ("q=LAT&class=&at=", vec!["latest"]),
        ("q=nothing", vec![]),
        ("at=2026-03-03T14:00:45Z", vec!["1.0.0", "gone", "latest"]),
        ("at=2026-03-03T14:00:05Z", vec![]),
    ] {
        let page = show(&api, &format!("/i/{WEB}?{query}")).await;
        assert_eq!(page.check().tags(), expected, "{query}");
        let api_query = query.replace("class=&at=", "sort=newest");
        let sort = if api_query.contains("sort=") {
            ""
        } else {
            "&sort=newest"
        };
        let same = api
            .found(&format!(
                "/v1/tags?repository={WEB}&deleted=true&{api_query}{sort}"
            ))
            .await;
        let tags = same["items"].as_array().unwrap().iter();
        let tags: Vec<&str> = tags
            .map(|item| item["image"].as_str().unwrap().rsplit(':').next().unwrap())
            .collect();
        assert_eq!(tags, expected, "{query}");
    }
    let then = show(
        &api,
        &format!("/i/{WEB}?at=2026-03-03T14:00:35Z&window=24h"),
    )
    .await;
    // Its JSON has the lanes.
    let json = "window=24h&amp;deleted=true";
    assert!(then.text.contains(json), "{}", then.text);
    let short = &digest(1).to_string()[7..15];
    assert!(then.check().text.contains(short), "the digest of then");
    for wrong in [
        "class=some",
        "sort=size",
        "window=2d",
        "at=soon",
        "cursor=x",
    ] {
        let page = show(&api, &format!("/i/{WEB}?{wrong}")).await;
        assert_eq!(page.status, 400, "{wrong}");
    }
    let unknown = show(&api, "/i/registry.example.com/shop/other").await;
    assert_eq!(unknown.status, 404);
}

#[tokio::test]
async fn times_that_people_type_become_an_address_for_ever() {
    let (api, mut rows) = Api::start().await;
    rows.tag(&format!("{WEB}:latest"), &[on_time(1, 1, 10)])
        .await;
    let answer = api
        .once("GET", &format!("/i/{WEB}?q=lat&at=2026-03-03+14:02"))
        .await;
    assert_eq!(answer.status(), 303);
    assert_eq!(
        answer.headers()["location"],
        format!("/i/{WEB}?q=lat&at=2026-03-03T14%3A02%3A00Z")
    );
}

#[tokio::test]
async fn ten_thousand_tags_fit_and_are_read_in_pages() {
    let (api, mut rows) = Api::start().await;
    many(&mut rows, WEB, 10_000).await;
    let long = "x".repeat(128);
    let busy: Vec<_> = (1..=120_i64)
        .map(|number| on_time(number, u8::try_from(number).unwrap(), number * 21_600))
        .collect();
    // Thirty tags that change all the time.
    for number in 0..30 {
        let name = format!("{number:02}-{}", &long[..124]);
        rows.tag(&format!("{WEB}:{name}"), &busy).await;
    }
    let first = show(&api, &format!("/i/{WEB}?at=2026-03-31T00:00:00Z")).await;
    assert_eq!(first.check().tags().len(), 25);
    assert!(
        first.text.contains("30</b> move"),
        "the tags that move are shown"
    );
    let second = show(&api, &first.next().unwrap()).await;
    assert_eq!(second.check().tags().len(), 5);
    assert_eq!(second.next(), None);
    let mut seen: Vec<String> = [first.tags(), second.tags()].concat();
    seen.sort();
    seen.dedup();
    assert_eq!(seen.len(), 30);

    let once = show(&api, &format!("/i/{WEB}?class=once")).await;
    assert_eq!(once.check().tags()[..2], ["sha-1", "sha-2"]);
    assert!(once.text.contains("&lt;b&gt;bot") && !once.text.contains("<b>bot"));
    let further = show(&api, &once.next().unwrap()).await;
    assert_eq!(further.check().tags()[0], "sha-41");
    let by_name = show(&api, &format!("/i/{WEB}?class=once&sort=name&q=sha-99")).await;
    assert_eq!(by_name.tags()[..2], ["sha-99", "sha-990"]);

    // Changes that the indexer has not counted are added, up to a bound.
    assert!(once.text.contains("8,000 older changes"));
}

#[tokio::test]
async fn the_lanes_of_a_young_repository_and_trigger_cover_their_history() {
    let (api, mut rows) = Api::start().await;
    let now = OffsetDateTime::now_utc() - crate::rows::time(0);
    let ago = |days: i64| (now - Duration::days(days)).whole_seconds();
    let revisions = [on_time(1, 1, ago(5)), on_time(2, 2, ago(1))];
    rows.tag(&format!("{WEB}:latest"), &revisions).await;
    let shop = rows.trigger("shop", true).await;
    rows.rollout(shop, 1, "succeeded", ago(4)).await;
    let address = format!("/i/{WEB}");
    let page = show(&api, &address).await;
    page.check();
    for part in [
        "5 days: 2 different digests seen",
        "<option value=\"\" selected>whole history</option>",
        "window=7d&amp;deleted=true",
    ] {
        assert!(page.text.contains(part), "{part}: {}", page.text);
    }
    let chosen = show(&api, &format!("{address}?window=30d")).await;
    let month = "30 days: 2 different digests seen";
    assert!(chosen.text.contains(month), "{}", chosen.text);
    let trigger = show(&api, "/triggers/shop").await.text;
    assert!(trigger.contains("that ran over 5 days"), "{trigger}");
    // A repository of months is shown for 30 days.
    rows.tag(
        "registry.example.com/shop/api:old",
        &[on_time(1, 1, ago(90)), on_time(2, 2, ago(20))],
    )
    .await;
    let old = show(&api, "/i/registry.example.com/shop/api").await;
    assert!(old.text.contains(month), "{}", old.text);
    assert!(!old.text.contains("whole history"), "{}", old.text);
}

#[tokio::test]
async fn folders_lead_to_repositories() {
    let (api, mut rows) = Api::start().await;
    let empty = show(&api, "/i").await;
    assert!(empty.check().text.contains("No push has been recorded yet"));
    for image in [
        "registry.example.com/shop/web:latest",
        "registry.example.com/shop/web/tools:latest",
        "registry.example.com/shop/api:latest",
        "registry.example.com/single:latest",
        "mirror.example.com/a/b/c/d:latest",
    ] {
        rows.tag(image, &[on_time(1, 1, 10)]).await;
    }
    many(&mut rows, "registry.example.com/busy/one", 60).await;
    rows.empty_tag("never.example.com/x/y:latest").await;
    let places = |page: &Shown| -> Vec<String> {
        let links = page
            .text
            .split("<th scope=\"row\"><a class=\"im\" href=\"")
            .skip(1);
        links
            .map(|row| row.split_once('"').unwrap().0.to_owned())
            .collect()
    };
    for (path, expected) in [
        (
            "/i?sort=name",
            vec![
                "/i/mirror.example.com/a/",
                "/i/registry.example.com/busy/",
                "/i/registry.example.com/shop/",
                "/i/registry.example.com/single",
            ],
        ),
        (
            "/i/registry.example.com/shop",
            vec![
                "/i/registry.example.com/shop/web",
                "/i/registry.example.com/shop/api",
            ],
        ),
        (
            "/i/mirror.example.com/a/",
            vec!["/i/mirror.example.com/a/b/"],
        ),
        (
            "/i/registry.example.com/shop/web/",
            vec!["/i/registry.example.com/shop/web/tools"],
        ),
        (
            "/i?q=WEB&sort=name",
            vec![
                "/i/registry.example.com/shop/web",
                "/i/registry.example.com/shop/web/tools",
            ],
        ),
        ("/i?q=nope", vec![]),
    ] {
        let page = show(&api, path).await;
        assert_eq!(places(page.check()), expected, "{path}");
    }
    let busiest = show(&api, "/i").await;
    assert_eq!(places(&busiest)[0], "/i/registry.example.com/busy/");
    assert!(
        busiest
            .text
            .contains("60 changes of registry.example.com/busy over 24 hours")
    );
    for unknown in ["/i/other.example.com", "/i/registry.example.com/shop/nope/"] {
        assert_eq!(show(&api, unknown).await.status, 404, "{unknown}");
    }
    // A page of 25, then the rest.
    for number in 0..27 {
        let image = format!("r{number}.example.com/a/b:latest");
        rows.tag(&image, &[on_time(1, 1, 10)]).await;
    }
    for sort in ["name", "changes"] {
        let mut path = format!("/i?sort={sort}");
        let mut all = Vec::new();
        loop {
            let page = show(&api, &path).await;
            all.extend(places(page.check()));
            match page.next() {
                Some(next) => path = next,
                None => break,
            }
        }
        let count = all.len();
        all.sort();
        all.dedup();
        assert_eq!((count, all.len()), (31, 31), "{sort}");
    }
}

#[tokio::test]
async fn the_numbers_of_days_are_those_counted_and_those_waiting() {
    let (api, mut rows) = Api::start().await;
    let now = OffsetDateTime::now_utc();
    let today = now - tagtrail_proto::instant::parse("2026-03-03T14:00:00Z").unwrap();
    let ago = |days: i64| (today - Duration::days(days)).whole_seconds();
    rows.tag(
        &format!("{WEB}:latest"),
        &[
            on_time(1, 1, ago(40)),
            on_time(2, 2, ago(2)),
            on_time(3, 3, ago(1)),
        ],
    )
    .await;
    let page = show(&api, &format!("/i/{WEB}")).await;
    assert!(
        page.check().text.contains("<b>2</b> changes in 30 days"),
        "{}",
        page.text
    );
    // The indexer has counted the first two.
    sqlx::query(
        "with v as (select v.*, t.repository_id from revision v join tag t on t.id = v.tag_id where v.number < 3),
         c as (insert into day_stats_position select partition, max(ordinal) from v group by partition)
         insert into day_stats select repository_id, (effective_at at time zone 'utc')::date, 5, 1, 0 from v",
    )
    .execute(&mut rows.db)
    .await
    .unwrap();
    let page = show(&api, &format!("/i/{WEB}")).await;
    assert!(
        page.text.contains("<b>6</b> changes in 30 days"),
        "{}",
        page.text
    );
    let _: Value = api.found(&format!("/v1/tags?repository={WEB}")).await;
}
