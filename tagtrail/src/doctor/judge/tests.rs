use serde_json::json;
use tagtrail_config::File;

use super::super::report::Level;
use super::*;

const SOURCE: &str =
    "[[source]]\nname = 'main'\nkind = 'distribution'\nregistry = 'any'\nsecret = { env = 'S' }\n";
const REGISTRY: &str = "[[registry]]\nname = 'r.example.com'\nurl = 'https://r.example.com'\n";

fn read(text: &str) -> File {
    File::parse(text, Path::new("tagtrail.toml")).unwrap()
}

/// The findings about the first source of a file, for these answers to each secret, and to
/// a request without a secret.
fn found(
    text: &str,
    secrets: &[Result<GatewayAnswer, &str>],
    without_secret: Option<GatewayAnswer>,
) -> Vec<Finding> {
    let file = read(text);
    let entry = &file.source[0];
    let kept = entry.secret.iter().flat_map(|secrets| secrets.kept());
    let answers = SourceAnswers {
        setup: tagtrail_gateway::setup(&file, entry, "http://g").map_err(|error| error.to_string()),
        secrets: kept
            .zip(secrets)
            .map(|(kept, answer)| (kept.to_string(), answer.clone().map_err(str::to_owned)))
            .collect(),
        without_secret,
    };
    let configured: Vec<_> = file
        .registry
        .iter()
        .map(|access| access.name.get_ref())
        .collect();
    source(&answers, &configured)
}

fn levels(findings: &[Finding]) -> Vec<(&str, Level)> {
    findings
        .iter()
        .map(|finding| (finding.check, finding.level))
        .collect()
}

#[test]
fn a_source_that_names_no_registry_is_warned_about() {
    let unnamed = SOURCE.replace("registry = 'any'\n", "");
    let findings = found(&unnamed, &[Ok(GatewayAnswer::Accepted)], None);
    assert_eq!(
        levels(&findings),
        [("registry", Level::Warning), ("gateway", Level::Ok)]
    );
    let hub = unnamed.replace("distribution", "dockerhub");
    let findings = found(&hub, &[Ok(GatewayAnswer::Accepted)], None);
    assert!(findings.iter().all(|finding| finding.check != "registry"));
}

#[test]
fn a_source_whose_events_have_no_time_needs_a_registry_that_can_be_asked() {
    for kind in ["artifactory", "aliyun"] {
        let source = format!(
            "[[source]]\nname = 'main'\nkind = '{kind}'\nregistry = 'r.example.com'\nsecret = {{ env = 'S' }}\n"
        );
        let alone = found(&source, &[], None);
        assert_eq!(levels(&alone), [("replays", Level::Warning)], "{kind}");
        let cure = alone[0].cure.as_deref().unwrap_or_default();
        assert!(cure.contains("[[registry]] for r.example.com"), "{cure}");
        let asked = found(&format!("{source}{REGISTRY}"), &[], None);
        assert_eq!(levels(&asked), [("replays", Level::Ok)], "{kind}");
    }
    let timed = found(SOURCE, &[], None);
    assert!(timed.iter().all(|finding| finding.check != "replays"));
}

#[test]
fn a_source_is_ok_if_the_gateway_accepts_its_secret() {
    for (answer, level, found_word, cure_word) in [
        (
            GatewayAnswer::Accepted,
            Level::Ok,
            "http://g/hooks/main accepts $S",
            "",
        ),
        (
            GatewayAnswer::Refused,
            Level::Error,
            "refuses $S",
            "restart",
        ),
        (
            GatewayAnswer::UnknownSource,
            Level::Error,
            "no such source",
            "restart",
        ),
        (GatewayAnswer::Other(405), Level::Warning, "405", "proxy"),
        (GatewayAnswer::Other(404), Level::Error, "404", "--gateway"),
        (
            GatewayAnswer::Unreachable("refused".to_owned()),
            Level::Error,
            "refused",
            "tagtrail up",
        ),
    ] {
        let findings = found(SOURCE, &[Ok(answer.clone())], None);
        assert_eq!(levels(&findings), [("gateway", level)], "{answer:?}");
        assert!(findings[0].found.contains(found_word), "{findings:?}");
        let cure = findings[0].cure.as_deref().unwrap_or_default();
        assert!(cure.contains(cure_word), "{findings:?}");
    }
}

