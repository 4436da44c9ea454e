//! Acts on pages: the state that a person saw, forms that are sent twice, roles and scopes.

use crate::pages_triggers::{behind, run};
use crate::rows::digest;
use crate::server::{Api, secret};

pub(crate) type Sent = Vec<(String, String)>;

async fn answer(request: reqwest::RequestBuilder, token: &str) -> (u16, String) {
    let request = match token {
        "" => request,
        token => request.bearer_auth(secret(token)),
    };
    let client = reqwest::Client::builder()
        .redirect(reqwest::redirect::Policy::none())
        .no_proxy()
        .build()
        .unwrap();
    let response = client.execute(request.build().unwrap()).await.unwrap();
    let status = response.status().as_u16();
    if status == 303 {
        let to = response.headers().get("location");
        return (status, to.unwrap().to_str().unwrap().to_owned());
    }
    let kind = response.headers()["content-type"].to_str().unwrap();
    assert_eq!(kind, "text/html; charset=utf-8");
    (status, response.text().await.unwrap())
}

/// Opens a page; of a redirect, the text is empty.
pub(crate) async fn page(api: &Api, token: &str, path: &str) -> (u16, String) {
    let (status, text) = answer(api.request("GET", path), token).await;
    match status {
        303 => (status, String::new()),
        _ => (status, text),
    }
}

/// Sends a form; of a redirect, the text is its target.
pub(crate) async fn send(api: &Api, token: &str, path: &str, fields: &Sent) -> (u16, String) {
    answer(filled(api.request("POST", path), fields), token).await
}

fn filled(request: reqwest::RequestBuilder, fields: &Sent) -> reqwest::RequestBuilder {
    let body = form_urlencoded::Serializer::new(String::new())
        .extend_pairs(fields)
        .finish();
    let kind = "application/x-www-form-urlencoded";
    request.header("content-type", kind).body(body)
}

/// Returns the hidden fields of the form with this target.
#[track_caller]
pub(crate) fn form(page: &str, action: &str) -> Sent {
    let start = page.find(&format!("action=\"{action}\""));
    let text = &page[start.unwrap_or_else(|| panic!("no form {action}: {page}"))..];
    let text = &text[..text.find("</form>").unwrap()];
    ["key", "seen"]
        .map(|name| {
            let start = format!("name=\"{name}\" value=\"");
            let value = &text[text.find(&start).unwrap() + start.len()..];
            let value = &value[..value.find('"').unwrap()];
            (name.to_owned(), value.to_owned())
        })
        .to_vec()
}

async fn count(api: &Api) -> usize {
    let acts = api.found("/v1/acts").await;
    acts["items"].as_array().unwrap().len()
}

