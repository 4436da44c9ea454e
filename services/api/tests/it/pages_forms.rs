//! A page and its other forms: the JSON and CSV of a list have the rows of the page, also behind a
//! filter, and the command names the same filter.

use serde_json::Value;

use crate::pages_acts::page;
use crate::pages_triggers::{behind, run};
use crate::rows::{Rows, digest, on_time};
use crate::server::Api;

/// Writes rows of which each filter takes some and leaves others out.
async fn world(rows: &mut Rows) {
    let (shop, _) = behind(rows).await;
    for (place, tag) in ["v1.0.0", "v1.1.0", "once", "gone"].iter().enumerate() {
        let image = format!("registry.example.com/shop/api:{tag}");
        let mut moves = vec![on_time(1, 4, 10)];
        match *tag {
            "v1.1.0" => moves.push(on_time(2, 5, 20)),
            "gone" => moves.push(on_time(2, 0, 20 + i64::try_from(place).unwrap())),
            _ => {}
        }
        rows.tag(&image, &moves).await;
    }
    for number in 2..=60 {
        let state = if number % 3 == 0 {
            "failed"
        } else {
            "succeeded"
        };
        rows.rollout(shop, number, state, 100 + number).await;
    }
    let quiet = rows.trigger("shop-quiet", true).await;
    rows.rollout(quiet, 3, "succeeded", 35).await;
    rows.trigger("other", true).await;
    rows.trigger("left", false).await;
    run(rows, "insert into hold (kind, triggers, reason, hard, actor, until, created_at, released_at, released_by)
         select 'freeze', 'shop-*', n::text, false, 'local', null, now() - n * interval '1 day', case when n > 0 then now() - n * interval '1 day' + interval '1 hour' end, case when n > 0 then 'local' end
         from generate_series(0, 20) n").await;
    run(rows, "insert into reconcile_failure (registry, repository, failed_at, reason) values ('registry.example.com', 'shop/api', now(), 'no')").await;
}

/// Returns the addresses of the other forms in the foot of a page, and the command.
fn forms(shown: &str) -> (String, Option<String>, Option<String>) {
    let foot = &shown[shown.find("<footer").unwrap()..];
    let link = |word: &str| {
        let (before, _) = foot.split_once(&format!("\">{word}</a>"))?;
        let (_, address) = before.rsplit_once("href=\"")?;
        Some(address.replace("&amp;", "&"))
    };
    let command = foot
        .split_once("<code>")
        .and_then(|(_, rest)| rest.split_once("</code>"));
    let command = command.map(|(command, _)| command.to_owned());
    (link("JSON").unwrap(), link("CSV"), command)
}

fn has_rows(shown: &str, count: usize, of: &str) {
    assert_eq!(shown.matches("<th scope=\"row\"").count(), count, "{of}");
}

fn names_all(shown: &str, answer: &Value, of: &str) {
    assert!(
        names(answer).iter().all(|name| shown.contains(name)),
        "{of}: {answer}"
    );
}

#[tokio::test]
async fn a_page_and_its_other_forms_show_the_same_rows() {
    let (api, mut rows) = Api::start().await;
    world(&mut rows).await;
    let of_digest = format!("/d/{}", digest(1));
    for (path, lists, command) in [
        ("/rollouts", &["items"][..], "tagtrail rollouts"),
        (
            "/rollouts?trigger=shop&state=failed",
            &["items"],
            "tagtrail rollouts shop --state failed",
        ),
        (
            "/rollouts?q=shop%2Fweb&state=failed",
            &["items"],
            "tagtrail rollouts --state failed --contains shop/web",
        ),
        ("/triggers", &["items"], "tagtrail triggers"),
        (
            "/triggers?q=SHOP&which=all",
            &["items"],
            "tagtrail triggers --contains SHOP",
        ),
        (
            "/triggers?q=&which=behind",
            &["items"],
            "tagtrail triggers --behind",
        ),
        (
            "/triggers?which=removed",
            &["items"],
            "tagtrail triggers --removed",
        ),
        (
            "/triggers?which=settled&q=quiet",
            &["items"],
            "tagtrail triggers --contains quiet --condition settled",
        ),
        ("/holds", &["items"], "tagtrail holds --ended-since "),
        (
            "/sources",
            &["items", "not_compared", "lost"],
            "tagtrail doctor",
        ),
        (
            "/i?q=SHOP",
            &["items"],
            "tagtrail images --contains SHOP --sort changes",
        ),
        (
            "/i/registry.example.com/shop/api",
            &["items"],
            "tagtrail tags registry.example.com/shop/api --deleted --sort newest",
        ),
        (
            "/i/registry.example.com/shop/api?class=release&q=1.1",
            &["items"],
            "tagtrail tags registry.example.com/shop/api --deleted --contains 1.1 --class release --sort newest",
        ),
        (
            "/i/registry.example.com/shop/api?class=once",
            &["items"],
            "tagtrail tags registry.example.com/shop/api --deleted --class once --sort newest",
        ),
        (&of_digest, &["items"], "tagtrail digest sha256:"),
    ] {
        let (status, shown) = page(&api, "", path).await;
        assert_eq!(status, 200, "{path}");
        let (json, csv, printed) = forms(&shown);
        let answer = api.found(&json).await;
        let of = |list: &&str| answer[*list].as_array().map_or(0, Vec::len);
        let count: usize = lists.iter().map(of).sum();
        assert!(count > 0, "{path}: {answer}");
        if path != of_digest {
            has_rows(&shown, count, &format!("{path}: {json}"));
        }
        names_all(&shown, &answer, path);
        let printed = printed.unwrap();
        assert!(printed.starts_with(command), "{path}: {printed}");
        let csv = csv.expect(path);
        let text = api
            .request("GET", &csv)
            .send()
            .await
            .unwrap()
            .text()
            .await
            .unwrap();
        assert_eq!(text.lines().count(), of(&"items") + 1, "{path}: {csv}");
        // The lists beside the items have links of their own.
        for list in lists
            .iter()
            .filter(|list| **list != "items" && of(list) > 0)
        {
            assert!(
                shown.contains(&format!("/v1/sources?format=csv&amp;list={list}\"")),
                "{list}: {shown}"
            );
        }
    }
    api.stop().await;
}

/// Returns a word of each item by which a page shows it.
fn names(answer: &Value) -> Vec<String> {
    let items = answer["items"].as_array().unwrap().iter();
    let name = |item: &Value| {
        let mut found = ["name", "triggers", "image", "repository"].into_iter();
        let found = found.find_map(|field| item[field].as_str());
        found.map(|text| text.rsplit([':', '/']).next().unwrap().to_owned())
    };
    items.filter_map(name).collect()
}

#[tokio::test]
async fn the_next_page_of_a_list_has_its_own_rows_in_other_forms() {
    let (api, mut rows) = Api::start().await;
    world(&mut rows).await;
    for number in 1..=30 {
        rows.tag(
            &format!("registry.example.com/shop/many:v{number}"),
            &[on_time(1, 1, number), on_time(2, 2, 100 + number)],
        )
        .await;
    }
    for path in [
        "/rollouts?trigger=shop",
        "/i/registry.example.com/shop/many",
    ] {
        let (_, first) = page(&api, "", path).await;
        let next = &first[first.find("rel=\"next\" href=\"").unwrap() + 17..];
        let next = next[..next.find('"').unwrap()].replace("&amp;", "&");
        let (_, second) = page(&api, "", &next).await;
        let (json, ..) = forms(&second);
        let answer = api.found(&json).await;
        let count = answer["items"].as_array().unwrap().len();
        has_rows(&second, count, &format!("{next}: {json}"));
        names_all(&second, &answer, &json);
    }
    api.stop().await;
}

#[tokio::test]
async fn a_filter_that_finds_nothing_leads_to_the_whole_list() {
    let (api, mut rows) = Api::start().await;
    world(&mut rows).await;
    let web = "/i/registry.example.com/shop/web";
    for (path, whole) in [
        ("/rollouts?q=nothing", "/rollouts"),
        ("/triggers?q=nothing", "/triggers"),
        ("/i?q=nothing", "/i"),
        (
            "/i/registry.example.com/shop/?q=nothing",
            "/i/registry.example.com/shop/",
        ),
        (&format!("{web}?q=nothing"), web),
    ] {
        let (status, shown) = page(&api, "", path).await;
        assert_eq!(status, 200, "{path}");
        let main = &shown[shown.find("<main").unwrap()..shown.find("</main>").unwrap()];
        let (_, after) = main.split_once("</form>").unwrap();
        assert!(
            after.contains(&format!("<a href=\"{whole}\">")),
            "{path}: {after}"
        );
    }
    api.stop().await;
}
