//! The pages of triggers, and the forms on them.

use serde_json::{Value, json};

use crate::pages_acts::{form, page, send};
use crate::rows::{Rows, digest, on_time, time};
use crate::server::Api;

const WEB: &str = "registry.example.com/shop/web:latest";

/// Writes a tag with three revisions, and the trigger `shop`, whose rollout 1 of revision 1
/// succeeded: it is two revisions behind.
pub(crate) async fn behind(rows: &mut Rows) -> (i32, String) {
    rows.tag(
        WEB,
        &[on_time(1, 1, 10), on_time(2, 2, 20), on_time(3, 3, 30)],
    )
    .await;
    let shop = rows.trigger("shop", true).await;
    let id = rows.rollout(shop, 1, "succeeded", 12).await;
    (shop, id)
}

pub(crate) async fn run(rows: &mut Rows, sql: &str) {
    sqlx::query(sqlx::AssertSqlSafe(sql))
        .execute(&mut rows.db)
        .await
        .unwrap();
}

#[tokio::test]
async fn the_list_shows_who_is_behind_and_agrees_with_the_api() {
    let (api, mut rows) = Api::start().await;
    let (status, empty) = page(&api, "", "/triggers").await;
    assert_eq!(status, 200);
    assert!(empty.contains("No trigger is configured yet"), "{empty}");
    behind(&mut rows).await;
    let quiet = rows.trigger("quiet", true).await;
    rows.rollout(quiet, 3, "succeeded", 35).await;
    let (status, list) = page(&api, "", "/triggers").await;
    assert_eq!(status, 200);
    let listed = api.found("/v1/triggers").await;
    for one in listed["items"].as_array().unwrap() {
        let condition = one["condition"].as_str().unwrap().replace('_', " ");
        let name = one["name"].as_str().unwrap();
        let row = row_of(&list, name);
        assert!(row.contains(&condition), "{condition}: {row}");
    }
    let shop = row_of(&list, "shop");
    let short = |content| digest(content).to_string()[7..15].to_owned();
    assert!(
        shop.contains(&short(1)) && shop.contains(&short(3)),
        "{shop}"
    );
    assert!(shop.contains("2 behind"), "{shop}");
    assert!(list.find("/triggers/shop\"").unwrap() < list.find("/triggers/quiet\"").unwrap());
    // An empty field of a form counts as absent.
    let (_, found) = page(&api, "", "/triggers?q=&which=behind").await;
    assert!(found.contains("/triggers/shop\"") && !found.contains("/triggers/quiet\""));
    for (query, expected) in [
        ("behind=true", vec!["shop"]),
        ("q=QUI", vec!["quiet"]),
        ("q=quiet&behind=true", vec![]),
    ] {
        let found = api.found(&format!("/v1/triggers?{query}")).await;
        let names = found["items"]
            .as_array()
            .unwrap()
            .iter()
            .map(|one| one["name"].as_str().unwrap());
        assert_eq!(names.collect::<Vec<_>>(), expected, "{query}");
    }
    let (_, found) = page(&api, "", "/triggers?q=nothing").await;
    assert!(found.contains("No trigger matches."));
    let (status, _) = page(&api, "", "/triggers?which=asleep").await;
    assert_eq!(status, 400);
    api.stop().await;
}

fn row_of<'a>(list: &'a str, name: &str) -> &'a str {
    let start = list.find(&format!("/triggers/{name}\"")).unwrap();
    let end = list[start..].find("</tr>").unwrap();
    &list[start..start + end]
}

#[tokio::test]
async fn a_list_of_many_triggers_has_pages_and_a_bounded_size() {
    let (api, mut rows) = Api::start().await;
    let long = "x".repeat(120);
    sqlx::query(
        "insert into trigger (name, images, target, configured, epoch)
         select 't-' || lpad(n::text, 4, '0'), jsonb_build_object('web', 'registry.example.com/' || $1 || '/web:latest'), 'webhook', true, now()
         from generate_series(1, 300) n",
    )
    .bind(&long)
    .execute(&mut rows.db)
    .await
    .unwrap();
    let (mut path, mut seen) = ("/triggers".to_owned(), 0);
    while !path.is_empty() {
        let (status, list) = page(&api, "", &path).await;
        assert_eq!(status, 200);
        assert!(list.len() < 60_000, "{} bytes", list.len());
        seen += list.matches("<th scope=\"row\">").count();
        let next = list.find("rel=\"next\" href=\"");
        path = next.map_or(String::new(), |at| {
            let rest = &list[at + 17..];
            rest[..rest.find('"').unwrap()].replace("&amp;", "&")
        });
    }
    assert_eq!(seen, 300);
    api.stop().await;
}

