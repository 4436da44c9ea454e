//! Requests per second of the gateway and of the api, compared with plain handlers.

use std::path::{Path, PathBuf};

use anyhow::Context as _;
use bytes::Bytes;
use http_body_util::Full;
use hyper::Request;
use tagtrail_proto::{Digest, instant};
use tagtrail_testkit::free_address;
use time::OffsetDateTime;

use crate::http::{Clients, Plain, load};
use crate::load::Store;
use crate::pulls::{PER_SECOND, Pulls};
use crate::report::{Goal, Row, Series};
use crate::stack::{self, REGISTRY, ServiceProcess, Stack};

/// The secret of the source.
pub(crate) const SECRET: &str = "hook-secret-of-the-bench";

/// Measures webhooks: each reports a push, and is answered 202 after the push is stored.
pub(crate) async fn gateway(
    stack: &Stack,
    folder: &Path,
    name: &str,
    rounds: usize,
    seconds: u64,
) -> anyhow::Result<Vec<Row>> {
    let (gateway, address) = start_gateway(stack, folder, &[]).await?;
    let plain = Plain::start(&stack.database)?;
    let during = Clients::during(seconds);
    let [mut rate, mut beside, mut p99, mut ceiling] = [(); 4].map(|()| Series::default());
    for round in 0..rounds {
        eprintln!("webhooks, {name}: round {} of {rounds}", round + 1);
        let parsed = load(
            &plain.address,
            during,
            202,
            hook(&plain.address, "/parse", round),
        )
        .await?;
        let stored = load(&address, during, 202, hook(&address, "/hooks/ci", round)).await?;
        let pulls = Pulls::start(&address);
        let stored_beside = load(
            &address,
            during,
            202,
            hook(&address, "/hooks/ci", rounds + round),
        )
        .await?;
        pulls.stop().await?;
        ceiling.push(parsed.rate);
        rate.push(stored.rate);
        beside.push(stored_beside.rate);
        p99.push(stored.p99);
    }
    gateway.stop().await;
    Ok(vec![
        Row::against(
            format!("webhook to 202, 32 connections, {name}"),
            "req/s",
            rate.clone(),
            ceiling,
            stack.goal(Goal::AtLeast(0.3)),
        ),
        Row::against(
            format!("the same beside {PER_SECOND} pulls a second, {name}"),
            "req/s",
            beside,
            rate,
            Goal::None,
        ),
        Row::alone(
            format!("webhook to 202, p99, {name}"),
            "ms",
            p99.warmed(),
            Goal::None,
        ),
    ])
}

/// Starts a gateway with a webhook source, and waits until it is ready. `settings` are additions to
/// its environment. Returns the gateway and the address of the webhooks.
pub(crate) async fn start_gateway(
    stack: &Stack,
    folder: &Path,
    settings: &[(&str, &str)],
) -> anyhow::Result<(ServiceProcess, String)> {
    let config = configuration(folder)?;
    let address = free_address();
    let environment = [
        ("TAGTRAIL_CONFIG", config.to_str().context("no path")?),
        ("TAGTRAIL_GATEWAY_LISTEN", &address),
        ("BENCH_SECRET", SECRET),
    ];
    let gateway = stack.service("gateway", &[&environment, settings].concat());
    gateway.ready().await?;
    Ok((gateway, address))
}

/// Returns the goal of webhooks whose pushes are synced, as a ratio to single pushes to one stream.
pub(crate) fn goal_of_synced(connections: usize) -> Goal {
    Goal::AtLeast(if connections == 32 { 3.0 } else { 5.0 })
}

/// Writes a `tagtrail.toml` with a webhook source into a folder. Returns the path.
pub(crate) fn configuration(folder: &Path) -> anyhow::Result<PathBuf> {
    let path = folder.join("gateway.toml");
    let source = format!(
        "[[source]]\nname = \"ci\"\nkind = \"generic\"\nregistry = \"{REGISTRY}\"\nsecret = {{ env = \"BENCH_SECRET\" }}\n"
    );
    // Pulls count only for a registry that may be asked. No resolver runs, so none is.
    let pulled = format!(
        "[[source]]\nname = \"registry\"\nkind = \"distribution\"\nregistry = \"{REGISTRY}\"\nsecret = {{ env = \"BENCH_SECRET\" }}\n\n[[registry]]\nname = \"{REGISTRY}\"\nurl = \"http://127.0.0.1:1\"\n"
    );
    std::fs::write(&path, source + &pulled)?;
    Ok(path)
}

