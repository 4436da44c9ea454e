//! `tagtrail explain`.

use serde_json::Value;

use super::api::{Api, Failure};
use super::print::field;
use super::screen::Screen;
use super::table::{Column, table, wrap};
use super::time::{self, Time};
use super::{Printable, suggest};

/// Arguments of `tagtrail explain`.
#[derive(Debug, clap::Args)]
pub(crate) struct Explain {
    /// Name of the trigger.
    trigger: String,
    /// Explain the selection at this time, such as 2026-03-03T14:02:00Z or -1h, by the present
    /// rule [default: now].
    #[arg(long, value_name = "TIME", allow_hyphen_values = true, value_parser = super::time::parse)]
    at: Option<Time>,
    /// Most tags of each image.
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u8).range(1..=100))]
    limit: u8,
}

impl Explain {
    pub(crate) async fn run(self, api: &Api, screen: &Screen) -> Result<Printable, Failure> {
        let query = [
            ("at", time::text(self.at.as_ref(), screen.zone.as_ref())?),
            ("limit", Some(self.limit.to_string())),
        ];
        let path = ["triggers", &self.trigger, "explain"];
        let answer = api.get(&path, &query).await;
        let json = suggest::trigger(api, &self.trigger, answer).await?;
        let text = describe(&json, screen);
        Ok(Printable { json, text })
    }
}

/// Returns a paragraph for each image.
pub(super) fn describe(explained: &Value, screen: &Screen) -> String {
    let images = explained.get("images").and_then(Value::as_object);
    let paragraphs = images
        .into_iter()
        .flatten()
        .map(|(name, image)| describe_image(name, image, screen));
    let text = paragraphs.collect::<Vec<_>>().join("\n\n");
    match explained.get("follow") {
        _ if !text.is_empty() => text,
        None => "the trigger names no image".to_owned(),
        Some(follow) => {
            let name = field(explained, "trigger");
            let text = format!(
                "{name} takes over the images of {}: `tagtrail status {name}` shows a set that has not lasted yet, and `tagtrail explain` of these triggers the tags",
                upstream(follow).join(", ")
            );
            wrap(screen, &text, 0)
        }
    }
}

/// Returns the names in the settings `follow`.
fn upstream(follow: &Value) -> Vec<String> {
    let names = |value: &Value| match value {
        Value::String(name) => vec![name.clone()],
        Value::Array(names) => names
            .iter()
            .filter_map(Value::as_str)
            .map(str::to_owned)
            .collect(),
        _ => Vec::new(),
    };
    let keys = ["trigger", "all", "any"];
    keys.iter()
        .filter_map(|key| follow.get(key))
        .flat_map(names)
        .collect()
}

fn describe_image(name: &str, image: &Value, screen: &Screen) -> String {
    let selected = match image.get("selected").filter(|one| !one.is_null()) {
        None => "no tag is selected".to_owned(),
        Some(one) => {
            let [tag, revision, digest] = ["tag", "revision", "digest"].map(|key| field(one, key));
            let digest = screen.digest(&digest);
            format!("{tag} is selected (revision {revision}, {digest})")
        }
    };
    let title = format!("{name}, {}: {selected}", field(image, "image"));
    let mut text = wrap(screen, &title, 0);
    let others = image.get("passed_over").and_then(Value::as_array);
    let others = others.map_or(&[][..], Vec::as_slice);
    if others.is_empty() {
        return text;
    }
    let rows = others.iter().map(|other| {
        let [tag, code, why, opens_at] =
            ["tag", "code", "why", "opens_at"].map(|key| field(other, key));
        let why = match opens_at.as_str() {
            "-" => why,
            at => format!("{why}, until {}", screen.time(at)),
        };
        [tag, code, why]
    });
    let columns = [
        Column::name("TAG"),
        Column::whole("REASON"),
        Column::text("WHY"),
    ];
    text += "\n";
    text += &table(screen, columns, rows);
    match image.get("left").and_then(Value::as_u64) {
        None | Some(0) => {}
        Some(left) => text += &format!("\n… {left} more: --limit"),
    }
    text
}

#[cfg(test)]
mod tests {
    use serde_json::json;
    use unicode_width::UnicodeWidthStr as _;

    use super::super::screen::tests::screen;
    use super::*;

    #[test]
    fn each_image_has_its_selected_tag_and_the_reasons_against_others() {
        let digest = format!("sha256:{}", "a".repeat(64));
        let explained = json!({ "trigger": "shop", "images": {
            "api": {
                "image": "registry.example.com/shop/api", "selected": { "tag": "1.10.0", "revision": 3, "digest": digest },
                "passed_over": [
                    { "tag": "1.11.0", "code": "min_age", "why": "the tag has its digest for less than `min_age`", "opens_at": "2026-03-03T14:00:00Z" },
                    { "tag": "t".repeat(128), "code": "below_selection", "why": "the tag is below ".repeat(9), "opens_at": null },
                ],
                "left": 4,
            },
            "web": { "image": "registry.example.com/shop/web:latest", "selected": null, "passed_over": [], "left": 0 },
        } });
        let text = describe(&explained, &screen(80));
        for expected in [
            "1.10.0 is selected",
            "(revision 3, aaaaaaaaaaaa)",
            "min_age",
            "until 2026-03-03 14:00:00Z",
            "… 4 more: --limit",
            "web, registry.example.com/shop/web:latest: no tag is selected",
        ] {
            let words = text.split_whitespace().collect::<Vec<_>>().join(" ");
            assert!(words.contains(expected), "{expected}\n{text}");
        }
        assert!(text.lines().all(|line| line.width() <= 80), "{text}");
    }

    #[test]
    fn a_trigger_that_follows_others_names_them() {
        let explained = json!({ "trigger": "prod", "images": {}, "follow": { "all": ["eu", "us"], "soak": "30m" } });
        let text = describe(&explained, &screen(80));
        assert!(
            text.starts_with("prod takes over the images of eu, us:"),
            "{text}"
        );
    }
}
