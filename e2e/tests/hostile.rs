//! Hostile requests to the gateway, with and without the secret: none reaches the store, memory
//! stays bounded, and good pushes still succeed.

#![expect(clippy::unwrap_used, reason = "in tests a panic is the report")]

use std::time::{Duration, Instant};

use sqlx::Connection as _;
use tagtrail_e2e::{Fleet, HOOK_SECRET};
use tagtrail_proto::{Digest, instant};
use tagtrail_testkit::{SOON, eventually};
use time::OffsetDateTime;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::task::JoinSet;

/// Number of good pushes, sent in sequence.
const GOOD: u32 = 150;
/// Largest memory of the gateway, in MiB. An idle debug build needs about 40.
const MEMORY: u64 = 250;

/// The bytes of a request, and the permitted beginnings of the response. An empty string permits a
/// closed connection.
type Attack = (Vec<u8>, &'static [&'static str]);

fn request(headers: &str, body: &[u8]) -> Vec<u8> {
    let mut request = format!(
        "POST /hooks/ci HTTP/1.1\r\nhost: localhost\r\nauthorization: Bearer {HOOK_SECRET}\r\n{headers}content-length: {}\r\n\r\n",
        body.len()
    )
    .into_bytes();
    request.extend(body);
    request
}

fn named(repository: &str, tag: &str) -> Vec<u8> {
    let digest = Digest::sha256_of(b"evil");
    let body =
        serde_json::json!({ "repository": repository, "tag": tag, "digest": digest.to_string() });
    request("", body.to_string().as_bytes())
}

fn attacks() -> Vec<Attack> {
    // Accepted, since registries stop sending after a 4xx, and quarantined.
    const QUARANTINED: &[&str] = &["HTTP/1.1 202"];
    let deep = |depth: usize| request("", "[".repeat(depth).as_bytes());
    let mut flood = String::new();
    for n in 0..2000 {
        flood += &format!("x-flood-{n}: {}\r\n", "a".repeat(200));
    }
    let mut sum = Vec::new();
    sum.extend(named("../../etc", "latest"));
    vec![
        (sum, QUARANTINED),
        (named("evil", "x".repeat(300).as_str()), QUARANTINED),
        (named("evil\r\nset-cookie: a=b", "latest"), QUARANTINED),
        (named("evil\0", "la\u{7}test"), QUARANTINED),
        (named("EVIL/Upper", "latest"), QUARANTINED),
        (deep(200_000), QUARANTINED),
        (request("", b"\xff\xfe{\"repository\":\"evil\"}"), QUARANTINED),
        (request("", b""), QUARANTINED),
        (request("content-encoding: gzip\r\n", b"\x1f\x8b\x08\x00"), &["HTTP/1.1 415"]),
        (request("", &vec![b' '; 9 * 1024 * 1024]), &["HTTP/1.1 413", ""]),
        (request(&flood, b"{}"), &["HTTP/1.1 431", ""]),
        (b"GET / HTTP/9.9\r\n\r\n".to_vec(), &["HTTP/1.1 400", ""]),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03".to_vec(), &["HTTP/1.1 400", ""]),
        (
            b"POST /hooks/ci HTTP/1.1\r\nhost: localhost\r\ncontent-length: 5\r\ncontent-length: 6\r\n\r\nhello".to_vec(),
            &["HTTP/1.1 400", ""],
        ),
        (
            b"POST /hooks/ci HTTP/1.1\r\nhost: localhost\r\nauthorization: Bearer guessed\r\ncontent-length: 2\r\n\r\n{}".to_vec(),
            &["HTTP/1.1 401"],
        ),
    ]
}

/// Sends a request. Returns the beginning of the response, or a note after 15 s of silence.
async fn attack(gateway: &str, request: &[u8]) -> String {
    let mut stream = TcpStream::connect(gateway).await.unwrap();
    let (mut from, mut to) = stream.split();
    let mut answer = vec![0; 64];
    let asking = async {
        // The gateway may refuse the request before all of it is sent.
        let _ = to.write_all(request).await;
        std::future::pending::<()>().await;
    };
    tokio::select! {
        () = asking => {}
        read = from.read(&mut answer) => answer.truncate(read.unwrap_or(0)),
        () = tokio::time::sleep(Duration::from_secs(15)) => answer = b"nothing for 15 s".to_vec(),
    }
    String::from_utf8_lossy(&answer).into_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn hostile_requests_leave_no_trace_and_do_not_slow_good_pushes() {
    let registry = "registry.example.com";
    let fleet = Fleet::start(registry).await;
    let hook = fleet.hook();
    let gateway = hook.split('/').nth(2).unwrap().to_owned();

    // Clients that connect and then send nothing, or only a few bytes.
    let mut idle = Vec::new();
    for n in 0..500 {
        let mut stream = TcpStream::connect(&gateway).await.unwrap();
        if n % 5 == 0 {
            stream.write_all(b"POST /hooks/ci HT").await.unwrap();
        }
        idle.push(stream);
    }
    let mut attackers = JoinSet::new();
    for round in 0..6 {
        for (n, (request, answers)) in attacks().into_iter().enumerate() {
            let gateway = gateway.clone();
            attackers.spawn(async move {
                let answer = attack(&gateway, &request).await;
                let right = answers.iter().any(|begin| {
                    if begin.is_empty() {
                        answer.is_empty()
                    } else {
                        answer.starts_with(begin)
                    }
                });
                assert!(
                    right,
                    "round {round}, attack {n}: got {answer:?}, expected one of {answers:?}"
                );
            });
        }
    }
    let mut slowest = Duration::ZERO;
    for n in 0..GOOD {
        let digest = Digest::sha256_of(&n.to_be_bytes()).to_string();
        let time = instant::format(OffsetDateTime::now_utc()).unwrap();
        let started = Instant::now();
        assert_eq!(fleet.push("shop/web", &digest, &time).await, Some(202));
        slowest = slowest.max(started.elapsed());
    }
    while let Some(done) = attackers.join_next().await {
        done.unwrap();
    }
    // Registries time out: Distribution after one second in its usual configuration.
    assert!(
        slowest < Duration::from_secs(3),
        "a good push took {slowest:?}"
    );

    let mut db = sqlx::PgConnection::connect(fleet.postgres.db().url())
        .await
        .unwrap();
    eventually("all good pushes", SOON, async || {
        let pushes: i64 = sqlx::query_scalar("select count(*) from push")
            .fetch_one(&mut db)
            .await
            .unwrap();
        (pushes >= i64::from(GOOD)).then_some(())
    })
    .await;
    let stored: Vec<(String, i64)> = sqlx::query_as(
        "select r.name, count(*) from push p join tag t on t.id = p.tag_id join repository r on r.id = t.repository_id group by r.name",
    )
    .fetch_all(&mut db)
    .await
    .unwrap();
    assert_eq!(stored, [("shop/web".to_owned(), i64::from(GOOD))]);
    let pid = fleet.processes["gateway"].pid();
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status
        .lines()
        .find(|line| line.starts_with("VmHWM:"))
        .unwrap();
    let most: u64 = line.split_whitespace().nth(1).unwrap().parse().unwrap();
    assert!(
        most / 1024 < MEMORY,
        "the gateway needed {} MiB",
        most / 1024
    );
    drop(idle);
}
