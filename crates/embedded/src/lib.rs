//! A private Postgres and a private nats-server as supervised child processes, for `tagtrail up`
//! and for tests.
//!
//! In scope: finding the programs (but never downloading them, and none that another user could
//! have planted), a data folder with one owning process in which nothing that Tagtrail did not
//! make is removed or followed, passwords and file modes that keep other local users out,
//! restarting a crashed child, and ending all children even after `kill -9` of this process.
//!
//! Out of scope: the schema and the streams.
//!
//! If this process runs as root, both children run as another user: Postgres refuses to run as
//! root. [`become_user`] leaves root altogether.

mod accounts;
mod child;
mod claim;
mod entry;
mod find;
mod folder;
mod nats;
mod postgres;
mod switch;
mod user;
mod version;

use std::path::PathBuf;

use anyhow::{Context as _, bail};

pub use child::signal;
pub use entry::write_private;
pub use folder::Folder;
pub use nats::Nats;
pub use postgres::Postgres;
pub use switch::{become_user, runs_as_root};
pub use version::upgrade_data;

/// The settings of both children.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The data folder, created if missing.
    pub data: PathBuf,
    /// True if acknowledged data must survive a power cut. False only for tests that need speed.
    pub durable: bool,
    /// True if each service and people have an account of their own, as on a server with
    /// `deploy/postgres/accounts.sql`, and the owner of the database is no superuser. False only
    /// for tests that need a superuser.
    pub accounts: bool,
    /// The shared memory of Postgres, in the notation of Postgres.
    pub shared_buffers: String,
}

impl Settings {
    /// Returns durable settings with 128 MB of shared memory.
    #[must_use]
    pub fn new(data: impl Into<PathBuf>) -> Settings {
        Settings {
            data: data.into(),
            durable: true,
            accounts: true,
            shared_buffers: "128MB".to_owned(),
        }
    }
}

/// Checks that both programs are installed, before a step of either child. An error names all that
/// is missing.
fn check_programs(folder: &Folder) -> anyhow::Result<()> {
    let missing: Vec<String> = [Postgres::programs(folder), Nats::program()]
        .into_iter()
        .filter_map(|found| Some(format!("{:#}", found.err()?)))
        .collect();
    match missing.is_empty() {
        true => Ok(()),
        false => bail!(missing.join("; ")),
    }
}

/// Both children with their data folder.
#[derive(Debug)]
pub struct Embedded {
    postgres: Postgres,
    nats: Nats,
    // The last field: the folder is released after both children have ended.
    folder: Folder,
}

impl Embedded {
    /// Starts both children and waits until both answer.
    ///
    /// # Errors
    /// Names the missing program, the occupied or closed folder, or the failed child, with the
    /// cure.
    pub async fn start(settings: &Settings) -> anyhow::Result<Embedded> {
        let folder = Folder::open(&settings.data)?;
        check_programs(&folder)?;
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

    /// Returns the URL of Postgres for the owner of the database, with the password.
    #[must_use]
    pub fn postgres_url(&self) -> &str {
        self.postgres.url()
    }

    /// Returns the URL of a service's account in Postgres, with its password.
    ///
    /// # Errors
    /// There is no such account.
    pub fn postgres_url_of(&self, account: &str) -> anyhow::Result<String> {
        let url = self.postgres.url_of(account);
        url.with_context(|| format!("Postgres has no account for {account}"))
    }

    /// Returns the URL of NATS with the password of the user with all rights.
    #[must_use]
    pub fn nats_url(&self) -> String {
        self.nats.url()
    }

    /// Returns the URL of NATS with the password of a user of `deploy/nats/nats.conf`.
    ///
    /// # Errors
    /// There is no such user.
    pub fn nats_url_of(&self, user: &str) -> anyhow::Result<String> {
        let url = self.nats.url_of(user);
        url.with_context(|| format!("NATS has no user {user}"))
    }

    /// Returns the process ids of the children that run.
    #[must_use]
    pub fn pids(&self) -> Vec<u32> {
        [self.postgres.pid(), self.nats.pid()]
            .into_iter()
            .flatten()
            .collect()
    }

    /// Restarts nats-server if its log ends with a full disk and the disk has room again: until a
    /// restart nats-server stores nothing. Returns whether it was restarted.
    pub async fn revive_nats(&self) -> bool {
        match self.nats.pid() {
            Some(pid) if self.nats.had_no_room() && self.folder.has_room().await => {
                signal(pid, "TERM");
                true
            }
            _ => false,
        }
    }

    /// Resolves when the supervisor of a child gives up.
    pub async fn failed(&self) -> anyhow::Error {
        tokio::select! {
            error = self.postgres.failed() => error,
            error = self.nats.failed() => error,
        }
    }

    /// Stops both children, first by their stop signals. Their clients should have ended before.
    pub async fn stop(self) {
        tokio::join!(self.postgres.stop(), self.nats.stop());
    }
}
