//! The accounts in Postgres under `tagtrail up`: the same as on a server with
//! `deploy/postgres/accounts.sql`, and an owner of the database who is no superuser.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::Path;

use anyhow::{Context as _, bail};

use crate::Folder;
use crate::postgres::{NAME, run};

/// The accounts of the services, and the account of people.
const ACCOUNTS: [&str; 5] = ["indexer", "resolver", "trigger", "api", "report"];

const OWNER: &str = include_str!("accounts.sql");
const SERVICES: &str = include_str!("../../../deploy/postgres/accounts.sql");
/// The line of `deploy/postgres/accounts.sql` after which the file has no commands of psql.
const PLAIN: &str = "from the next line on.\n";

/// The passwords of the accounts, by their names.
pub(crate) type Passwords = BTreeMap<&'static str, String>;

/// Makes the accounts, unless the folder records that they are as they should be. The server must
/// not run.
pub(crate) async fn set_up(
    folder: &Folder,
    programs: &Path,
    data: &Path,
) -> anyhow::Result<Passwords> {
    let passwords = folder.passwords("postgres", &ACCOUNTS)?;
    let statements = statements(folder, &passwords)?;
    let done = folder.path().join("postgres.accounts");
    if crate::entry::read(&done)?.as_deref() == Some(&statements) {
        return Ok(passwords);
    }
    apply(folder, programs, data, &statements).await?;
    folder.write("postgres.accounts", &statements)?;
    Ok(passwords)
}

/// Makes the accounts in a new cluster, with the passwords of the folder.
pub(crate) async fn set_up_new(
    folder: &Folder,
    programs: &Path,
    data: &Path,
) -> anyhow::Result<()> {
    let passwords = folder.passwords("postgres", &ACCOUNTS)?;
    let statements = statements(folder, &passwords)?;
    apply(folder, programs, data, &statements).await
}

async fn apply(
    folder: &Folder,
    programs: &Path,
    data: &Path,
    statements: &str,
) -> anyhow::Result<()> {
    tracing::info!("setting up the accounts of the services in Postgres");
    let arguments = ["--single", "-j", "-D"].map(str::to_owned);
    let arguments = [
        &arguments[..],
        &[data.display().to_string(), NAME.to_owned()],
    ]
    .concat();
    let said = run(
        folder,
        programs.join("postgres"),
        &arguments,
        Some(statements.to_owned()),
    )
    .await?;
    // In single-user mode the exit code does not report a failed statement.
    if let Some(line) = said.lines().find(|line| {
        ["ERROR:", "FATAL:", "PANIC:"]
            .iter()
            .any(|word| line.contains(word))
    }) {
        bail!("can't set up the accounts of the services in Postgres: {line}");
    }
    Ok(())
}

/// Returns the statements. In single-user mode a statement ends with a semicolon and an empty line.
fn statements(folder: &Folder, passwords: &Passwords) -> anyhow::Result<String> {
    let (_, services) = SERVICES
        .split_once(PLAIN)
        .context("deploy/postgres/accounts.sql lacks the line that names `tagtrail up`")?;
    let mut text = String::new();
    let owner = folder.password("postgres")?;
    for (account, password) in passwords.iter().chain([(&"owner", &owner)]) {
        // Passwords are hexadecimal, so nothing needs to be escaped.
        write!(
            text,
            "select set_config('tagtrail.{account}_password', '{password}', false);\n\n"
        )?;
    }
    for part in [OWNER, services] {
        text += &part.replace("\n\n", "\n");
        text += "\n\n";
    }
    Ok(text)
}
