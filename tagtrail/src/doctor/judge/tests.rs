use serde_json::json;
use tagtrail_config::File;

use super::super::report::Level;
use super::*;

const SOURCE: &str = "[[source]]\nname = 'main'\nkind = 'distribution'\nsecret = { env = 'S' }\n";
const REGISTRY: &str = "[[registry]]\nname = 'r.example.com'\nurl = 'https://r.example.com'\n";

fn read(text: &str) -> File {
    File::parse(text, Path::new("tagtrail.toml")).unwrap()
}

/// What is found about the first source of a file, if showing each of its secrets, or none, ends like this.
fn found(text: &str, secrets: &[Result<Knock, &str>], plain: Option<Knock>) -> Vec<Finding> {
    let file = read(text);
    let entry = &file.source[0];
    let kept = entry.secret.iter().flat_map(|secrets| secrets.kept());
    let asked = Asked {
        setup: tagtrail_gateway::setup(&file, entry, "http://g").map_err(|error| error.to_string()),
        secrets: kept
            .zip(secrets)
            .map(|(kept, tried)| (kept.to_string(), tried.clone().map_err(str::to_owned)))
            .collect(),
        plain,
    };
    let known: Vec<_> = file
        .registry
        .iter()
        .map(|access| access.name.get_ref())
        .collect();
    source(entry, &asked, &known)
}

fn levels(findings: &[Finding]) -> Vec<(&str, Level)> {
    findings
        .iter()
        .map(|finding| (finding.check, finding.level))
        .collect()
}

#[test]
fn a_source_is_well_where_the_gateway_takes_its_secret() {
    for (knock, level, found_word, cure_word) in [
        (
            Knock::Welcome,
            Level::Ok,
            "http://g/hooks/main takes $S",
            "",
        ),
        (Knock::Refused, Level::Error, "does not take $S", "restart"),
        (
            Knock::UnknownSource,
            Level::Error,
            "no such source",
            "restart",
        ),
        (Knock::Other(405), Level::Warning, "405", "proxy"),
        (Knock::Other(404), Level::Error, "404", "--gateway"),
        (
            Knock::Unreachable("refused".to_owned()),
            Level::Error,
            "refused",
            "tagtrail up",
        ),
    ] {
        let findings = found(SOURCE, &[Ok(knock.clone())], None);
        assert_eq!(levels(&findings), [("gateway", level)], "{knock:?}");
        assert!(findings[0].found.contains(found_word), "{findings:?}");
        let cure = findings[0].cure.as_deref().unwrap_or_default();
        assert!(cure.contains(cure_word), "{findings:?}");
    }
}

#[test]
fn each_of_two_secrets_is_tried() {
    let two = SOURCE.replace("{ env = 'S' }", "[{ env = 'OLD' }, { env = 'NEW' }]");
    let findings = found(&two, &[Ok(Knock::Welcome), Ok(Knock::Refused)], None);
    assert_eq!(
        levels(&findings),
        [("gateway", Level::Ok), ("gateway", Level::Error)]
    );
    assert!(findings[1].found.ends_with("does not take $NEW"));
}

#[test]
fn without_a_secret_it_is_at_least_known() {
    let unreadable = found(SOURCE, &[Err("S is not set")], Some(Knock::Refused));
    assert_eq!(
        levels(&unreadable),
        [("secret", Level::Error), ("gateway", Level::Ok)]
    );
    let token = "[[source]]\nname = 'g'\nkind = 'gar'\naudience = 'a'\nemail = 'e'\n";
    let token = found(token, &[], Some(Knock::Refused));
    assert_eq!(levels(&token), [("gateway", Level::Ok)]);
    assert!(token[0].found.contains("can't be tried from here"));
    let zot = "[[source]]\nname = 'z'\nkind = 'zot'\nregistry = 'r.example.com'\nnats = { url = 'nats://n', subject = 'z' }\n";
    let heard = found(zot, &[], Some(Knock::Refused));
    assert_eq!(levels(&heard), [("gateway", Level::Ok)]);
    assert!(heard[0].found.contains("NATS subject"));
}

#[test]
fn an_entry_that_is_wrong_is_told_as_the_services_tell_it() {
    let findings = found(&SOURCE.replace("distribution", "harbour"), &[], None);
    assert_eq!(levels(&findings), [("entry", Level::Error)]);
    assert!(
        findings[0]
            .found
            .starts_with("tagtrail.toml:3: source.kind: ")
    );
}

