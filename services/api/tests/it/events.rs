//! The live feed of all kinds: each change after a place, once, in the order of its kind.

use std::collections::BTreeSet;
use std::time::Duration;

use serde_json::Value;
use sqlx::{Connection as _, PgConnection};
use tagtrail_proto::{ConditionChange, Event, Held, Revision, Rollout};
use tagtrail_testkit::SOON;

use crate::feed::Feed;
use crate::openapi::check;
use crate::rows::{Rows, on_time, text, time};
use crate::server::{Answer, Api};

const WEB: &str = "registry.example.com/shop/web:latest";

/// Records a change of a rollout as the trigger service does. Returns the ordinal.
async fn change(db: &mut PgConnection, rollout: &str, state: &str) -> i64 {
    sqlx::query_scalar(concat!(
        "with o as (
             update rollout set state = $2::rollout_state, finished_at = case when $2 in ('succeeded', 'failed') then now() end
             where id = $1::uuid returning *)
         insert into rollout_change (rollout_id, state, rollout) select o.id, o.state, ",
        tagtrail_postgres::rollout_json!("o"),
        " from o join trigger t on t.id = o.trigger_id returning ordinal"
    ))
    .bind(rollout)
    .bind(state)
    .fetch_one(db)
    .await
    .unwrap()
}

async fn condition(db: &mut PgConnection, trigger: i32, word: &str) -> i64 {
    sqlx::query_scalar(
        "insert into condition_change (trigger_id, condition, before, reasons, previous)
         select $1, $2, l.condition, '[]', l.ordinal
         from (values (1)) one left join lateral (
             select condition, ordinal from condition_change where trigger_id = $1 order by ordinal desc limit 1) l on true
         returning ordinal",
    )
    .bind(trigger)
    .bind(word)
    .fetch_one(db)
    .await
    .unwrap()
}

async fn freeze(db: &mut PgConnection, triggers: &str) -> i64 {
    sqlx::query_scalar("insert into hold (kind, triggers, reason, actor) values ('freeze', $1, 'sale', 'ann') returning id")
        .bind(triggers)
        .fetch_one(db)
        .await
        .unwrap()
}

async fn thaw(db: &mut PgConnection, hold: i64) {
    sqlx::query("update hold set released_at = now(), released_by = 'ben' where id = $1")
        .bind(hold)
        .execute(db)
        .await
        .unwrap();
}

/// Waits for the next event, also while heartbeats come.
async fn event(feed: &mut Feed) -> (String, Value) {
    let event = tokio::time::timeout(SOON, feed.event());
    event.await.expect("no event came")
}

/// Waits for the next `count` events, as the name and the words that tell them apart.
async fn next(feed: &mut Feed, count: usize) -> Vec<String> {
    let mut seen = Vec::new();
    while seen.len() < count {
        let (name, event) = event(feed).await;
        seen.push(word(&name, &event));
    }
    seen
}

/// Checks that `data` is the event of the bus, and names it in short.
fn word(name: &str, event: &Value) -> String {
    fn parsed<T: serde::de::DeserializeOwned>(event: &Value) -> T {
        let event: Event<T> = serde_json::from_value(event.clone()).unwrap();
        event.data
    }
    assert_eq!(event["type"], format!("dev.tagtrail.{name}.v1"), "{event}");
    match name {
        "revision" => format!("revision {}", parsed::<Revision>(event).revision),
        "rollout" => {
            let rollout: Rollout = parsed(event);
            format!("rollout {} {}", rollout.number, rollout.state)
        }
        "hold" => {
            let hold: Held = parsed(event);
            format!("hold {} {}", hold.triggers, hold.change)
        }
        "trigger" => {
            let change: ConditionChange = parsed(event);
            format!("trigger {} {}", change.trigger, change.condition)
        }
        other => panic!("{other}: {event}"),
    }
}

fn of<'a>(kind: &str, seen: &'a [String]) -> Vec<&'a str> {
    let words = seen.iter().filter_map(|one| one.strip_prefix(kind));
    words.map(str::trim).collect()
}

