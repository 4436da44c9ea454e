//! The service under test, and its client.

use std::time::Duration;

use serde_json::Value;
use tagtrail_api::{Config, Pace};
use tagtrail_bus::BusArgs;
use tagtrail_daemon::Context;
use tagtrail_postgres::DbArgs;
use tagtrail_testkit::TestDb;
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio::task::JoinSet;

use crate::rows::Rows;

/// Returns the secret of the token of this name.
pub(crate) fn secret(name: &str) -> String {
    format!("{name}-0123456789abcdef")
}

/// The service on its own database. A drop stops the service.
pub(crate) struct Api {
    url: String,
    client: reqwest::Client,
    pub(crate) ctx: Context,
    task: JoinSet<anyhow::Result<()>>,
}

/// An answer of the API.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: reqwest::header::HeaderMap,
    pub(crate) body: Value,
}

impl Answer {
    pub(crate) async fn read(response: reqwest::Response) -> Answer {
        let (status, headers) = (response.status().as_u16(), response.headers().clone());
        Answer {
            status,
            headers,
            body: response.json().await.unwrap_or_default(),
        }
    }

    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers
            .get(name)
            .map_or("", |value| value.to_str().unwrap())
    }

    /// Returns status and code, such as `404 tag_unknown`, and checks the rest of the problem.
    #[track_caller]
    pub(crate) fn problem(&self) -> String {
        assert_eq!(
            self.header("content-type"),
            "application/problem+json",
            "{self:?}"
        );
        assert_eq!(self.body["status"], self.status, "{self:?}");
        assert!(
            !self.body["detail"].as_str().unwrap().is_empty()
                && self.body["title"].is_string()
                && self.body["type"].is_string(),
            "{self:?}"
        );
        format!("{} {}", self.status, self.body["code"].as_str().unwrap())
    }
}

impl Api {
    /// Sends a request, and follows no redirect.
    pub(crate) async fn once(&self, method: &str, path: &str) -> reqwest::Response {
        let client = reqwest::Client::builder().redirect(reqwest::redirect::Policy::none());
        let request = client
            .build()
            .unwrap()
            .request(method.parse().unwrap(), format!("{}{path}", self.url));
        request.send().await.unwrap()
    }

    /// Starts the service and waits until it is ready.
    pub(crate) async fn start() -> (Api, Rows) {
        let db = tagtrail_testkit::postgres().await;
        let api = Api::over(&db).await;
        api.ctx.health.wait_ready().await;
        (api, Rows::new(db.connect().await).await)
    }

    /// Starts the service with five heartbeats a second in its feeds.
    pub(crate) async fn with_quick_heartbeats() -> (Api, Rows) {
        let db = tagtrail_testkit::postgres().await;
        let quick = Duration::from_millis(200);
        let api = Api::with(&db, |config| config.pace.heartbeat = quick).await;
        api.ctx.health.wait_ready().await;
        (api, Rows::new(db.connect().await).await)
    }

    /// Starts the service, even if the database is down.
    pub(crate) async fn over(db: &TestDb) -> Api {
        Api::with(db, |_| {}).await
    }

    /// Starts the service with changed settings.
    pub(crate) async fn with(db: &TestDb, change: impl FnOnce(&mut Config)) -> Api {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let listen = listener.local_addr().unwrap();
        let (ctx, mut task) = (Context::default(), JoinSet::new());
        let mut config = Api::config(db, listen);
        change(&mut config);
        task.spawn(tagtrail_api::serve(listener, config, ctx.clone()));
        Api {
            url: format!("http://{listen}"),
            client: reqwest::Client::builder().no_proxy().build().unwrap(),
            ctx,
            task,
        }
    }

    /// Starts the service with tokens of these names, roles and further lines, whose secrets
    /// [`secret`] names. The folder has their files.
    pub(crate) async fn with_tokens(tokens: &[(&str, &str, &str)]) -> (Api, Rows, TempDir) {
        let db = tagtrail_testkit::postgres().await;
        let folder = tempfile::tempdir().unwrap();
        let mut text = String::new();
        for (name, role, more) in tokens {
            let file = folder.path().join(name);
            std::fs::write(&file, secret(name)).unwrap();
            text += &format!(
                "[[token]]\nname = \"{name}\"\nrole = \"{role}\"\n{more}secret = {{ file = {file:?} }}\n"
            );
        }
        let path = folder.path().join("tagtrail.toml");
        std::fs::write(&path, text).unwrap();
        let api = Api::with(&db, |config| config.config = Some(path)).await;
        api.ctx.health.wait_ready().await;
        (api, Rows::new(db.connect().await).await, folder)
    }

