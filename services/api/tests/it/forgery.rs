//! Requests that a foreign web page makes a browser send to an API without tokens.

use crate::server::{Answer, Api};

#[tokio::test]
async fn a_foreign_page_neither_changes_nor_reads_anything() {
    let db = tagtrail_testkit::postgres().await;
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("tagtrail.toml");
    std::fs::write(&path, "[pages]\nhosts = [\"tags.example.com\"]\n").unwrap();
    let api = Api::with(&db, |config| config.config = Some(path)).await;
    api.ctx.health.wait_ready().await;
    let mut rows = crate::rows::Rows::new(db.connect().await).await;
    rows.trigger("shop", true).await;
    let ask = async |method: &str, path: &str, headers: &[(&str, &str)]| {
        let request = headers
            .iter()
            .fold(api.request(method, path), |request, (name, value)| {
                request.header(*name, *value)
            });
        Answer::read(request.send().await.unwrap()).await
    };
    let pause = "/v1/triggers/shop/pause";
    for (method, path, headers, problem) in [
        (
            "POST",
            pause,
            ("origin", "https://evil.example"),
            "403 origin_forbidden",
        ),
        ("POST", pause, ("origin", "null"), "403 origin_forbidden"),
        (
            "POST",
            pause,
            ("sec-fetch-site", "cross-site"),
            "403 origin_forbidden",
        ),
        (
            "POST",
            "/nowhere",
            ("sec-fetch-site", "same-site"),
            "403 origin_forbidden",
        ),
        (
            "POST",
            pause,
            ("host", "rebind.example.net:8401"),
            "421 host_unknown",
        ),
        (
            "GET",
            "/v1/triggers",
            ("host", "rebind.example.net"),
            "421 host_unknown",
        ),
        (
            "GET",
            "/openapi.json",
            ("host", "rebind.example.net"),
            "421 host_unknown",
        ),
    ] {
        let answer = ask(method, path, &[headers]).await;
        assert_eq!(answer.problem(), problem, "{method} {path} {headers:?}");
    }
    assert_eq!(api.found("/v1/triggers/shop").await["state"], "active");
    // A page of the API's own host.
    let own = [
        ("host", "tags.example.com"),
        ("origin", "https://tags.example.com"),
        ("sec-fetch-site", "same-origin"),
    ];
    let answer = ask("POST", pause, &own).await;
    assert_eq!(
        (answer.status, &answer.body["state"]),
        (200, &"paused".into())
    );
    let answer = ask("POST", "/v1/triggers/shop/resume", &own[..2]).await;
    assert_eq!(
        (answer.status, &answer.body["state"]),
        (200, &"active".into())
    );
}
