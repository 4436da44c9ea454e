//! A month of pushes to a running `tagtrail up`, with triggers in several conditions.

use std::path::PathBuf;

use serde_json::{Value, json};
use sqlx::{Connection as _, PgConnection};
use tagtrail_e2e::{HOOK_SECRET, Up, shared_folder, use_ring};
use tagtrail_proto::Digest;
use tagtrail_testkit::{Answer, SOON, Sink, eventually};
use tempfile::TempDir;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

const REGISTRY: &str = "registry.example.com";
const LONG: &str = "customer-identity/authentication-gateway-sidecar-for-the-legacy-loyalty-programme-of-the-northern-regions-and-islands/web-frontend";

/// Images that move beside those of the shop.
const OTHERS: [(&str, &str); 4] = [
    ("platform/ingress-proxy", "stable"),
    ("ml/embedder", "nightly"),
    ("shop/worker", "edge"),
    ("data/etl-runner", "2026.11"),
];

/// A running installation with a history.
pub(crate) struct Seeded {
    /// File of the settings of the checks.
    pub(crate) settings: PathBuf,
    _up: Up,
    _sinks: [Sink; 2],
    _folder: TempDir,
}

/// A push: repository, tag, content, and days before now.
type Push = (String, String, Option<String>, f64);

fn digest(content: &str) -> Digest {
    Digest::sha256_of(content.as_bytes())
}

/// Returns the pushes of a month, oldest first.
fn pushes() -> Vec<Push> {
    let mut all = Vec::new();
    let mut push = |repository: &str, tag: &str, content: &str, days: f64| {
        all.push((
            repository.to_owned(),
            tag.to_owned(),
            Some(content.to_owned()),
            days,
        ));
    };
    for release in 0..12 {
        let (content, days) = (format!("web {release}"), 29.0 - 2.4 * f64::from(release));
        let version = format!("1.{}.{}", 23 + release / 6, release % 6);
        for (tag, later) in [(version.as_str(), 0.0), ("latest", 0.01), ("1", 0.02)] {
            push("shop/web", tag, &content, days - later);
        }
        push("shop/web", "prod", &content, days - 0.9);
        push(
            "shop/worker",
            "latest",
            &format!("worker {release}"),
            days - 0.05,
        );
    }
    for build in 0..90 {
        let days = 29.5 - 0.327 * f64::from(build);
        push("shop/web", "main", &format!("main {build}"), days);
        push(
            "shop/web",
            &format!("pr-{}", 1900 + build),
            &format!("pr {build}"),
            days,
        );
    }
    for build in 0..20 {
        let minutes = 55.0 - 2.7 * f64::from(build);
        push(
            "shop/web",
            "edge",
            &format!("edge {build}"),
            minutes / 1440.0,
        );
        let (repository, tag) = OTHERS[build as usize % OTHERS.len()];
        let content = format!("{repository} {build}");
        push(repository, tag, &content, (minutes - 1.2) / 1440.0);
        let (content, minutes) = (format!("{content} before"), minutes * 11.0 + 144.0);
        push(repository, tag, &content, minutes / 1440.0);
    }
    // A person moved `latest` back and forth, a release was pushed again, a tag was deleted.
    push("shop/web", "latest", "web 10", 0.8);
    push("shop/web", "1.23.5", "web 5 again", 12.0);
    push("shop/web", "beta", "beta 1", 20.0);
    push("payments/checkout", "latest", "checkout 1", 6.0);
    push("payments/ledger", "stable", "ledger 1", 9.0);
    push("payments/ledger", "stable", "ledger 2", 0.4);
    push(
        LONG,
        "2026.11.23-feature-PAY-18734-idempotent-refund-webhooks-with-retry-budget-3f2a91c",
        "long",
        3.0,
    );
    all.push(("shop/web".to_owned(), "beta".to_owned(), None, 10.0));
    all.sort_by(|one, other| other.3.total_cmp(&one.3));
    all
}

