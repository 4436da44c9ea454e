//! `tagtrail quarantine`: lists, shows and replays authenticated events that could not be
//! interpreted.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context as _, bail};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};
use tagtrail_bus::Bus;
use tagtrail_bus::topology::Stream;
use tagtrail_config::File;
use tagtrail_proto::{Quarantined, instant};

use super::Servers;
use crate::client::print::{clean, line};
use crate::client::screen::{Format, Output, Screen};
use crate::client::table::{Column, shorten, table};

/// Arguments of `tagtrail quarantine`.
#[derive(Debug, clap::Args)]
pub(crate) struct Quarantine {
    #[command(subcommand)]
    command: Option<QuarantineCommand>,
    #[command(flatten)]
    servers: Servers,
    #[command(flatten)]
    format: Format,
}

#[derive(Debug, clap::Subcommand)]
enum QuarantineCommand {
    /// List the newest entries (the default).
    List {
        /// Most entries to list.
        #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u64).range(1..))]
        limit: u64,
    },
    /// Show an entry with its body.
    Show {
        /// Number of the entry in the list.
        number: u64,
    },
    /// Interpret an entry again, with the current configuration, and publish the pushes. Safe to
    /// repeat.
    #[command(alias = "feed")]
    Replay {
        /// Number of the entry in the list.
        number: u64,
        /// File with the sources [default: tagtrail.toml if present].
        #[arg(long, env = "TAGTRAIL_CONFIG")]
        config: Option<PathBuf>,
    },
}

/// Columns of a reason in a table that fits the screen.
const REASON: usize = 120;
/// Exit code for a number that is not in the list.
const NOT_FOUND: u8 = 3;

impl Quarantine {
    pub(crate) async fn run(self) -> anyhow::Result<ExitCode> {
        let bus = self.servers.bus().await?;
        let screen = self.format.screen();
        match self
            .command
            .unwrap_or(QuarantineCommand::List { limit: 50 })
        {
            QuarantineCommand::List { limit } => list(&bus, limit, &screen).await?,
            QuarantineCommand::Show { number } => match entry(&bus, number).await? {
                Some(entry) => show(number, &entry, &screen)?,
                None => return missing(number),
            },
            QuarantineCommand::Replay { number, config } => {
                let Some(entry) = entry(&bus, number).await? else {
                    return missing(number);
                };
                let file = File::load(&File::find(config.as_deref()))?;
                let receipt = tagtrail_gateway::replay(&bus, &file, &entry).await?;
                print(&serde_json::to_string_pretty(&receipt)?)?;
            }
        }
        Ok(ExitCode::SUCCESS)
    }
}

async fn list(bus: &Bus, limit: u64, screen: &Screen) -> anyhow::Result<()> {
    let held = bus.held(Stream::Quarantine).await?;
    let mut found = Vec::new();
    for number in held.rev() {
        if found.len() as u64 == limit {
            break;
        }
        if let Some(entry) = entry(bus, number).await? {
            found.push((number, entry));
        }
    }
    if screen.output == Output::Json {
        let items: Vec<Value> = found
            .iter()
            .map(|(number, entry)| without_body(*number, entry))
            .collect();
        return print(&serde_json::to_string_pretty(&json!({ "items": items }))?);
    }
    if found.is_empty() {
        return print("nothing in quarantine");
    }
    print(&describe(&found, screen))
}

fn describe(found: &[(u64, Quarantined)], screen: &Screen) -> String {
    let columns = [
        Column::whole("NUMBER"),
        Column::whole("RECEIVED"),
        Column::name("SOURCE"),
        Column::whole("KIND").only_wide(),
        Column::whole("BYTES").only_wide(),
        Column::text("REASON"),
    ];
    let rows = found.iter().map(|(number, entry)| {
        [
            number.to_string(),
            screen.time(&instant::format(entry.received_at).unwrap_or_default()),
            entry.source.clone(),
            entry.kind.clone(),
            entry.length.to_string(),
            match screen.width {
                Some(_) => shorten(&entry.reason, REASON),
                None => entry.reason.clone(),
            },
        ]
    });
    table(screen, columns, rows)
}

fn show(number: u64, entry: &Quarantined, screen: &Screen) -> anyhow::Result<()> {
    if screen.output == Output::Json {
        let mut whole = without_body(number, entry);
        whole["body"] = entry.body.clone().into();
        return print(&serde_json::to_string_pretty(&whole)?);
    }
    let body = STANDARD.decode(&entry.body).unwrap_or_default();
    let body = match serde_json::from_slice::<Value>(&body) {
        Ok(json) => clean(&serde_json::to_string_pretty(&json)?),
        Err(_) => clean(&String::from_utf8_lossy(&body)),
    };
    let cut = if entry.truncated {
        format!("\n… cut: the whole body had {} bytes", entry.length)
    } else {
        String::new()
    };
    let received = instant::format(entry.received_at).unwrap_or_default();
    let content_type = entry.content_type.as_deref().unwrap_or("-");
    print(&format!(
        "source        {}\nkind          {}\nreceived      {received}\ncontent type  {content_type}\nsha256        {}\nreason        {}\n\n{body}{cut}",
        entry.source, entry.kind, entry.sha256, entry.reason
    ))
}

fn without_body(number: u64, entry: &Quarantined) -> Value {
    let mut value = serde_json::to_value(entry).unwrap_or_default();
    if let Some(fields) = value.as_object_mut() {
        fields.remove("body");
        fields.insert("number".to_owned(), number.into());
    }
    value
}

async fn entry(bus: &Bus, number: u64) -> anyhow::Result<Option<Quarantined>> {
    let Some(message) = bus.message(Stream::Quarantine, number).await? else {
        return Ok(None);
    };
    let entry = serde_json::from_slice(&message.payload)
        .with_context(|| format!("message {number} of QUARANTINE was not written by Tagtrail"))?;
    Ok(Some(entry))
}

fn missing(number: u64) -> anyhow::Result<ExitCode> {
    use std::io::Write as _;
    let _ = writeln!(
        std::io::stderr(),
        "error: no entry {number} in quarantine; `tagtrail quarantine` lists the entries"
    );
    Ok(ExitCode::from(NOT_FOUND))
}

fn print(text: &str) -> anyhow::Result<()> {
    match line(text) {
        Ok(()) => Ok(()),
        Err(failure) => bail!(failure.message),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::client::screen::tests::{screen, wide};

    #[test]
    fn the_list_fits_80_columns() {
        let entry = Quarantined::new(
            &"s".repeat(63),
            "distribution",
            "the body is not JSON: expected a value at line 1, column 1; ".repeat(9),
            instant::parse("2026-11-26T22:15:27.392241Z").unwrap(),
            None,
            b"not JSON",
        );
        let reason = entry.reason.clone();
        let entries = [(1, entry.clone()), (1_234_567, entry)];
        assert!(describe(&entries, &wide()).contains(reason.trim_end()));
        let text = describe(&entries, &screen(80));
        let widest = text.lines().map(|line| line.chars().count()).max();
        assert!(widest > Some(70) && widest <= Some(80), "{text}");
        assert!(text.contains("…"), "{text}");
    }
}
