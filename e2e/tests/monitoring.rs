//! Alert rules and dashboard in `deploy/`: each metric that they name exists, and each counter of
//! an alert exists before the first failure, because an alert on an increase can't see the first
//! value of a new series.

#![expect(clippy::unwrap_used, reason = "in tests a panic is the report")]

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::time::Duration;

use serde_json::{Value, json};
use tagtrail_e2e::{HOOK_SECRET, Up, config, shared_folder, use_ring};
use tagtrail_proto::{Digest, instant};
use tagtrail_testkit::{SOON, Sink, eventually};
use time::OffsetDateTime;
use tokio::time::timeout;

const ALERTS: &str = include_str!("../../deploy/prometheus/alerts.yaml");
const DASHBOARD: &str = include_str!("../../deploy/grafana/tagtrail.json");
const PAGE: &str = include_str!("../../docs/operations.md");

/// A metric of an expression, with the values that its labels must have: of each label, any of
/// several.
#[derive(Debug, PartialEq, Eq)]
struct Selector {
    name: String,
    labels: BTreeMap<String, Vec<String>>,
}

/// Returns the selectors of Tagtrail's metrics in an expression. Labels that must differ from a
/// value are left out.
fn selectors(expression: &str) -> Vec<Selector> {
    let is_name = |character: char| character.is_ascii_alphanumeric() || character == '_';
    let starts = expression.match_indices("tagtrail_").map(|(at, _)| at);
    let starts = starts.filter(|at| !expression[..*at].ends_with(is_name));
    let found = starts.map(|at| {
        let rest = &expression[at..];
        let end = rest.find(|character| !is_name(character));
        let (name, rest) = rest.split_at(end.unwrap_or(rest.len()));
        let inside = rest.strip_prefix('{').and_then(|rest| rest.split_once('}'));
        let matchers = inside.map_or("", |(inside, _)| inside);
        let matchers = matchers.split(',').filter(|matcher| !matcher.contains('!'));
        let labels = matchers.filter_map(|matcher| {
            let (label, value) = matcher.split_once('=')?;
            let value = value.trim_start_matches('~').trim_matches('"');
            let values = value.split('|').map(str::to_owned).collect();
            Some((label.trim().to_owned(), values))
        });
        Selector {
            name: name.to_owned(),
            labels: labels.collect(),
        }
    });
    found.collect()
}

/// Returns the parts of the selector that no series of these metrics has: the name, or a value of
/// a label.
fn missing(selector: &Selector, metrics: &str) -> Vec<String> {
    let Selector { name, labels } = selector;
    let series: Vec<&str> = metrics
        .lines()
        .filter_map(|line| line.strip_prefix(name.as_str()))
        .filter(|rest| rest.starts_with([' ', '{']) || rest.starts_with("_count"))
        .collect();
    let has = |label: &str, value: &str| {
        let pairs = [
            format!("{{{label}=\"{value}\""),
            format!(",{label}=\"{value}\""),
        ];
        let has_pair = |line: &&str| pairs.iter().any(|pair| line.contains(pair));
        series.iter().any(has_pair)
    };
    let mut missing = Vec::new();
    if series.is_empty() {
        missing.push(name.clone());
    }
    for (label, values) in labels {
        let absent = values.iter().filter(|value| !has(label, value));
        missing.extend(absent.map(|value| format!("{name}{{{label}=\"{value}\"}}")));
    }
    missing
}

/// The rules of all groups.
fn rules() -> Vec<Value> {
    let file: Value = serde_saphyr::from_str(ALERTS).unwrap();
    let groups = file["groups"].as_array().unwrap().iter();
    groups
        .flat_map(|group| group["rules"].as_array().unwrap().clone())
        .collect()
}

fn text<'a>(value: &'a Value, key: &str) -> &'a str {
    value[key]
        .as_str()
        .unwrap_or_else(|| panic!("no {key} in {value}"))
}

