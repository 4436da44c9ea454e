//! The private Postgres.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context as _, bail};

use crate::accounts::{self, Passwords};
use crate::child::{Child, ChildSpec, as_user, clear_environment};
use crate::find::Program;
use crate::{Folder, Settings, version};

pub(crate) const POSTGRES: Program = Program {
    name: "postgres",
    folders: &[
        ("/usr/lib/postgresql", "bin"),
        ("/usr/local/lib/postgresql", "bin"),
        ("/opt/postgresql", "bin"),
    ],
    minimum: (15, 0),
    cure: "install it with `apt-get install postgresql`, or run `make setup`",
};

/// The name of the user and of the database.
pub(crate) const NAME: &str = "tagtrail";

/// A running Postgres.
#[derive(Debug)]
pub struct Postgres {
    child: Child,
    port: u16,
    /// The passwords of the services; `None` if the owner is a superuser.
    passwords: Option<Passwords>,
    url: String,
}

impl Postgres {
    /// Starts Postgres, creates the database at the first start, and waits until Postgres answers.
    ///
    /// # Errors
    /// Names the missing program or the failed start, with the cure.
    pub async fn start(folder: &Folder, settings: &Settings) -> anyhow::Result<Postgres> {
        let programs = Postgres::programs(folder)?;
        let data = folder.child_folder("postgres")?;
        let password = folder.password("postgres")?;
        initialise(folder, &programs, &data, &password, settings.durable).await?;
        let passwords = match settings.accounts {
            true => Some(accounts::set_up(folder, &programs, &data).await?),
            false => None,
        };
        Postgres::run(folder, settings, "postgres", &programs, passwords).await
    }

    /// Returns the folder of the programs that fit the database of the data folder.
    pub(crate) fn programs(folder: &Folder) -> anyhow::Result<PathBuf> {
        match version::of_data(folder, &folder.path().join("postgres"))? {
            Some(major) => version::programs_of(major, folder),
            None => version::folder_of(&POSTGRES.find()?),
        }
    }

    /// Starts the server on the cluster with this name, which exists.
    pub(crate) async fn run(
        folder: &Folder,
        settings: &Settings,
        name: &'static str,
        programs: &Path,
        passwords: Option<Passwords>,
    ) -> anyhow::Result<Postgres> {
        let data = folder.child_folder(name)?;
        let password = folder.password("postgres")?;
        let port = folder.port(name)?;
        let mut arguments = vec!["-D".to_owned(), data.display().to_string()];
        let durable = if settings.durable { "on" } else { "off" };
        let compression = match has_lz4(folder, programs, &data).await {
            true => "lz4",
            false => "off",
        };
        for (name, value) in [
            ("listen_addresses", "127.0.0.1"),
            ("port", &port.to_string()),
            ("unix_socket_directories", ""),
            ("shared_buffers", &settings.shared_buffers),
            ("max_connections", "100"),
            ("max_wal_size", "4GB"),
            ("wal_compression", compression),
            ("fsync", durable),
            // A crash of Postgres alone must lose no commit, even in settings where a power cut
            // may.
            ("synchronous_commit", "on"),
            ("full_page_writes", durable),
            ("log_checkpoints", "off"),
        ] {
            arguments.extend(["-c".to_owned(), format!("{name}={value}")]);
        }
        let child = Child::start(ChildSpec {
            name,
            program: programs.join("postgres"),
            arguments,
            user: folder.user().cloned(),
            log: folder.path().join(format!("{name}.log")),
            stop: "INT",          // "fast": ends all connections, loses nothing
            death_signal: "QUIT", // "immediate": recovers at the next start
        })?;
        let ready = programs.join("pg_isready");
        let answers = || is_ready(&ready, port);
        // Recovery after a crash may take long.
        child.wait_until(answers, Duration::from_secs(120)).await?;
        Ok(Postgres {
            child,
            port,
            passwords,
            url: url(NAME, &password, port),
        })
    }

    /// Returns the URL of the account of a service, with the password; `None` if the settings have
    /// no accounts, or the account does not exist.
    #[must_use]
    pub fn url_of(&self, account: &str) -> Option<String> {
        let password = self.passwords.as_ref()?.get(account)?;
        Some(url(account, password, self.port))
    }

    /// Returns the URL of the owner of the database, with the password.
    #[must_use]
    pub fn url(&self) -> &str {
        &self.url
    }

    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    /// Returns the process id, while Postgres runs.
    #[must_use]
    pub fn pid(&self) -> Option<u32> {
        self.child.pid()
    }

    /// Resolves when the supervisor gives up.
    pub async fn failed(&self) -> anyhow::Error {
        self.child.failed().await
    }

    /// Stops Postgres and waits for the end.
    pub async fn stop(self) {
        self.child.stop().await;
    }
}

/// Returns whether this build of Postgres compresses its log by lz4. A build without lz4 does not
/// start with that setting.
async fn has_lz4(folder: &Folder, programs: &Path, data: &Path) -> bool {
    let mut arguments = vec!["-D".to_owned(), data.display().to_string()];
    // `-C` prints a setting, and starts nothing.
    arguments.extend(["-c", "wal_compression=lz4", "-C", "wal_compression"].map(str::to_owned));
    run(folder, programs.join("postgres"), &arguments, None)
        .await
        .is_ok()
}

