//! `/compare/{digest}..{digest}`: two digests side by side.

mod layers;

use axum::extract::{Path, State};
use axum::http::Uri;
use axum::response::{Html, IntoResponse as _, Redirect, Response};
use axum::routing::get;
use maud::{Markup, html};
use tagtrail_history::digests::{LastHeld, last_held};
use tagtrail_history::manifests::manifests;
use tagtrail_proto::{Digest, Image, Manifest};

use crate::http::error::Error;
use crate::http::parameters::{Parameter, Parameters, optional, text};
use crate::operations::compare::{Comparison, Difference, Field, Group, compare};
use crate::operations::digests::whole;
use crate::pages::Page;
use crate::pages::frame::{Frame, Section, crumbs};
use crate::pages::part::commit::{built_from, range_address, short};
use crate::pages::part::digest::{address, big_swatch, copy, digits, link_with};
use crate::pages::part::icon::icon;
use crate::pages::part::kind::{Tone, badge};
use crate::pages::part::layer::code_list;
use crate::pages::part::text::{counted, foreign, number, size, visible};
use crate::pages::part::when::{Form, time};
use crate::pages::reader::Reader;
use crate::pages::tag::steps;
use crate::shared::Shared;
use crate::store::running::{self, Running};

pub(crate) const PAGE: Page = Page {
    id: "page_compare",
    paths: &["/compare/{pair}"],
    open: false,
    stored: true,
    serve: || get(show),
};

const IMAGE: Parameter = optional(
    "image",
    "The image that had both.",
    "r.example.com/a:b",
    text,
);
const KNOWN: &[Parameter] = &[IMAGE];
/// Most triggers that are listed.
const TRIGGERS: i64 = 25;
/// Most fields of a group that are listed.
const FIELDS: usize = 100;

/// One of the two digests.
struct Side<'a> {
    digest: &'a Digest,
    manifest: Option<&'a Manifest>,
    held: Option<&'a LastHeld>,
}

async fn show(
    reader: Reader,
    State(shared): State<Shared>,
    Path(pair): Path<String>,
    uri: Uri,
) -> Result<Response, Error> {
    let parameters = Parameters::read(&uri, KNOWN)?;
    let image = match parameters.written(IMAGE.name) {
        Some(_) => Some(parameters.image(&shared.names.get())?),
        None => None,
    };
    let (first, second) = pair.split_once("..").ok_or(Error::DigestWhole)?;
    let parse = |text: &str| text.parse().map_err(Error::Digest);
    let a = whole(&shared.database, parse(first)?).await?;
    let b = whole(&shared.database, parse(second)?).await?;
    if (a.to_string(), b.to_string()) != (first.to_owned(), second.to_owned()) {
        let query = uri.query().map(|query| format!("?{query}"));
        let address = format!("/compare/{a}..{b}{}", query.unwrap_or_default());
        return Ok(Redirect::to(&address).into_response());
    }
    let (read, held, running) = shared
        .database
        .ask_page(async |db| {
            let read = manifests(db, &[&a, &b]).await?;
            let held = match &image {
                Some(image) => last_held(db, image, &[&a, &b]).await?,
                None => Vec::new(),
            };
            let running = running::of_digests(db, &[&a, &b], TRIGGERS).await?;
            Ok((read, held, running))
        })
        .await?;
    let side = |digest| Side {
        digest,
        manifest: read.get(digest),
        held: held.iter().find(|one| one.digest == *digest),
    };
    Ok(page(&reader, image.as_ref(), &side(&a), &side(&b), &running).into_response())
}

fn name(side: &Side<'_>) -> String {
    let version = side.manifest.and_then(|one| one.version.as_deref());
    match version {
        Some(version) => {
            let version: String = version.chars().take(60).collect();
            format!("version {}", visible(&version))
        }
        None => format!("digest {}", digits(side.digest, 12)),
    }
}

