//! A private Postgres and nats-server, as supervised children: what `tagtrail up` and the tests run on.
//!
//! In scope: finding the programs (never downloading them), a data folder that one process owns, passwords and file modes that
//! keep other local users out, restarting a child that crashed, and leaving none behind, even after `kill -9` of ourselves.
//!
//! Out of scope: the schema and the streams.
//!
//! Started as root, both children run as another user, since Postgres refuses to run as root.

mod child;
mod find;
mod folder;
mod nats;
mod postgres;
mod user;

use std::path::PathBuf;

pub use child::signal;
pub use folder::Folder;
pub use nats::Nats;
pub use postgres::Postgres;

/// What the children are given.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The data folder; made if missing.
    pub data: PathBuf,
    /// Whether what is acknowledged survives a power cut. Off only for tests that need speed more.
    pub durable: bool,
    /// Shared memory of Postgres, in its own notation.
    pub shared_buffers: String,
}

impl Settings {
    /// Durable, with 128 MB of shared memory.
    #[must_use]
    pub fn new(data: impl Into<PathBuf>) -> Settings {
        Settings {
            data: data.into(),
            durable: true,
            shared_buffers: "128MB".to_owned(),
        }
    }
}

/// Both children, and the folder that is theirs.
#[derive(Debug)]
pub struct Embedded {
    postgres: Postgres,
    nats: Nats,
    // Last, so that the folder is given up after its users are gone.
    folder: Folder,
}

impl Embedded {
    /// Starts both and waits until they answer.
    ///
    /// # Errors
    /// Names what is missing, in use, closed or broken, and the cure.
    pub async fn start(settings: &Settings) -> anyhow::Result<Embedded> {
        let folder = Folder::open(&settings.data)?;
        let (postgres, nats) = tokio::try_join!(
            Postgres::start(&folder, settings),
            Nats::start(&folder, settings)
        )?;
        Ok(Embedded {
            postgres,
            nats,
            folder,
        })
    }

    /// URL of Postgres, with its password.
    #[must_use]
    pub fn postgres_url(&self) -> &str {
        self.postgres.url()
    }

    /// URL of NATS, with its password.
    #[must_use]
    pub fn nats_url(&self) -> &str {
        self.nats.url()
    }

    /// Restarts nats-server, if it complained of a full disk and there is room now: it stores nothing until then. Gives whether
    /// it did.
    pub async fn revive_nats(&self) -> bool {
        match self.nats.pid() {
            Some(pid) if self.nats.had_no_room() && self.folder.has_room().await => {
                signal(pid, "TERM");
                true
            }
            _ => false,
        }
    }

    /// Resolves when a child can't be kept alive.
    pub async fn failed(&self) -> anyhow::Error {
        tokio::select! {
            error = self.postgres.failed() => error,
            error = self.nats.failed() => error,
        }
    }

    /// Stops both, gently at first. Call it when nothing uses them any more.
    pub async fn stop(self) {
        tokio::join!(self.postgres.stop(), self.nats.stop());
    }
}
