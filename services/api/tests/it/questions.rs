//! Invalid requests: each is refused with its own code.

use crate::server::Api;

#[tokio::test]
async fn an_invalid_request_is_refused_with_its_code() {
    let (api, _rows) = Api::start().await;
    let image = "image=registry.example.com/shop/web";
    let long = "x".repeat(5000);
    for (path, expected) in [
        ("/v1/resolve".to_owned(), "400 image_invalid"),
        ("/v1/resolve?image=".to_owned(), "400 image_invalid"),
        ("/v1/resolve?image=web".to_owned(), "400 image_invalid"),
        (
            "/v1/resolve?image=registry.example.com/shop/web@sha256:00".to_owned(),
            "400 image_invalid",
        ),
        (
            format!("/v1/resolve?image=registry.example.com/{long}"),
            "400 image_invalid",
        ),
        (
            "/v1/resolve?image=registry.example.com/a%00b".to_owned(),
            "400 image_invalid",
        ),
        (
            format!("/v1/resolve?{image}&at=yesterday"),
            "400 time_invalid",
        ),
        (
            format!("/v1/resolve?{image}&known_at=2026-13-01T00:00:00Z"),
            "400 time_invalid",
        ),
        (
            format!("/v1/resolve?{image}&known-at=2026-01-01T00:00:00Z"),
            "400 parameter_unknown",
        ),
        (
            format!("/v1/resolve?{image}&{long}=1"),
            "400 parameter_unknown",
        ),
        (
            format!("/v1/resolve?{image}&{image}"),
            "400 parameter_repeated",
        ),
        (format!("/v1/history?{image}&limit=0"), "400 limit_invalid"),
        (
            format!("/v1/history?{image}&limit=1001"),
            "400 limit_invalid",
        ),
        (format!("/v1/history?{image}&limit=-1"), "400 limit_invalid"),
        (format!("/v1/history?{image}&cursor="), "400 cursor_invalid"),
        (
            format!("/v1/history?{image}&cursor={long}"),
            "400 cursor_invalid",
        ),
        ("/v1/rollouts?limit=ten".to_owned(), "400 limit_invalid"),
        ("/v1/rollouts?state=Failed".to_owned(), "400 state_invalid"),
        ("/v1/rollouts?image=shop".to_owned(), "400 image_invalid"),
        ("/v1/rollouts?since=today".to_owned(), "400 time_invalid"),
        (
            "/v1/rollouts?since=2026-03-03T15:00:00Z&until=2026-03-03T14:00:00Z".to_owned(),
            "400 parameter_conflict",
        ),
        (
            "/v1/rollouts?cursor=MSByb2xsb3V0cyAxIDE".to_owned(),
            "400 cursor_invalid",
        ),
        ("/v1/triggers?limit=1".to_owned(), "400 parameter_unknown"),
        ("/v".to_owned(), "404 not_found"),
        ("/v1".to_owned(), "404 not_found"),
        ("/v1/resolve/".to_owned(), "404 not_found"),
        ("/v2/resolve".to_owned(), "404 not_found"),
    ] {
        let answer = api.get(&path).await;
        assert_eq!(answer.problem(), expected, "{path}");
        assert!(
            answer.body.to_string().len() < 1000,
            "{path}: the answer repeats the request"
        );
    }
}

#[tokio::test]
async fn a_cursor_with_a_time_out_of_range_is_refused() {
    let (api, mut rows) = Api::start().await;
    rows.tag(
        "registry.example.com/shop/web:latest",
        &[crate::rows::on_time(1, 1, 10)],
    )
    .await;
    // 1 history 9223372036854775807 1
    let path = "/v1/history?image=registry.example.com/shop/web&cursor=MSBoaXN0b3J5IDkyMjMzNzIwMzY4NTQ3NzU4MDcgMQ";
    assert_eq!(api.get(path).await.problem(), "400 cursor_invalid");
}

#[tokio::test]
async fn a_wrong_method_is_refused_with_the_allowed_methods() {
    let (api, _rows) = Api::start().await;
    for (method, path, allowed) in [
        ("POST", "/v1/resolve?image=a.b/c", "GET,HEAD"),
        ("PATCH", "/v1/triggers/shop", "GET,HEAD,PUT,DELETE"),
        ("POST", "/v1/triggers/shop", "GET,HEAD,PUT,DELETE"),
        // The test of settings, and a trigger that may have this name.
        ("PATCH", "/v1/triggers/test", "GET,HEAD,PUT,DELETE,POST"),
        ("GET", "/v1/triggers/shop/pause", "POST"),
    ] {
        let answer = api.send(method, path).await;
        assert_eq!(answer.problem(), "405 method_not_allowed");
        assert_eq!(answer.header("allow"), allowed, "{method} {path}");
    }
}
