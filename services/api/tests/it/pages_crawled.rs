//! All pages that links lead to from the home page: each is well-formed, and no link is dead.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use serde_json::{Value, json};

use crate::pages_triggers::{behind, run};
use crate::rows::{image, on_time};
use crate::server::Api;

/// Elements without an end.
const VOID: [&str; 5] = ["br", "hr", "input", "link", "meta"];
/// Elements whose begin ends a paragraph: its own end would then be one too many.
const BLOCKS: [&str; 14] = [
    "p", "div", "table", "ul", "ol", "dl", "form", "section", "pre", "details", "h1", "h2", "h3",
    "article",
];
/// Elements that may not be in one of their kind.
const ALONE: [&str; 3] = ["a", "form", "button"];

/// The content of a page that the test looks at.
#[derive(Debug, Default)]
struct Seen {
    ids: BTreeSet<String>,
    /// The addresses of links, and of forms that ask.
    links: BTreeSet<String>,
    mistakes: Vec<String>,
}

fn plain(text: &str) -> String {
    text.replace("&quot;", "\"")
        .replace("&lt;", "<")
        .replace("&gt;", ">")
        .replace("&amp;", "&")
}

/// Returns the name and the attributes of an element, from the text between `<` and `>`.
fn element(text: &str) -> (&str, BTreeMap<&str, String>) {
    let end = text.find(char::is_whitespace).unwrap_or(text.len());
    let (name, mut rest) = text.split_at(end);
    let mut attributes = BTreeMap::new();
    while let Some((attribute, after)) = rest.split_once('"') {
        let Some((value, after)) = after.split_once('"') else {
            break;
        };
        // Attributes without a value stand before it.
        let attribute = attribute.trim().trim_end_matches('=');
        let attribute = attribute.rsplit(char::is_whitespace).next().unwrap();
        attributes.insert(attribute, plain(value));
        rest = after;
    }
    (name.trim_end_matches('/'), attributes)
}

/// Reads a page. The text of attributes and of the page never has a `<` or `>` of its own: maud
/// escapes them.
fn read(page: &str) -> Seen {
    let mut seen = Seen::default();
    let mut open: Vec<&str> = Vec::new();
    let mut wanted = BTreeSet::new();
    for piece in page.split('<').skip(1) {
        let Some((tag, text)) = piece.split_once('>') else {
            seen.mistakes.push(format!("<{piece} has no end"));
            continue;
        };
        if text.contains('>') {
            seen.mistakes.push(format!("a > in the text {text}"));
        }
        if let Some(name) = tag.strip_prefix('/') {
            let last = open.pop();
            if last != Some(name) {
                seen.mistakes.push(format!("</{name}> ends {last:?}"));
            }
            continue;
        }
        if tag.starts_with('!') {
            continue;
        }
        let (name, attributes) = element(tag);
        if ALONE.contains(&name) && open.contains(&name) {
            seen.mistakes.push(format!("<{tag}> is in a {name}"));
        }
        if BLOCKS.contains(&name) && open.contains(&"p") {
            seen.mistakes.push(format!("<{tag}> is in a paragraph"));
        }
        let id = attributes.get("id");
        if let Some(id) = id.filter(|id| !seen.ids.insert((*id).clone())) {
            seen.mistakes.push(format!("a second id {id}"));
        }
        for names in ["aria-labelledby", "aria-describedby", "for"] {
            let ids = attributes.get(names).into_iter();
            wanted.extend(ids.flat_map(|ids| ids.split(' ').map(|id| format!("#{id}"))));
        }
        let asks = name == "form" && !attributes.contains_key("method");
        let link = match name {
            "a" | "link" | "use" => attributes.get("href"),
            "form" if asks => attributes.get("action"),
            "script" => attributes.get("src"),
            _ => None,
        };
        match link {
            Some(link) if link.starts_with('#') => drop(wanted.insert(link.clone())),
            Some(link) if link.starts_with('/') => drop(seen.links.insert(link.clone())),
            Some(link) if link.starts_with("https://") || link.starts_with("data:") => {}
            Some(link) => seen.mistakes.push(format!("the link {link}")),
            None => {}
        }
        if !VOID.contains(&name) && !tag.ends_with('/') {
            open.push(name);
        }
    }
    if !open.is_empty() {
        seen.mistakes.push(format!("without an end: {open:?}"));
    }
    for id in wanted {
        if !seen.ids.contains(&id[1..]) {
            seen.mistakes.push(format!("no element has the id {id}"));
        }
    }
    seen
}

