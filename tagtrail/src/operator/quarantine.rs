//! `tagtrail quarantine`: authentic bodies that were not understood, and feeding them again.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context as _, bail};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};
use tagtrail_bus::Bus;
use tagtrail_bus::topology::Stream;
use tagtrail_config::File;
use tagtrail_proto::{Quarantined, clean_text, instant};

use super::Servers;
use crate::client::Output;
use crate::client::print::{line, table};

/// What to do.
#[derive(Debug, clap::Args)]
pub(crate) struct Quarantine {
    #[command(subcommand)]
    what: Option<What>,
    #[command(flatten)]
    servers: Servers,
    /// How the answer is written.
    #[arg(long, short, value_enum, default_value_t = Output::Table, global = true)]
    output: Output,
}

#[derive(Debug, clap::Subcommand)]
enum What {
    /// The newest ones (what happens without a subcommand too).
    List {
        /// How many at most.
        #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u64).range(1..))]
        limit: u64,
    },
    /// One, with its body.
    Show {
        /// Its number in the list.
        number: u64,
    },
    /// Read one again as its source is configured now, and put what it means on the bus. Twice is as good as once.
    Feed {
        /// Its number in the list.
        number: u64,
        /// The file with the sources [default: tagtrail.toml if there is one].
        #[arg(long, env = "TAGTRAIL_CONFIG")]
        config: Option<PathBuf>,
    },
}

/// Exit code for a number that is not in the list.
const NOT_FOUND: u8 = 3;

impl Quarantine {
    pub(crate) async fn run(self) -> anyhow::Result<ExitCode> {
        let bus = self.servers.bus().await?;
        let output = self.output;
        match self.what.unwrap_or(What::List { limit: 50 }) {
            What::List { limit } => list(&bus, limit, output).await?,
            What::Show { number } => match kept(&bus, number).await? {
                Some(kept) => show(number, &kept, output)?,
                None => return missing(number),
            },
            What::Feed { number, config } => {
                let Some(kept) = kept(&bus, number).await? else {
                    return missing(number);
                };
                let file = File::load(&File::find(config.as_deref()))?;
                let receipt = tagtrail_gateway::replay(&bus, &file, &kept).await?;
                print(&serde_json::to_string_pretty(&receipt)?)?;
            }
        }
        Ok(ExitCode::SUCCESS)
    }
}

async fn list(bus: &Bus, limit: u64, output: Output) -> anyhow::Result<()> {
    let held = bus.held(Stream::Quarantine).await?;
    let mut found = Vec::new();
    for number in held.rev() {
        if found.len() as u64 == limit {
            break;
        }
        if let Some(kept) = kept(bus, number).await? {
            found.push((number, kept));
        }
    }
    if output == Output::Json {
        let items: Vec<Value> = found
            .iter()
            .map(|(number, kept)| without_body(*number, kept))
            .collect();
        return print(&serde_json::to_string_pretty(&json!({ "items": items }))?);
    }
    let rows = found.iter().map(|(number, kept)| {
        [
            number.to_string(),
            instant::format(kept.received_at).unwrap_or_default(),
            kept.source.clone(),
            kept.kind.clone(),
            kept.length.to_string(),
            clean_text(&kept.reason, 120),
        ]
    });
    let names = ["NUMBER", "RECEIVED", "SOURCE", "KIND", "BYTES", "REASON"];
    print(&table(names, rows))
}

fn show(number: u64, kept: &Quarantined, output: Output) -> anyhow::Result<()> {
    if output == Output::Json {
        let mut whole = without_body(number, kept);
        whole["body"] = kept.body.clone().into();
        return print(&serde_json::to_string_pretty(&whole)?);
    }
    let body = STANDARD.decode(&kept.body).unwrap_or_default();
    let body = match serde_json::from_slice::<Value>(&body) {
        Ok(json) => serde_json::to_string_pretty(&json)?,
        // Whatever it is, it must not write to the terminal what it likes.
        Err(_) => clean_text(&String::from_utf8_lossy(&body), Quarantined::KEPT),
    };
    let cut = if kept.truncated {
        format!("\n… {} bytes in all, of which these were kept", kept.length)
    } else {
        String::new()
    };
    let received = instant::format(kept.received_at).unwrap_or_default();
    let content_type = kept.content_type.as_deref().unwrap_or("-");
    print(&format!(
        "source        {}\nkind          {}\nreceived      {received}\ncontent type  {content_type}\nsha256        {}\nreason        {}\n\n{body}{cut}",
        kept.source, kept.kind, kept.sha256, kept.reason
    ))
}

fn without_body(number: u64, kept: &Quarantined) -> Value {
    let mut value = serde_json::to_value(kept).unwrap_or_default();
    if let Some(fields) = value.as_object_mut() {
        fields.remove("body");
        fields.insert("number".to_owned(), number.into());
    }
    value
}

async fn kept(bus: &Bus, number: u64) -> anyhow::Result<Option<Quarantined>> {
    let Some(message) = bus.message(Stream::Quarantine, number).await? else {
        return Ok(None);
    };
    let kept = serde_json::from_slice(&message.payload)
        .with_context(|| format!("message {number} of QUARANTINE was not written by Tagtrail"))?;
    Ok(Some(kept))
}

fn missing(number: u64) -> anyhow::Result<ExitCode> {
    use std::io::Write as _;
    let _ = writeln!(
        std::io::stderr(),
        "error: there is no number {number} in quarantine; `tagtrail quarantine` lists what is there"
    );
    Ok(ExitCode::from(NOT_FOUND))
}

fn print(text: &str) -> anyhow::Result<()> {
    match line(text) {
        Ok(()) => Ok(()),
        Err(failure) => bail!(failure.message),
    }
}