    /// As [`Api::with_tokens`], with a server of NATS and without further lines.
    pub(crate) async fn with_tokens_and_bus(
        tokens: &[(&str, &str, &str)],
        bus: &str,
    ) -> (Api, TempDir) {
        let db = tagtrail_testkit::postgres().await;
        let folder = tempfile::tempdir().unwrap();
        let mut text = String::new();
        for (name, role, rest) in tokens {
            let file = folder.path().join(name);
            std::fs::write(&file, secret(name)).unwrap();
            text += &format!(
                "[[token]]\nname = \"{name}\"\nrole = \"{role}\"\nsecret = {{ file = {file:?} }}\n{rest}\n"
            );
        }
        let path = folder.path().join("tagtrail.toml");
        std::fs::write(&path, text).unwrap();
        let bus = BusArgs::new(bus);
        let api = Api::with(&db, |config| {
            config.config = Some(path);
            config.bus = bus;
        })
        .await;
        api.ctx.health.wait_ready().await;
        (api, folder)
    }

    fn config(db: &TestDb, listen: std::net::SocketAddr) -> Config {
        Config {
            listen,
            config: Some("/dev/null".into()),
            db: DbArgs {
                url: db.url().to_owned(),
            },
            // No server listens there: the api works without NATS.
            bus: BusArgs::new("nats://127.0.0.1:9"),
            pace: Pace::default(),
            gateway: Some("0.0.0.0:8400".parse().unwrap()),
        }
    }

    /// Returns the error with which the service refuses this address.
    pub(crate) async fn refused(listener: TcpListener) -> String {
        let db = tagtrail_testkit::postgres().await;
        let config = Api::config(&db, listener.local_addr().unwrap());
        let outcome = tagtrail_api::serve(listener, config, Context::default()).await;
        outcome.unwrap_err().to_string()
    }

    /// Requests a stop, and waits for the service to end.
    pub(crate) async fn stop(mut self) {
        self.ctx.shutdown.cancel();
        self.task.join_next().await.unwrap().unwrap().unwrap();
    }

    /// Makes a request, which the caller may change before it is sent.
    /// Returns the URL of the service.
    pub(crate) fn url(&self) -> &str {
        &self.url
    }

    pub(crate) fn request(&self, method: &str, path: &str) -> reqwest::RequestBuilder {
        let url = format!("{}{path}", self.url);
        self.client.request(method.parse().unwrap(), url)
    }

    pub(crate) async fn get(&self, path: &str) -> Answer {
        self.send("GET", path).await
    }

    pub(crate) async fn send(&self, method: &str, path: &str) -> Answer {
        Answer::read(self.request(method, path).send().await.unwrap()).await
    }

    /// Returns the body of an answer that must be 200.
    #[track_caller]
    pub(crate) fn found(&self, path: &str) -> impl Future<Output = Value> {
        let asked = path.to_owned();
        async move {
            let answer = self.get(&asked).await;
            assert_eq!(answer.status, 200, "{asked}: {answer:?}");
            answer.body
        }
    }

    /// Returns the items of all pages of a list. Every page but the last must be full.
    pub(crate) async fn pages(&self, path: &str, limit: usize) -> Vec<Vec<Value>> {
        let separator = if path.contains('?') { '&' } else { '?' };
        let (mut pages, mut cursor) = (Vec::new(), String::new());
        loop {
            let mut page = self
                .found(&format!("{path}{separator}limit={limit}{cursor}"))
                .await;
            let Value::Array(items) = page["items"].take() else {
                panic!("{page}")
            };
            pages.push(items);
            match page["next"].as_str() {
                None => return pages,
                Some(next) => {
                    assert_eq!(pages.last().unwrap().len(), limit);
                    cursor = format!("&cursor={next}");
                }
            }
            assert!(pages.len() < 100, "the list has no last page");
        }
    }
}
