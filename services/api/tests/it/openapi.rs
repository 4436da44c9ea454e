//! The OpenAPI document, and the API's answers checked against it.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use crate::rows::{digest, image, on_time, text};
use crate::server::Api;

const WEB: &str = "registry.example.com/shop/web:latest";

/// Checks a value against a schema of the document.
fn validator(document: &Value, schema: &Value) -> jsonschema::Validator {
    let mut whole = schema.clone();
    whole["components"] = document["components"].clone();
    jsonschema::options()
        .should_validate_formats(true)
        .build(&whole)
        .unwrap()
}

#[track_caller]
pub(crate) fn check(document: &Value, schema: &Value, value: &Value, what: &str) {
    let validator = validator(document, schema);
    let errors: Vec<String> = validator
        .iter_errors(value)
        .map(|error| format!("{}: {error}", error.instance_path()))
        .collect();
    assert!(errors.is_empty(), "{what}: {errors:#?}\n{value:#}");
}

#[tokio::test]
async fn the_document_is_served_and_is_openapi_3_1() {
    let (api, _rows) = Api::start().await;
    let answer = api.get("/openapi.json").await;
    assert_eq!(answer.status, 200);
    assert!(
        answer.header("content-type").contains("openapi"),
        "{answer:?}"
    );
    let document = answer.body;
    assert_eq!(document, tagtrail_api::openapi());
    let spec = oas3::from_json(document.to_string()).unwrap();
    assert!(spec.openapi.starts_with("3.1"));
    let operations: Vec<_> = spec.operations().collect();
    let ids: BTreeSet<_> = operations
        .iter()
        .map(|(_, _, operation)| operation.operation_id.clone().unwrap())
        .collect();
    assert_eq!(ids.len(), operations.len(), "identifiers are unique");
    for (path, method, operation) in &operations {
        // The document describes exactly the parameters in the path.
        let named: BTreeSet<&str> = path
            .split('/')
            .filter_map(|part| part.strip_prefix('{')?.strip_suffix('}'))
            .collect();
        let parameters = operation.parameters(&spec).unwrap();
        let described: BTreeSet<&str> = parameters
            .iter()
            .filter(|parameter| parameter.location == oas3::spec::ParameterIn::Path)
            .map(|parameter| parameter.name.as_str())
            .collect();
        assert_eq!(named, described, "{method} {path}");
        let responses = operation.responses(&spec);
        for status in ["200", "401", "403", "503"] {
            assert!(responses.contains_key(status), "{method} {path}: {status}");
        }
    }
}

#[test]
fn the_schemas_are_json_schemas_whose_references_resolve() {
    let document = tagtrail_api::openapi();
    for (name, schema) in document["components"]["schemas"].as_object().unwrap() {
        jsonschema::draft202012::meta::validate(schema)
            .unwrap_or_else(|error| panic!("{name}: {error}"));
    }
    let mut references = Vec::new();
    fn collect(value: &Value, references: &mut Vec<String>) {
        match value {
            Value::Object(map) => {
                if let Some(Value::String(reference)) = map.get("$ref") {
                    references.push(reference.clone());
                }
                map.values().for_each(|value| collect(value, references));
            }
            Value::Array(list) => list.iter().for_each(|value| collect(value, references)),
            _ => {}
        }
    }
    collect(&document, &mut references);
    assert!(references.len() > 10, "{references:?}");
    for reference in references {
        let pointer = reference.strip_prefix('#').unwrap();
        assert!(document.pointer(pointer).is_some(), "{reference}");
    }
}