#[test]
fn each_of_two_secrets_is_judged() {
    let two = SOURCE.replace("{ env = 'S' }", "[{ env = 'OLD' }, { env = 'NEW' }]");
    let findings = found(
        &two,
        &[Ok(GatewayAnswer::Accepted), Ok(GatewayAnswer::Refused)],
        None,
    );
    assert_eq!(
        levels(&findings),
        [("gateway", Level::Ok), ("gateway", Level::Error)]
    );
    assert!(findings[1].found.ends_with("refuses $NEW"));
}

#[test]
fn without_a_readable_secret_the_gateway_must_still_have_the_source() {
    let unreadable = found(SOURCE, &[Err("S is not set")], Some(GatewayAnswer::Refused));
    assert_eq!(
        levels(&unreadable),
        [("secret", Level::Error), ("gateway", Level::Ok)]
    );
    let token =
        "[[source]]\nname = 'g'\nkind = 'gar'\nregistry = 'any'\naudience = 'a'\nemail = 'e'\n";
    let token = found(token, &[], Some(GatewayAnswer::Refused));
    assert_eq!(levels(&token), [("gateway", Level::Ok)]);
    assert!(token[0].found.contains("token can't be tested"));
    let zot = "[[source]]\nname = 'z'\nkind = 'zot'\nregistry = 'r.example.com'\nnats = { url = 'nats://n', subject = 'z' }\n";
    let nats = found(zot, &[], Some(GatewayAnswer::Refused));
    assert_eq!(levels(&nats), [("gateway", Level::Ok)]);
    assert!(nats[0].found.contains("NATS subject"));
}

#[test]
fn an_error_in_an_entry_reads_as_in_the_services() {
    let findings = found(&SOURCE.replace("distribution", "harbour"), &[], None);
    assert_eq!(levels(&findings), [("entry", Level::Error)]);
    assert!(
        findings[0]
            .found
            .starts_with("tagtrail.toml:3: source.kind: ")
    );
}

#[test]
fn events_without_digests_need_a_registry_to_ask() {
    let digests = |text: &str| {
        let mut findings = found(text, &[Ok(GatewayAnswer::Accepted)], None);
        findings.remove(1)
    };
    let quay = SOURCE.replace("distribution", "quay");
    let named = quay.replace("'any'", "'r.example.com'");
    assert_eq!(digests(&format!("{named}{REGISTRY}")).level, Level::Ok);
    assert_eq!(digests(&format!("{quay}{REGISTRY}")).level, Level::Ok);
    for (text, name) in [
        (quay.clone(), "\"…\""),
        (
            format!("{}{REGISTRY}", quay.replace("'any'", "'quay.io'")),
            "\"quay.io\"",
        ),
        (
            format!("{}{REGISTRY}", quay.replace("quay", "dockerhub")),
            "\"docker.io\"",
        ),
    ] {
        let finding = digests(&text);
        assert_eq!(finding.level, Level::Error);
        assert!(finding.cure.unwrap().contains(name), "{text}");
    }
    assert_eq!(found(SOURCE, &[Ok(GatewayAnswer::Accepted)], None).len(), 1);
}

