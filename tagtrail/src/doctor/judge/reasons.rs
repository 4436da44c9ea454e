//! The findings about triggers that do not roll out.

use serde_json::Value;
use tagtrail_proto::ReasonCode;

use super::super::report::Finding;

/// Judges the reasons of the trigger with this name, in the answer of `GET /v1/triggers`. The API
/// may be of another version, so unknown codes are left out. `unseen` are the images about which
/// another finding says that they were never seen.
pub(in super::super) fn reasons(triggers: &Value, name: &str, unseen: &[String]) -> Vec<Finding> {
    let items = triggers.get("items").and_then(Value::as_array);
    let mut items = items.into_iter().flatten();
    let trigger = items.find(|item| text(item, "name") == Some(name));
    let reasons = trigger.and_then(|trigger| trigger.get("reasons")?.as_array());
    let reasons = reasons.into_iter().flatten();
    reasons
        .filter_map(|reason| finding(reason, unseen))
        .collect()
}

fn finding(reason: &Value, unseen: &[String]) -> Option<Finding> {
    let code: ReasonCode = text(reason, "code")?.parse().ok()?;
    let (image, why) = (text(reason, "image"), text(reason, "why")?);
    if code == ReasonCode::UnknownImage && image.is_some_and(|one| unseen.iter().any(|u| u == one))
    {
        return None;
    }
    let image = image.map_or(String::new(), |image| format!("{image}: "));
    let mut found = format!("{image}{why}");
    if let Some(at) = text(reason, "opens_at") {
        found += &match code {
            ReasonCode::Retrying | ReasonCode::Failed => format!("; the next attempt is at {at}"),
            _ => format!(", until {at}"),
        };
    }
    let cure = text(reason, "cure").unwrap_or("none is needed: the reason ends by itself");
    let check = code.as_str();
    Some(match weight(code) {
        Weight::Error => Finding::error(check, found, cure),
        Weight::Warning => Finding::warning(check, found, cure),
        Weight::Fact => Finding::ok(check, found),
    })
}

enum Weight {
    /// Nothing is rolled out until a person acts.
    Error,
    /// A person should look.
    Warning,
    /// A person or a setting wants it so, or it ends by itself.
    Fact,
}

fn weight(code: ReasonCode) -> Weight {
    use ReasonCode as Code;
    match code {
        Code::Broken | Code::Ended | Code::OtherGeneration => Weight::Error,
        Code::UnknownImage
        | Code::Deleted
        | Code::Tombstone
        | Code::Removed
        | Code::NoCandidate
        | Code::NoAgreement
        | Code::Adopting
        | Code::Fault
        | Code::Retrying
        | Code::Failed
        | Code::Slots
        | Code::Ending => Weight::Warning,
        Code::Pause
        | Code::Freeze
        | Code::Pin
        | Code::MetadataWait
        | Code::Recheck
        | Code::Upstream
        | Code::Settle
        | Code::Manifest
        | Code::MinAge
        | Code::Window
        | Code::Gap
        | Code::Group
        | Code::Approval
        | Code::Finish
        | Code::Adopted => Weight::Fact,
    }
}

fn text<'v>(value: &'v Value, key: &str) -> Option<&'v str> {
    value.get(key)?.as_str()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn every_reason_is_a_finding() {
        for code in ReasonCode::ALL {
            let reason = json!({ "code": code.as_str(), "image": "registry.example.com/shop/web", "why": "so it is", "opens_at": null, "cure": "mend it" });
            let other = json!({ "name": "blog", "reasons": [] });
            let triggers = json!({ "items": [other, { "name": "shop", "reasons": [reason, { "code": "moon" }] }] });
            let found = reasons(&triggers, "shop", &[]);
            let text = format!("{found:?}");
            assert_eq!(found.len(), 1, "{text}");
            assert!(
                text.contains(code.as_str()) && text.contains("so it is"),
                "{text}"
            );
            assert_eq!(reasons(&triggers, "blog", &[]).len(), 0);
        }
    }

    #[test]
    fn an_image_is_reported_once() {
        let image = "registry.example.com/shop/web:latest".to_owned();
        let reason =
            json!({ "code": "unknown_image", "image": image, "why": "no push", "cure": null });
        let triggers = json!({ "items": [{ "name": "shop", "reasons": [reason] }] });
        assert_eq!(reasons(&triggers, "shop", &[image]).len(), 0);
        assert_eq!(reasons(&triggers, "shop", &[]).len(), 1);
    }
}