#[test]
fn an_enum_is_a_plain_list_of_words() {
    fn check(value: &Value, place: &str) {
        if let Some(variants) = value.get("oneOf").and_then(Value::as_array) {
            // Generators of clients read it as a union of types.
            let constants = variants
                .iter()
                .any(|variant| variant.get("const").is_some());
            assert!(!constants, "{place}: {value}");
        }
        let children: Vec<(String, &Value)> = match value {
            Value::Object(map) => map
                .iter()
                .map(|(key, child)| (key.clone(), child))
                .collect(),
            Value::Array(list) => list.iter().map(|child| ("[]".to_owned(), child)).collect(),
            _ => return,
        };
        for (key, child) in children {
            check(child, &format!("{place}/{key}"));
        }
    }
    let document = tagtrail_api::openapi();
    check(&document, "");
    let kind = &document["components"]["schemas"]["Kind"];
    assert_eq!(kind["type"], "string");
    let words = json!(["created", "moved", "reverted", "deleted", "recreated"]);
    assert_eq!(kind["enum"], words);
    let described = kind["description"].as_str().unwrap();
    assert!(
        described.contains("- `deleted`: The tag was deleted."),
        "{described}"
    );
}

#[tokio::test]
async fn answers_and_problems_match_the_document() {
    let (api, mut rows) = Api::start().await;
    rows.tag(
        WEB,
        &[on_time(1, 1, 10), on_time(2, 2, 20), on_time(3, 0, 30)],
    )
    .await;
    let shop = rows.trigger("shop", true).await;
    let id = rows.rollout(shop, 1, "succeeded", 10).await;
    rows.rollout(shop, 2, "failed", 20).await;
    rows.manifest(1).await;
    let contents = image(2, &[20, 21], &json!({ "A": "1" }));
    let index = json!({ "children": [{ "digest": digest(2), "size": 528, "media_type": null, "platform": null }], "children_left_out": 0 });
    rows.contents(1, &contents, &index).await;
    let digest = crate::rows::digest(1);
    let document = tagtrail_api::openapi();
    let mut described = BTreeSet::new();
    for (method, path, question) in [
        (
            "get",
            "/v1/resolve",
            format!("/v1/resolve?image={WEB}&at={}", text(15)),
        ),
        (
            "get",
            "/v1/history",
            format!("/v1/history?image={WEB}&limit=2"),
        ),
        ("get", "/v1/history", format!("/v1/history?image={WEB}")),
        (
            "get",
            "/v1/digests/{digest}",
            format!("/v1/digests/{digest}"),
        ),
        (
            "get",
            "/v1/compare",
            format!("/v1/compare?a={digest}&b={digest}"),
        ),
        ("get", "/v1/search", "/v1/search?q=shop".to_owned()),
        (
            "get",
            "/v1/digests/{digest}/rollouts",
            format!("/v1/digests/{digest}/rollouts"),
        ),
        (
            "get",
            "/v1/coverage",
            "/v1/coverage?since=2000-01-01T00:00:00Z".to_owned(),
        ),
        ("get", "/v1/registries", "/v1/registries".to_owned()),
        ("get", "/v1/sources", "/v1/sources".to_owned()),
        (
            "get",
            "/v1/reports/{name}",
            "/v1/reports/churn?from=2026-03-01&to=2026-03-31".to_owned(),
        ),
        ("get", "/v1/status", "/v1/status".to_owned()),
        ("get", "/v1/changes", "/v1/changes?limit=2".to_owned()),
        ("get", "/v1/repositories", "/v1/repositories".to_owned()),
        (
            "get",
            "/v1/tags",
            "/v1/tags?repository=registry.example.com/shop/web&deleted=true".to_owned(),
        ),
        (
            "get",
            "/v1/manifests/{digest}",
            format!("/v1/manifests/{digest}"),
        ),
        ("get", "/v1/triggers", "/v1/triggers".to_owned()),
        ("get", "/v1/triggers/{name}", "/v1/triggers/shop".to_owned()),
        (
            "get",
            "/v1/triggers/{name}/generations",
            "/v1/triggers/shop/generations".to_owned(),
        ),
        (
            "post",
            "/v1/triggers/{name}/pause",
            "/v1/triggers/shop/pause".to_owned(),
        ),
        (
            "post",
            "/v1/triggers/{name}/resume",
            "/v1/triggers/shop/resume".to_owned(),
        ),
        (
            "get",
            "/v1/triggers/{name}/explain",
            "/v1/triggers/shop/explain".to_owned(),
        ),
        (
            "post",
            "/v1/triggers/{name}/retry",
            "/v1/triggers/shop/retry".to_owned(),
        ),
        (
            "get",
            "/v1/rollouts",
            "/v1/rollouts?trigger=shop".to_owned(),
        ),
        ("get", "/v1/rollouts/{id}", format!("/v1/rollouts/{id}")),
        (
            "get",
            "/v1/rollouts/{id}/attempts",
            format!("/v1/rollouts/{id}/attempts"),
        ),
        ("get", "/v1/acts", "/v1/acts?trigger=shop".to_owned()),
        ("get", "/v1/approvals", "/v1/approvals".to_owned()),
        ("get", "/v1/holds", "/v1/holds".to_owned()),
        (
            "post",
            "/v1/triggers/{name}/rollout",
            "/v1/triggers/shop/rollout".to_owned(),
        ),
        (
            "post",
            "/v1/triggers/{name}/release",
            "/v1/triggers/shop/release".to_owned(),
        ),
    ] {
        let answer = api.send(&method.to_uppercase(), &question).await;
        assert_eq!(answer.status, 200, "{question}: {answer:?}");
        let schema = &document["paths"][path][method]["responses"]["200"]["content"]["application/json"]
            ["schema"];
        check(&document, schema, &answer.body, &question);
        // The schema is not so loose that it allows any document.
        assert!(
            !validator(&document, schema).is_valid(&json!({ "other": 1 })),
            "{path}"
        );
        described.insert(path);
    }
    let paths = document["paths"].as_object().unwrap().keys();
    let left: Vec<_> = paths
        .filter(|path| !described.contains(path.as_str()))
        .collect();
    // The tests of the feeds, of orders and of replays read these.
    let elsewhere = [
        "/v1/events",
        "/v1/holds/{id}",
        "/v1/quarantine",
        "/v1/quarantine/{number}",
        "/v1/quarantine/{number}/replay",
        "/v1/revisions",
        "/v1/rollouts/{id}/approve",
        "/v1/rollouts/{id}/cancel",
        "/v1/rollouts/{id}/outcome",
        "/v1/rollouts/{id}/reject",
        "/v1/triggers/test",
        "/v1/triggers/{name}/pin",
        "/v1/triggers/{name}/renumber",
        "/v1/triggers/{name}/rollback",
    ];
    assert_eq!(left, elsewhere);

    for (path, question, status) in [
        ("/v1/resolve", format!("/v1/resolve?image={WEB}"), "404"),
        ("/v1/resolve", "/v1/resolve?image=x".to_owned(), "400"),
        (
            "/v1/triggers/{name}",
            "/v1/triggers/nobody".to_owned(),
            "404",
        ),
        (
            "/v1/manifests/{digest}",
            format!("/v1/manifests/{}", crate::rows::digest(9)),
            "404",
        ),
        ("/v1/revisions", "/v1/revisions?match=".to_owned(), "400"),
        (
            "/v1/digests/{digest}",
            "/v1/digests/abcdef".to_owned(),
            "404",
        ),
        (
            "/v1/tags",
            "/v1/tags?repository=registry.example.com/nope".to_owned(),
            "404",
        ),
        ("/v1/tags", "/v1/tags".to_owned(), "400"),
    ] {
        let answer = api.get(&question).await;
        assert_eq!(answer.status.to_string(), status);
        let response = &document["paths"][path]["get"]["responses"][status];
        let schema = &response["content"]["application/problem+json"]["schema"];
        check(&document, schema, &answer.body, &question);
        let code = answer.body["code"].as_str().unwrap();
        let codes = response["description"].as_str().unwrap();
        assert!(
            codes.contains(&format!("`{code}`")),
            "{question}: {code} is not among {codes}"
        );
    }
}
