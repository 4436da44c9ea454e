//! Pages in general: signing in, headers, problems, and paths that are no page.

use reqwest::header::{ACCEPT, CONTENT_TYPE, COOKIE, SET_COOKIE};
use reqwest::{RequestBuilder, Response};

use crate::server::{Answer, Api, secret};

const NOBODY: &str = "/d/sha256:0000000000000000000000000000000000000000000000000000000000000000";
const TOKENS: [(&str, &str, &str); 3] = [
    ("ui", "read", ""),
    ("ops", "operate", "triggers = [\"*\"]\n"),
    ("agent", "report", ""),
];

/// Sends a request, and follows no redirect.
async fn once(
    api: &Api,
    method: &str,
    path: &str,
    change: impl FnOnce(RequestBuilder) -> RequestBuilder,
) -> Response {
    let client = reqwest::Client::builder().redirect(reqwest::redirect::Policy::none());
    let url = format!("{}{path}", api.url());
    let request = client
        .build()
        .unwrap()
        .request(method.parse().unwrap(), url);
    change(request).send().await.unwrap()
}

fn header<'a>(response: &'a Response, name: &str) -> &'a str {
    response
        .headers()
        .get(name)
        .map_or("", |value| value.to_str().unwrap())
}

/// Signs in with the token of this name, and returns the cookie.
async fn sign_in(api: &Api, token: &str, next: &str) -> (Response, String) {
    let form = format!("token={}&next={next}", secret(token));
    let kind = "application/x-www-form-urlencoded";
    let response = once(api, "POST", "/login", |request| {
        request.header(CONTENT_TYPE, kind).body(form)
    })
    .await;
    let set = header(&response, SET_COOKIE.as_str()).to_owned();
    let cookie = set.split(';').next().unwrap_or_default().to_owned();
    (response, cookie)
}

#[tokio::test]
async fn a_token_is_exchanged_for_a_cookie_that_reads_and_does_nothing_else() {
    let (api, mut rows, _folder) = Api::with_tokens(&TOKENS).await;
    rows.trigger("shop", true).await;

    let response = once(&api, "GET", &format!("{NOBODY}?cursor=x"), |it| it).await;
    assert_eq!(response.status(), 303);
    assert_eq!(
        header(&response, "location"),
        format!(
            "/login?next={}%3Fcursor%3Dx",
            NOBODY.replace('/', "%2F").replace(':', "%3A")
        )
    );

    let (response, _) = sign_in(&api, "nobody", "/").await;
    assert_eq!(response.status(), 401);
    assert_eq!(header(&response, "set-cookie"), "");
    assert!(
        response
            .text()
            .await
            .unwrap()
            .contains("opens nothing here")
    );

    let (response, cookie) = sign_in(&api, "ops", "/d/x?a=b").await;
    assert_eq!(
        (response.status().as_u16(), header(&response, "location")),
        (303, "/d/x?a=b")
    );
    let set = header(&response, "set-cookie");
    assert!(
        set.contains("HttpOnly; SameSite=Lax") && set.contains("Max-Age=43200"),
        "{set}"
    );
    assert!(!set.contains(&secret("ops")), "the cookie holds the secret");

    let with = |method: &'static str, path: &'static str, cookie: &str| {
        let cookie = cookie.to_owned();
        once(&api, method, path, move |request| {
            request.header(COOKIE, cookie)
        })
    };
    // The page, which knows no such digest, and the reading part of the API.
    let page = with("GET", NOBODY, &cookie).await;
    assert_eq!(page.status(), 404);
    assert!(
        page.text().await.unwrap().contains(" · ops"),
        "the foot names the reader"
    );
    assert_eq!(
        with("GET", "/v1/triggers/shop", &cookie).await.status(),
        200
    );
    // Nothing but reading, whatever the role of the token.
    let refused = Answer::read(with("POST", "/v1/triggers/shop/pause", &cookie).await).await;
    assert_eq!(refused.problem(), "401 unauthenticated");

    let mut changed = cookie.clone().into_bytes();
    let last = changed.len() - 2;
    changed[last] ^= 1;
    let changed = String::from_utf8(changed).unwrap();
    assert_eq!(with("GET", NOBODY, &changed).await.status(), 303);
    assert_eq!(
        with("GET", "/v1/triggers/shop", &changed).await.status(),
        401
    );
    // A token that is shown is judged, whatever the cookie says.
    let wrong = once(&api, "GET", "/v1/triggers/shop", |request| {
        request.header(COOKIE, &cookie).bearer_auth("wrong")
    })
    .await;
    assert_eq!(wrong.status(), 401);

    let out = with("POST", "/logout", &cookie).await;
    assert!(header(&out, "set-cookie").contains("Max-Age=0"));
}