impl Seeded {
    pub(crate) async fn start() -> Seeded {
        use_ring();
        let (folder, sinks) = (shared_folder(), [Sink::start().await, Sink::start().await]);
        // The second target refuses everything.
        sinks[1].judge(|_| Answer::Status(500));
        let config = folder.path().join("tagtrail.toml");
        std::fs::write(&config, file(sinks[0].url(), sinks[1].url())).unwrap();
        let up = Up::start(&folder.path().join("data"), &config).await;
        let (api, gateway) = (address(&up, "api"), address(&up, "gateway"));
        let client = reqwest::Client::new();

        let now = OffsetDateTime::now_utc();
        let send = async |(repository, tag, content, days): Push| {
            let at = now - time::Duration::seconds_f64(days * 86_400.0);
            let mut body = json!({ "repository": repository, "tag": tag, "time": at.format(&Rfc3339).unwrap(), "actor": actor(&tag) });
            match content {
                Some(content) => body["digest"] = json!(digest(&content)),
                None => body["action"] = json!("delete"),
            }
            let post = client.post(format!("{gateway}/hooks/ci")).json(&body);
            let answer = post.bearer_auth(HOOK_SECRET).send().await.unwrap();
            assert_eq!(answer.status(), 202, "{body}");
        };
        for push in pushes() {
            send(push).await;
        }
        // A body without a repository is kept in quarantine.
        let post = client.post(format!("{gateway}/hooks/ci"));
        let post = post
            .bearer_auth(HOOK_SECRET)
            .json(&json!({ "tag": "latest" }));
        post.send().await.unwrap();

        let get = async |path: &str| -> Option<Value> {
            let answer = client.get(format!("{api}{path}")).send().await.ok()?;
            answer.status().is_success().then_some(())?;
            answer.json().await.ok()
        };
        let beta = format!("/v1/history?image={REGISTRY}/shop/web:latest");
        eventually("the history", SOON, async || {
            (get(&beta).await?["items"].as_array()?.len() == 13).then_some(())
        })
        .await;
        manifests(&up).await;
        for (act, body) in [
            (
                "triggers/shop-eu/pause",
                json!({ "reason": "no changes before Monday 08:00" }),
            ),
            ("triggers/ledger/retry", json!({})),
        ] {
            let post = client.post(format!("{api}/v1/{act}")).json(&body);
            assert!(post.send().await.unwrap().status().is_success(), "{act}");
        }
        // Releases after the pause.
        for (release, days) in [(12, 0.006), (13, 0.004)] {
            let content = Some(format!("web {release}"));
            send(("shop/web".to_owned(), "prod".to_owned(), content, days)).await;
        }
        let freeze = json!({ "triggers": "batch-*", "reason": "inventory", "until": (now + time::Duration::DAY).format(&Rfc3339).unwrap() });
        let post = client.post(format!("{api}/v1/holds")).json(&freeze);
        let answer = post.send().await.unwrap();
        assert!(
            answer.status().is_success(),
            "{}",
            answer.text().await.unwrap()
        );
        let rollouts = eventually("rollouts in several states", SOON * 2, async || {
            let list = get("/v1/rollouts?limit=50").await?;
            let of = |trigger: &str, state: &str| {
                let items = list["items"].as_array()?;
                let found = items
                    .iter()
                    .find(|one| one["trigger"] == trigger && one["state"] == state)?;
                Some(found["id"].as_str()?.to_owned())
            };
            Some((of("shop", "succeeded")?, of("ledger", "awaiting_approval")?))
        })
        .await;
        spread(&up).await;

        let settings = folder.path().join("settings.json");
        let pages = pages(now, &rollouts.0, &rollouts.1);
        let text = json!({ "api": api, "gateway": gateway, "secret": HOOK_SECRET, "trigger": "shop", "pages": pages });
        std::fs::write(&settings, text.to_string()).unwrap();
        Seeded {
            settings,
            _up: up,
            _sinks: sinks,
            _folder: folder,
        }
    }
}

fn address(up: &Up, part: &str) -> String {
    let address = up.address(part);
    match address.contains("://") {
        true => address.to_owned(),
        false => format!("http://{address}"),
    }
}

fn actor(tag: &str) -> &'static str {
    match tag {
        "main" | "latest" | "1" => "ci-bot",
        "prod" | "beta" => "release-bot",
        _ => "github-actions[bot]",
    }
}

fn file(sink: &str, refusing: &str) -> String {
    let trigger = |name: &str, image: &str, rest: &str| {
        format!(
            "\n[[trigger]]\nname = \"{name}\"\nsettle = \"0s\"\nimages.web = \"{REGISTRY}/{image}\"\n{rest}\n"
        )
    };
    let webhook = |url: &str| {
        format!(
            "target.webhook = {{ url = \"{url}\", secret = {{ env = \"SHOP_WEBHOOK_SECRET\" }} }}"
        )
    };
    let mut text = format!(
        "[[source]]\nname = \"ci\"\nkind = \"generic\"\nregistry = \"{REGISTRY}\"\nsecret = {{ env = \"MAIN_HOOK_SECRET\" }}\n"
    );
    text += &trigger("shop", "shop/web:latest", &webhook(sink));
    let two = format!(
        "images.worker = \"{REGISTRY}/shop/worker:latest\"\n{}",
        webhook(sink)
    );
    text += &trigger("shop-eu", "shop/web:prod", &two);
    text += &trigger("checkout", "payments/checkout:latest", &webhook(refusing));
    let approved = format!("approvals = {{ needs = 1 }}\n{}", webhook(sink));
    text += &trigger("ledger", "payments/ledger:stable", &approved);
    text += &trigger("batch-nightly", "shop/worker:latest", &webhook(sink));
    text
}

/// Counts changes at the times at which they took effect: all facts of this history arrive within
/// a few seconds, and charts of a day would have one column.
async fn spread(up: &Up) {
    let mut db = PgConnection::connect(up.address("postgres")).await.unwrap();
    eventually("counted changes", SOON, async || {
        let counted: bool = sqlx::query_scalar(
            "select (select coalesce(sum(changes), 0) from minute_stats) = (select count(*) from revision)",
        )
        .fetch_one(&mut db)
        .await
        .unwrap();
        counted.then_some(())
    })
    .await;
    sqlx::raw_sql(
        "truncate minute_stats, half_hour_stats;
         create temporary table change as
             select t.repository_id, v.push_id, floor(extract(epoch from v.effective_at) / 60)::integer as minute
             from revision v join tag t on t.id = v.tag_id where v.effective_at >= now() - interval '2 days';
         insert into minute_stats select minute, count(*) from change group by 1;
         insert into half_hour_stats select minute / 30, repository_id, count(*), max(push_id) from change group by 1, 2",
    )
    .execute(&mut db)
    .await
    .unwrap();
}

