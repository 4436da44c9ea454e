use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::rand::SystemRandom;
use ring::signature::{
    RSA_PKCS1_SHA256, RSA_PKCS1_SHA512, RsaEncoding, RsaKeyPair, RsaPublicKeyComponents,
};
use serde_json::{Value, json};

use std::net::SocketAddr;
use std::time::Duration;

use time::OffsetDateTime;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

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
    _task: JoinSet<()>,
}

/// Returns tokens with these keys, and the task that fetches the keys.
fn start(keys: Keys) -> (IdTokens, JoinSet<()>) {
    let tokens = IdTokens::new(TokenRules {
        of_issuer: Rules {
            issuer: "https://accounts.google.com".to_owned(),
            audience: "https://tagtrail.example.com/hooks/gar".to_owned(),
            keys,
        },
        email: "push@acme.iam.gserviceaccount.com".to_owned(),
    })
    .unwrap();
    let (keeper, mut task) = (Arc::clone(tokens.keys()), JoinSet::new());
    task.spawn(async move { keeper.keep(&CancellationToken::new()).await });
    (tokens, task)
}

/// Checks the token, and returns the reason of a refusal.
async fn admit(tokens: &IdTokens, value: &str) -> Result<(), String> {
    let mut headers = HeaderMap::new();
    headers.insert(AUTHORIZATION, value.parse().unwrap());
    tokens.admit(&headers).await.map_err(|error| match error {
        Error::TokenRefused(why) => why,
        other => other.status().1.to_owned(),
    })
}

fn world() -> World {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), keys("one").to_string()).unwrap();
    let (tokens, _task) = start(Keys::File(file.path().to_owned()));
    World {
        tokens,
        keys: file,
        _task,
    }
}

impl World {
    async fn admit(&self, value: &str) -> Result<(), String> {
        admit(&self.tokens, value).await
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
        ("aud", json!(["https://other.example.com"]), "is for"),
        ("aud", json!(1), "can't be read"),
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
            "neither RS256 nor ES256",
        ),
        (
            by(&RSA_PKCS1_SHA256, json!({"alg": "none", "kid": "one"})),
            "neither RS256 nor ES256",
        ),
        (
            by(&RSA_PKCS1_SHA256, json!({"alg": "HS256", "kid": "one"})),
            "neither RS256 nor ES256",
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
        ("x".repeat((8 << 10) + 1), "longer than 8 KiB"),
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
    tokio::time::advance(Duration::from_secs(60)).await;
    assert_eq!(world.admit(&renamed("two")).await, Ok(()));
    assert!(world.admit(&renamed("one")).await.is_err());
}

/// An identity provider whose keys take some time.
struct Provider {
    address: SocketAddr,
    listener: TcpListener,
}

impl Provider {
    async fn new() -> Provider {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        Provider { address, listener }
    }

    /// Answers one request, after 0.4 s.
    async fn answer(&self, status: &str) {
        let (mut stream, _) = self.listener.accept().await.unwrap();
        let _ = stream.read(&mut [0; 4096]).await.unwrap();
        tokio::time::sleep(Duration::from_millis(400)).await;
        let keys = keys("one").to_string();
        let head = format!(
            "HTTP/1.1 {status}\r\nconnection: close\r\ncontent-length: {}\r\n\r\n",
            keys.len()
        );
        stream.write_all((head + &keys).as_bytes()).await.unwrap();
    }

    fn keys(&self) -> Keys {
        Keys::Url(format!("http://{}/keys", self.address))
    }
}

#[tokio::test]
async fn a_sender_that_hangs_up_cancels_no_fetch() {
    let provider = Provider::new().await;
    let (tokens, _task) = start(provider.keys());
    let header = json!({"alg": "RS256", "kid": "unknown"});
    let unknown = format!("Bearer {}", token_by(&RSA_PKCS1_SHA256, &header, &claims()));
    let genuine = format!("Bearer {}", token(&claims()));
    let senders = async {
        for value in [&unknown, &genuine] {
            let hangs_up = Duration::from_millis(100);
            let admitted = tokio::time::timeout(hangs_up, admit(&tokens, value)).await;
            assert!(admitted.is_err(), "the keys are not there yet");
        }
        admit(&tokens, &genuine).await
    };
    // The provider is asked once.
    let (admitted, ()) = tokio::join!(senders, provider.answer("200 OK"));
    assert_eq!(admitted, Ok(()));
    let refused = admit(&tokens, &unknown).await.unwrap_err();
    assert!(refused.contains("not among the keys"), "{refused}");
}

#[tokio::test]
async fn keys_that_cannot_be_had_are_fetched_again_after_5_s() {
    let provider = Provider::new().await;
    let (tokens, _task) = start(provider.keys());
    let genuine = format!("Bearer {}", token(&claims()));
    let failed = provider.answer("500 Internal Server Error");
    let (admitted, ()) = tokio::join!(admit(&tokens, &genuine), failed);
    assert_eq!(admitted, Err("keys_unavailable".to_owned()));
    let started = tokio::time::Instant::now();
    let again = async {
        loop {
            match admit(&tokens, &genuine).await {
                Err(code) if code == "keys_unavailable" => {}
                admitted => return admitted,
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    };
    let (admitted, ()) = tokio::join!(again, provider.answer("200 OK"));
    assert_eq!(admitted, Ok(()));
    assert!(started.elapsed() > Duration::from_secs(4));
}