#[test]
fn digests_that_no_event_names_must_be_to_be_had() {
    let digests = |text: &str| {
        let mut findings = found(text, &[Ok(Knock::Welcome)], None);
        findings.remove(1)
    };
    let quay = SOURCE.replace("distribution", "quay");
    let named = format!("registry = 'r.example.com'\n{REGISTRY}");
    assert_eq!(digests(&format!("{quay}{named}")).level, Level::Ok);
    assert_eq!(digests(&format!("{quay}{REGISTRY}")).level, Level::Ok);
    for (text, name) in [
        (quay.clone(), "\"…\""),
        (
            format!("{quay}registry = 'quay.io'\n{REGISTRY}"),
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
    assert_eq!(found(SOURCE, &[Ok(Knock::Welcome)], None).len(), 1);
}

#[test]
fn what_the_api_says_is_read_leniently() {
    for nothing in [json!(null), json!([]), json!({ "items": {} }), json!({})] {
        assert_eq!(Heard::of("main", Some("r"), &nothing), Heard::default());
    }
    let answer = json!({ "since": "2026-11-01T00:00:00Z", "items": [
        { "registry": "r", "source": "main", "changes": { "event": 57, "resolved": 0, "reconciled": 3, "imported": 9 },
          "late": 0, "lost_share": 0.05, "last_event_at": "2026-11-02T00:00:00Z", "last_walk_at": null },
        { "registry": "s", "source": "main", "changes": { "event": 1 }, "lost_share": null, "last_event_at": "2026-11-03T00:00:00Z" },
        { "registry": "r", "source": "ci", "changes": "?", "last_event_at": 7 },
        { "registry": "q", "source": null, "changes": { "reconciled": 4 }, "lost_share": 1.0, "last_event_at": null },
    ]});
    let main = Heard::of("main", None, &answer);
    assert_eq!((main.changes, main.lost, main.share), (61, 3, Some(0.05)));
    assert_eq!(main.last, instant::parse("2026-11-03T00:00:00Z"));
    let ci = Heard::of("ci", Some("r"), &answer);
    assert_eq!((ci.last, ci.changes, ci.share), (None, 0, None));
    // No item is this source's own.
    assert_eq!(Heard::of("new", Some("q"), &answer).lost, 4);
    assert_eq!(Heard::of("new", None, &answer).lost, 0);
}

#[test]
fn a_source_that_was_never_heard_and_one_that_loses_events_are_warned_of() {
    let now = instant::parse("2026-11-03T00:03:20Z").unwrap();
    let heard = |share, lost| Heard {
        last: instant::parse("2026-11-03T00:00:00Z"),
        changes: 60,
        asked: 0,
        lost,
        share,
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
        let findings = events(&heard(share, lost), now);
        assert_eq!(
            findings[0],
            Finding::ok("events", "the last one came 3 min ago")
        );
        let lost = findings.get(1).map(|finding| finding.found.as_str());
        assert_eq!(lost, expected);
    }
    let never = Heard {
        last: None,
        ..heard(None, 0)
    };
    let findings = events(&never, now);
    assert_eq!(levels(&findings), [("events", Level::Warning)]);
    assert_eq!(findings[0].found, "none came since 2026-11-01T00:00:00Z");
    // Of a kind that names no digest.
    let asked = Heard { asked: 7, ..never };
    let told = Finding::ok(
        "events",
        "they told of 7 changes since 2026-11-01T00:00:00Z",
    );
    assert_eq!(events(&asked, now), [told]);
    assert_eq!(rough(Duration::hours(3)), "3 h");
    assert_eq!(rough(Duration::days(3)), "3 days");
    assert_eq!(rough(Duration::seconds(-3)), "0 s");
}

fn asked(user: bool, ping: Ping) -> Vec<Finding> {
    let user = match user {
        true => "username = 'ci'\npassword = { env = 'P' }\n",
        false => "",
    };
    let file = read(&format!("{REGISTRY}{user}"));
    registry(&file.registry[0], &Ok(ping))
}

#[test]
fn credentials_are_judged_by_what_the_registry_asks_for() {
    let refused = || Err(tagtrail_resolver::AskError::Refused("no: check".to_owned()));
    for (user, scheme, admitted, level, word) in [
        (true, None, Ok(()), Level::Ok, "asks for none"),
        (
            true,
            Some("Basic"),
            Ok(()),
            Level::Ok,
            "takes those of ci (Basic)",
        ),
        (
            false,
            Some("Bearer"),
            Ok(()),
            Level::Ok,
            "lets anybody in (Bearer)",
        ),
        (true, Some("Basic"), refused(), Level::Error, "no: check"),
        (true, Some("Bearer"), refused(), Level::Error, "no: check"),
        (false, Some("Basic"), refused(), Level::Error, "no: check"),
        (
            false,
            Some("Bearer"),
            refused(),
            Level::Warning,
            "without a password no: check",
        ),
        (false, None, refused(), Level::Error, "no: check"),
    ] {
        let ping = Ping {
            scheme,
            ahead: None,
            admitted,
        };
        let findings = asked(user, ping);
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
fn a_clock_that_is_off_is_worth_a_warning_and_far_off_an_error() {
    for (ahead, level, word) in [
        (0, Level::Ok, "agrees"),
        (5, Level::Ok, "agrees"),
        (6, Level::Warning, "6 s ahead of ours"),
        (-60, Level::Warning, "60 s behind ours"),
        (-61, Level::Error, "61 s behind ours"),
    ] {
        let ping = Ping {
            scheme: None,
            ahead: Some(Duration::seconds(ahead)),
            admitted: Ok(()),
        };
        let finding = asked(false, ping).remove(2);
        assert_eq!((finding.check, finding.level), ("clock", level));
        assert!(finding.found.contains(word), "{finding:?}");
    }
}

#[test]
fn a_registry_that_is_not_reached_is_told_with_its_address() {
    let file = read(REGISTRY);
    let nobody = Err(CheckError::TooLate(std::time::Duration::from_secs(10)));
    let findings = registry(&file.registry[0], &nobody);
    assert_eq!(levels(&findings), [("answer", Level::Error)]);
    assert_eq!(
        findings[0].found,
        "https://r.example.com: no answer within 10s"
    );
}

#[test]
fn an_empty_file_is_worth_a_warning() {
    assert_eq!(file(Path::new("t"), &read("")).level, Level::Warning);
    assert_eq!(file(Path::new("t"), &read(SOURCE)).level, Level::Ok);
}