#[track_caller]
fn assert_kinds(seen: &[String], expected: [(&str, &[&str]); 4]) {
    let count: usize = expected.iter().map(|(_, words)| words.len()).sum();
    assert_eq!(seen.len(), count, "{seen:?}");
    for (kind, words) in expected {
        assert_eq!(of(kind, seen), words);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn each_kind_arrives_in_order_and_once_as_the_event_of_the_bus() {
    let (api, mut rows) = Api::start().await;
    let shop = rows.trigger("shop", true).await;
    let (web, rollout) = (
        rows.empty_tag(WEB).await,
        rows.rollout(shop, 1, "pending", 1).await,
    );
    // Before the follower: not sent.
    change(&mut rows.db, &rollout, "pending").await;
    condition(&mut rows.db, shop, "settled").await;
    let before = freeze(&mut rows.db, "old").await;
    let mut feeds = [
        Feed::at(&api, "/v1/events", None).await,
        Feed::at(&api, "/v1/events?kinds=trigger,hold,rollout,revision", None).await,
    ];
    for state in ["running", "watching", "succeeded"] {
        change(&mut rows.db, &rollout, state).await;
    }
    rows.revision(web, on_time(1, 1, 1)).await;
    rows.revision(web, on_time(2, 2, 2)).await;
    condition(&mut rows.db, shop, "rolling_out").await;
    thaw(&mut rows.db, before).await;
    let hold = freeze(&mut rows.db, "shop-*").await;
    condition(&mut rows.db, shop, "settled").await;
    thaw(&mut rows.db, hold).await;
    let document = tagtrail_api::openapi();
    let schema = &document["paths"]["/v1/events"]["get"]["responses"]["200"]["content"]["text/event-stream"]
        ["schema"]["contentSchema"];
    for feed in &mut feeds {
        let mut seen = Vec::new();
        for _ in 0..10 {
            let (name, event) = event(feed).await;
            check(&document, schema, &event, &name);
            seen.push(word(&name, &event));
        }
        assert_kinds(
            &seen,
            [
                ("revision", &["1", "2"]),
                ("rollout", &["1 running", "1 watching", "1 succeeded"]),
                ("hold", &["old released", "shop-* set", "shop-* released"]),
                ("trigger", &["shop rolling_out", "shop settled"]),
            ],
        );
        let more = tokio::time::timeout(Duration::from_millis(700), feed.event()).await;
        assert!(more.is_err(), "{more:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_follower_of_all_kinds_continues_at_another_api_without_a_gap_or_a_repeat() {
    let db = tagtrail_testkit::postgres().await;
    let mut rows = Rows::new(db.connect().await).await;
    let shop = rows.trigger("shop", true).await;
    let web = rows.empty_tag(WEB).await;
    let rollout = rows.rollout(shop, 1, "pending", 1).await;
    let (states, words) = (["pending", "running"], ["settled", "waiting"]);
    let (mut count, mut id, mut seen) = (0, None::<String>, Vec::new());
    for round in 0..4 {
        let api = Api::over(&db).await;
        api.ctx.health.wait_ready().await;
        let mut feed = Feed::at(&api, "/v1/events", id.as_deref()).await;
        for n in 0..6 {
            if n == 3 {
                // Of the twelve events of the first round only 7: the others come at the next api.
                seen.extend(next(&mut feed, if round == 0 { 7 } else { 20 }).await);
                id = Some(feed.id.clone());
                // While no api runs, changes are recorded, too.
                api.ctx.shutdown.cancel();
            }
            let even = count % 2;
            count += 1;
            let number = i64::try_from(count).unwrap();
            rows.revision(web, on_time(number, 1, number)).await;
            change(&mut rows.db, &rollout, states[even]).await;
            condition(&mut rows.db, shop, words[even]).await;
            freeze(&mut rows.db, &format!("t{count}")).await;
        }
        api.stop().await;
    }
    let api = Api::over(&db).await;
    api.ctx.health.wait_ready().await;
    let mut feed = Feed::at(&api, "/v1/events", id.as_deref()).await;
    seen.extend(next(&mut feed, 4 * count - seen.len()).await);
    let all = |text: fn(usize) -> String| -> Vec<String> { (1..=24).map(text).collect() };
    assert_eq!(of("revision", &seen), all(|n| n.to_string()));
    assert_eq!(of("hold", &seen), all(|n| format!("t{n} set")));
    let states = all(|n| ["1 running", "1 pending"][n % 2].to_owned());
    assert_eq!(of("rollout", &seen), states);
    let conditions = all(|n| ["shop waiting", "shop settled"][n % 2].to_owned());
    assert_eq!(of("trigger", &seen), conditions);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_change_that_commits_late_is_sent_also_after_a_restart() {
    let db = tagtrail_testkit::postgres().await;
    let api = Api::over(&db).await;
    api.ctx.health.wait_ready().await;
    let mut rows = Rows::new(db.connect().await).await;
    let shop = rows.trigger("shop", true).await;
    let [early, late, other] = [
        rows.rollout(shop, 1, "pending", 1).await,
        rows.rollout(shop, 2, "pending", 2).await,
        rows.rollout(shop, 3, "pending", 3).await,
    ];
    let mut feed = Feed::at(&api, "/v1/events?kinds=rollout", None).await;
    change(&mut rows.db, &early, "running").await;
    assert_eq!(next(&mut feed, 1).await, ["rollout 1 running"]);
    let mut second = db.connect().await;
    let mut open = second.begin().await.unwrap();
    let first = change(&mut open, &late, "running").await;
    assert!(change(&mut rows.db, &other, "running").await > first);
    tokio::time::sleep(Duration::from_millis(1500)).await;
    // A follower that begins meanwhile waits for the writer, and receives the change too.
    let mut begun = Feed::at(&api, "/v1/events?kinds=rollout", None).await;
    let id = feed.id.clone();
    open.commit().await.unwrap();
    let expected = ["rollout 2 running", "rollout 3 running"];
    assert_eq!(next(&mut feed, 2).await, expected);
    assert!(next(&mut begun, 1).await[0] == expected[0]);
    let mut again = Feed::at(&api, "/v1/events?kinds=rollout", Some(&id)).await;
    assert_eq!(next(&mut again, 2).await, expected);
    // The ordinal of a change that is rolled back is waited for only while it may come.
    let mut open = second.begin().await.unwrap();
    change(&mut open, &late, "succeeded").await;
    change(&mut rows.db, &other, "succeeded").await;
    open.rollback().await.unwrap();
    change(&mut rows.db, &early, "succeeded").await;
    let expected = ["rollout 3 succeeded", "rollout 1 succeeded"];
    for feed in [&mut feed, &mut again] {
        assert_eq!(next(feed, 2).await, expected);
    }
}

/// Writes changes of rollouts from several connections at once, which commit in any order, and some
/// not at all. Returns the committed ordinals.
async fn write(db: &tagtrail_testkit::TestDb, rollouts: &[String], each: u64) -> BTreeSet<i64> {
    let mut writers = tokio::task::JoinSet::new();
    for (seed, rollout) in (1_u64..).zip(rollouts) {
        let (mut db, rollout) = (db.connect().await, rollout.clone());
        writers.spawn(async move {
            let mut committed = Vec::new();
            for n in 0..each {
                let mut open = db.begin().await.unwrap();
                let ordinal = change(&mut open, &rollout, "pending").await;
                tokio::time::sleep(Duration::from_millis((n * 7 + seed * 3) % 11)).await;
                if (n + seed) % 4 == 0 {
                    open.rollback().await.unwrap();
                } else {
                    open.commit().await.unwrap();
                    committed.push(ordinal);
                }
            }
            committed
        });
    }
    writers.join_all().await.into_iter().flatten().collect()
}

/// The ordinals of the next events, until the one with this ordinal; at most `most`.
async fn ordinals(feed: &mut Feed, last: i64, most: usize) -> Vec<i64> {
    let mut seen = Vec::new();
    while seen.last() != Some(&last) && seen.len() < most {
        let (_, event) = event(feed).await;
        let (_, ordinal) = event["id"].as_str().unwrap().rsplit_once('/').unwrap();
        seen.push(ordinal.parse().unwrap());
    }
    seen
}

#[tokio::test(flavor = "multi_thread")]
async fn followers_receive_each_committed_change_once_while_many_write_and_roll_back() {
    let db = tagtrail_testkit::postgres().await;
    let (one, two) = (Api::over(&db).await, Api::over(&db).await);
    for api in [&one, &two] {
        api.ctx.health.wait_ready().await;
    }
    let mut rows = Rows::new(db.connect().await).await;
    let shop = rows.trigger("shop", true).await;
    let mut rollouts = Vec::new();
    for number in 1..=8 {
        rollouts.push(rows.rollout(shop, number, "pending", number).await);
    }
    let path = "/v1/events?kinds=rollout,hold";
    let mut follower = Feed::at(&one, path, None).await;
    let start = follower.id.clone();
    let writing = write(&db, &rollouts, 60);
    // Meanwhile a client moves from one api to the other after each few events.
    let moving = async {
        let (mut seen, mut id) = (Vec::new(), start.clone());
        for round in 0..20 {
            let api = [&one, &two][round % 2];
            let mut feed = Feed::at(api, path, Some(&id)).await;
            seen.extend(ordinals(&mut feed, 0, 7).await);
            id = feed.id;
        }
        (seen, id)
    };
    let (committed, (mut moved, id)) = tokio::join!(writing, moving);
    let last = change(&mut rows.db, &rollouts[0], "pending").await;
    let mut expected: Vec<i64> = committed.into_iter().collect();
    expected.push(last);
    assert!(expected.len() > 300, "{}", expected.len());
    assert_eq!(ordinals(&mut follower, last, 10_000).await, expected);
    let mut feed = Feed::at(&two, path, Some(&id)).await;
    moved.extend(ordinals(&mut feed, last, 10_000).await);
    assert_eq!(moved, expected);
    // One that is behind reads Postgres.
    let mut feed = Feed::at(&two, path, Some(&start)).await;
    assert_eq!(ordinals(&mut feed, last, 10_000).await, expected);
}

#[tokio::test(flavor = "multi_thread")]
async fn changes_beyond_the_memory_are_read_from_the_store() {
    let (api, mut rows) = Api::start().await;
    let shop = rows.trigger("shop", true).await;
    let rollout = rows.rollout(shop, 1, "pending", 1).await;
    let path = "/v1/events?kinds=rollout";
    let mut feeds = [
        Feed::at(&api, path, None).await,
        Feed::at(&api, path, None).await,
    ];
    let start = feeds[0].id.clone();
    // Some are too large to be kept.
    sqlx::query(concat!(
        "insert into rollout_change (rollout_id, state, rollout)
         select o.id, o.state, ",
        tagtrail_postgres::rollout_json!("o"),
        " || case when n % 500 = 0 then jsonb_build_object('error', repeat('x', 100000)) else '{}' end
         from rollout o join trigger t on t.id = o.trigger_id, generate_series(1, 3000) n where o.id = $1::uuid"
    ))
    .bind(&rollout)
    .execute(&mut rows.db)
    .await
    .unwrap();
    let expected: Vec<i64> = (1..=3000).collect();
    for feed in &mut feeds {
        assert_eq!(ordinals(feed, 3000, 5000).await, expected);
    }
    let mut behind = Feed::at(&api, path, Some(&start)).await;
    assert_eq!(ordinals(&mut behind, 3000, 5000).await, expected);
}

#[tokio::test(flavor = "multi_thread")]
async fn filters_are_about_the_kinds_that_have_images_or_triggers() {
    let (api, mut rows) = Api::start().await;
    let (shop, blog) = (
        rows.trigger("shop-eu", true).await,
        rows.trigger("blog", true).await,
    );
    let (web, other) = (
        rows.empty_tag(WEB).await,
        rows.empty_tag("registry.example.com/blog:v1").await,
    );
    let (of_shop, of_blog) = (
        rows.rollout(shop, 1, "pending", 1).await,
        rows.rollout(blog, 2, "pending", 2).await,
    );
    let open = async |query: &str| Feed::at(&api, &format!("/v1/events?{query}"), None).await;
    let mut triggers = open("trigger=shop-*").await;
    let mut images = open("match=blog&kinds=revision,rollout,trigger").await;
    let mut both = open("match=shop/**&trigger=blog&kinds=rollout,revision").await;
    let mut holds = open("kinds=hold&trigger=shop-us").await;
    rows.revision(web, on_time(1, 1, 1)).await;
    rows.revision(other, on_time(1, 2, 1)).await;
    change(&mut rows.db, &of_shop, "running").await;
    change(&mut rows.db, &of_blog, "running").await;
    condition(&mut rows.db, shop, "broken").await;
    condition(&mut rows.db, blog, "settled").await;
    for triggers in ["shop-*", "blog", "*-us", "*"] {
        freeze(&mut rows.db, triggers).await;
    }
    assert_kinds(
        &next(&mut triggers, 7).await,
        [
            ("revision", &["1", "1"]),
            ("rollout", &["1 running"]),
            ("hold", &["shop-* set", "*-us set", "* set"]),
            ("trigger", &["shop-eu broken"]),
        ],
    );
    // Both rollouts have the image of `Rows::trigger`, which is in shop.
    assert_kinds(
        &next(&mut images, 3).await,
        [
            ("revision", &["1"]),
            ("rollout", &[]),
            ("hold", &[]),
            ("trigger", &["shop-eu broken", "blog settled"]),
        ],
    );
    assert_kinds(
        &next(&mut both, 2).await,
        [
            ("revision", &["1"]),
            ("rollout", &["2 running"]),
            ("hold", &[]),
            ("trigger", &[]),
        ],
    );
    let expected = ["hold shop-* set", "hold *-us set", "hold * set"];
    assert_eq!(next(&mut holds, 3).await, expected);
}

#[tokio::test(flavor = "multi_thread")]
async fn since_begins_with_the_changes_of_that_time_and_another_kind_with_the_next() {
    let (api, mut rows) = Api::start().await;
    let shop = rows.trigger("shop", true).await;
    let rollout = rows.rollout(shop, 1, "pending", 1).await;
    for n in 0..300 {
        let ordinal = change(&mut rows.db, &rollout, "pending").await;
        let hold = freeze(&mut rows.db, &format!("t{ordinal}")).await;
        let ordinal_of_condition = condition(&mut rows.db, shop, "settled").await;
        for (table, key) in [
            ("rollout_change", ordinal),
            ("hold_change", hold),
            ("condition_change", ordinal_of_condition),
        ] {
            let sql = format!("update {table} set changed_at = $2 where ordinal = $1");
            sqlx::query(sqlx::AssertSqlSafe(sql))
                .bind(key)
                .bind(time(n * 60))
                .execute(&mut rows.db)
                .await
                .unwrap();
        }
    }
    for (since, first) in [
        (-1, 1),
        (0, 1),
        (60 * 99, 100),
        (60 * 99 + 1, 101),
        (60 * 299, 300),
    ] {
        let path = format!(
            "/v1/events?kinds=rollout,trigger,hold&since={}",
            text(since)
        );
        let mut feed = Feed::at(&api, &path, None).await;
        let seen = next(&mut feed, 3 * (301 - first)).await;
        let holds: Vec<String> = (first..=300).map(|n| format!("t{n} set")).collect();
        assert_eq!(of("hold", &seen), holds, "since {since}");
        assert_eq!(of("rollout", &seen).len(), 301 - first);
        assert_eq!(of("trigger", &seen).len(), 301 - first);
    }
    // An id says nothing about a kind that its follower did not ask for.
    let holds = Feed::at(&api, "/v1/events?kinds=hold", None).await;
    change(&mut rows.db, &rollout, "running").await;
    freeze(&mut rows.db, "new").await;
    let mut both = Feed::at(&api, "/v1/events?kinds=hold,rollout", Some(&holds.id)).await;
    change(&mut rows.db, &rollout, "succeeded").await;
    let seen = next(&mut both, 2).await;
    assert_eq!(of("hold", &seen), ["new set"]);
    assert_eq!(of("rollout", &seen), ["1 succeeded"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn deleted_conditions_after_the_place_are_stated() {
    let (api, mut rows) = Api::start().await;
    let shop = rows.trigger("shop", true).await;
    let path = "/v1/events?kinds=trigger";
    condition(&mut rows.db, shop, "settled").await;
    let id = Feed::at(&api, path, None).await.id;
    for word in ["waiting", "settled", "broken"] {
        condition(&mut rows.db, shop, word).await;
    }
    let mut feed = Feed::at(&api, path, Some(&id)).await;
    let words = [
        "trigger shop waiting",
        "trigger shop settled",
        "trigger shop broken",
    ];
    assert_eq!(next(&mut feed, 3).await, words);
    // A quiet month, in which nothing was deleted.
    let age = "update condition_change set changed_at = changed_at - interval '40 days'";
    sqlx::query(age).execute(&mut rows.db).await.unwrap();
    let mut feed = Feed::at(&api, path, Some(&id)).await;
    assert_eq!(next(&mut feed, 3).await, words);
    let at_the_end = feed.id.clone();
    sqlx::query("delete from condition_change where condition <> 'broken'")
        .execute(&mut rows.db)
        .await
        .unwrap();
    condition(&mut rows.db, shop, "paused").await;
    let mut feed = Feed::at(&api, path, Some(&at_the_end)).await;
    assert_eq!(next(&mut feed, 1).await, ["trigger shop paused"]);
    let mut feed = Feed::at(&api, path, Some(&id)).await;
    let (name, problem) = feed.event().await;
    assert_eq!(
        (name.as_str(), &problem["code"]),
        ("reset", &"changes_deleted".into())
    );
    assert_eq!(
        next(&mut feed, 2).await,
        ["trigger shop broken", "trigger shop paused"]
    );
    // The place after the reset is as good as any.
    condition(&mut rows.db, shop, "settled").await;
    let mut again = Feed::at(&api, path, Some(&feed.id)).await;
    assert_eq!(next(&mut again, 1).await, ["trigger shop settled"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_change_that_this_version_cannot_read_is_left_out() {
    let (api, mut rows) = Api::start().await;
    let shop = rows.trigger("shop", true).await;
    let rollout = rows.rollout(shop, 1, "pending", 1).await;
    let mut feed = Feed::at(&api, "/v1/events", None).await;
    let id = feed.id.clone();
    change(&mut rows.db, &rollout, "running").await;
    sqlx::query("insert into rollout_change (rollout_id, state, rollout) values ($1::uuid, 'failed', '{\"state\": \"new\"}')")
        .bind(&rollout)
        .execute(&mut rows.db)
        .await
        .unwrap();
    change(&mut rows.db, &rollout, "succeeded").await;
    let expected = ["rollout 1 running", "rollout 1 succeeded"];
    assert_eq!(next(&mut feed, 2).await, expected);
    let mut again = Feed::at(&api, "/v1/events", Some(&id)).await;
    assert_eq!(next(&mut again, 2).await, expected);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_parameter_is_refused_with_its_code() {
    let (api, _rows) = Api::start().await;
    let ask = async |query: &str| api.get(&format!("/v1/events?{query}")).await;
    for wrong in [
        "kinds=",
        "kinds=rollouts",
        "kinds=rollout,source",
        "kinds=rollout;hold",
    ] {
        let answer = ask(wrong).await;
        assert_eq!(answer.problem(), "400 kinds_invalid", "{wrong}");
        let detail = answer.body["detail"].as_str().unwrap();
        assert!(
            detail.contains("revision, rollout, hold and trigger"),
            "{detail}"
        );
    }
    for (wrong, code) in [
        ("match=[", "match_invalid"),
        ("trigger=Shop", "trigger_invalid"),
        ("since=yesterday", "time_invalid"),
        ("signatures=x", "flag_invalid"),
        ("kind=hold", "parameter_unknown"),
        ("lastEventId=17", "cursor_invalid"),
    ] {
        assert_eq!(ask(wrong).await.problem(), format!("400 {code}"));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_that_reads_may_follow_and_one_that_reports_may_not() {
    use crate::server::secret;
    let tokens = [
        ("ui", "read", ""),
        ("ci", "report", ""),
        ("ops", "operate", ""),
    ];
    let (api, mut rows, _folder) = Api::with_tokens(&tokens).await;
    let status = async |token: &str, query: &str| {
        let mut request = api.request("GET", &format!("/v1/events{query}"));
        if !token.is_empty() {
            request = request.bearer_auth(secret(token));
        }
        request.send().await.unwrap().status().as_u16()
    };
    assert_eq!(status("", "").await, 401);
    assert_eq!(status("ci", "").await, 403);
    assert_eq!(status("ops", "").await, 200);
    let in_query = |name| format!("?access_token={}", secret(name));
    assert_eq!(status("", &in_query("ops")).await, 403);
    let mut feed = Feed::at(&api, &format!("/v1/events{}", in_query("ui")), None).await;
    freeze(&mut rows.db, "shop").await;
    assert_eq!(next(&mut feed, 1).await, ["hold shop set"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn heartbeats_carry_the_place_of_all_kinds() {
    let (api, mut rows) = Api::with_quick_heartbeats().await;
    let mut feed = Feed::at(&api, "/v1/events?trigger=shop", None).await;
    let before = feed.id.clone();
    freeze(&mut rows.db, "blog").await;
    let moved = async {
        while feed.id == before {
            let (name, _) = feed.block().await.unwrap();
            assert_eq!(name, "place");
        }
    };
    tokio::time::timeout(SOON, moved).await.unwrap();
    freeze(&mut rows.db, "shop").await;
    let mut again = Feed::at(&api, "/v1/events", Some(&feed.id)).await;
    assert_eq!(next(&mut again, 1).await, ["hold shop set"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_feed_needs_postgres_to_begin() {
    let postgres = tagtrail_testkit::TestPostgres::start().await;
    let api = Api::over(&postgres.db()).await;
    api.ctx.health.wait_ready().await;
    let mut rows = Rows::new(postgres.db().connect().await).await;
    let mut feed = Feed::at(&api, "/v1/events", None).await;
    postgres.stop().await;
    let answer = Answer::read(api.request("GET", "/v1/events").send().await.unwrap()).await;
    assert_eq!(answer.problem(), "503 store_unavailable");
    postgres.resume().await;
    rows.db = postgres.db().connect().await;
    freeze(&mut rows.db, "shop").await;
    assert_eq!(next(&mut feed, 1).await, ["hold shop set"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_in_rollouts_or_revisions_wakes_the_feed() {
    let nats = tagtrail_testkit::TestNats::start().await;
    let db = tagtrail_testkit::postgres().await;
    let api = Api::with(&db, |config| {
        config.bus = tagtrail_bus::BusArgs::new(nats.url());
    })
    .await;
    api.ctx.health.wait_ready().await;
    let mut rows = Rows::new(db.connect().await).await;
    let shop = rows.trigger("shop", true).await;
    let rollout = rows.rollout(shop, 1, "pending", 1).await;
    let web = rows.empty_tag(WEB).await;
    let mut feed = Feed::at(&api, "/v1/events", None).await;
    let client = nats.client().await.unwrap();
    let wake = async |subject: &'static str| {
        client.publish(subject, "{}".into()).await.unwrap();
        client.flush().await.unwrap();
    };
    // The subscriptions begin after the first follower.
    change(&mut rows.db, &rollout, "pending").await;
    assert_eq!(next(&mut feed, 1).await, ["rollout 1 pending"]);
    tokio::time::sleep(Duration::from_millis(500)).await;
    let started = std::time::Instant::now();
    for number in 1..=10 {
        change(&mut rows.db, &rollout, "running").await;
        wake("tagtrail.rollout.shop.running").await;
        assert_eq!(next(&mut feed, 1).await, ["rollout 1 running"]);
        rows.revision(web, on_time(number, 1, number)).await;
        wake("tagtrail.revision.a.b.c").await;
        assert_eq!(next(&mut feed, 1).await, [format!("revision {number}")]);
    }
    // Without the messages, each waits for half a second.
    let time = started.elapsed();
    assert!(time < Duration::from_secs(5), "{time:?}");
}
