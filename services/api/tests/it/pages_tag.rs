//! The page of a tag, and of a tag in the past.

use serde_json::Value;

use crate::pages_triggers::run;
use crate::rows::{Revision, Rows, digest, late_move, on_time, text};
use crate::server::Api;

const IMAGE: &str = "registry.example.com/shop/web:latest";

/// A page as it was answered.
pub(crate) struct Shown {
    pub(crate) status: u16,
    pub(crate) location: String,
    pub(crate) html: String,
}

/// Asks for a page as a browser does, and follows no redirect.
pub(crate) async fn show(api: &Api, path: &str) -> Shown {
    let response = api.once("GET", path).await;
    let header = |name: &str| {
        let value = response.headers().get(name);
        value.map_or("", |value| value.to_str().unwrap()).to_owned()
    };
    let (kind, location) = (header("content-type"), header("location"));
    let status = response.status().as_u16();
    let html = response.text().await.unwrap();
    if status == 200 {
        assert_eq!(kind, "text/html; charset=utf-8", "{path}");
        assert_whole(&html);
    }
    Shown {
        status,
        location,
        html,
    }
}

/// Checks the bounds of a page.
#[track_caller]
fn assert_whole(html: &str) {
    assert!(html.len() <= 60_000, "{} bytes", html.len());
    let elements = html.matches('<').count() - html.matches("</").count();
    assert!(elements <= 1500, "{elements} elements");
    let handler = html.split(" on").skip(1).any(|rest| {
        let name = rest.trim_start_matches(|char: char| char.is_ascii_lowercase());
        name.len() < rest.len() && name.starts_with('=')
    });
    assert!(!handler && !html.contains(" style="), "{html}");
    assert_eq!(html.matches("<h1").count(), 1);
    assert_eq!(html.matches("<script").count(), 1);
}

/// Returns the numbers of the revisions in the table of a page, from the first row on.
fn numbers(html: &str) -> Vec<u64> {
    let rows = html.split("data-row=\"").skip(1);
    rows.map(|row| row.split('"').next().unwrap().parse().unwrap())
        .collect()
}

fn of_json(items: &Value) -> Vec<u64> {
    let items = items.as_array().unwrap();
    items
        .iter()
        .map(|item| item["revision"].as_u64().unwrap())
        .collect()
}

/// Returns the address behind the link with this relation.
fn link(html: &str, relation: &str) -> Option<String> {
    let (_, rest) = html.split_once(&format!("rel=\"{relation}\" href=\""))?;
    Some(rest.split('"').next()?.replace("&amp;", "&"))
}

#[tokio::test]
async fn a_digest_runs_since_the_rollout_that_brought_it() {
    let (api, mut rows) = Api::start().await;
    rows.tag(IMAGE, &[on_time(1, 1, 10), on_time(2, 2, 20)])
        .await;
    let shop = rows.trigger("shop", true).await;
    for (number, at) in [(1, 100), (2, 200), (3, 300), (4, 400)] {
        rows.rollout(shop, number, "succeeded", at).await;
    }
    // The rollouts 3 and 4 changed another image: they kept the digest of rollout 2.
    run(
        &mut rows,
        "update rollout set images = (select images from rollout where number = 2) where number > 2",
    )
    .await;
    let (pair, since) = (format!("{}..{}", digest(1), digest(2)), &text(201)[..19]);
    for path in [format!("/d/{}", digest(2)), format!("/compare/{pair}")] {
        let shown = show(&api, &path).await;
        assert!(shown.html.contains(since), "{path} {since}: {}", shown.html);
    }
    // The page of a digest that no trigger runs any more names its rollouts.
    let before = show(&api, &format!("/d/{}", digest(1))).await;
    assert!(before.html.contains("run by no trigger"));
    assert!(before.html.contains("href=\"/rollouts/shop/1\""));
    assert!(!before.html.contains("href=\"/rollouts/shop/2\""));
}