/// Records the manifests of the releases, as the registry would answer them.
async fn manifests(up: &Up) {
    let mut db = PgConnection::connect(up.address("postgres")).await.unwrap();
    for release in 0..12_u32 {
        let digest = digest(&format!("web {release}"));
        let children = ["amd64", "arm64"].map(|one| self::digest(&format!("{digest} {one}")));
        let platforms = json!([{ "os": "linux", "architecture": "amd64", "variant": null, "digest": children[0] },
            { "os": "linux", "architecture": "arm64", "variant": "v8", "digest": children[1] }]);
        let child = |place: usize, platform: &str| json!({ "digest": children[place], "size": 1_246, "media_type": null, "platform": platform });
        let index = json!({ "children": [child(0, "linux/amd64"), child(1, "linux/arm64/v8")], "children_left_out": 2 });
        sqlx::query(
            "insert into manifest (digest, registry, repository, media_type, size_bytes, platforms, created, labels, annotations,
                                   revision, source, version, image, index, read_at)
             values ($1, $2, 'shop/web', 'application/vnd.oci.image.index.v1+json', 1609, $3, now() - interval '1 day' * $4,
                     $5, '{}', $6, 'https://github.com/acme/shop', $7, $8, $9, now())
             on conflict do nothing",
        )
        .bind(digest.as_bytes())
        .bind(REGISTRY)
        .bind(platforms)
        .bind(29.0 - 2.4 * f64::from(release))
        .bind(json!({ "org.opencontainers.image.title": "shop <web>", "maintainer": "shop team" }))
        .bind(&digest.to_string()[20..60])
        .bind(format!("1.{}.{}", 23 + release / 6, release % 6))
        .bind(image(release, &children[0]))
        .bind(index)
        .execute(&mut db)
        .await
        .unwrap();
    }
}

/// Returns the contents of the image of a release for linux/amd64.
fn image(release: u32, own: &Digest) -> Value {
    let layer = |content: &str, size: u32, command: Option<&str>| json!({ "digest": digest(content), "size": size, "created_by": command });
    let server = 19_800_000 + release * 120_000;
    let mut environment = json!({ "PATH": "/usr/local/bin:/usr/bin:/bin", "TZ": "UTC" });
    if release == 11 {
        environment["FEATURE_REFUNDS"] = json!("on");
    }
    json!({
        "digest": own, "platform": "linux/amd64", "size": 64_300_000 + server, "layers_left_out": 0,
        "layers": [
            layer("base", 28_200_000, Some("/bin/sh -c #(nop) ADD file:5d673d25da3a14ce1f6cf in / ")),
            layer("packages", 36_100_000, Some("RUN apt-get update && apt-get install -y ca-certificates # buildkit")),
            layer(&format!("server {release}"), server, Some("COPY /app/server /app/ # buildkit")),
        ],
        "settings": {
            "environment": environment, "user": "65532:65532", "ports": ["8080/tcp", "9090/tcp"],
            "entrypoint": ["/app/server"], "command": ["serve", "on all addresses"],
            "left_out": { "environment": 0, "ports": 0, "entrypoint": 0, "command": 0 },
        },
    })
}

/// The pages of the checks, by name.
fn pages(now: OffsetDateTime, rollout: &str, awaiting: &str) -> Value {
    let (web, at) = (
        format!("/i/{REGISTRY}/shop/web"),
        now - time::Duration::days(9),
    );
    let at = at.replace_nanosecond(0).unwrap().format(&Rfc3339).unwrap();
    let [ten, eleven] = ["web 10", "web 11"].map(digest);
    json!({
        "login": "/login",
        "home": "/",
        "browse": format!("/i/{REGISTRY}"),
        "repository": web,
        "repository-once": format!("{web}?class=once"),
        "tag": format!("{web}:latest"),
        "tag-asof": format!("{web}:latest?at={at}"),
        "state-deleted": format!("{web}:beta"),
        "state-long": format!("/i/{REGISTRY}/{LONG}"),
        "compare": format!("/compare/{ten}..{eleven}?image={REGISTRY}/shop/web"),
        "digest": format!("/d/{eleven}"),
        "triggers": "/triggers",
        "trigger": "/triggers/shop-eu",
        "explain": "/triggers/shop/explain",
        "holds": "/holds",
        "rollouts": "/rollouts",
        "rollout": format!("/rollouts/{rollout}"),
        "rollout-awaiting": format!("/rollouts/{awaiting}"),
        "reports": "/reports",
        "sources": "/sources",
        "search": "/search?q=shop",
        "search-none": "/search?q=shopp%3Alatset",
        "missing": "/nowhere",
    })
}