#[test]
fn missing_fields_of_the_coverage_report_are_no_error() {
    for nothing in [json!(null), json!([]), json!({ "items": {} }), json!({})] {
        assert_eq!(
            SourceCoverage::of("main", Some("r"), &nothing),
            SourceCoverage::default()
        );
    }
    let answer = json!({ "since": "2026-11-01T00:00:00Z", "items": [
        { "registry": "r", "source": "main", "changes": { "event": 55, "resolved": 0, "observed": 2, "reconciled": 1, "reordered": 2, "imported": 9 },
          "late": 0, "lost_share": 0.05, "last_event_at": "2026-11-02T00:00:00Z", "last_reconciled_at": null },
        { "registry": "s", "source": "main", "changes": { "event": 1 }, "lost_share": null, "last_event_at": "2026-11-03T00:00:00Z" },
        { "registry": "r", "source": "ci", "changes": "?", "last_event_at": 7 },
        { "registry": "q", "source": null, "changes": { "reconciled": 4 }, "lost_share": 1.0, "last_event_at": null },
    ]});
    let main = SourceCoverage::of("main", None, &answer);
    assert_eq!(
        (main.changes, main.lost, main.lost_share),
        (61, 3, Some(0.05))
    );
    assert_eq!(main.last_event, instant::parse("2026-11-03T00:00:00Z"));
    assert_eq!((main.observed, main.reordered), (2, 2));
    let ci = SourceCoverage::of("ci", Some("r"), &answer);
    assert_eq!((ci.last_event, ci.changes, ci.lost_share), (None, 0, None));
    // This source has no item, so the changes without a source in the same registry count.
    assert_eq!(SourceCoverage::of("new", Some("q"), &answer).lost, 4);
    assert_eq!(SourceCoverage::of("new", None, &answer).lost, 0);
}

#[test]
fn a_source_without_events_and_one_that_loses_events_get_a_warning() {
    let now = instant::parse("2026-11-03T00:03:20Z").unwrap();
    let coverage = |lost_share, lost| SourceCoverage {
        last_event: instant::parse("2026-11-03T00:00:00Z"),
        changes: 60,
        resolved: 0,
        lost,
        observed: 0,
        reordered: 0,
        lost_share,
        since: Some("2026-11-01T00:00:00Z".to_owned()),
    };
    for (share, lost, expected) in [
        (None, 0, None),
        (Some(0.01), 0, None),
        (
            Some(0.05),
            3,
            Some("the registry lost 3 of 60 webhooks (5.0 %)"),
        ),
        (
            Some(0.05),
            0,
            Some("the registry lost 5.0 % of its webhooks"),
        ),
    ] {
        let findings = events(&coverage(share, lost), now);
        assert_eq!(
            findings[0],
            Finding::ok("events", "last event received 3 min ago")
        );
        let lost = findings.get(1).map(|finding| finding.found.as_str());
        assert_eq!(lost, expected);
    }
    // Reordered changes are no loss, and changes of a pull-through cache come from pulls alone.
    let reordered = SourceCoverage {
        reordered: 37,
        ..coverage(Some(0.0), 0)
    };
    let findings = events(&reordered, now);
    assert_eq!(
        levels(&findings),
        [("events", Level::Ok), ("order", Level::Warning)]
    );
    assert!(findings[1].found.starts_with("37 of 60 changes"));
    assert!(findings[1].found.ends_with("no webhook was lost"));
    let cache = SourceCoverage {
        observed: 60,
        ..coverage(Some(1.0), 60)
    };
    assert_eq!(
        levels(&events(&cache, now)),
        [("events", Level::Ok), ("lost", Level::Ok)]
    );
    let never = SourceCoverage {
        last_event: None,
        ..coverage(None, 0)
    };
    let findings = events(&never, now);
    assert_eq!(levels(&findings), [("events", Level::Warning)]);
    assert_eq!(
        findings[0].found,
        "no event received since 2026-11-01T00:00:00Z"
    );
    // A kind whose events lack digests.
    let resolved = SourceCoverage {
        resolved: 7,
        ..never
    };
    let expected = Finding::ok("events", "7 changes recorded since 2026-11-01T00:00:00Z");
    assert_eq!(events(&resolved, now), [expected]);
    assert_eq!(rough(Duration::hours(3)), "3 h");
    assert_eq!(rough(Duration::days(3)), "3 days");
    assert_eq!(rough(Duration::seconds(-3)), "0 s");
}

fn answers(ping: Result<Ping, CheckError>) -> RegistryAnswers {
    RegistryAnswers { ping, list: None }
}