fn url(account: &str, password: &str, port: u16) -> String {
    format!("postgres://{account}:{password}@127.0.0.1:{port}/{NAME}")
}

async fn is_ready(program: &Path, port: u16) -> bool {
    let (program, port) = (program.to_owned(), port.to_string());
    let status = tokio::task::spawn_blocking(move || {
        let mut command = std::process::Command::new(program);
        clear_environment(&mut command);
        command
            .args(["-q", "-h", "127.0.0.1", "-t", "2", "-p", &port])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status()
    });
    matches!(status.await, Ok(Ok(status)) if status.success())
}

/// Creates the cluster and the database once. A marker file records that both are complete, and
/// another one that they were begun: only then the next start begins again from an empty folder.
async fn initialise(
    folder: &Folder,
    programs: &Path,
    data: &Path,
    password: &str,
    durable: bool,
) -> anyhow::Result<()> {
    let (done, begun) = (
        folder.path().join("postgres.initialised"),
        folder.path().join("postgres.begun"),
    );
    if done.exists() {
        return Ok(());
    }
    if begun.exists() {
        std::fs::remove_dir_all(data)
            .with_context(|| format!("can't remove {}", data.display()))?;
        folder.child_folder("postgres")?;
    } else if std::fs::read_dir(data)?.next().is_some() {
        bail!(
            "{} holds files, but not a database that Tagtrail made: move them elsewhere, or choose another folder with --data",
            data.display()
        );
    }
    tracing::info!("creating the database in {}", data.display());
    folder.write("postgres.begun", "")?;
    create(folder, programs, data, password, durable).await?;
    folder.write("postgres.initialised", "")?;
    let _ = std::fs::remove_file(&begun);
    Ok(())
}

/// Creates the cluster and the database in an empty folder.
pub(crate) async fn create(
    folder: &Folder,
    programs: &Path,
    data: &Path,
    password: &str,
    durable: bool,
) -> anyhow::Result<()> {
    let password_file = folder.child_file("postgres.init", password)?;
    let mut arguments = vec![
        format!("--pgdata={}", data.display()),
        format!("--username={NAME}"),
        format!("--pwfile={}", password_file.display()),
        "--auth=scram-sha-256".to_owned(),
        "--encoding=UTF8".to_owned(),
        "--locale=C".to_owned(),
        "--no-instructions".to_owned(),
    ];
    if !durable {
        arguments.push("--no-sync".to_owned());
    }
    run(folder, programs.join("initdb"), &arguments, None).await?;
    let _ = std::fs::remove_file(&password_file);
    // In single-user mode, so that no client can reach an incomplete database.
    let single = [
        "--single".to_owned(),
        "-D".to_owned(),
        data.display().to_string(),
        "postgres".to_owned(),
    ];
    run(
        folder,
        programs.join("postgres"),
        &single,
        Some(format!("create database {NAME};\n")),
    )
    .await?;
    run(
        folder,
        PathBuf::from("sync"),
        &["-f".to_owned(), data.display().to_string()],
        None,
    )
    .await
    .map(|_| ())
}

/// Runs a program as the user of the children. Returns the output of the program.
pub(crate) async fn run(
    folder: &Folder,
    program: PathBuf,
    arguments: &[String],
    input: Option<String>,
) -> anyhow::Result<String> {
    let mut command = as_user(folder.user(), Some("KILL"));
    command
        .arg(&program)
        .args(arguments)
        .current_dir("/")
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    command.stdin(if input.is_some() {
        Stdio::piped()
    } else {
        Stdio::null()
    });
    let name = program.display().to_string();
    let done = tokio::task::spawn_blocking(move || {
        let mut child = command.spawn()?;
        if let (Some(mut stdin), Some(input)) = (child.stdin.take(), input) {
            std::io::Write::write_all(&mut stdin, input.as_bytes())?;
        }
        child.wait_with_output()
    })
    .await?
    .with_context(|| format!("can't run {name}"))?;
    let said = [done.stdout, done.stderr].concat();
    let said = String::from_utf8_lossy(&said).into_owned();
    if !done.status.success() {
        bail!("{name} failed: {said}");
    }
    Ok(said)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[tokio::test]
    async fn a_build_of_postgres_without_lz4_starts_without_compression() {
        let scratch = tempfile::tempdir().unwrap();
        let settings = Settings::new(scratch.path().join("data"));
        let folder = Folder::open(&settings.data).unwrap();
        // Other users, as whom the programs run, must reach the program.
        std::fs::set_permissions(scratch.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
        let program = scratch.path().join("postgres");
        for (script, expected) in [
            ("#!/bin/sh\necho lz4\n", true),
            ("#!/bin/sh\nexit 1\n", false),
        ] {
            std::fs::write(&program, script).unwrap();
            std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755)).unwrap();
            let found = has_lz4(&folder, scratch.path(), scratch.path()).await;
            assert_eq!(found, expected, "{script}");
        }
    }
}