/// The links to the headings of a page, as Markdown renderers make them.
fn anchors(page: &str) -> BTreeSet<String> {
    let headings = page.lines().filter(|line| line.starts_with('#'));
    let anchor = |line: &str| {
        let line = line.trim_start_matches('#').trim().to_lowercase();
        let kept = |character: &char| character.is_alphanumeric() || " -_".contains(*character);
        line.chars()
            .filter(kept)
            .collect::<String>()
            .replace(' ', "-")
    };
    headings.map(anchor).collect()
}

#[test]
fn every_alert_names_cause_cure_and_a_section_of_the_documentation() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let (_, section) = PAGE.split_once("\n## Alerts\n").unwrap();
    let section = section.split("\n## ").next().unwrap();
    let documented: Vec<&str> = section
        .lines()
        .filter(|line| line.starts_with("| `"))
        .collect();
    let rules = rules();
    let row = |rule: &Value| {
        let about = &rule["annotations"];
        let (cause, cure) = (text(about, "cause"), text(about, "cure"));
        format!("| `{}` | {cause} | {cure} |", text(rule, "alert"))
    };
    let rows: Vec<String> = rules.iter().map(row).collect();
    assert_eq!(rows, documented, "the table of docs/operations.md");
    for rule in &rules {
        assert!(["critical", "warning"].contains(&text(&rule["labels"], "severity")));
        assert!(!text(&rule["annotations"], "summary").is_empty());
        let runbook = text(&rule["annotations"], "runbook");
        let (path, anchor) = runbook.split_once('#').unwrap_or((runbook, ""));
        let page = std::fs::read_to_string(root.join(path)).unwrap();
        let has = anchor.is_empty() || anchors(&page).contains(anchor);
        assert!(has, "{runbook} of {} leads nowhere", rule["alert"]);
    }
}