#[tokio::test]
async fn every_page_is_well_formed_and_no_link_is_dead() {
    let (api, mut rows) = Api::start().await;
    let (shop, _) = behind(&mut rows).await;
    for (number, state) in [(2, "failed"), (3, "running")] {
        rows.rollout(shop, number, state, 40 + number).await;
    }
    rows.tag(
        "registry.example.com/shop/api:v1.0.0",
        &[on_time(1, 1, 10), on_time(2, 0, 20)],
    )
    .await;
    let quiet = rows.trigger("quiet", true).await;
    rows.rollout(quiet, 1, "succeeded", 35).await;
    rows.trigger("left", false).await;
    run(&mut rows, "insert into hold (kind, triggers, reason, hard, actor) values ('freeze', 'shop*', 'x', false, 'local')").await;
    for content in 1..=3 {
        rows.manifest(content).await;
        let contents = image(content, &[1, content], &json!({ "A": "1" }));
        rows.contents(content, &contents, &Value::Null).await;
    }
    let mut pages: BTreeMap<String, Seen> = BTreeMap::new();
    let mut known: BTreeSet<String> = ["/", "/search?q=web", "/login"].map(str::to_owned).into();
    let mut next: VecDeque<String> = known.iter().cloned().collect();
    let mut mistakes = Vec::new();
    // The addresses with a part of a page, and the page that leads there.
    let mut parts = BTreeSet::new();
    while let Some(address) = next.pop_front() {
        assert!(known.len() < 500, "the pages have no end: {known:?}");
        let answer = api.once("GET", &address).await;
        let status = answer.status().as_u16();
        let header = |name: &str| {
            let value = answer.headers().get(name);
            value.map_or("", |value| value.to_str().unwrap()).to_owned()
        };
        let (kind, there) = (header("content-type"), header("location"));
        if status >= 400 {
            mistakes.push(format!("{address}: HTTP {status}"));
        }
        let mut links: BTreeSet<String> = BTreeSet::new();
        if !there.is_empty() {
            links.insert(there);
        } else if kind.starts_with("text/html") {
            let seen = read(&answer.text().await.unwrap());
            mistakes.extend(seen.mistakes.iter().map(|one| format!("{address}: {one}")));
            links.extend(seen.links.iter().cloned());
            pages.insert(address.clone(), seen);
        }
        for link in links {
            let (link, part) = link.split_once('#').unwrap_or((&link, ""));
            if !part.is_empty() {
                parts.insert((link.to_owned(), part.to_owned(), address.clone()));
            }
            // No server of NATS, which has the quarantine, runs here.
            if !link.starts_with("/v1/quarantine") && known.insert(link.to_owned()) {
                next.push_back(link.to_owned());
            }
        }
    }
    for (link, part, from) in parts {
        if pages
            .get(&link)
            .is_some_and(|page| !page.ids.contains(&part))
        {
            mistakes.push(format!("{from}: {link} has no part {part}"));
        }
    }
    assert!(pages.len() > 30, "{:?}", pages.keys());
    assert!(mistakes.is_empty(), "{mistakes:#?}");
    api.stop().await;
}

#[test]
fn mistakes_of_a_page_are_found() {
    assert!(
        read("<p id=\"a\">x<br><a href=\"#a\">y</a></p><svg><path d=\"M0\"/></svg>")
            .mistakes
            .is_empty()
    );
    for wrong in [
        "<p><b>x</p></b>",
        "<div>",
        "<p><div></div></p>",
        "<i id=\"a\"></i><i id=\"a\"></i>",
        "<a href=\"#b\">x</a>",
        "<a href=\"javascript:x\">x</a>",
        "<a href=\"/\"><a href=\"/\">x</a></a>",
        "<i></i>>",
    ] {
        assert!(!read(wrong).mistakes.is_empty(), "{wrong}");
    }
}