#[tokio::test]
async fn a_moment_without_an_answer_leads_to_one_that_has() {
    let (api, mut rows) = Api::start().await;
    rows.tag(IMAGE, &late_move()).await;
    let page = format!("/i/{IMAGE}?at=");
    let early = show(&api, &format!("{page}2020-01-01T00:00:00Z")).await;
    let begin = link_after(&early.html, "its history begins on");
    let shown = show(&api, &begin.replace("&amp;", "&")).await;
    assert!(shown.html.contains("revision 1, "), "{}", shown.html);
    let future = show(&api, &format!("{page}2999-01-01T00:00:00Z")).await;
    assert_eq!(future.status, 400);
    assert!(future.html.contains("later than now") && future.html.contains("href=\"/i\""));
    // The head alone is compared with the revision before.
    let alone = show(&api, &format!("/i/{IMAGE}?rev=2")).await;
    let head = show(&api, &format!("/i/{IMAGE}?rev=3")).await;
    assert_eq!((alone.status, head.status), (303, 303));
    let sides = |address: &str| -> Vec<String> {
        let pair = address.split('?').next().unwrap();
        let pair = pair.strip_prefix("/compare/").unwrap();
        pair.split("..").map(ToOwned::to_owned).collect()
    };
    for one in [alone, head] {
        let sides = sides(&one.location);
        assert_ne!(sides[0], sides[1], "{}", one.location);
    }
}

/// Returns the address of the first link after a text.
fn link_after(html: &str, text: &str) -> String {
    let (_, rest) = html
        .split_once(text)
        .unwrap_or_else(|| panic!("{text}: {html}"));
    let (_, rest) = rest.split_once("href=\"").unwrap();
    rest.split('"').next().unwrap().to_owned()
}

#[tokio::test]
async fn the_trail_names_the_rollouts_of_each_revision() {
    let (api, mut rows) = Api::start().await;
    let revisions = [on_time(1, 1, 10), on_time(2, 2, 20), on_time(3, 3, 30)];
    rows.tag(IMAGE, &revisions).await;
    for (name, numbers) in [("shop", vec![1, 2]), ("shop-eu", vec![1])] {
        let trigger = rows.trigger(name, true).await;
        for number in numbers {
            let state = ["succeeded", "failed"][usize::from(number == 2)];
            rows.rollout(trigger, number, state, 100 * number).await;
        }
    }
    for name in ["a", "b", "c"] {
        let trigger = rows.trigger(name, true).await;
        rows.rollout(trigger, 1, "succeeded", 50).await;
    }
    // A rollout of another image of the trigger is not one of this tag.
    let other = rows.trigger("other", true).await;
    rows.rollout(other, 3, "succeeded", 300).await;
    run(&mut rows, "update rollout_image set changed = false where rollout_id in (select id from rollout where number = 3)").await;
    for path in [format!("/i/{IMAGE}"), format!("/i/{IMAGE}?at={}", text(25))] {
        let shown = show(&api, &path).await;
        let row = |number: u64| {
            let begin = format!("data-row=\"{number}\"");
            let rest = shown.html.split(&begin).nth(1).unwrap();
            rest.split("data-row=").next().unwrap().to_owned()
        };
        let links = |row: &str| -> Vec<String> {
            let links = row.split("href=\"/rollouts/").skip(1);
            links
                .map(|link| link.split('"').next().unwrap().to_owned())
                .collect()
        };
        assert_eq!(links(&row(1)), ["shop/1", "shop-eu/1", "a/1"], "{path}");
        assert!(row(1).contains("and more") && row(1).contains("succeeded"));
        assert_eq!(links(&row(2)), ["shop/2"]);
        assert!(!row(2).contains("and more") && row(2).contains("failed"));
        assert_eq!(links(&row(3)), Vec::<String>::new());
    }
}