#[tokio::test]
async fn the_page_of_a_trigger_shows_its_reasons_and_escapes_strangers() {
    let (api, mut rows) = Api::start().await;
    behind(&mut rows).await;
    sqlx::query(
        "update trigger set state = 'paused', paused_by = $1, paused_reason = $2, paused_at = $3, labels = $4",
    )
    .bind("<b>ann</b>")
    .bind("\"quoted\" \u{202e}<script>alert(1)</script>")
    .bind(time(60))
    .bind(json!({ "team": "'><img src=x>" }))
    .execute(&mut rows.db)
    .await
    .unwrap();
    let (status, shown) = page(&api, "", "/triggers/shop").await;
    assert_eq!(status, 200);
    assert!(shown.contains("paused") && shown.contains("2 revisions behind"));
    assert!(shown.contains("1 image is newer; closed <span"), "{shown}");
    for row in [
        "the digests of web that ran over 30 days",
        &format!("the heads of {WEB} over 30 days"),
    ] {
        assert!(shown.contains(row), "{row}");
    }
    assert!(shown.contains("&lt;script&gt;") && shown.contains("\\u{202e}"));
    for raw in [
        "<script>alert",
        "<b>ann",
        "<img",
        "style=",
        "onclick",
        "\u{202e}",
    ] {
        assert!(!shown.contains(raw), "{raw}");
    }
    assert!(shown.len() < 60_000, "{} bytes", shown.len());
    assert_eq!(shown.matches("<h1").count(), 1);
    let (status, missing) = page(&api, "", "/triggers/nobody").await;
    assert_eq!(status, 404);
    assert!(missing.contains("trigger_unknown"), "{missing}");
    // A renamed trigger leads on.
    run(
        &mut rows,
        "insert into trigger_name (name, trigger_id) select 'old-shop', id from trigger where name = 'shop'",
    )
    .await;
    let (status, shown) = page(&api, "", "/triggers/old-shop").await;
    assert_eq!((status, shown.as_str()), (303, ""));
    api.stop().await;
}

#[tokio::test]
async fn resuming_is_shown_first_and_ends_the_pause() {
    let (api, mut rows) = Api::start().await;
    behind(&mut rows).await;
    let (_, shown) = page(&api, "", "/triggers/shop").await;
    let mut fields = form(&shown, "/triggers/shop/pause");
    fields.push(("reason".to_owned(), "incident".to_owned()));
    let paused = send(&api, "", "/triggers/shop/pause", &fields).await;
    assert_eq!((paused.0, paused.1.as_str()), (303, "/triggers/shop"));
    let trigger = api.found("/v1/triggers/shop").await;
    assert_eq!(trigger["state"], "paused");
    assert_eq!(trigger["paused_reason"], "incident");
    let (_, shown) = page(&api, "", "/triggers/shop").await;
    // The change that will start is named before it starts.
    let resume = &shown[shown.find("id=\"resume\"").unwrap()..];
    let resume = &resume[..resume.find("</form>").unwrap()];
    for content in [1, 3] {
        let digest = digest(content).to_string();
        assert!(resume.contains(&digest), "{resume}");
    }
    // The gate, the verdict and the form state the same effect.
    let effect = "rolls the present images out";
    assert_eq!(shown.matches(effect).count(), 3, "{shown}");
    for absent in ["/pause\"", "/rollback\"", "/pin\"", "/rollout\""] {
        assert!(!shown.contains(&format!("shop{absent}")), "{absent}");
    }
    // The head goes back to the digest that runs: the last rollout has it.
    run(
        &mut rows,
        "update tag set head_digest = sha256(decode('01', 'hex'))",
    )
    .await;
    let (_, shown) = page(&api, "", "/triggers/shop").await;
    let effect = "starts nothing: the last rollout has the present images";
    assert_eq!(shown.matches(effect).count(), 3, "{shown}");
    assert!(!shown.contains("rolls the present images out"), "{shown}");
    let fields = form(&shown, "/triggers/shop/resume");
    assert_eq!(
        send(&api, "", "/triggers/shop/resume", &fields).await.0,
        303
    );
    let trigger = api.found("/v1/triggers/shop").await;
    assert_eq!(trigger["state"], "active");
    let acts = api.found("/v1/acts?trigger=shop").await;
    let words: Vec<&Value> = acts["items"]
        .as_array()
        .unwrap()
        .iter()
        .map(|act| &act["act"])
        .collect();
    assert_eq!(words, ["resume", "pause"]);
    api.stop().await;
}