/// Returns a function that builds webhook requests, like those of a CI script, with different
/// digests.
pub(crate) fn hook(
    address: &str,
    path: &'static str,
    round: usize,
) -> impl Fn(usize) -> anyhow::Result<Request<Full<Bytes>>> + use<> {
    let address = address.to_owned();
    let start = OffsetDateTime::now_utc() - time::Duration::minutes(5);
    move |number| {
        let digest = Digest::sha256_of(format!("{round}/{number}").as_bytes());
        let time = instant::format(start + time::Duration::microseconds(number as i64))?;
        let (repository, tag) = (number % 2000, number / 2000 % 10);
        let body = format!(
            r#"{{"repository":"{}","tag":"v{tag}","digest":"{digest}","time":"{time}","actor":"ci"}}"#,
            stack::repository(repository)
        );
        Ok(Request::post(path)
            .header("host", address.as_str())
            .header("content-type", "application/json")
            .header("authorization", format!("Bearer {SECRET}"))
            .body(Full::new(Bytes::from(body)))?)
    }
}

/// Builds a GET request.
fn get(host: &str, path: &str) -> anyhow::Result<Request<Full<Bytes>>> {
    Ok(Request::get(path)
        .header("host", host)
        .body(Full::default())?)
}

/// Measures `GET /v1/resolve`, now and at a time, each request with another image.
pub(crate) async fn api(
    stack: &Stack,
    store: Store,
    name: &str,
    rounds: usize,
    seconds: u64,
) -> anyhow::Result<Vec<Row>> {
    let address = free_address();
    let api = stack.service("api", &[("TAGTRAIL_API_LISTEN", &address)]);
    api.ready().await?;
    let plain = Plain::start(&stack.database)?;
    let during = Clients::during(seconds);
    let (start, step) = store.times();
    let all_made = start + step * (store.tags + 1);
    let repositories = store.tags as usize / 10;
    let image = move |number: usize| {
        stack::image(
            number.wrapping_mul(7919) % (repositories * 10),
            repositories,
        )
    };
    let [mut head, mut as_of, mut p99, mut ceiling] = [(); 4].map(|()| Series::default());
    for round in 0..rounds {
        eprintln!("questions, {name}: round {} of {rounds}", round + 1);
        let host = plain.address.clone();
        let one = move |_| get(&host, "/one");
        ceiling.push(load(&plain.address, during, 200, one).await?.rate);
        let host = address.clone();
        let now = move |number| get(&host, &format!("/v1/resolve?image={}", image(number)));
        head.push(load(&address, during, 200, now).await?.rate);
        let host = address.clone();
        // Only times at which every tag existed.
        let since = u64::try_from((OffsetDateTime::now_utc() - all_made).whole_seconds())?;
        let then = move |number: usize| {
            let at = all_made
                + time::Duration::seconds(
                    (number as u64)
                        .wrapping_mul(104_729)
                        .wrapping_rem(since)
                        .cast_signed(),
                );
            let path = format!(
                "/v1/resolve?image={}&at={}",
                image(number),
                instant::format(at)?
            );
            get(&host, &path)
        };
        let then = load(&address, during, 200, then).await?;
        as_of.push(then.rate);
        p99.push(then.p99);
    }
    api.stop().await;
    Ok(vec![
        Row::against(
            format!("resolve, {name}"),
            "req/s",
            head,
            ceiling.clone(),
            Goal::AtLeast(1.2),
        ),
        Row::against(
            format!("resolve at a time, {name}"),
            "req/s",
            as_of,
            ceiling,
            Goal::AtLeast(1.0),
        ),
        Row::alone(
            format!("resolve at a time, p99, {name}"),
            "ms",
            p99.warmed(),
            Goal::None,
        ),
    ])
}