#[tokio::test]
async fn the_page_of_a_tag_shows_its_history() {
    let (api, mut rows) = Api::start().await;
    rows.tag(IMAGE, &late_move()).await;
    rows.manifest(3).await;
    let shown = show(&api, &format!("/i/{IMAGE}")).await;
    assert_eq!(shown.status, 200);
    let history = api.found(&format!("/v1/history?image={IMAGE}")).await;
    assert_eq!(numbers(&shown.html), of_json(&history["items"]));
    for part in [
        "shop/web:latest</h1>",
        "head, revision 2",
        &digest(3).to_string(),
        &format!("data-copy=\"registry.example.com/shop/web@{}\"", digest(3)),
        "late: reported 20 s afterwards",
        "linux/arm64/v8",
        "<code>9f2c</code>",
        "ci-bot",
        "median of 3 revisions",
        "href=\"/i/registry.example.com/shop/web\"",
    ] {
        assert!(shown.html.contains(part), "{part}: {}", shown.html);
    }
    let bars = |html: &str| -> Vec<String> {
        let bars = html.split(" data-r=\"").skip(1);
        bars.map(|bar| bar.split('"').next().unwrap().to_owned())
            .collect()
    };
    // The row of 30 days has the head alone.
    assert_eq!(bars(&shown.html), ["2"]);
    // Each revision that was in force has a bar, in the order of effective times.
    let all = show(&api, &format!("/i/{IMAGE}?window=all")).await.html;
    assert_eq!(bars(&all), ["1", "3", "2"]);
}

#[tokio::test]
async fn the_trail_turns_to_older_and_newer_revisions_and_back() {
    let (api, mut rows) = Api::start().await;
    rows.tag(IMAGE, &[on_time(1, 1, 0)]).await;
    let tag = rows.empty_tag("registry.example.com/shop/web:busy").await;
    rows.burst(tag, 60).await;
    sqlx::query("update tag set issued = 60, head = 60, head_digest = sha256('60'), head_at = (select effective_at from revision where tag_id = $1 and number = 60) where id = $1")
        .bind(tag)
        .execute(&mut rows.db)
        .await
        .unwrap();
    let address = "/i/registry.example.com/shop/web:busy";
    let mut html = show(&api, address).await.html;
    let mut seen = numbers(&html);
    assert_eq!((seen.len(), link(&html, "prev")), (20, None));
    while let Some(older) = link(&html, "next") {
        html = show(&api, &older).await.html;
        seen.extend(numbers(&html));
    }
    assert_eq!(seen, (1..=60).rev().collect::<Vec<u64>>());
    // Back again: the same rows, without gap or repeat.
    let mut back = numbers(&html);
    while let Some(newer) = link(&html, "prev") {
        html = show(&api, &newer).await.html;
        let mut page = numbers(&html);
        page.extend(back);
        back = page;
    }
    assert_eq!(back, seen);
    // Each row of these pages was in force for a second.
    assert_eq!(html.matches("1 s</td>").count(), 20 - 1);
}

#[tokio::test]
async fn newer_revisions_are_those_before_a_page() {
    let (api, mut rows) = Api::start().await;
    let tag = rows.empty_tag(IMAGE).await;
    rows.burst(tag, 10).await;
    sqlx::query("update tag set issued = 10, head = 10, head_digest = sha256('10'), head_at = now() where id = $1")
        .bind(tag)
        .execute(&mut rows.db)
        .await
        .unwrap();
    let address = format!("/v1/history?image={IMAGE}&limit=4");
    let first = api.found(&address).await;
    assert_eq!(first["previous"], Value::Null);
    let next = first["next"].as_str().unwrap();
    let second = api.found(&format!("{address}&cursor={next}")).await;
    assert_eq!(of_json(&second["items"]), [6, 5, 4, 3]);
    let previous = second["previous"].as_str().unwrap();
    let again = api.found(&format!("{address}&before={previous}")).await;
    assert_eq!(again["items"], first["items"]);
    assert_eq!(
        (&again["previous"], &again["next"]),
        (&Value::Null, &first["next"])
    );
    let three = api
        .found(&format!(
            "/v1/history?image={IMAGE}&limit=3&before={previous}"
        ))
        .await;
    assert_eq!(of_json(&three["items"]), [9, 8, 7]);
    assert!(three["previous"].is_string());
    let since = api
        .found(&format!("{address}&before={previous}&until={}", text(9)))
        .await;
    assert_eq!(of_json(&since["items"]), [8, 7]);
    let both = api
        .get(&format!("{address}&before={previous}&cursor={next}"))
        .await;
    assert_eq!(both.problem(), "400 parameter_conflict");
    let wrong = api.get(&format!("{address}&before=x")).await;
    assert_eq!(wrong.problem(), "400 cursor_invalid");
}

