use base64::Engine as _;
use ring::rand::SystemRandom;
use ring::signature::{RSA_PKCS1_SHA256, RSA_PKCS1_SHA512, RsaEncoding, RsaKeyPair};
use serde_json::{Value, json};

use super::*;

const KEY: &[u8] = include_bytes!("../../../tests/fixtures/id-token-test-key.pk8");

fn encode(bytes: impl AsRef<[u8]>) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

/// Returns the key set of the test key, under this key id.
fn keys(name: &str) -> Value {
    let key = RsaKeyPair::from_pkcs8(KEY).unwrap();
    let key = RsaPublicKeyComponents::<Vec<u8>>::from(key.public());
    json!({"keys": [
        {"kty": "EC", "kid": "elliptic", "crv": "P-256"},
        {
            "kty": "RSA", "kid": name, "alg": "RS256", "use": "sig",
            "n": encode(key.n),
            "e": encode(key.e),
        }
    ]})
}

fn claims() -> Value {
    json!({
        "iss": "https://accounts.google.com",
        "aud": "https://tagtrail.example.com/hooks/gar",
        "email": "push@acme.iam.gserviceaccount.com",
        "email_verified": true,
        "exp": OffsetDateTime::now_utc().unix_timestamp() + 3600,
        "sub": "1", "azp": "1",
    })
}

fn token_by(encoding: &'static dyn RsaEncoding, header: &Value, claims: &Value) -> String {
    let signed = format!(
        "{}.{}",
        encode(header.to_string()),
        encode(claims.to_string())
    );
    let key = RsaKeyPair::from_pkcs8(KEY).unwrap();
    let mut signature = vec![0; key.public().modulus_len()];
    key.sign(
        encoding,
        &SystemRandom::new(),
        signed.as_bytes(),
        &mut signature,
    )
    .unwrap();
    format!("{signed}.{}", encode(signature))
}

fn token(claims: &Value) -> String {
    token_by(
        &RSA_PKCS1_SHA256,
        &json!({"alg": "RS256", "kid": "one", "typ": "JWT"}),
        claims,
    )
}

struct World {
    tokens: IdTokens,
    keys: tempfile::NamedTempFile,
}

fn world() -> World {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), keys("one").to_string()).unwrap();
    let tokens = IdTokens::new(TokenRules {
        issuer: "https://accounts.google.com".to_owned(),
        audience: "https://tagtrail.example.com/hooks/gar".to_owned(),
        email: "push@acme.iam.gserviceaccount.com".to_owned(),
        keys: Keys::File(file.path().to_owned()),
    })
    .unwrap();
    World { tokens, keys: file }
}

impl World {
    async fn admit(&self, value: &str) -> Result<(), String> {
        let mut headers = HeaderMap::new();
        headers.insert(AUTHORIZATION, value.parse().unwrap());
        self.tokens.admit(&headers).await
    }
}

#[tokio::test]
async fn a_valid_token_is_accepted() {
    let world = world();
    let bearer = format!("Bearer {}", token(&claims()));
    assert_eq!(world.admit(&bearer).await, Ok(()));
    let mut bare = claims();
    bare["iss"] = "accounts.google.com".into();
    assert_eq!(
        world.admit(&format!("bearer {}", token(&bare))).await,
        Ok(())
    );
}

#[tokio::test]
async fn a_token_with_a_wrong_claim_is_refused() {
    let world = world();
    let now = OffsetDateTime::now_utc().unix_timestamp();
    for (claim, value, reason) in [
        ("iss", json!("https://evil.example.com"), "issued by"),
        ("aud", json!("https://other.example.com"), "is for"),
        (
            "aud",
            json!(["https://tagtrail.example.com/hooks/gar"]),
            "can't be read",
        ),
        ("email", json!("push@evil.iam.gserviceaccount.com"), "is of"),
        ("email_verified", json!(false), "is of"),
        ("email_verified", json!("true"), "can't be read"),
        ("exp", json!(now - 120), "has expired"),
        ("exp", json!("never"), "can't be read"),
        ("nbf", json!(now + 120), "not valid yet"),
        ("exp", Value::Null, "can't be read"),
    ] {
        let mut claims = claims();
        claims[claim] = value;
        let refusal = world.admit(&format!("Bearer {}", token(&claims))).await;
        assert!(
            refusal.clone().unwrap_err().contains(reason),
            "{claim}: {refusal:?}"
        );
    }
}

#[tokio::test]
async fn a_token_with_a_wrong_signature_is_refused() {
    let world = world();
    let right = token(&claims());
    let (signed, signature) = right.rsplit_once('.').unwrap();
    let mut other = claims();
    other["email"] = "somebody@else".into();
    let another = token(&other);
    let by = |encoding, header| token_by(encoding, &header, &claims());
    for (wrong, reason) in [
        (format!("{signed}."), "signature is wrong"),
        (signed.to_owned(), "not a token"),
        (
            format!("{}.{signature}", another.rsplit_once('.').unwrap().0),
            "signature is wrong",
        ),
        (
            by(&RSA_PKCS1_SHA512, json!({"alg": "RS256", "kid": "one"})),
            "signature is wrong",
        ),
        (
            by(&RSA_PKCS1_SHA512, json!({"alg": "RS512", "kid": "one"})),
            "not RS256",
        ),
        (
            by(&RSA_PKCS1_SHA256, json!({"alg": "none", "kid": "one"})),
            "not RS256",
        ),
        (
            by(&RSA_PKCS1_SHA256, json!({"alg": "HS256", "kid": "one"})),
            "not RS256",
        ),
        (
            by(
                &RSA_PKCS1_SHA256,
                json!({"alg": "RS256", "kid": "elliptic"}),
            ),
            "not among",
        ),
        (
            by(&RSA_PKCS1_SHA256, json!({"alg": "RS256"})),
            "can't be read",
        ),
        ("x".repeat(MAX_TOKEN + 1), "no Bearer token"),
        ("a.b.c".to_owned(), "can't be read"),
        (String::new(), "not a token"),
    ] {
        let refusal = world.admit(&format!("Bearer {wrong}")).await;
        assert!(
            refusal.clone().unwrap_err().contains(reason),
            "{wrong}: {refusal:?}"
        );
    }
    assert!(world.admit(&format!("Basic {right}")).await.is_err());
    assert!(world.tokens.admit(&HeaderMap::new()).await.is_err());
}

#[tokio::test(start_paused = true)]
async fn an_unknown_key_causes_a_fetch_at_most_once_a_minute() {
    let world = world();
    let renamed = |name| {
        let header = json!({"alg": "RS256", "kid": name});
        format!("Bearer {}", token_by(&RSA_PKCS1_SHA256, &header, &claims()))
    };
    assert_eq!(world.admit(&renamed("one")).await, Ok(()));
    std::fs::write(world.keys.path(), keys("two").to_string()).unwrap();
    assert!(world.admit(&renamed("two")).await.is_err());
    tokio::time::advance(FETCH_INTERVAL).await;
    assert_eq!(world.admit(&renamed("two")).await, Ok(()));
    assert!(world.admit(&renamed("one")).await.is_err());
}
