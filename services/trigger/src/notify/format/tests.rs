use std::collections::BTreeSet;

use super::*;
use crate::notify::sample;

/// An event whose texts are as hostile as a registry or a target can make them.
fn hostile(images: usize, error: &str) -> Told {
    let on = tagtrail_config::NotifyOn::Rollout(RolloutState::Failed);
    let event = sample::event(on, "shop").unwrap();
    let mut event: Event<Rollout> = serde_json::from_slice(&event).unwrap();
    let image = event.data.images["web"].clone();
    for number in 0..images {
        event
            .data
            .images
            .insert(format!("image-{number}"), image.clone());
    }
    event.data.error = Some(error.to_owned());
    Told::Rollout(Box::new(event))
}

/// All texts below these keys.
fn texts(value: &Value, keys: &[&str], found: &mut Vec<String>) {
    match value {
        Value::Object(fields) => {
            for (key, value) in fields {
                if let (true, Value::String(text)) = (keys.contains(&key.as_str()), value) {
                    found.push(text.clone());
                }
                texts(value, keys, found);
            }
        }
        Value::Array(values) => values.iter().for_each(|value| texts(value, keys, found)),
        _ => {}
    }
}

const HOSTILE: &str = "<!channel> @everyone <@U1> *bold* [x](https://evil.example) `a` ```b``` & :smile: <at>all</at>\u{202e}\u{7}";

#[test]
fn slack_shows_hostile_text_as_it_is() {
    let message = slack(&hostile(0, HOSTILE).notice());
    let mut types = Vec::new();
    texts(&message, &["type"], &mut types);
    let types: BTreeSet<&str> = types.iter().map(String::as_str).collect();
    assert_eq!(types, BTreeSet::from(["header", "plain_text", "section"]));
    let mut shown = Vec::new();
    texts(&message, &["text"], &mut shown);
    let shown = shown.join("\n");
    assert!(!shown.contains(['<', '>', '\u{202e}', '\u{7}']), "{shown}");
    assert!(shown.contains("&lt;!channel&gt;") && shown.contains("&amp;"));
}

#[test]
fn teams_shows_hostile_text_in_plain_runs() {
    let message = teams(&hostile(0, HOSTILE).notice());
    let card = &message["attachments"][0];
    assert_eq!(
        card["contentType"],
        "application/vnd.microsoft.card.adaptive"
    );
    let blocks = card["content"]["body"].as_array().unwrap();
    assert!(blocks.iter().all(|block| block["type"] == "RichTextBlock"));
    assert_eq!(card["content"]["msteams"]["entities"], Value::Null);
    assert!(message.to_string().contains("<at>all</at>"));
}

#[test]
fn discord_shows_hostile_text_as_code_and_mentions_nobody() {
    let message = discord(&hostile(0, HOSTILE).notice());
    assert_eq!(message["allowed_mentions"], json!({ "parse": [] }));
    let text = message["embeds"][0]["description"].as_str().unwrap();
    let inside = text
        .strip_prefix("```\n")
        .unwrap()
        .strip_suffix("\n```")
        .unwrap();
    assert!(
        !inside.contains('`') && inside.contains("@everyone"),
        "{inside}"
    );
}

#[test]
fn messages_stay_within_the_bounds_of_each_receiver() {
    for error in [
        "&".repeat(100_000),
        "\u{10ffff}".repeat(50_000),
        String::new(),
    ] {
        let notice = hostile(500, &error).notice();
        let message = slack(&notice);
        let blocks = message["blocks"].as_array().unwrap();
        let length = |at: usize| {
            blocks[at]["text"]["text"]
                .as_str()
                .unwrap()
                .encode_utf16()
                .count()
        };
        assert!(length(0) <= 150 && (1..=3000).contains(&length(1)));
        assert!(teams(&notice).to_string().len() < 28 * 1024);
        let embed = &discord(&notice)["embeds"][0];
        let (mut whole, mut fields) = (Vec::new(), Vec::new());
        texts(
            embed,
            &["title", "description", "name", "value"],
            &mut whole,
        );
        texts(&embed["fields"], &["name", "value"], &mut fields);
        let count = |texts: &[String]| -> usize {
            texts.iter().map(|text| text.encode_utf16().count()).sum()
        };
        assert!(count(&whole) <= 6000 && embed["fields"].as_array().unwrap().len() <= 25);
        let within = |text: &String| (1..=1024).contains(&text.encode_utf16().count());
        assert!(fields.iter().all(within));
    }
}

#[test]
fn a_cdevent_names_each_image_of_a_success() {
    let on = tagtrail_config::NotifyOn::Rollout(RolloutState::Succeeded);
    let event = sample::event(on, "shop").unwrap();
    let told = Told::read(&event).unwrap();
    let events = cdevents(&told);
    assert_eq!(events.len(), 1);
    let (id, event) = &events[0];
    let inner = &event["data"];
    assert_eq!(event["id"], *id.as_str());
    assert_eq!(inner["context"]["type"], UPGRADED);
    assert_eq!(inner["context"]["specversion"], CDEVENTS);
    assert_eq!(inner["subject"]["id"], "shop/web");
    assert_eq!(inner["subject"]["content"]["environment"]["id"], "shop");
    let artifact = inner["subject"]["content"]["artifactId"].as_str().unwrap();
    assert!(artifact.starts_with("pkg:oci/web@sha256%3A"), "{artifact}");
    assert!(
        artifact.ends_with("?repository_url=registry.example.com/shop/web&tag=1.4.0"),
        "{artifact}"
    );
    assert_eq!(cdevents(&hostile(0, "x")).len(), 0);
}
