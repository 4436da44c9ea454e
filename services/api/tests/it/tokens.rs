//! Tokens and roles.

use crate::server::{Answer, Api};

#[tokio::test]
async fn a_token_has_its_role_and_without_a_token_nothing_is_served() {
    let db = tagtrail_testkit::postgres().await;
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str, text: &str| {
        let path = folder.path().join(name);
        std::fs::write(&path, text).unwrap();
        path
    };
    let (reader, operator, next) = (
        "reader-0123456789abcdef",
        "operator-0123456789abcdef",
        "operator-next-0123456789",
    );
    let secret = |name: &str, text: &str| format!("{{ file = {:?} }}", file(name, text));
    let config = format!(
        "[[token]]\nname = \"ui\"\nrole = \"read\"\nsecret = {}\n\n[[token]]\nname = \"ops\"\nrole = \"operate\"\nsecret = [{}, {}]\n",
        secret("a", reader),
        secret("b", operator),
        secret("c", next)
    );
    let path = file("tagtrail.toml", &config);
    let api = Api::with(&db, |config| config.config = Some(path)).await;
    api.ctx.health.wait_ready().await;
    let mut rows = crate::rows::Rows::new(db.connect().await).await;
    rows.trigger("shop", true).await;

    let ask = async |method: &str, path: &str, token: Option<&str>| {
        let request = api.request(method, path);
        let request = match token {
            Some(token) => request.bearer_auth(token),
            None => request,
        };
        Answer::read(request.send().await.unwrap()).await
    };
    for token in [None, Some("wrong"), Some("")] {
        for (method, path) in [
            ("GET", "/v1/triggers"),
            ("GET", "/v1/resolve?nonsense"),
            ("GET", "/v1/revisions"),
            ("GET", "/v1/events"),
            ("POST", "/v1/triggers/shop/pause"),
        ] {
            let answer = ask(method, path, token).await;
            assert_eq!(answer.problem(), "401 unauthenticated", "{method} {path}");
            assert_eq!(
                answer.header("www-authenticate"),
                "Bearer realm=\"tagtrail\""
            );
        }
    }
    assert_eq!(
        ask("GET", "/v1/triggers/shop", Some(reader)).await.status,
        200
    );
    let answer = ask("POST", "/v1/triggers/shop/pause", Some(reader)).await;
    assert_eq!(answer.problem(), "403 forbidden");
    for token in [operator, next] {
        assert_eq!(
            ask("GET", "/v1/triggers/shop", Some(token)).await.body["state"],
            "active"
        );
        assert_eq!(
            ask("POST", "/v1/triggers/shop/pause", Some(token))
                .await
                .body["state"],
            "paused"
        );
        assert_eq!(
            ask("POST", "/v1/triggers/shop/resume", Some(token))
                .await
                .body["state"],
            "active"
        );
    }
    // A browser's EventSource can only send an address.
    let feed = |token| format!("/v1/revisions?access_token={token}");
    let answer = api.request("GET", &feed(reader)).send().await.unwrap();
    assert_eq!(answer.status(), 200);
    assert_eq!(answer.headers()["access-control-allow-origin"], "*");
    assert_eq!(answer.headers()["content-type"], "text/event-stream");
    let answer = ask("GET", &feed(operator), None).await;
    assert_eq!(answer.problem(), "403 forbidden");
    // The document holds no secret.
    assert_eq!(ask("GET", "/openapi.json", None).await.status, 200);
}

#[tokio::test]
async fn a_public_address_is_not_served_without_tokens() {
    let listener = tokio::net::TcpListener::bind("0.0.0.0:0").await.unwrap();
    let error = Api::refused(listener).await;
    assert!(
        error.contains("[[token]]") && error.contains("127.0.0.1"),
        "{error}"
    );
}
