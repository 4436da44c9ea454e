//! People whom a proxy before the pages has signed in.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::rand::SystemRandom;
use ring::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair as _};
use serde_json::{Value, json};
use time::OffsetDateTime;

use crate::rows::Rows;
use crate::server::{Answer, Api, secret};

const HEADER: &str = "x-identity-assertion";

struct Proxy {
    api: Api,
    key: EcdsaKeyPair,
    _folder: tempfile::TempDir,
}

fn encode(bytes: impl AsRef<[u8]>) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

fn claims(groups: &Value) -> Value {
    json!({
        "iss": "https://id.example.com", "aud": ["tagtrail", "other"], "email": "on-call@example.com",
        "email_verified": true, "groups": groups, "exp": OffsetDateTime::now_utc().unix_timestamp() + 600,
    })
}

impl Proxy {
    async fn start() -> (Proxy, Rows) {
        let random = SystemRandom::new();
        let algorithm = &ECDSA_P256_SHA256_FIXED_SIGNING;
        let pkcs8 = EcdsaKeyPair::generate_pkcs8(algorithm, &random).unwrap();
        let key = EcdsaKeyPair::from_pkcs8(algorithm, pkcs8.as_ref(), &random).unwrap();
        let point = key.public_key().as_ref();
        let keys = json!({ "keys": [{ "kty": "EC", "crv": "P-256", "kid": "one",
            "x": encode(&point[1..33]), "y": encode(&point[33..])}] });

        let db = tagtrail_testkit::postgres().await;
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("keys.json"), keys.to_string()).unwrap();
        std::fs::write(folder.path().join("ops"), secret("ops")).unwrap();
        let path = folder.path().join("tagtrail.toml");
        let text = format!(
            "[[token]]\nname = \"ops\"\nrole = \"operate\"\ntriggers = [\"*\"]\nsecret = {{ file = \"ops\" }}\n\
             [pages.identity]\nheader = \"{HEADER}\"\nissuer = \"https://id.example.com\"\naudience = \"tagtrail\"\n\
             keys = {{ file = \"keys.json\" }}\noperate = [\"platform\"]\n"
        );
        std::fs::write(&path, text).unwrap();
        let api = Api::with(&db, |config| config.config = Some(path)).await;
        api.ctx.health.wait_ready().await;
        let rows = Rows::new(db.connect().await).await;
        let proxy = Proxy {
            api,
            key,
            _folder: folder,
        };
        (proxy, rows)
    }

    fn token(&self, claims: &Value) -> String {
        let header = json!({ "alg": "ES256", "kid": "one" });
        let signed = format!(
            "{}.{}",
            encode(header.to_string()),
            encode(claims.to_string())
        );
        let signature = self
            .key
            .sign(&SystemRandom::new(), signed.as_bytes())
            .unwrap();
        format!("{signed}.{}", encode(signature))
    }

    async fn ask(&self, method: &str, path: &str, assertions: &[String]) -> (u16, String) {
        let client = reqwest::Client::builder().redirect(reqwest::redirect::Policy::none());
        let url = format!("{}{path}", self.api.url());
        let mut request = client
            .build()
            .unwrap()
            .request(method.parse().unwrap(), url);
        for assertion in assertions {
            request = request.header(HEADER, assertion);
        }
        let response = request.send().await.unwrap();
        (response.status().as_u16(), response.text().await.unwrap())
    }
}

const PAGE: &str = "/d/sha256:0000000000000000000000000000000000000000000000000000000000000000";

#[tokio::test]
async fn a_person_whom_the_proxy_names_reads_pages_and_the_feed() {
    let (proxy, mut rows) = Proxy::start().await;
    rows.trigger("shop", true).await;
    let token = proxy.token(&claims(&json!(["others"])));
    let (status, page) = proxy.ask("GET", PAGE, std::slice::from_ref(&token)).await;
    assert_eq!(status, 404, "no such digest: {page}");
    assert!(
        page.contains("on-call@example.com"),
        "the foot names the person"
    );
    assert_eq!(
        proxy
            .ask("GET", "/v1/triggers/shop", std::slice::from_ref(&token))
            .await
            .0,
        200
    );
    // The header opens nothing that acts under /v1: programs prove themselves by a token.
    assert_eq!(
        proxy
            .ask("POST", "/v1/triggers/shop/pause", &[token])
            .await
            .0,
        401
    );
    // Without the header a person signs in by token.
    assert_eq!(proxy.ask("GET", PAGE, &[]).await.0, 303);
}

#[tokio::test]
async fn a_header_that_proves_nothing_opens_nothing() {
    let (proxy, _rows) = Proxy::start().await;
    let right = proxy.token(&claims(&json!([])));
    let changed = |claim: &str, value: Value| {
        let mut claims = claims(&json!([]));
        claims[claim] = value;
        vec![proxy.token(&claims)]
    };
    let (signed, _) = right.rsplit_once('.').unwrap();
    for (assertions, why) in [
        (
            changed("iss", json!("https://evil.example.com")),
            "issued by",
        ),
        (changed("aud", json!("another")), "it is for"),
        (changed("exp", json!(1)), "expired"),
        (changed("email", json!("")), "no claim"),
        (changed("email_verified", json!(false)), "not verified"),
        (
            vec![format!("{signed}.{}", encode([0; 64]))],
            "signature is wrong",
        ),
        (vec![right.clone(), right.clone()], "repeated"),
    ] {
        let (status, page) = proxy.ask("GET", PAGE, &assertions).await;
        assert_eq!(status, 401, "{why}: {page}");
        assert!(page.contains(why), "{why}: {page}");
    }
    // A name alone is no proof: the person must sign in.
    assert_eq!(
        proxy
            .ask("GET", PAGE, &["on-call@example.com".to_owned()])
            .await
            .0,
        303
    );
}

#[tokio::test]
async fn a_token_works_beside_the_proxy() {
    let (proxy, mut rows) = Proxy::start().await;
    rows.trigger("shop", true).await;
    let request = proxy.api.request("POST", "/v1/triggers/shop/pause");
    let answer = Answer::read(request.bearer_auth(secret("ops")).send().await.unwrap()).await;
    assert_eq!(answer.status, 200);
}
