//! The JSON in a body: GitHub, Gitea and Forgejo send it in a form unless told otherwise.

use std::borrow::Cow;

use axum::http::HeaderMap;
use axum::http::header::CONTENT_TYPE;
use tagtrail_proto::clean_text;

use crate::source::{DecodeError, Parts};

/// Most bytes of a body, and of its content type, in a reason.
const SHOWN: usize = 48;

/// The mark that some senders write before UTF-8 text (RFC 8259, section 8.1).
const BYTE_ORDER_MARK: &[u8] = "\u{feff}".as_bytes();

/// Returns the JSON in a body, without a byte order mark. A body whose content type is a form has
/// the JSON in the field `payload`. A form of JSON is JSON: `curl -d` sends every body as a form.
///
/// # Errors
/// For a form without `payload`.
pub(super) fn json<'a>(headers: &HeaderMap, body: &'a [u8]) -> Result<Cow<'a, [u8]>, DecodeError> {
    let body = without_mark(body);
    if !is_form(headers) || matches!(body.trim_ascii_start().first(), None | Some(b'{' | b'[')) {
        return Ok(Cow::Borrowed(body));
    }
    let payload = form_urlencoded::parse(body).find(|(key, _)| key == "payload");
    let (_, payload) =
        payload.ok_or_else(|| DecodeError::wrong_form("a form without `payload`"))?;
    Ok(Cow::Owned(without_mark(payload.as_bytes()).to_vec()))
}

fn without_mark(body: &[u8]) -> &[u8] {
    body.strip_prefix(BYTE_ORDER_MARK).unwrap_or(body)
}

/// Returns the reason with the content type of the body, its first bytes, and the setting that is
/// probably wrong. A reason that is no matter of the body's form remains as it is.
pub(super) fn explain(
    reason: DecodeError,
    headers: &HeaderMap,
    body: &[u8],
    kind: &str,
) -> DecodeError {
    if !reason.wrong_form {
        return reason;
    }
    let body = without_mark(body);
    let content_type = match headers.get(CONTENT_TYPE) {
        Some(value) => clean_text(&String::from_utf8_lossy(value.as_bytes()), SHOWN),
        None => "none".to_owned(),
    };
    let reason = clean_text(&reason.to_string(), 200);
    let setting = match body.trim_ascii_start().first() {
        _ if reason.starts_with(Parts::TOO_MANY) => "the sender must split the list",
        None => "the sender must send the event as the body, without a template",
        Some(b'{' | b'[') if serde_json::from_slice::<serde::de::IgnoredAny>(body).is_ok() => {
            "`kind` of the source in tagtrail.toml may be another than the sender's"
        }
        Some(b'{' | b'[') => "the template of the webhook, if it has one, must make valid JSON",
        Some(_) if content_type.to_ascii_lowercase().contains("json") => {
            "the format or template of the webhook must make JSON"
        }
        Some(_) => "set the content type of the webhook to application/json at the sender",
    };
    DecodeError::new(format_args!(
        "{reason}; kind {kind}, content type {content_type}, the body begins with {:?}: {setting}",
        beginning(body),
    ))
}

/// Returns the first bytes of a body as text, up to the first value: some senders repeat the secret
/// in the body.
fn beginning(body: &[u8]) -> String {
    let body = &body[..body.len().min(SHOWN)];
    let end = body.iter().position(|byte| matches!(byte, b':' | b'='));
    let shown = &body[..end.map_or(body.len(), |end| end + 1)];
    clean_text(&String::from_utf8_lossy(shown), SHOWN)
}

/// Returns whether the content type is that of HTML forms.
fn is_form(headers: &HeaderMap) -> bool {
    let value = headers
        .get(CONTENT_TYPE)
        .and_then(|value| value.to_str().ok());
    let essence = value.and_then(|text| text.split(';').next());
    essence.is_some_and(|text| {
        text.trim()
            .eq_ignore_ascii_case("application/x-www-form-urlencoded")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const FORM: &str = "application/x-www-form-urlencoded";

    fn headers(content_type: &str) -> HeaderMap {
        let mut headers = HeaderMap::new();
        headers.insert(CONTENT_TYPE, content_type.parse().unwrap());
        headers
    }

    #[test]
    fn a_byte_order_mark_before_json_is_skipped() {
        for (content_type, body) in [
            ("application/json", "\u{feff}[1]"),
            (FORM, "\u{feff}[1]"),
            (FORM, "\u{feff}payload=%5B1%5D"),
            (FORM, "payload=%EF%BB%BF%5B1%5D"),
        ] {
            let json = json(&headers(content_type), body.as_bytes()).unwrap();
            assert_eq!(json.as_ref(), b"[1]", "{content_type} {body:?}");
        }
        let reason = explain(
            DecodeError::wrong_form("no"),
            &headers("application/json"),
            "\u{feff}[1]".as_bytes(),
            "zot",
        );
        assert!(reason.to_string().contains("`kind`"), "{reason}");
    }

    #[test]
    fn a_form_holds_its_json_in_payload() {
        for (content_type, body, expected) in [
            (FORM, "payload=%7B%22a%22%3A+1%7D", "{\"a\": 1}"),
            (FORM, "x=1&payload=%5B%5D&payload=2", "[]"),
            (
                "Application/X-WWW-Form-Urlencoded; charset=utf-8",
                "payload={}",
                "{}",
            ),
            // `curl -d '{…}'` sends this content type.
            (
                FORM,
                " {\"a\":\"payload=1&b=2\"}",
                " {\"a\":\"payload=1&b=2\"}",
            ),
            (FORM, "", ""),
            ("application/json", "payload=%7B%7D", "payload=%7B%7D"),
        ] {
            let headers = headers(content_type);
            let json = json(&headers, body.as_bytes()).unwrap();
            assert_eq!(
                String::from_utf8_lossy(&json),
                expected,
                "{content_type} {body}"
            );
        }
        assert!(json(&headers(FORM), b"pay=load").unwrap_err().wrong_form);
    }

    #[test]
    fn a_reason_names_content_type_beginning_and_setting() {
        for (content_type, body, expected) in [
            (
                FORM,
                "token=hush&x=1",
                [FORM, "\"token=\"", "application/json"],
            ),
            (
                "text/xml",
                "<push/>",
                ["text/xml", "\"<push/>\"", "application/json"],
            ),
            (
                "application/json",
                "pushed v1",
                ["application/json", "\"pushed v1\"", "must make JSON"],
            ),
            (
                "application/json",
                "{\"secret\":\"hush\"}",
                ["application/json", "secret", "`kind` of the source"],
            ),
            (
                "application/json",
                "{\"tag\": {{tag}}}",
                ["application/json", "tag", "template"],
            ),
            ("application/json", "", ["application/json", "\"\"", "body"]),
        ] {
            let wrong = DecodeError::wrong_form("not an event");
            let reason = explain(wrong, &headers(content_type), body.as_bytes(), "ghcr");
            let reason = reason.to_string();
            for part in expected {
                assert!(reason.contains(part), "{part}: {reason}");
            }
            assert!(!reason.contains("hush"), "values may be secrets: {reason}");
        }
        let other = DecodeError::new("open https://sns.example/confirm");
        let kept = explain(other.clone(), &headers(FORM), b"{}", "ecr");
        assert_eq!(kept, other);
    }
}