#[tokio::test]
async fn an_act_on_another_state_than_the_one_seen_is_not_carried_out() {
    let (api, mut rows) = Api::start().await;
    behind(&mut rows).await;
    for (act, change) in [
        // A head moved, a freeze came, a rollout succeeded, somebody paused.
        ("rollout", "update tag set head = 2, head_digest = (select digest from revision v where v.tag_id = tag.id and number = 2)"),
        ("retry", "insert into hold (kind, triggers, actor) values ('freeze', 'sh*', 'x')"),
        ("rollout", "insert into rollout (id, trigger_id, number, state, images, cause, finished_at)
             select gen_random_uuid(), trigger_id, 7, 'succeeded', images, cause, now() from rollout where number = 1"),
        ("pause", "update trigger set state = 'paused', paused_at = now()"),
        ("resume", "update trigger set paused_at = now() + interval '1 s'"),
    ] {
        run(&mut rows, "update rollout set error = 'no', state = state where number = 1").await;
        if act == "retry" {
            rows.rollout(1, 2, "failed", 40).await;
            run(&mut rows, "update rollout set attempts = 1 where number = 2").await;
        }
        let path = format!("/triggers/shop/{act}");
        let (_, shown) = page(&api, "", "/triggers/shop").await;
        let fields = form(&shown, &path);
        run(&mut rows, change).await;
        let before = count(&api).await;
        let (status, text) = send(&api, "", &path, &fields).await;
        assert_eq!(status, 409, "{act}: {text}");
        assert!(text.contains("This changed meanwhile, and nothing was done."));
        assert!(text.contains("<h1>shop</h1>"), "the page with the news: {text}");
        assert_eq!(count(&api).await, before, "{act}");
        // Without the field, and with another value, nothing is done either.
        for seen in [None, Some("00")] {
            let (_, shown) = page(&api, "", "/triggers/shop").await;
            let mut fields = match shown.contains(&format!("\"{path}\"")) {
                true => form(&shown, &path),
                false => form(&shown, "/triggers/shop/resume"),
            };
            fields.pop();
            fields.extend(seen.map(|seen| ("seen".to_owned(), seen.to_owned())));
            assert_eq!(send(&api, "", &path, &fields).await.0, 409, "{act} {seen:?}");
        }
        assert_eq!(count(&api).await, before, "{act}");
    }
    api.stop().await;
}

#[tokio::test]
async fn a_pause_is_not_out_of_date_when_a_head_moves() {
    let (api, mut rows) = Api::start().await;
    behind(&mut rows).await;
    let (_, shown) = page(&api, "", "/triggers/shop").await;
    let fields = form(&shown, "/triggers/shop/pause");
    run(&mut rows, "update tag set head = 2, head_digest = (select digest from revision v where v.tag_id = tag.id and number = 2)").await;
    assert_eq!(send(&api, "", "/triggers/shop/pause", &fields).await.0, 303);
    api.stop().await;
}

#[tokio::test]
async fn a_form_that_is_sent_twice_acts_once() {
    let (api, mut rows) = Api::start().await;
    behind(&mut rows).await;
    let (_, shown) = page(&api, "", "/triggers/shop").await;
    let path = "/triggers/shop/pause";
    let fields = form(&shown, path);
    let twice = tokio::join!(send(&api, "", path, &fields), send(&api, "", path, &fields));
    assert_eq!((twice.0.0, twice.1.0), (303, 303));
    assert_eq!(send(&api, "", path, &fields).await.0, 303);
    assert_eq!(count(&api).await, 1);
    // The key of a form is that of one order.
    let mut other = fields.clone();
    other.push(("reason".to_owned(), "another".to_owned()));
    let (status, text) = send(&api, "", path, &other).await;
    assert_eq!(status, 422, "{text}");
    assert!(text.contains("idempotency_key_reused"), "{text}");
    assert_eq!(count(&api).await, 1);
    // Without a key, or with one that no header can hold, nothing is done.
    for key in [None, Some("a\nb"), Some("é")] {
        let (_, shown) = page(&api, "", "/triggers/shop").await;
        let mut fields = form(&shown, "/triggers/shop/resume");
        fields.remove(0);
        fields.extend(key.map(|key| ("key".to_owned(), key.to_owned())));
        let (status, text) = send(&api, "", "/triggers/shop/resume", &fields).await;
        assert_eq!(status, 400, "{key:?}: {text}");
    }
    assert_eq!(count(&api).await, 1);
    api.stop().await;
}

#[tokio::test]
async fn forms_that_role_or_scope_forbid_are_absent_and_refused() {
    let (api, mut rows, _folder) = Api::with_tokens(&[
        ("reader", "read", ""),
        ("approver", "approve", ""),
        ("ops", "operate", "triggers = [\"*\"]\n"),
        ("others", "operate", "triggers = [\"other-*\"]\n"),
        // Triggers carry the name of this token, so it acts on these alone.
        ("team-b", "operate", ""),
        ("reporter", "report", ""),
    ])
    .await;
    behind(&mut rows).await;
    rows.trigger("team-b-app", true).await;
    let (_, shown) = page(&api, "ops", "/triggers/shop").await;
    let acts = ["pause", "rollout", "pin"];
    for act in acts {
        let path = format!("/triggers/shop/{act}");
        let mut fields = form(&shown, &path);
        fields.push(("reason".to_owned(), "why not".to_owned()));
        fields.push(("image.web".to_owned(), digest(1).to_string()));
        for (token, code) in [
            ("reader", "forbidden"),
            ("approver", "forbidden"),
            ("others", "out_of_scope"),
            ("team-b", "out_of_scope"),
        ] {
            for place in ["/triggers", "/triggers/shop"] {
                let (status, seen) = page(&api, token, place).await;
                assert_eq!(status, 200, "{token} {place}");
                assert!(!seen.contains(&format!("\"{path}\"")), "{token} {place}");
            }
            let (status, text) = send(&api, token, &path, &fields).await;
            assert_eq!(status, 403, "{token} {path}: {text}");
            assert!(text.contains(code), "{token} {path}: {text}");
        }
        // Without a token, and with one that may read nothing.
        assert_eq!(send(&api, "", &path, &fields).await.0, 303);
        assert_eq!(page(&api, "reporter", "/triggers").await.0, 403);
        assert_eq!(send(&api, "reporter", &path, &fields).await.0, 403);
    }
    let acted: i64 = sqlx::query_scalar("select count(*) from act")
        .fetch_one(&mut rows.db)
        .await
        .unwrap();
    assert_eq!(acted, 0);
    let (_, own) = page(&api, "team-b", "/triggers/team-b-app").await;
    let pause = "/triggers/team-b-app/pause";
    assert_eq!(send(&api, "team-b", pause, &form(&own, pause)).await.0, 303);
    // The act has the name of the token, and the address.
    let (actor, with_address): (String, bool) =
        sqlx::query_as("select actor, address is not null from act")
            .fetch_one(&mut rows.db)
            .await
            .unwrap();
    assert_eq!((actor.as_str(), with_address), ("team-b", true));
    api.stop().await;
}

#[tokio::test]
async fn a_foreign_page_sends_no_form() {
    let (api, mut rows) = Api::start().await;
    behind(&mut rows).await;
    let (_, shown) = page(&api, "", "/triggers/shop").await;
    let fields = form(&shown, "/triggers/shop/pause");
    for (name, value) in [
        ("origin", "https://evil.example"),
        ("sec-fetch-site", "cross-site"),
    ] {
        let request = api.request("POST", "/triggers/shop/pause");
        let request = filled(request.header(name, value), &fields);
        assert_eq!(request.send().await.unwrap().status(), 403, "{name}");
    }
    assert_eq!(count(&api).await, 0);
    api.stop().await;
}