fn page(
    reader: &Reader,
    image: Option<&Image>,
    a: &Side<'_>,
    b: &Side<'_>,
    running: &[Running],
) -> Html<String> {
    let heading = format!("From {} to {}", name(a), name(b));
    let mut frame = Frame::new(&heading, Section::Images);
    frame.json = Some(format!("/v1/compare?a={}&b={}", a.digest, b.digest));
    let mut way = match image {
        Some(image) => steps(image),
        None => vec![("Images".to_owned(), Some("/i".to_owned()))],
    };
    way.push(("compare".to_owned(), None));
    let both = a.manifest.zip(b.manifest);
    let compared = both.map(|(before, after)| compare(before, after));
    let platform = b.manifest.and_then(|one| one.image.as_ref());
    let platform = platform.and_then(|image| image.platform.as_deref());
    let content = html! {
        (crumbs(&way))
        h1 { (heading) }
        div class="g11" { (card("Before", image, a)) (card("After", image, b)) }
        @match &compared {
            None => p class="note warn" {
                "The manifest of "
                @match (a.manifest, b.manifest) { (None, None) => { "neither" }, (None, _) => { "the digest before" }, _ => { "the digest after" } }
                " has been read"
                @if a.manifest.is_some() || b.manifest.is_some() { " not yet" }
                ", so nothing can be compared: either it waits for its registry, or the registry has no "
                code { "[[registry]]" } " entry in tagtrail.toml."
            },
            Some(compared) => {
                (in_short(a, b, compared))
                @for note in &compared.notes { p class="note" { (visible(note)) } }
                (table("Built from", &compared.fields, &[Group::Built]))
                (table("Contents", &compared.fields, &[Group::Contents, Group::Environment, Group::Label, Group::Annotation]))
                @if let Some(compared) = &compared.layers { (layers::layers(compared, platform)) }
            },
        }
        (where_each_runs(a, b, running))
    };
    frame.page(reader, &content)
}

fn card(heading: &str, image: Option<&Image>, side: &Side<'_>) -> Markup {
    let pinned = match (image, side.manifest) {
        (Some(image), _) => image.pinned(side.digest).to_string(),
        (None, Some(manifest)) => manifest.pinned().to_string(),
        (None, None) => side.digest.to_string(),
    };
    html! {
        section class="card" { div class="head" {
            a href=(address(side.digest)) aria-label={ "The page of the digest " (heading) } { (big_swatch(side.digest)) }
            div {
                h2 { (heading) }
                p class="n" { (side.digest) (copy(&pinned, &format!("Copy {heading}"))) }
                p class="meta" {
                    @if let (Some(held), Some(image)) = (side.held, image) {
                        span { "revision " (number(held.revision)) " of " (image.tag) ", " (time(held.from, Form::Full)) }
                    }
                    @if let Some(manifest) = side.manifest {
                        (built_from(manifest.version.as_deref(), manifest.revision.as_deref(), manifest.source.as_deref()))
                    }
                }
            }
        } }
    }
}

/// Returns the fields of the image itself that differ, as a clause; platforms have a sentence of
/// their own, and the size is that of the layers where these are compared.
fn own_fields(compared: &Comparison) -> Option<String> {
    let own = compared.fields.iter().filter(|one| {
        matches!(one.group, Group::Built | Group::Contents) && one.difference != Difference::Same
    });
    let mut names = Vec::new();
    for field in own {
        let name = match field.name.as_str() {
            "platforms" => continue,
            "size" if compared.layers.is_some() => continue,
            "built" => "build time",
            "base digest" => "base image",
            name => name,
        };
        if !names.contains(&name) {
            names.push(name);
        }
    }
    let (last, others) = names.split_last()?;
    Some(match others {
        [] => format!("the {last} differs"),
        others => format!("the {} and {last} differ", others.join(", ")),
    })
}