#[test]
fn the_dashboard_reads_from_a_chosen_prometheus_and_its_panels_do_not_overlap() {
    let dashboard: Value = serde_json::from_str(DASHBOARD).unwrap();
    let variable = &dashboard["templating"]["list"][0];
    assert_eq!(variable["name"], "datasource");
    assert_eq!(variable["type"], "datasource");
    let (mut ids, mut taken) = (BTreeSet::new(), BTreeSet::new());
    for panel in dashboard["panels"].as_array().unwrap() {
        let title = text(panel, "title");
        assert!(ids.insert(panel["id"].as_u64().unwrap()), "{title}");
        assert_eq!(panel["datasource"]["uid"], "${datasource}", "{title}");
        let side = |name: &str| panel["gridPos"][name].as_u64().unwrap();
        for x in side("x")..side("x") + side("w") {
            for y in side("y")..side("y") + side("h") {
                assert!(
                    x < 24 && taken.insert((x, y)),
                    "{title} covers another panel"
                );
            }
        }
        for target in panel["targets"].as_array().unwrap() {
            assert!(!selectors(text(target, "expr")).is_empty(), "{title}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_metric_of_alerts_exists_before_a_failure_and_of_the_dashboard_after_a_push() {
    use_ring();
    let (folder, sink) = (shared_folder(), Sink::start().await);
    let path = config(folder.path(), "registry.example.com", sink.url());
    let mut file = std::fs::read_to_string(&path).unwrap();
    file += "[[registry]]\nname = \"registry.example.com\"\nurl = \"http://127.0.0.1:1\"\nreconcile = \"1s\"\n";
    file += &format!(
        "[[notify]]\nname = \"chat\"\nformat = \"slack\"\nurl = \"{}\"\n",
        sink.url()
    );
    // An API server that is away: the numbers of its objects are there.
    file += "[[cluster]]\nname = \"prod\"\nkubeconfig = { file = \"kubeconfig\" }\ndiscover = [\"tagtrail\"]\nnamespaces = [\"shop\"]\n";
    let kubeconfig = "apiVersion: v1\nkind: Config\ncurrent-context: c\nclusters: [{name: c, cluster: {server: \"http://127.0.0.1:1\"}}]\nusers: [{name: u, user: {}}]\ncontexts: [{name: c, context: {cluster: c, user: u}}]\n";
    std::fs::write(folder.path().join("kubeconfig"), kubeconfig).unwrap();
    std::fs::write(&path, file).unwrap();
    let up = Up::start(&folder.path().join("data"), &path).await;
    let page = format!("{}/metrics", up.address("admin"));
    let metrics = async || Some(reqwest::get(&page).await.ok()?.text().await.unwrap());

    let expressions: Vec<String> = rules()
        .iter()
        .map(|rule| text(rule, "expr").to_owned())
        .collect();
    let (counters, gauges): (Vec<String>, Vec<String>) = expressions
        .into_iter()
        .partition(|expression| expression.starts_with("increase("));
    let counters: Vec<Selector> = counters.iter().flat_map(|one| selectors(one)).collect();
    assert!(counters.len() > 15, "{counters:?}");
    // A service makes its series once it has its connections.
    eventually("the series of alerts", SOON, async || {
        let text = metrics().await?;
        let all_exist = counters.iter().all(|one| missing(one, &text).is_empty());
        all_exist.then_some(())
    })
    .await;

    let now = instant::format(OffsetDateTime::now_utc()).unwrap();
    let body = json!({ "repository": "shop/web", "tag": "latest", "digest": Digest::sha256_of(b"one"), "time": now });
    let hook = format!("{}/hooks/ci", up.address("gateway"));
    let sent = reqwest::Client::new().post(hook).bearer_auth(HOOK_SECRET);
    assert_eq!(sent.json(&body).send().await.unwrap().status(), 202);
    let dashboard: Value = serde_json::from_str(DASHBOARD).unwrap();
    let panels = dashboard["panels"].as_array().unwrap().iter();
    let targets = panels.flat_map(|panel| panel["targets"].as_array().unwrap());
    let expressions = targets.map(|target| text(target, "expr").to_owned());
    let words = PAGE.split(|character: char| character.is_whitespace() || character == '`');
    let documented = words.filter(|word| word.starts_with("tagtrail_"));
    // The prefix of the roles in Postgres.
    let documented = documented.filter(|word| *word != "tagtrail_<name>");
    let all: Vec<Selector> = expressions
        .chain(gauges)
        .chain(documented.map(str::to_owned))
        .flat_map(|expression| selectors(&expression))
        .collect();
    assert!(all.len() > 30, "{all:?}");
    let mut absent = Vec::new();
    let exist = eventually(
        "the metrics of the page, dashboard and alerts",
        SOON,
        async || {
            let text = metrics().await?;
            absent = all.iter().flat_map(|one| missing(one, &text)).collect();
            absent.is_empty().then_some(())
        },
    );
    if timeout(SOON - Duration::from_secs(1), exist).await.is_err() {
        panic!("no service has {absent:#?}");
    }
}

#[test]
fn selectors_are_read_from_expressions() {
    let expression = "sum(increase(tagtrail_a_total{source=\"\",status=~\"401|429\",x!=\"y\"}[1h])) / tagtrail_b > 0";
    let labels = [("source", vec![""]), ("status", vec!["401", "429"])];
    let labels = labels.map(|(label, values)| {
        let values = values.into_iter().map(str::to_owned).collect();
        (label.to_owned(), values)
    });
    let first = Selector {
        name: "tagtrail_a_total".to_owned(),
        labels: BTreeMap::from(labels),
    };
    let second = Selector {
        name: "tagtrail_b".to_owned(),
        labels: BTreeMap::new(),
    };
    assert_eq!(selectors(expression), [first, second]);
    let metrics = "tagtrail_a_total{source=\"\",status=\"401\"} 0\ntagtrail_b 1\n";
    let missing: Vec<String> = selectors(expression)
        .iter()
        .flat_map(|one| missing(one, metrics))
        .collect();
    assert_eq!(missing, ["tagtrail_a_total{status=\"429\"}"]);
}
