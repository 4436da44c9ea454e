//! TLS to Postgres and nats-server, by the settings that `docs/security.md` names: the servers that
//! the programs trust, and that they never go on in plain text.

#![expect(clippy::unwrap_used, reason = "in tests a panic is the report")]

use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, chown};
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::json;
use tagtrail_e2e::shared_folder;
use tagtrail_testkit::{CustomNats, SOON, TestPostgres, binary, certificates, eventually};

/// Runs `tagtrail migrate`, which connects to both servers. Returns its output if it failed.
fn migrate(postgres: &str, nats: &str, trusted: Option<&PathBuf>) -> Result<(), String> {
    let mut command = Command::new(binary());
    command.args(["migrate", "--wait", "3"]);
    command.env("DATABASE_URL", postgres).env("NATS_URL", nats);
    command.env_remove("SSL_CERT_FILE");
    if let Some(path) = trusted {
        command.env("SSL_CERT_FILE", path);
    }
    let done = command.output().unwrap();
    match done.status.success() {
        true => Ok(()),
        false => Err(String::from_utf8(done.stderr).unwrap()),
    }
}

/// Switches TLS of a Postgres whose folder has the certificate, and waits until new sessions show
/// the change.
async fn switch(postgres: &TestPostgres, to: bool) {
    let mut db = postgres.db().connect().await;
    let value = if to { "on" } else { "off" };
    for sql in [
        format!("alter system set ssl = {value}"),
        "select pg_reload_conf()".to_owned(),
    ] {
        let sql = sqlx::AssertSqlSafe(sql);
        sqlx::raw_sql(sql).execute(&mut db).await.unwrap();
    }
    eventually("the new setting", SOON, async || {
        let mut db = postgres.db().connect().await;
        let sql = "select ssl from pg_stat_ssl where pid = pg_backend_pid()";
        let is_on: bool = sqlx::query_scalar(sql).fetch_one(&mut db).await.unwrap();
        (is_on == to).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn servers_are_trusted_by_authority_and_name_and_never_in_plain_text() {
    let folder = shared_folder();
    certificates(folder.path());
    let file = |name: &str| folder.path().join(name);
    let postgres = TestPostgres::start().await;
    let mut db = postgres.db().connect().await;
    let data: String = sqlx::query_scalar("show data_directory")
        .fetch_one(&mut db)
        .await
        .unwrap();
    let owner = std::fs::metadata(&data).unwrap().uid();
    for (from, to) in [("server.pem", "server.crt"), ("server.key", "server.key")] {
        let to = Path::new(&data).join(to);
        std::fs::copy(file(from), &to).unwrap();
        std::fs::set_permissions(&to, std::fs::Permissions::from_mode(0o600)).unwrap();
        chown(&to, Some(owner), None).unwrap();
    }
    switch(&postgres, true).await;
    let login = json!({ "user": "a", "password": "a-password-for-tests" });
    let tls = json!({ "cert_file": file("server.pem"), "key_file": file("server.key") });
    let nats = CustomNats::start(json!({ "authorization": login, "tls": tls })).await;
    let nats = nats_url(&nats);
    let url = postgres.db().url().to_owned();
    let secure = |authority: &str| {
        let authority = file(authority);
        format!(
            "{url}?sslmode=verify-full&sslrootcert={}",
            authority.display()
        )
    };
    let named = |url: &str| url.replace("127.0.0.1", "localhost");
    let (ca, other) = (file("ca.pem"), file("other.pem"));
    let (ca, other) = (Some(&ca), Some(&other));

    migrate(&secure("ca.pem"), &nats, ca).unwrap();
    // `sslrootcert` adds an authority to those that SSL_CERT_FILE names.
    migrate(&secure("other.pem"), &nats, ca).unwrap();
    for (postgres, nats, trusted, server, cause) in [
        (
            secure("other.pem"),
            nats.clone(),
            other,
            "Postgres",
            "UnknownIssuer",
        ),
        (
            secure("ca.pem"),
            nats.clone(),
            other,
            "NATS",
            "UnknownIssuer",
        ),
        (
            named(&secure("ca.pem")),
            nats.clone(),
            ca,
            "Postgres",
            "not valid for name",
        ),
        (
            secure("ca.pem"),
            named(&nats),
            ca,
            "NATS",
            "not valid for name",
        ),
    ] {
        let error = migrate(&postgres, &nats, trusted).unwrap_err();
        assert!(error.contains(server) && error.contains(cause), "{error}");
    }

    let plain = CustomNats::start(json!({ "authorization": login })).await;
    let error = migrate(&secure("ca.pem"), &nats_url(&plain), ca).unwrap_err();
    assert!(error.contains("NATS did not answer"), "{error}");
    switch(&postgres, false).await;
    let error = migrate(&secure("ca.pem"), &nats, ca).unwrap_err();
    assert!(
        error.contains("Postgres") && error.contains("TLS"),
        "{error}"
    );
}

/// The address that allows nothing but TLS.
fn nats_url(nats: &CustomNats) -> String {
    let url = nats.url("a", "a-password-for-tests");
    url.replace("nats://", "tls://")
}