/// States the differences in a sentence.
fn in_short(a: &Side<'_>, b: &Side<'_>, compared: &Comparison) -> Markup {
    let fields = &compared.fields;
    let changed = |group: &[Group]| {
        let all = fields.iter().filter(|one| group.contains(&one.group));
        all.filter(|one| one.difference != Difference::Same).count() as u64
    };
    let platforms = fields
        .iter()
        .find(|one| one.group == Group::Contents && one.name == "platforms");
    let texts = changed(&[Group::Label, Group::Annotation]);
    let mut parts: Vec<String> = own_fields(compared).into_iter().collect();
    if texts > 0 {
        parts.push(format!(
            "{} of labels and annotations",
            counted(texts, "difference", "differences")
        ));
    }
    let variables = changed(&[Group::Environment]);
    if variables > 0 {
        parts.push(format!(
            "{} of the environment",
            counted(variables, "difference", "differences")
        ));
    }
    if let Some(layers) = &compared.layers {
        let [gone, new] = [&layers.only_a, &layers.only_b].map(|set| set.layers.len() as u64);
        let all = new + layers.shared.layers.len() as u64;
        if new > 0 {
            let differ = if new == 1 { "differs" } else { "differ" };
            let all = counted(all, "layer", "layers");
            let (new, pulled) = (number(new), size(layers.only_b.size));
            parts.push(format!("{new} of {all} {differ}, {pulled} to pull"));
        } else if gone > 0 {
            parts.push(format!("{} gone", counted(gone, "layer is", "layers are")));
        }
    }
    let sentence = match (a.digest == b.digest, parts.is_empty()) {
        (true, _) => "both are the same digest".to_owned(),
        (false, true) => "nothing that is compared below differs".to_owned(),
        (false, false) => parts.join("; "),
    };
    let commits = a.manifest.zip(b.manifest).and_then(|(before, after)| {
        let (from, to) = (before.revision.as_deref()?, after.revision.as_deref()?);
        let address = range_address(after.source.as_deref(), from, to)?;
        Some((address, format!("Commits {}…{}", short(from), short(to)))).filter(|_| from != to)
    });
    html! {
        p class="note acc" {
            b { "In short: " } (sentence) ". "
            @match platforms.map(|one| one.difference) {
                Some(Difference::Same) => "The platforms are the same. ",
                Some(_) => "The platforms differ. ",
                None => {},
            }
            @if let Some((address, text)) = commits { a href=(address) rel="noreferrer" { (icon("ext")) " " (text) } }
        }
    }
}

fn table(heading: &str, fields: &[Field], groups: &[Group]) -> Markup {
    let all: Vec<&Field> = fields
        .iter()
        .filter(|one| groups.contains(&one.group))
        .collect();
    // Equal variables and labels are folded; equal fields of the image come last.
    let folded = |one: &&&Field| {
        let kept = matches!(one.group, Group::Built | Group::Contents);
        one.difference == Difference::Same && !kept
    };
    let mut open: Vec<&&Field> = all.iter().filter(|one| !folded(one)).collect();
    open.sort_by_key(|one| one.difference == Difference::Same);
    open.truncate(FIELDS);
    let equal: Vec<&&Field> = all.iter().filter(folded).collect();
    html! {
        @if !all.is_empty() {
            section class="card" {
                h2 { (heading) }
                table class="st fix" {
                    thead { tr {
                        th scope="col" class="w15" { "Field" }
                        th scope="col" { "Before" }
                        th scope="col" { "After" }
                        td class="w8" {}
                    } }
                    tbody { @for field in open { (row(field)) } }
                }
                @if !equal.is_empty() {
                    details {
                        summary class="s" { (counted(equal.len() as u64, "more variable, label or annotation is", "more variables, labels and annotations are")) " the same" }
                        dl class="kv" { @for field in equal.iter().take(FIELDS) { dt class="n" { (foreign(&field.name)) } dd { (value(field, field.before.as_deref())) } } }
                    }
                }
            }
        }
    }
}

