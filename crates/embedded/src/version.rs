//! The major version of the database in a data folder, which decides the server, and the move of
//! the database to a newer one.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context as _, bail};
use rustix::fs::{CWD, RenameFlags, renameat_with};

use crate::child::as_user;
use crate::find::{Program, in_brackets};
use crate::postgres::{NAME, POSTGRES, Postgres, create};
use crate::{Folder, Settings, accounts, entry};

/// The programs that move a database. Each works with servers of its own version and of older ones.
const PG_DUMP: Program = Program {
    name: "pg_dump",
    ..POSTGRES
};
const PSQL: Program = Program {
    name: "psql",
    ..POSTGRES
};

/// Returns the major version of the database; `None` if there is no complete database yet.
pub(crate) fn of_data(folder: &Folder, data: &Path) -> anyhow::Result<Option<u32>> {
    if !folder.path().join("postgres.initialised").exists() {
        return Ok(None);
    }
    let path = data.join("PG_VERSION");
    let text = entry::read(&path)?.with_context(|| format!("{} is missing", path.display()))?;
    let major = text.trim().parse();
    major
        .map(Some)
        .with_context(|| format!("{} holds no version", path.display()))
}

/// Returns the folder of the programs of this major version: Postgres reads no data of another one.
pub(crate) fn programs_of(major: u32, folder: &Folder) -> anyhow::Result<PathBuf> {
    match POSTGRES.first(|version| version.0 == major) {
        Ok((program, _)) => folder_of(&program),
        Err(refused) => bail!(
            "the database in {0} is of Postgres {major}, which is not installed{1}: install it (on Debian and Ubuntu: postgresql-{major}, if need be from apt.postgresql.org); to go on with a newer version after that, run `tagtrail upgrade-data --data {0}`",
            folder.path().display(),
            in_brackets(&refused)
        ),
    }
}

pub(crate) fn folder_of(program: &Path) -> anyhow::Result<PathBuf> {
    let folder = program.parent().map(Path::to_path_buf);
    folder.with_context(|| format!("{} is in no folder", program.display()))
}

/// Moves the database of a data folder to the newest Postgres that is installed, by dump and
/// restore. The old database is kept. Returns a text about the result.
///
/// `report` receives the megabytes on disk of the new and of the old database, each second. The new
/// database may end smaller than the old one.
///
/// # Errors
/// The folder is in use, a program is missing, or a step failed. Then the old database stays in
/// place, and the move can be repeated.
pub async fn upgrade_data(
    settings: &Settings,
    report: impl FnMut(u64, u64),
) -> anyhow::Result<String> {
    let folder = Folder::open(&settings.data)?;
    let data = folder.child_folder("postgres")?;
    let Some(old) = of_data(&folder, &data)? else {
        bail!("{} has no database yet", folder.path().display());
    };
    let (newest, (new, _)) = POSTGRES.newest()?;
    if new <= old {
        return Ok(format!(
            "nothing to do: the database is of Postgres {old}, and the newest Postgres that is installed is {new}"
        ));
    }
    let (from, to) = (programs_of(old, &folder)?, folder_of(&newest)?);
    let tools = Tools::find(old, new)?;
    let passwords = accounts::set_up(&folder, &from, &data).await?;

    let next = folder.path().join("postgres.next");
    if next.exists() {
        // Left by a move that was interrupted.
        std::fs::remove_dir_all(&next)
            .with_context(|| format!("can't remove {}", next.display()))?;
    }
    let next = folder.child_folder("postgres.next")?;
    let password = folder.password("postgres")?;
    create(&folder, &to, &next, &password, settings.durable).await?;
    accounts::set_up_new(&folder, &to, &next).await?;

    let (source, target) = tokio::try_join!(
        Postgres::run(
            &folder,
            settings,
            "postgres",
            &from,
            Some(passwords.clone())
        ),
        Postgres::run(&folder, settings, "postgres.next", &to, Some(passwords)),
    )?;
    let copying = copy(&folder, tools, &password, source.port(), target.port());
    let copied = reporting(copying, report, &next, &data).await;
    tokio::join!(source.stop(), target.stop());
    copied?;

    let kept = folder.path().join(format!("postgres.old-{old}"));
    // In one step, so that a crash leaves either the old or the new database in place.
    renameat_with(CWD, &data, CWD, &next, RenameFlags::EXCHANGE)
        .with_context(|| format!("can't put {} into place", next.display()))?;
    std::fs::rename(&next, &kept).with_context(|| format!("can't rename {}", next.display()))?;
    Ok(format!(
        "the database is of Postgres {new} now. The database of Postgres {old} is kept in {}: remove it once all is well",
        kept.display()
    ))
}