/// The findings about a registry that answers like this.
fn judge_ping(user: bool, ping: Ping) -> Vec<Finding> {
    let user = match user {
        true => "username = 'ci'\npassword = { env = 'P' }\n",
        false => "",
    };
    let file = read(&format!("{REGISTRY}{user}"));
    registry(&file.registry[0], &answers(Ok(ping)))
}

#[test]
fn credentials_are_judged_by_the_scheme_that_the_registry_requires() {
    let refused = || Err(tagtrail_resolver::AskError::Refused("no: check".to_owned()));
    for (user, scheme, admitted, level, word) in [
        (true, None, Ok(()), Level::Ok, "none required"),
        (
            true,
            Some("Basic"),
            Ok(()),
            Level::Ok,
            "accepts those of ci (Basic)",
        ),
        (
            false,
            Some("Bearer"),
            Ok(()),
            Level::Ok,
            "permits anonymous access (Bearer)",
        ),
        (true, Some("Basic"), refused(), Level::Error, "no: check"),
        (true, Some("Bearer"), refused(), Level::Error, "no: check"),
        (false, Some("Basic"), refused(), Level::Error, "no: check"),
        (
            false,
            Some("Bearer"),
            refused(),
            Level::Warning,
            "without a password: no: check",
        ),
        (false, None, refused(), Level::Error, "no: check"),
    ] {
        let ping = Ping {
            scheme,
            ahead: None,
            admitted,
        };
        let findings = judge_ping(user, ping);
        assert_eq!(
            levels(&findings),
            [("answer", Level::Ok), ("credentials", level)]
        );
        assert!(findings[1].found.contains(word), "{findings:?}");
        let cure = findings[1].cure.as_deref();
        assert!(cure.is_none_or(|cure| cure.contains("[[registry]] r.example.com")));
    }
}

#[test]
fn a_wrong_clock_is_a_warning_and_a_very_wrong_one_an_error() {
    for (ahead, level, word) in [
        (0, Level::Ok, "agrees"),
        (5, Level::Ok, "agrees"),
        (6, Level::Warning, "6 s ahead of this machine's clock"),
        (-60, Level::Warning, "60 s behind this machine's clock"),
        (-61, Level::Error, "61 s behind this machine's clock"),
    ] {
        let ping = Ping {
            scheme: None,
            ahead: Some(Duration::seconds(ahead)),
            admitted: Ok(()),
        };
        let finding = judge_ping(false, ping).remove(2);
        assert_eq!((finding.check, finding.level), ("clock", level));
        assert!(finding.found.contains(word), "{finding:?}");
    }
}

#[test]
fn the_finding_about_an_unreachable_registry_has_its_url() {
    let file = read(REGISTRY);
    let unreachable = Err(CheckError::TooLate(std::time::Duration::from_secs(10)));
    let findings = registry(&file.registry[0], &answers(unreachable));
    assert_eq!(levels(&findings), [("answer", Level::Error)]);
    assert_eq!(
        findings[0].found,
        "https://r.example.com: no answer within 10s"
    );
}

#[test]
fn a_registry_that_refuses_the_list_of_tags_is_an_error() {
    let file = read(REGISTRY);
    let judge = |list| {
        let ping = Ok(Ping {
            scheme: None,
            ahead: None,
            admitted: Ok(()),
        });
        let list = Some(("shop/web".parse().unwrap(), list));
        registry(&file.registry[0], &RegistryAnswers { ping, list }).remove(2)
    };
    let listed = judge(Ok(()));
    assert_eq!(listed, Finding::ok("tags", "it lists the tags of shop/web"));
    let refused = tagtrail_resolver::AskError::Refused("406 Not Acceptable".to_owned());
    let refused = judge(Err(CheckError::Unreachable(refused)));
    assert_eq!((refused.check, refused.level), ("tags", Level::Error));
    assert!(refused.found.contains("406"), "{refused:?}");
}

#[test]
fn an_empty_file_is_a_warning() {
    assert_eq!(file(Path::new("t"), &read("")).level, Level::Warning);
    assert_eq!(file(Path::new("t"), &read(SOURCE)).level, Level::Ok);
}