fn row(field: &Field) -> Markup {
    let name = match field.group {
        Group::Environment => format!("Variable {}", visible(&field.name)),
        Group::Label => format!("Label {}", visible(&field.name)),
        Group::Annotation => format!("Annotation {}", visible(&field.name)),
        Group::Built | Group::Contents => {
            let mut letters = field.name.chars();
            let first = letters.next().map(|letter| letter.to_ascii_uppercase());
            first.into_iter().chain(letters).collect()
        }
    };
    let difference = match field.difference {
        Difference::Same => html! { span class="q" { "same" } },
        Difference::Changed => badge(Tone::Marked, "moved", "changed"),
        Difference::Added => badge(Tone::Good, "created", "added"),
        Difference::Gone => badge(Tone::Bad, "deleted", "gone"),
    };
    html! {
        tr {
            th scope="row" { (name) }
            @if field.difference == Difference::Same {
                td colspan="2" class="q" { (value(field, field.before.as_deref())) }
            } @else {
                td data-l="before" { (value(field, field.before.as_deref())) }
                td data-l="after" { (value(field, field.after.as_deref())) @if let Some(growth) = growth(field) { " (" (growth) ")" } }
            }
            td { (difference) }
        }
    }
}

/// Returns by how much an image grew or shrank: +1.2 MB.
fn growth(field: &Field) -> Option<String> {
    if field.group != Group::Contents || field.name != "size" {
        return None;
    }
    let bytes = |text: &Option<String>| text.as_ref()?.parse::<u64>().ok();
    let (before, after) = (bytes(&field.before)?, bytes(&field.after)?);
    let sign = if after < before { "−" } else { "+" };
    Some(format!("{sign}{}", size(after.abs_diff(before))))
}

fn value(field: &Field, value: Option<&str>) -> Markup {
    let Some(value) = value else {
        return html! { span class="none" { "absent" } };
    };
    let digest = || value.parse::<Digest>().ok();
    match field.name.as_str() {
        _ if field.group == Group::Environment => html! { code { (foreign(value)) } },
        "ports" if field.group == Group::Contents => {
            match serde_json::from_str::<Vec<String>>(value) {
                Ok(ports) => code_list(&ports),
                Err(_) => foreign(value),
            }
        }
        "user" | "entrypoint" | "command" if field.group == Group::Contents => {
            html! { code { (foreign(value)) } }
        }
        "size" if field.group == Group::Contents => match value.parse() {
            Ok(bytes) => html! { (size(bytes)) },
            Err(_) => foreign(value),
        },
        "commit" if field.group == Group::Built => html! { code { (short(value)) } },
        "built" if field.group == Group::Built => match tagtrail_proto::instant::parse(value) {
            Some(at) => time(at, Form::Full),
            None => foreign(value),
        },
        "base digest" => match digest() {
            Some(digest) => link_with(&digest, 12),
            None => foreign(value),
        },
        _ => foreign(value),
    }
}

fn where_each_runs(a: &Side<'_>, b: &Side<'_>, running: &[Running]) -> Markup {
    let has = |one: &Running, digest: &Digest| one.digest.as_ref() == Some(digest);
    let cell = |one: &Running, digest: &Digest, label: &str| {
        html! {
            td data-l=(label) {
                @if has(one, digest) {
                    "rollout #" (number(one.rollout))
                    @if let Some(since) = one.since { " since " (time(since, Form::Short)) }
                    @if one.paused { ", paused" }
                } @else { span class="none" { "not now" } }
            }
        }
    };
    html! {
        section class="card" {
            h2 { "Where each runs" }
            @if running.is_empty() { p class="q" { "No trigger runs one of them now." } }
            @else {
                table class="st fix" {
                    thead { tr {
                        th scope="col" class="w15" { "Trigger" }
                        th scope="col" { "Before" }
                        th scope="col" { "After" }
                    } }
                    tbody { @for one in running { tr {
                        th scope="row" { a href={ "/triggers/" (one.trigger) } { (one.trigger) } }
                        (cell(one, a.digest, "before"))
                        (cell(one, b.digest, "after"))
                    } } }
                }
            }
        }
    }
}
