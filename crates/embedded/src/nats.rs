//! The private nats-server.

use std::time::Duration;

use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::net::TcpStream;

use crate::child::{Child, ChildSpec};
use crate::find::Program;
use crate::{Folder, Settings};

const NATS: Program = Program {
    name: "nats-server",
    folders: &[("/usr/lib/nats-server", "bin")],
    minimum: (2, 12),
    cure: "run `make setup`, which puts a current version into .tools (the package of Debian 12 is too old)",
};

const USER: &str = "tagtrail";

/// A running nats-server.
#[derive(Debug)]
pub struct Nats {
    child: Child,
    url: String,
}

impl Nats {
    /// Starts nats-server and waits until `JetStream` answers.
    ///
    /// # Errors
    /// Names the missing program or the failed start, with the cure.
    pub async fn start(folder: &Folder, settings: &Settings) -> anyhow::Result<Nats> {
        let program = NATS.find()?;
        let store = folder.child_folder("nats")?;
        let password = folder.password("nats")?;
        let port = folder.port("nats")?;
        // The configuration format is a superset of JSON, so the quoting of JSON is right for the
        // path.
        let config = serde_json::json!({
            "host": "127.0.0.1",
            "port": port,
            "server_name": "tagtrail",
            "authorization": { "user": USER, "password": password },
            "jetstream": {
                "store_dir": store,
                // With the default interval a power cut loses up to two minutes of acknowledged
                // messages.
                "sync_interval": if settings.durable { "always" } else { "2m" },
            },
        });
        let config = folder.child_file("nats.conf", &config.to_string())?;
        let child = Child::start(ChildSpec {
            name: "nats-server",
            program,
            arguments: vec!["--config".to_owned(), config.display().to_string()],
            user: folder.user().cloned(),
            log: folder.path().join("nats.log"),
            stop: "TERM",
            death_signal: "KILL",
        })?;
        child
            .wait_until(|| is_ready(port), Duration::from_secs(60))
            .await?;
        Ok(Nats {
            child,
            url: format!("nats://{USER}:{password}@127.0.0.1:{port}"),
        })
    }

    /// Returns the path of the installed nats-server, if it is new enough.
    ///
    /// # Errors
    /// Names the searched places and the cure.
    pub fn program() -> anyhow::Result<std::path::PathBuf> {
        NATS.find()
    }

    /// Returns the URL with the password.
    #[must_use]
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Returns the process id, while nats-server runs.
    #[must_use]
    pub fn pid(&self) -> Option<u32> {
        self.child.pid()
    }

    /// Returns whether the log ends with the report of a full disk.
    pub(crate) fn had_no_room(&self) -> bool {
        self.child.log_end().contains("no space left on device")
    }

    /// Resolves when the supervisor gives up.
    pub async fn failed(&self) -> anyhow::Error {
        self.child.failed().await
    }

    /// Stops nats-server and waits for the end.
    pub async fn stop(self) {
        self.child.stop().await;
    }
}

/// Returns whether the greeting of the server announces `JetStream`.
async fn is_ready(port: u16) -> bool {
    let greeting = async {
        let stream = TcpStream::connect(("127.0.0.1", port)).await.ok()?;
        let mut line = String::new();
        BufReader::new(stream).read_line(&mut line).await.ok()?;
        line.contains("\"jetstream\":true").then_some(())
    };
    matches!(
        tokio::time::timeout(Duration::from_secs(2), greeting).await,
        Ok(Some(()))
    )
}
