//! Lists as comma-separated values.

use crate::rows::{digest, on_time, text};
use crate::server::Api;

const WEB: &str = "registry.example.com/shop/web:latest";

/// Returns the lines of an answer, and the address of the next page.
async fn lines(api: &Api, path: &str) -> (Vec<String>, Option<String>) {
    let answer = api.request("GET", path).send().await.unwrap();
    assert_eq!(answer.status(), 200, "{path}");
    let kind = answer.headers()["content-type"]
        .to_str()
        .unwrap()
        .to_owned();
    assert_eq!(kind, "text/csv; charset=utf-8; header=present", "{path}");
    let link = answer.headers().get("link").map(|link| {
        let link = link.to_str().unwrap();
        let address = link.strip_prefix('<').unwrap();
        address.strip_suffix(">; rel=\"next\"").unwrap().to_owned()
    });
    let body = answer.text().await.unwrap();
    assert!(body.ends_with("\r\n"), "{body}");
    (body.lines().map(str::to_owned).collect(), link)
}

#[tokio::test]
async fn the_pages_of_a_list_as_csv_have_all_items_and_the_same_columns() {
    let (api, mut rows) = Api::start().await;
    let moves: Vec<_> = (1_u8..=7)
        .map(|number| on_time(number.into(), number, 10 * i64::from(number)))
        .collect();
    rows.tag(WEB, &moves).await;
    let mut next = Some(format!("/v1/history?image={WEB}&limit=3&format=csv"));
    let (mut header, mut numbers) = (None, Vec::new());
    while let Some(path) = next {
        let (page, link) = lines(&api, &path).await;
        let names: Vec<_> = page[0].split(',').map(str::to_owned).collect();
        let place = |name: &str| names.iter().position(|one| one == name).unwrap();
        for line in &page[1..] {
            let cells: Vec<_> = line.split(',').collect();
            let number: u8 = cells[place("revision")].parse().unwrap();
            assert_eq!(cells[place("digest")], digest(number).to_string());
            assert_eq!(cells[place("occurred_at")], text(10 * i64::from(number)));
            numbers.push(number);
        }
        assert_eq!(*header.get_or_insert(names.clone()), names);
        next = link;
    }
    assert_eq!(numbers, [7, 6, 5, 4, 3, 2, 1]);
}

#[tokio::test]
async fn an_unknown_format_is_refused_and_json_remains_the_default() {
    let (api, mut rows) = Api::start().await;
    rows.tag(WEB, &[on_time(1, 1, 10)]).await;
    let list = format!("/v1/history?image={WEB}");
    let json = api.found(&list).await;
    for format in ["json", ""] {
        assert_eq!(api.found(&format!("{list}&format={format}")).await, json);
    }
    for (query, code) in [
        ("format=xml", "400 choice_invalid"),
        ("format=csv&format=csv", "400 parameter_repeated"),
        ("format=csv&formats=csv", "400 parameter_unknown"),
    ] {
        let answer = api.get(&format!("{list}&{query}")).await;
        assert_eq!(answer.problem(), code, "{query}");
    }
    // Another list of the answer has columns of its own.
    let (lost, _) = lines(&api, "/v1/sources?format=csv&list=lost").await;
    assert!(
        lost[0].starts_with("image,revision,digest,found_at"),
        "{lost:?}"
    );
    for (path, code) in [
        ("/v1/sources?format=csv&list=gone", "400 choice_invalid"),
        (
            "/v1/sources?format=csv&list=lost&list=lost",
            "400 parameter_repeated",
        ),
        (
            "/v1/rollouts?format=csv&list=items",
            "400 parameter_unknown",
        ),
    ] {
        assert_eq!(api.get(path).await.problem(), code, "{path}");
    }
    // An answer that is no list has one format.
    let answer = api
        .get(&format!("/v1/resolve?image={WEB}&format=csv"))
        .await;
    assert_eq!(answer.problem(), "400 parameter_unknown");
    // A problem stays JSON.
    let answer = api.get(&format!("{list}&limit=0&format=csv")).await;
    assert_eq!(answer.problem(), "400 limit_invalid");
}

#[tokio::test]
async fn each_page_of_a_list_leads_to_its_csv() {
    let (api, mut rows) = Api::start().await;
    rows.tag(WEB, &[on_time(1, 1, 10), on_time(2, 2, 20)]).await;
    rows.trigger("shop", true).await;
    for path in [
        "/i/registry.example.com".to_owned(),
        "/i/registry.example.com/shop/web".to_owned(),
        format!("/i/{WEB}"),
        format!("/d/{}", digest(2)),
        "/triggers".to_owned(),
        "/rollouts?trigger=shop".to_owned(),
        "/holds".to_owned(),
        "/sources".to_owned(),
    ] {
        let page = api.request("GET", &path).send().await.unwrap();
        let page = page.text().await.unwrap();
        let (before, _) = page.rsplit_once("\">CSV</a>").expect(&path);
        let (_, address) = before.rsplit_once("href=\"").unwrap();
        let (found, _) = lines(&api, &address.replace("&amp;", "&")).await;
        assert!(found[0].contains(','), "{path}: {found:?}");
    }
}