#[tokio::test]
async fn a_token_that_may_not_read_signs_nobody_in() {
    let (api, _rows, _folder) = Api::with_tokens(&TOKENS).await;
    let (response, cookie) = sign_in(&api, "agent", "/").await;
    assert_eq!((response.status().as_u16(), cookie.as_str()), (403, ""));
}

#[tokio::test]
async fn wrong_tokens_are_counted_by_address() {
    let (api, _rows, _folder) = Api::with_tokens(&TOKENS).await;
    let mut statuses = Vec::new();
    for _ in 0..40 {
        statuses.push(sign_in(&api, "nobody", "/").await.0.status().as_u16());
        if statuses.last() == Some(&429) {
            return;
        }
    }
    panic!("{statuses:?}");
}

#[tokio::test]
async fn a_page_of_another_origin_signs_nobody_in_and_acts_on_nothing() {
    let (api, _rows, _folder) = Api::with_tokens(&TOKENS).await;
    for path in ["/login", "/logout"] {
        for (name, value) in [
            ("sec-fetch-site", "cross-site"),
            ("origin", "https://evil.example"),
        ] {
            let response = once(&api, "POST", path, |request| request.header(name, value)).await;
            assert_eq!(response.status(), 403, "{path} {name}");
        }
    }
}

#[tokio::test]
async fn pages_allow_nothing_from_elsewhere_and_hold_no_code() {
    let (api, _rows) = Api::start().await;
    for path in ["/login", NOBODY] {
        let response = once(&api, "GET", path, |it| it).await;
        let policy = header(&response, "content-security-policy");
        assert!(
            policy.starts_with("default-src 'none'") && policy.contains("trusted-types 'none'"),
            "{policy}"
        );
        assert_eq!(header(&response, "x-content-type-options"), "nosniff");
        assert_eq!(header(&response, "cache-control"), "private, no-cache");
        assert_eq!(
            header(&response, "content-type"),
            "text/html; charset=utf-8"
        );
        let page = response.text().await.unwrap();
        for code in [
            " style=",
            " onclick=",
            " onload=",
            "<script>",
            "javascript:",
        ] {
            assert!(!page.contains(code), "{path}: {code}");
        }
    }
}

#[tokio::test]
async fn the_assets_are_kept_for_good_under_the_hash_of_their_content() {
    let (api, _rows) = Api::start().await;
    let page = once(&api, "GET", "/login", |it| it)
        .await
        .text()
        .await
        .unwrap();
    for (before, kind) in [("href=\"", "text/css"), ("src=\"", "text/javascript")] {
        let address = page
            .split(before)
            .find(|rest| rest.starts_with("/assets/"))
            .unwrap();
        let address = address.split('"').next().unwrap();
        let plain = once(&api, "GET", address, |it| it).await;
        assert!(header(&plain, "content-type").starts_with(kind));
        assert_eq!(
            header(&plain, "cache-control"),
            "public, max-age=31536000, immutable"
        );
        let packed = once(&api, "GET", address, |request| {
            request.header("accept-encoding", "gzip")
        })
        .await;
        assert_eq!(header(&packed, "content-encoding"), "gzip");
        let (plain, packed) = (plain.bytes().await.unwrap(), packed.bytes().await.unwrap());
        assert!(
            packed.len() * 2 < plain.len(),
            "{} {}",
            packed.len(),
            plain.len()
        );
    }
}

#[tokio::test]
async fn an_image_pasted_after_the_slash_is_found_and_programs_get_json() {
    let (api, _rows) = Api::start().await;
    for (path, location) in [
        (
            "/registry.example.com/shop/web:latest",
            "/i/registry.example.com/shop/web:latest",
        ),
        ("/localhost:5000/web", "/i/localhost:5000/web"),
        ("/sha256:00", "/d/sha256:00"),
    ] {
        let response = once(&api, "GET", path, |it| it).await;
        assert_eq!(
            (response.status().as_u16(), header(&response, "location")),
            (303, location)
        );
    }
    let browser = once(&api, "GET", "/nowhere", |request| {
        request.header(ACCEPT, "text/html,*/*;q=0.8")
    })
    .await;
    assert_eq!(
        (browser.status().as_u16(), header(&browser, "content-type")),
        (404, "text/html; charset=utf-8")
    );
    assert_eq!(api.get("/nowhere").await.problem(), "404 not_found");
    assert_eq!(api.get("/v1/nowhere").await.problem(), "404 not_found");
    assert_eq!(
        api.send("DELETE", "/login").await.problem(),
        "405 method_not_allowed"
    );
}