#[tokio::test]
async fn a_moment_in_the_past_has_the_answer_of_resolve() {
    let (api, mut rows) = Api::start().await;
    rows.tag(IMAGE, &late_move()).await;
    for (at, known_at, revision, note) in [
        (15, None, Some(1), "no later fact changed the answer"),
        (35, None, Some(2), "no later fact changed the answer"),
        // The late revision was recorded at 40 s.
        (25, None, Some(3), "15 s after that moment"),
        (
            25,
            Some(26),
            Some(1),
            "This is the answer as it was known at",
        ),
        (25, Some(45), Some(3), "no later fact changed the answer"),
        (5, None, None, "not there yet"),
    ] {
        let mut query = format!("at={}", text(at));
        if let Some(known_at) = known_at {
            query += &format!("&known_at={}", text(known_at));
        }
        let shown = show(&api, &format!("/i/{IMAGE}?{query}")).await;
        assert_eq!(shown.status, 200, "{query}");
        let resolved = api.get(&format!("/v1/resolve?image={IMAGE}&{query}")).await;
        assert_eq!(resolved.body["revision"].as_u64(), revision, "{query}");
        assert!(shown.html.contains(note), "{query}: {}", shown.html);
        let hit = shown
            .html
            .split("<tr")
            .find(|row| row.contains("in force then"));
        let hit = hit.map(|row| numbers(row)[0]);
        assert_eq!(hit, revision, "{query}");
        if let Some(revision) = revision {
            assert!(
                shown
                    .html
                    .contains(&format!("revision {revision}, in force"))
            );
        }
    }
}

#[tokio::test]
async fn times_are_read_as_people_type_them() {
    let (api, mut rows) = Api::start().await;
    rows.tag(IMAGE, &late_move()).await;
    let typed = show(
        &api,
        &format!("/i/{IMAGE}?at=2026-03-03+14:00:25&known_at="),
    )
    .await;
    assert_eq!(typed.status, 303);
    assert_eq!(
        typed.location,
        format!("/i/{IMAGE}?at=2026-03-03T14%3A00%3A25.999999Z")
    );
    let exact = format!("/i/{IMAGE}?at=2026-03-03T14:00:25Z");
    assert_eq!(show(&api, &exact).await.status, 200);
    let wrong = show(&api, &format!("/i/{IMAGE}?at=soon")).await;
    assert_eq!(wrong.status, 400);
    assert!(wrong.html.contains("2 h ago"), "{}", wrong.html);
}

#[tokio::test]
async fn a_time_copied_from_a_page_includes_the_revision_beside_it() {
    let (api, mut rows) = Api::start().await;
    rows.tag(IMAGE, &[on_time(1, 1, 10), on_time(2, 2, 20)])
        .await;
    run(&mut rows, "alter table revision disable trigger user").await;
    run(
        &mut rows,
        "update revision set effective_at = effective_at + interval '0.4 seconds'",
    )
    .await;
    let typed = show(&api, &format!("/i/{IMAGE}?at=2026-03-03+14:00:20")).await;
    let shown = show(&api, &typed.location.replace("%3A", ":")).await;
    assert!(
        shown.html.contains("revision 2, in force"),
        "{}",
        shown.html
    );
    // The time of the API stays exact.
    let exact = api
        .found(&format!(
            "/v1/resolve?image={IMAGE}&at=2026-03-03T14:00:20Z"
        ))
        .await;
    assert_eq!(exact["revision"], 1);
}

#[tokio::test]
async fn headings_name_the_clock_by_an_element_that_the_script_rewrites() {
    let (api, mut rows) = Api::start().await;
    rows.tag(IMAGE, &late_move()).await;
    rows.tag("registry.example.com/shop/web:once", &[on_time(1, 1, 0)])
        .await;
    let at = text(15);
    for (path, clocks) in [
        ("/".to_owned(), 3),
        (format!("/i/{IMAGE}"), 2),
        (format!("/i/{IMAGE}?at={at}"), 3),
        ("/i/registry.example.com/shop/web?class=once".to_owned(), 2),
    ] {
        let html = show(&api, &path).await.html;
        let clock = "<span data-z>UTC</span>";
        assert_eq!(html.matches(clock).count(), clocks, "{path}: {html}");
        // Days of UTC are sums, which the script can't turn.
        let html = html.replace(clock, "").replace("days of UTC", "");
        for (begin, end) in [("<th ", "</th>"), ("<h1", "</h1>"), ("<h2", "</h2>")] {
            for rest in html.split(begin).skip(1) {
                let heading = rest.split(end).next().unwrap();
                assert!(!heading.contains("UTC"), "{path}: {heading}");
            }
        }
    }
    // Each row of the trail has its day, which the script shows where it changes.
    let html = show(&api, &format!("/i/{IMAGE}")).await.html;
    assert_eq!(html.matches("data-f=\"w\"").count(), 3);
    assert_eq!(
        html.matches(" hidden>Tue 03 Mar</div>").count(),
        2,
        "{html}"
    );
}

