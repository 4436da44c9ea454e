//! The service, on a random port.

use std::net::SocketAddr;

use tagtrail_bus::BusArgs;
use tagtrail_daemon::Context;
use tagtrail_gateway::Config;
use tagtrail_testkit::{SOON, TestNats};
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio::task::JoinSet;

use crate::client::{Answer, post};

pub(crate) const DIGEST: &str =
    "sha256:2c26b46b68ffc68ff99b453c1d30413413422d706483bfa0f98a5e886266e7ae";
pub(crate) const OTHER_DIGEST: &str =
    "sha256:fcde2b2edba56bf408601fb721fe9b5c338d10ee429ea04fae5511b68fbf8fb9";

const SOURCES: &str = r#"
[[source]]
name = "main"
kind = "distribution"
secret = [{ file = "FOLDER/first" }, { file = "FOLDER/second" }]
header = "X-Hook-Secret"

[[source]]
name = "ci"
kind = "generic"
registry = "registry.example.com"
secret = { file = "FOLDER/ci" }
repositories = ["shop/**"]
"#;

/// A running gateway with the sources `main` (first-secret, second/secret) and `ci` (ci-secret).
pub(crate) struct Gateway {
    pub(crate) address: SocketAddr,
    pub(crate) ctx: Context,
    task: JoinSet<anyhow::Result<()>>,
    _folder: TempDir,
}

impl Gateway {
    /// Starts the service and a nats-server, and waits for the connection.
    pub(crate) async fn with_nats() -> (TestNats, Gateway) {
        let nats = TestNats::start().await;
        let mut gateway = Gateway::start(&nats).await;
        tokio::select! {
            () = gateway.ctx.health.wait_ready() => (nats, gateway),
            ended = gateway.task.join_next() => panic!("{ended:?}"),
        }
    }

    /// Starts the service with these sources, whose secret is in FOLDER/fixture, and waits for the
    /// connection.
    pub(crate) async fn with(nats: &TestNats, sources: &str) -> Gateway {
        let mut gateway = Gateway::spawn(nats, sources).await;
        tokio::select! {
            () = gateway.ctx.health.wait_ready() => gateway,
            ended = gateway.task.join_next() => panic!("{ended:?}"),
        }
    }

    pub(crate) async fn start(nats: &TestNats) -> Gateway {
        Gateway::spawn(nats, SOURCES).await
    }

    /// Returns the error that the service ends with when started with these sources.
    pub(crate) async fn refused(nats: &TestNats, sources: &str) -> String {
        let mut gateway = Gateway::spawn(nats, sources).await;
        format!(
            "{:#}",
            gateway
                .task
                .join_next()
                .await
                .unwrap()
                .unwrap()
                .unwrap_err()
        )
    }

    async fn spawn(nats: &TestNats, sources: &str) -> Gateway {
        let folder = TempDir::new().unwrap();
        for (name, secret) in [
            ("first", "first-secret\n"),
            ("second", "second/secret"),
            ("ci", "ci-secret\r\n"),
            ("fixture", "tagtrail-fixture-secret"),
        ] {
            std::fs::write(folder.path().join(name), secret).unwrap();
        }
        let file = folder.path().join("tagtrail.toml");
        std::fs::write(
            &file,
            sources.replace("FOLDER", &folder.path().display().to_string()),
        )
        .unwrap();

        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        // The tests of bodies run with groups; `commit/tests.rs` has those of groups.
        let bus = BusArgs {
            sync_always: Some(true),
            ..BusArgs::new(nats.url())
        };
        let config = Config {
            listen: address,
            config: file,
            bus,
        };
        let (ctx, mut task) = (Context::default(), JoinSet::new());
        task.spawn(tagtrail_gateway::serve(listener, config, ctx.clone()));
        Gateway {
            address,
            ctx,
            task,
            _folder: folder,
        }
    }

    /// Posts with the secret of the source.
    pub(crate) async fn post(&self, source: &str, body: &[u8]) -> Answer {
        let secret = if source == "main" {
            "Bearer first-secret"
        } else {
            "Bearer ci-secret"
        };
        let headers = [
            ("authorization", secret),
            ("content-type", "application/json"),
        ];
        post(self.address, &format!("/hooks/{source}"), &headers, body).await
    }

    /// Stops the service, which must end without an error.
    pub(crate) async fn stop(mut self) {
        self.ctx.shutdown.cancel();
        let ended = tokio::time::timeout(SOON, self.task.join_next())
            .await
            .expect("it does not stop");
        ended.unwrap().unwrap().unwrap();
    }
}