/// Runs the copy of a database, and reports its size in between.
async fn reporting<T>(
    copying: impl Future<Output = T>,
    mut report: impl FnMut(u64, u64),
    new: &Path,
    old: &Path,
) -> T {
    let size = |data: &Path| size_of(&data.join("base")) >> 20;
    let total = size(old);
    let mut every = tokio::time::interval(Duration::from_secs(1));
    tokio::pin!(copying);
    loop {
        tokio::select! {
            done = &mut copying => return done,
            _ = every.tick() => report(size(new).min(total), total),
        }
    }
}

/// Returns the bytes of all files in a folder. A file that vanishes meanwhile has none.
fn size_of(folder: &Path) -> u64 {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    entries
        .map(|entry| match entry.metadata() {
            Ok(found) if found.is_dir() => size_of(&entry.path()),
            Ok(found) => found.len(),
            Err(_) => 0,
        })
        .sum()
}

/// The clients that copy a database.
struct Tools {
    pg_dump: PathBuf,
    psql: PathBuf,
}

impl Tools {
    fn find(old: u32, new: u32) -> anyhow::Result<Tools> {
        let (pg_dump, version) = PG_DUMP.newest()?;
        if version.0 < old {
            bail!(
                "{} is of Postgres {}, which can't dump a database of Postgres {old}: install the clients of Postgres {new} (on Debian and Ubuntu: postgresql-client-{new})",
                pg_dump.display(),
                version.0
            );
        }
        let (psql, _) = PSQL.newest()?;
        Ok(Tools { pg_dump, psql })
    }
}

/// Copies the content of the database from one server to the other, all or nothing. Rights are not
/// copied: the next start grants them.
async fn copy(
    folder: &Folder,
    tools: Tools,
    password: &str,
    from: u16,
    to: u16,
) -> anyhow::Result<()> {
    let Tools { pg_dump, psql } = tools;
    let command = |program: &Path, port: u16| {
        let mut command = as_user(folder.user(), Some("KILL"));
        command.arg(program);
        command.args(["--host=127.0.0.1", "--no-password"]);
        command.args([format!("--username={NAME}"), format!("--dbname={NAME}")]);
        command.arg(format!("--port={port}"));
        command.env("PGPASSWORD", password).current_dir("/");
        command
    };
    let mut dump = command(&pg_dump, from);
    dump.args(["--format=plain", "--no-owner", "--no-privileges"]);
    dump.stdin(Stdio::null()).stdout(Stdio::piped());
    let mut restore = command(&psql, to);
    restore.args(["--no-psqlrc", "--quiet", "--single-transaction"]);
    restore.args(["--set=ON_ERROR_STOP=1", "--output=/dev/null"]);
    let copying = tokio::task::spawn_blocking(move || {
        let mut dumping = dump.spawn()?;
        let output = dumping.stdout.take().map_or_else(Stdio::null, Stdio::from);
        let restored = restore.stdin(output).stdout(Stdio::null()).status();
        Ok::<_, std::io::Error>((dumping.wait()?, restored?))
    });
    let (dumped, restored) = copying.await?.context("can't run pg_dump and psql")?;
    if !dumped.success() || !restored.success() {
        bail!(
            "the database could not be copied (pg_dump: {dumped}, psql: {restored}); nothing was changed"
        );
    }
    Ok(())
}