#[tokio::test]
async fn odd_tags_have_pages() {
    let (api, mut rows) = Api::start().await;
    rows.tag(IMAGE, &[on_time(1, 1, 0), on_time(2, 0, 10)])
        .await;
    let deleted = show(&api, &format!("/i/{IMAGE}")).await;
    assert!(
        deleted.html.contains("This tag cannot be pulled")
            && deleted.html.contains("deleted</span>")
    );
    rows.empty_tag("registry.example.com/shop/web:empty").await;
    for unknown in [
        "registry.example.com/shop/web:empty",
        "registry.example.com/shop/none:x",
    ] {
        assert_eq!(show(&api, &format!("/i/{unknown}")).await.status, 404);
    }
    let known = "registry.example.com/shop/web:stable";
    rows.tag(known, &[on_time(1, 1, 0)]).await;
    let unknown = show(&api, "/i/registry.example.com/shop/web:stabel").await;
    assert!(unknown.status == 404 && unknown.html.contains(&format!("known: {known}")));
    let wrong = show(&api, "/i/registry.example.com/shop/web:.x").await;
    assert_eq!(wrong.status, 400);
    let pinned = show(
        &api,
        &format!("/i/registry.example.com/shop/web@{}", digest(1)),
    )
    .await;
    assert_eq!(
        (pinned.status, pinned.location),
        (303, format!("/d/{}", digest(1)))
    );
}

#[tokio::test]
async fn text_of_strangers_is_escaped_and_a_busy_tag_stays_small() {
    let (api, mut rows) = Api::start().await;
    let long = format!(
        "registry.example.com/{}:{}",
        "long-name/".repeat(11) + "web",
        "t".repeat(128)
    );
    let revisions: Vec<Revision> = (1..=80)
        .map(|number| on_time(number, u8::try_from(number).unwrap(), number * 250_000))
        .collect();
    rows.tag(&long, &revisions).await;
    hostile(&mut rows).await;
    let shown = show(&api, &format!("/i/{long}?window=all")).await;
    assert_eq!(shown.status, 200);
    assert!(!shown.html.contains("<script>alert") && !shown.html.contains('\u{202e}'));
    assert!(shown.html.contains("&lt;script&gt;") && shown.html.contains("\\u{202e}"));
    // More than 60 revisions are sampled.
    let bars = shown.html.matches(" data-r=\"").count();
    assert!((4..=61).contains(&bars), "{bars}");
}

/// Makes every actor and every version hostile.
async fn hostile(rows: &mut Rows) {
    let text = "<script>alert(1)</script>\"'\u{202e}";
    for statement in [
        "alter table push disable trigger append_only",
        "update push set actor = $1",
    ] {
        let query = sqlx::query(statement);
        let query = if statement.contains("$1") {
            query.bind(text)
        } else {
            query
        };
        query.execute(&mut rows.db).await.unwrap();
    }
    for content in 1..=80_u8 {
        sqlx::query(
            "insert into manifest (digest, registry, repository, media_type, size_bytes, platforms, labels, annotations, revision, source, version, read_at)
             values ($1, 'registry.example.com', 'shop/web', 'x', 1, '[{\"os\": \"<b>\", \"architecture\": \"\\\"x\", \"variant\": null, \"digest\": null}]', '{}', '{}', $2, $2, $2, now())",
        )
        .bind(digest(content).as_bytes())
        .bind(text)
        .execute(&mut rows.db)
        .await
        .unwrap();
    }
}