#[tokio::test]
async fn rolling_back_and_pinning_need_a_reason_and_take_what_was_chosen() {
    let (api, mut rows) = Api::start().await;
    let (shop, _) = behind(&mut rows).await;
    rows.rollout(shop, 2, "succeeded", 22).await;
    let (_, shown) = page(&api, "", "/triggers/shop").await;
    let options = &shown[shown.find("id=\"rollback\"").unwrap()..];
    assert!(options.contains("<option value=\"1\">#1: web"), "{options}");
    let back = "/triggers/shop/rollback";
    let mut fields = form(&shown, back);
    fields.push(("to".to_owned(), "1".to_owned()));
    fields.push(("reason".to_owned(), "  ".to_owned()));
    let (status, text) = send(&api, "", back, &fields).await;
    assert_eq!(status, 400, "{text}");
    assert!(
        text.contains("reason_invalid") && text.contains("<h1>"),
        "{text}"
    );
    fields.pop();
    fields.push(("reason".to_owned(), "2 is slow".to_owned()));
    fields.push(("until".to_owned(), "soon".to_owned()));
    let (status, text) = send(&api, "", back, &fields).await;
    assert_eq!(status, 400, "{text}");
    assert!(text.contains("for 2 days"), "{text}");
    fields.pop();
    fields.push(("until".to_owned(), "for 2 days".to_owned()));
    let (status, then) = send(&api, "", back, &fields).await;
    assert_eq!((status, then.as_str()), (303, "/triggers/shop"));
    let holds = api.found("/v1/holds").await;
    assert_eq!(holds["items"][0]["images"]["web"], digest(1).to_string());
    assert!(holds["items"][0]["until"].is_string());
    // The pin is in force: the page offers its end, and says that the heads follow.
    let (_, shown) = page(&api, "", "/triggers/shop").await;
    assert!(shown.contains("id=\"release\""), "{shown}");
    let again = &shown[shown.find("id=\"rollout\"").unwrap()..];
    let again = &again[..again.find("</form>").unwrap()];
    assert!(again.contains("the pinned set"), "{again}");
    for (content, expected) in [(1, true), (2, true), (3, false)] {
        let named = again.contains(&digest(content).to_string());
        assert_eq!(named, expected, "{content}: {again}");
    }
    let pin = "/triggers/shop/pin";
    let mut fields = form(&shown, pin);
    fields.push(("image.web".to_owned(), digest(2).to_string()));
    fields.push(("reason".to_owned(), "the known one".to_owned()));
    assert_eq!(send(&api, "", pin, &fields).await.0, 303);
    let holds = api.found("/v1/holds").await;
    assert_eq!(holds["items"][0]["images"]["web"], digest(2).to_string());
    // Skipping a gate takes a reason.
    let (_, shown) = page(&api, "", "/triggers/shop").await;
    let roll_out = "/triggers/shop/rollout";
    let mut fields = form(&shown, roll_out);
    fields.push(("skip.window".to_owned(), "on".to_owned()));
    let (status, text) = send(&api, "", roll_out, &fields).await;
    assert_eq!(status, 400, "{text}");
    assert!(text.contains("reason_invalid"), "{text}");
    api.stop().await;
}
