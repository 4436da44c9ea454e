//! `tagtrail import`: the image policies of other systems as triggers.
//!
//! Each system is a file here and a row in [`System`]. The output is TOML for `tagtrail.toml`; a
//! table on standard error has the fate of each part of the objects.

mod argo;
mod flux;
mod found;
mod kargo;
mod keel;
mod objects;
mod openshift;
#[cfg(test)]
mod tests;
mod verify;
mod workload;

use std::fmt::Write as _;
use std::path::PathBuf;

use clap::ValueEnum;

use crate::client::api::{Api, Failure};
use crate::client::print;
use crate::client::screen::Screen;
use crate::client::table::{Column, table};
use found::{Found, Trigger, Watched};
use objects::Object;

/// Arguments of `tagtrail import`.
#[derive(Debug, clap::Args)]
pub(crate) struct Import {
    /// The system that the manifests are for.
    #[arg(value_enum)]
    system: System,
    /// Manifests in YAML or JSON, such as the output of `kubectl get … -o yaml`; - is standard
    /// input.
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,
    /// Compare the tag that Tagtrail selects with `status.latestRef` of each `ImagePolicy` (flux).
    #[arg(long)]
    verify: bool,
    /// Compare among these tags, not among those in history: a file with an image in each line.
    #[arg(long, value_name = "FILE", requires = "verify")]
    tags: Option<PathBuf>,
}

/// The systems that are read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum System {
    /// `ImageRepository`, `ImagePolicy` and `ImageUpdateAutomation`.
    Flux,
    /// Workloads with `keel.sh/policy`.
    Keel,
    /// `ImageUpdater` objects, and Applications with annotations.
    Argo,
    /// `Warehouse` and `Stage`.
    Kargo,
    /// Workloads with image-change triggers, `DeploymentConfig` and `ImageStream`.
    Openshift,
}

impl System {
    fn import(self, objects: &[Object]) -> Found {
        let mut found = Found::default();
        let import = match self {
            System::Flux => flux::import,
            System::Keel => keel::import,
            System::Argo => argo::import,
            System::Kargo => kargo::import,
            System::Openshift => openshift::import,
        };
        import(objects, &mut found);
        found.finish();
        found
    }

    const fn name(self) -> &'static str {
        match self {
            System::Flux => "flux",
            System::Keel => "keel",
            System::Argo => "argo",
            System::Kargo => "kargo",
            System::Openshift => "openshift",
        }
    }
}

impl Import {
    pub(crate) async fn run(self, api: &Api, screen: &Screen) -> Result<(), Failure> {
        let failed = |error: anyhow::Error| Failure::failed(format!("{error:#}"));
        if self.verify && self.system != System::Flux {
            return Err(Failure::usage(
                "--verify is for flux: objects of the other systems do not tell which tag is selected",
            ));
        }
        let objects = objects::read(&self.files).map_err(failed)?;
        let found = self.system.import(&objects);
        if found.parts.is_empty() {
            let name = self.system.name();
            return Err(Failure::not_found(format!(
                "no object of {name} is in the input: add the output of `kubectl get` for them as YAML or JSON"
            )));
        }
        print::line(write(self.system, &found).trim_end())?;
        print::aside(&fates(&found, screen));
        if !self.verify {
            return Ok(());
        }
        let tags = match &self.tags {
            Some(file) => verify::from_file(file).map_err(failed)?,
            None => verify::from_api(api, &found).await?,
        };
        let (text, same) = verify::compare(&found, &tags, screen);
        print::aside(&format!("\n{text}"));
        match same {
            true => Ok(()),
            false => Err(Failure::failed(
                "Tagtrail selects other tags, see the table",
            )),
        }
    }
}

/// Writes the triggers as TOML.
fn write(system: System, found: &Found) -> String {
    let mut text = format!(
        "# Written by `tagtrail import` from {}. Write the target of each trigger, then check the file with\n# `tagtrail config check`.\n",
        system.name()
    );
    for (registry, secrets) in &found.secrets {
        let secrets: Vec<&str> = secrets.iter().map(String::as_str).collect();
        let _ = write!(
            text,
            "#\n# The password of {registry} is in {}:\n# [[registry]]\n# name = {}\n",
            secrets.join(", "),
            found::text(registry),
        );
    }
    for trigger in &found.triggers {
        text += &entry(trigger);
    }
    text
}

fn entry(trigger: &Trigger) -> String {
    let mut text = format!(
        "\n# {}\n[[trigger]]\nname = {}\n",
        trigger.object,
        found::text(&trigger.name)
    );
    for (name, image) in &trigger.images {
        let value = match image {
            Watched::Tag(image) => found::text(image).to_string(),
            Watched::Policy(settings) => {
                let settings = settings.iter();
                let settings = settings.map(|(key, value)| format!("{key} = {value}"));
                format!("{{ {} }}", settings.collect::<Vec<_>>().join(", "))
            }
        };
        let _ = writeln!(text, "images.{name} = {value}");
    }
    for note in &trigger.notes {
        let _ = writeln!(text, "# {note}");
    }
    text + "target.command = { run = [\"./deploy.sh\"] }\n"
}

/// Formats the fate of each part, and the number of each fate.
fn fates(found: &Found, screen: &Screen) -> String {
    let columns = [
        Column::name("OBJECT"),
        Column::name("PART"),
        Column::state("RESULT"),
        Column::text("BECOMES"),
    ];
    let rows = found.parts.iter().map(|part| {
        let fate = part.fate.as_str().to_owned();
        [
            part.object.clone(),
            part.part.clone(),
            fate,
            part.becomes.clone(),
        ]
    });
    let count = |fate| found.parts.iter().filter(|part| part.fate == fate).count();
    let (exact, close, left_out) = (
        count(found::Fate::Exact),
        count(found::Fate::Close),
        count(found::Fate::LeftOut),
    );
    let triggers = match found.triggers.len() {
        1 => "1 trigger".to_owned(),
        triggers => format!("{triggers} triggers"),
    };
    format!(
        "{}\n{triggers}; of their parts {exact} exact, {close} close, {left_out} left out",
        table(screen, columns, rows)
    )
}
