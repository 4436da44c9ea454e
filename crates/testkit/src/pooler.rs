//! A real `PgBouncer` in front of a database.

use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::process::Command;

use crate::scratch::Scratch;
use crate::{Process, SOON, TestDb, eventually, free_address};

/// A running `PgBouncer`, which drops the settings that clients ask for.
#[derive(Debug)]
pub struct PgBouncer {
    url: String,
    _process: Process,
    _scratch: Scratch,
}

impl PgBouncer {
    /// Starts `PgBouncer` with at most `connections` to the server. `mode` is `session` or
    /// `transaction`.
    ///
    /// # Panics
    /// If `PgBouncer` is not installed.
    pub async fn start(db: &TestDb, mode: &str, connections: u16) -> PgBouncer {
        let scratch = Scratch::new("pgbouncer");
        let address = free_address();
        let (host, port) = address.split_once(':').unwrap();
        let config = scratch.path().join("pgbouncer.ini");
        let text = format!(
            "[databases]\n{}\n[pgbouncer]\nlisten_addr = {host}\nlisten_port = {port}\nunix_socket_dir =\n\
             auth_type = any\npool_mode = {mode}\ndefault_pool_size = {connections}\n\
             ignore_startup_parameters = extra_float_digits,options\n",
            target(db.url()),
        );
        std::fs::write(&config, text).unwrap();
        // PgBouncer refuses to run as root, and must be able to read the file.
        for path in [scratch.path(), &config] {
            std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o755)).unwrap();
        }
        let mut command = Command::new("setpriv");
        if std::fs::metadata("/proc/self").unwrap().uid() == 0 {
            command.args(["--reuid", "65534", "--regid", "65534", "--clear-groups"]);
        }
        let program = ["/usr/sbin/pgbouncer", "/usr/bin/pgbouncer"]
            .into_iter()
            .find(|path| std::path::Path::new(path).exists())
            .expect("pgbouncer is missing: run `make setup`, or install the package pgbouncer");
        command
            .args(["--pdeathsig", "KILL", "--", program])
            .arg(&config);
        let process = Process::spawn("pgbouncer", command);
        eventually("PgBouncer", SOON, async || {
            tokio::net::TcpStream::connect(&address).await.ok()
        })
        .await;
        let (_, database) = db.url().rsplit_once('/').unwrap();
        PgBouncer {
            url: format!("postgres://anyone@{address}/{database}"),
            _process: process,
            _scratch: scratch,
        }
    }

    /// Returns the URL of the database behind the pooler.
    #[must_use]
    pub fn url(&self) -> &str {
        &self.url
    }
}

/// Returns the line of the database for the URL `postgres://user:password@host:port/database`.
fn target(url: &str) -> String {
    let rest = url.strip_prefix("postgres://").unwrap();
    let (login, place) = rest.split_once('@').unwrap();
    let (user, password) = login.split_once(':').unwrap();
    let (address, database) = place.split_once('/').unwrap();
    let (host, port) = address.split_once(':').unwrap();
    format!(
        "{database} = host={host} port={port} dbname={database} user={user} password='{password}'"
    )
}
