//! An issuer of tokens for the `docker-registry` of Debian, by the specification of token
//! authentication (`docs/content/spec/auth/jwt.md` of distribution/distribution). For tests only:
//! its private key is in the repository.

use axum::extract::{RawQuery, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse as _, Response};
use axum::{Json, Router};
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use ring::rand::SystemRandom;
use ring::signature::{RSA_PKCS1_SHA256, RsaKeyPair};
use serde_json::{Value, json};
use time::OffsetDateTime;
use tokio::net::TcpListener;
use tokio::task::JoinSet;

use crate::Registry;

const KEY: &[u8] = include_bytes!("token/issuer.pk8");
/// The certificate that the registry trusts.
pub(crate) const CERTIFICATE: &str = include_str!("token/issuer.crt");
pub(crate) const SERVICE: &str = "tests";
pub(crate) const ISSUER: &str = "tagtrail tests";

/// A running issuer.
#[derive(Debug)]
pub(crate) struct TokenServer {
    pub(crate) realm: String,
    _task: JoinSet<()>,
}

impl TokenServer {
    pub(crate) async fn start() -> TokenServer {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let realm = format!("http://{}/token", listener.local_addr().unwrap());
        let basic = format!("{}:{}", Registry::USER, Registry::PASSWORD);
        let basic = format!("Basic {}", STANDARD.encode(basic));
        let router = Router::new().fallback(issue).with_state(basic);
        let mut task = JoinSet::new();
        task.spawn(async move { axum::serve(listener, router).await.unwrap() });
        TokenServer { realm, _task: task }
    }
}

/// Grants all requested scopes to a request with the password.
async fn issue(
    State(basic): State<String>,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
) -> Response {
    let shown = headers.get("authorization");
    if shown.and_then(|value| value.to_str().ok()) != Some(basic.as_str()) {
        return StatusCode::UNAUTHORIZED.into_response();
    }
    let query = query
        .unwrap_or_default()
        .replace("%3A", ":")
        .replace("%2F", "/")
        .replace("%2C", ",");
    let scopes = query
        .split('&')
        .filter_map(|pair| pair.strip_prefix("scope="));
    let access: Vec<Value> = scopes
        .filter_map(|scope| {
            let (kind, rest) = scope.split_once(':')?;
            let (name, actions) = rest.rsplit_once(':')?;
            let actions: Vec<&str> = actions.split(',').collect();
            Some(json!({ "type": kind, "name": name, "actions": actions }))
        })
        .collect();
    Json(json!({ "token": token(&access), "expires_in": 60 })).into_response()
}

fn token(access: &[Value]) -> String {
    let now = OffsetDateTime::now_utc().unix_timestamp();
    let certificate: String = CERTIFICATE
        .lines()
        .filter(|line| !line.starts_with('-'))
        .collect();
    let header = json!({ "typ": "JWT", "alg": "RS256", "x5c": [certificate] });
    let claims = json!({
        "iss": ISSUER, "sub": Registry::USER, "aud": SERVICE, "exp": now + 60, "nbf": now - 10, "iat": now,
        "jti": now.to_string(), "access": access,
    });
    let encode = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
    let signed = format!("{}.{}", encode(&header), encode(&claims));
    let key = RsaKeyPair::from_pkcs8(KEY).unwrap();
    let mut signature = vec![0; key.public().modulus_len()];
    key.sign(
        &RSA_PKCS1_SHA256,
        &SystemRandom::new(),
        signed.as_bytes(),
        &mut signature,
    )
    .unwrap();
    format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature))
}
