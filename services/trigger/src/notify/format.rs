//! The forms of messages. Names of images, errors and reasons come from outside: no form lets them
//! mention people, make links or mark text up.

use percent::encode;
use serde_json::{Value, json};
use tagtrail_proto::{Event, Rollout, RolloutState};
use time::format_description::well_known::Rfc3339;

use super::notice::{Notice, Told, Tone};

/// Longest text of a section of Slack.
const SECTION: usize = 2900;
/// The version of `CDEvents`, and the type of its event with a version of its own.
const CDEVENTS: &str = "0.5.0";
const UPGRADED: &str = "dev.cdevents.service.upgraded.0.3.0";

/// Blocks for an incoming webhook of Slack. Plain text is shown as it is: `<!channel>`, links and
/// emoji are not recognised in it.
pub(super) fn slack(notice: &Notice) -> Value {
    let title = escaped(&notice.title, 150);
    let mut lines: Vec<String> = notice.text.iter().cloned().collect();
    let facts = notice.facts.iter();
    lines.extend(facts.map(|(name, value)| format!("{name}: {value}")));
    let plain = |text: &str| json!({ "type": "plain_text", "text": text, "emoji": false });
    let mark = match notice.tone {
        Tone::Bad => "🔴 ",
        Tone::Waits => "🟡 ",
        Tone::Good => "🟢 ",
        Tone::Plain => "",
    };
    json!({
        // For the notification on a phone.
        "text": title,
        "mrkdwn": false,
        "parse": "none",
        "link_names": false,
        "unfurl_links": false,
        "unfurl_media": false,
        "blocks": [
            { "type": "header", "text": plain(&format!("{mark}{title}")) },
            { "type": "section", "text": plain(&escaped(&lines.join("\n"), SECTION)) },
        ],
    })
}

/// Escapes the characters that Slack takes as control characters, within a number of bytes.
fn escaped(text: &str, most: usize) -> String {
    let mut escaped = String::with_capacity(text.len());
    for letter in text.chars() {
        let mut plain = [0; 4];
        let written = match letter {
            '&' => "&amp;",
            '<' => "&lt;",
            '>' => "&gt;",
            letter => letter.encode_utf8(&mut plain),
        };
        if escaped.len() + written.len() > most {
            break;
        }
        escaped.push_str(written);
    }
    escaped
}

/// A message with an adaptive card, as workflows of Microsoft Teams take it. Text runs and the
/// card's title are the only texts: Teams reads no Markdown in text runs, and a mention needs an
/// entity, which the card has not.
pub(super) fn teams(notice: &Notice) -> Value {
    let run = |text: &str, more: Value| {
        let mut run = json!({ "type": "TextRun", "text": text });
        if let (Value::Object(run), Value::Object(more)) = (&mut run, more) {
            run.extend(more);
        }
        run
    };
    let color = match notice.tone {
        Tone::Bad => "attention",
        Tone::Waits => "warning",
        Tone::Good => "good",
        Tone::Plain => "default",
    };
    let large = json!({ "size": "large", "weight": "bolder", "color": color });
    let block = |runs: Vec<Value>| json!({ "type": "RichTextBlock", "inlines": runs });
    let mut body = vec![block(vec![run(&notice.title, large)])];
    if let Some(text) = &notice.text {
        body.push(block(vec![run(text, json!({}))]));
    }
    for (name, value) in &notice.facts {
        let name = run(&format!("{name}: "), json!({ "weight": "bolder" }));
        body.push(block(vec![name, run(value, json!({}))]));
    }
    json!({
        "type": "message",
        "attachments": [{
            "contentType": "application/vnd.microsoft.card.adaptive",
            "contentUrl": null,
            "content": {
                "$schema": "http://adaptivecards.io/schemas/adaptive-card.json",
                "type": "AdaptiveCard",
                "version": "1.4",
                "msteams": { "width": "Full" },
                "fallbackText": notice.title,
                "body": body,
            },
        }],
    })
}

/// An embed for a webhook of Discord. Text of others stands in code, where Discord reads no
/// Markdown, and nobody may be mentioned. The bounds of [`Notice`] keep the embed below Discord's
/// 6000 characters.
pub(super) fn discord(notice: &Notice) -> Value {
    let color = match notice.tone {
        Tone::Bad => 0x00d6_293a,
        Tone::Waits => 0x00e5_a50a,
        Tone::Good => 0x002e_a043,
        Tone::Plain => 0x006e_7781,
    };
    // A field of Discord may not be empty.
    let code = |text: &str| match text.is_empty() {
        true => "` `".to_owned(),
        false => format!("`{}`", text.replace('`', "'")),
    };
    let field =
        |(name, value): &(String, String)| json!({ "name": code(name), "value": code(value) });
    let fields: Vec<Value> = notice.facts.iter().map(field).collect();
    let mut embed = json!({
        "title": notice.title,
        "color": color,
        "fields": fields,
        "timestamp": notice.time.format(&Rfc3339).unwrap_or_default(),
    });
    if let (Some(text), Value::Object(embed)) = (&notice.text, &mut embed) {
        let text = format!("```\n{}\n```", text.replace('`', "'"));
        embed.insert("description".to_owned(), text.into());
    }
    json!({ "embeds": [embed], "allowed_mentions": { "parse": [] } })
}

/// Returns a `CloudEvent` with a `CDEvent` for each image of a success, with its id.
pub(super) fn cdevents(told: &Told) -> Vec<(String, Value)> {
    match told {
        Told::Rollout(event) if event.data.state == RolloutState::Succeeded => upgraded(event),
        _ => Vec::new(),
    }
}

fn upgraded(event: &Event<Rollout>) -> Vec<(String, Value)> {
    let rollout = &event.data;
    let time = event.time.format(&Rfc3339).unwrap_or_default();
    let each = rollout.images.iter().map(|(name, image)| {
        let id = format!("{}/{name}", event.id);
        let service = format!("{}/{name}", rollout.trigger);
        let repository = image.image.repository.as_ref();
        let last = repository.rsplit('/').next().unwrap_or(repository);
        let from = format!("{}/{repository}", image.image.registry);
        let artifact = format!(
            "pkg:oci/{}@{}?repository_url={}&tag={}",
            encode(&last.to_lowercase()),
            encode(&image.digest.to_string()),
            encode(&from),
            encode(image.image.tag.as_ref()),
        );
        let data = json!({
            "context": {
                "specversion": CDEVENTS,
                "id": id,
                "source": event.source,
                "type": UPGRADED,
                "timestamp": time,
            },
            "subject": {
                "id": service,
                "source": event.source,
                "type": "service",
                "content": {
                    "environment": { "id": rollout.trigger },
                    "artifactId": artifact,
                },
            },
        });
        let event = json!({
            "specversion": "1.0",
            "id": id,
            "source": event.source,
            "type": UPGRADED,
            "subject": service,
            "time": time,
            "datacontenttype": "application/json",
            "data": data,
        });
        (id, event)
    });
    each.collect()
}

mod percent {
    /// Encodes a part of a package URL: all bytes but unreserved ones and `/`.
    pub(super) fn encode(text: &str) -> String {
        let mut encoded = String::with_capacity(text.len());
        for byte in text.bytes() {
            match byte {
                b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' | b'/' => {
                    encoded.push(char::from(byte));
                }
                byte => encoded.push_str(&format!("%{byte:02X}")),
            }
        }
        encoded
    }
}

#[cfg(test)]
mod tests;
