//! The private nats-server.

use std::time::Duration;

use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::net::TcpStream;

use crate::child::{Child, Spec};
use crate::find::Program;
use crate::{Folder, Settings};

const NATS: Program = Program {
    name: "nats-server",
    folders: &[("/usr/lib/nats-server", "bin")],
    minimum: (2, 12),
    cure: "run `make setup`, which puts a current one into .tools (Debian 12's own is too old)",
};

const USER: &str = "tagtrail";

/// A running nats-server.
#[derive(Debug)]
pub struct Nats {
    child: Child,
    url: String,
}

impl Nats {
    /// Starts it and waits until `JetStream` answers.
    ///
    /// # Errors
    /// Names what is missing or broken, and the cure.
    pub async fn start(folder: &Folder, settings: &Settings) -> anyhow::Result<Nats> {
        let program = NATS.find()?;
        let store = folder.child_folder("nats")?;
        let password = folder.password("nats")?;
        let port = folder.port("nats")?;
        // Its configuration is a superset of JSON, so JSON's quoting is right for the path.
        let config = serde_json::json!({
            "host": "127.0.0.1",
            "port": port,
            "server_name": "tagtrail",
            "authorization": { "user": USER, "password": password },
            "jetstream": {
                "store_dir": store,
                // By default up to two minutes of acknowledged messages are lost by a power cut.
                "sync_interval": if settings.durable { "always" } else { "2m" },
            },
        });
        let config = folder.child_file("nats.conf", &config.to_string())?;
        let child = Child::start(Spec {
            name: "nats-server",
            program,
            arguments: vec!["--config".to_owned(), config.display().to_string()],
            user: folder.user().cloned(),
            log: folder.path().join("nats.log"),
            stop: "TERM",
            orphaned: "KILL",
        })?;
        child
            .wait_until(|| is_ready(port), Duration::from_secs(60))
            .await?;
        Ok(Nats {
            child,
            url: format!("nats://{USER}:{password}@127.0.0.1:{port}"),
        })
    }

    /// The nats-server of this machine, if it is new enough.
    ///
    /// # Errors
    /// Says where it was looked for, and the cure.
    pub fn program() -> anyhow::Result<std::path::PathBuf> {
        NATS.find()
    }

    /// Its URL, with the password.
    #[must_use]
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Its process, while there is one.
    #[must_use]
    pub fn pid(&self) -> Option<u32> {
        self.child.pid()
    }

    /// Whether the last that it had to say was that its disk is full.
    pub(crate) fn had_no_room(&self) -> bool {
        self.child.last_words().contains("no space left on device")
    }

    /// Resolves when it can't be kept alive.
    pub async fn failed(&self) -> anyhow::Error {
        self.child.failed().await
    }

    /// Stops it and waits until it is gone.
    pub async fn stop(self) {
        self.child.stop().await;
    }
}

/// The server greets with what it can do.
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
