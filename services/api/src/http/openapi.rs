//! `GET /openapi.json`: the OpenAPI document, made from the table that the routes come from.

use axum::http::header::CONTENT_TYPE;
use axum::routing::{MethodRouter, get};
use schemars::SchemaGenerator;
use schemars::generate::SchemaSettings;
use schemars::transform::RecursiveTransform;
use serde_json::{Map, Value, json};
use tagtrail_config::Role;
use tagtrail_proto::schema::plain_enum;

use crate::http::csv;
use crate::http::error::Problem;
use crate::http::operation::{Operation, RequestBody, ResponseBody};
use crate::http::parameters::Parameter;
use crate::shared::Shared;

/// Problems of all operations.
const COMMON: &[(u16, &str)] = &[
    (400, "parameter_unknown"),
    (400, "parameter_repeated"),
    (400, "header_repeated"),
    (400, "host_invalid"),
    (401, "unauthenticated"),
    (403, "forbidden"),
    (403, "origin_forbidden"),
    (421, "host_unknown"),
    (429, "too_many_refusals"),
    (500, "internal"),
    (503, "store_unavailable"),
    (503, "busy"),
];

/// Problems of the operations that take a body.
const OF_BODY: &[(u16, &str)] = &[
    (400, "body_invalid"),
    (413, "body_too_large"),
    (415, "body_not_json"),
];

/// Problems of the operations that act.
const OF_ACTS: &[(u16, &str)] = &[
    (400, "idempotency_key_invalid"),
    (400, "reason_invalid"),
    (403, "out_of_scope"),
    (422, "idempotency_key_reused"),
];

/// Returns the route of the document, which needs no token: the document holds no secret.
pub(crate) fn route(operations: &[Operation]) -> MethodRouter<Shared> {
    // The document does not change while the program runs.
    let text = document(operations).to_string();
    get(move || {
        let text = text.clone();
        async move {
            (
                [(CONTENT_TYPE, "application/vnd.oai.openapi+json;version=3.1")],
                text,
            )
        }
    })
}

/// Returns the OpenAPI 3.1 document of these operations.
pub(crate) fn document(operations: &[Operation]) -> Value {
    // OpenAPI 3.1 contains JSON Schema 2020-12 unchanged. For responses, every field is required:
    // serialising writes all fields.
    let mut schemas = SchemaSettings::draft2020_12()
        .for_serialize()
        .with(|settings| {
            settings.definitions_path = "/components/schemas".into();
            settings.meta_schema = None;
        })
        .with_transform(RecursiveTransform(plain_enum))
        .into_generator();
    let mut paths: Map<String, Value> = Map::new();
    for operation in operations {
        let method = operation.method.name();
        let described = describe(operation, &mut schemas);
        paths.entry(operation.path).or_insert_with(|| json!({}))[method] = described;
    }
    json!({
        "openapi": "3.1.0",
        "jsonSchemaDialect": "https://json-schema.org/draft/2020-12/schema",
        "info": {
            "title": "Tagtrail",
            "summary": "The history of each container image tag, and the images that are deployed.",
            "version": env!("CARGO_PKG_VERSION"),
            "license": { "name": "Apache-2.0", "identifier": "Apache-2.0" },
        },
        "servers": [{ "url": "/" }],
        // Without a [[token]] in tagtrail.toml the API listens on loopback only, and requires none.
        "security": [{}, { "token": [] }],
        "paths": paths,
        "components": {
            "schemas": schemas.take_definitions(true),
            "securitySchemes": { "token": { "type": "http", "scheme": "bearer", "description": "A [[token]] of tagtrail.toml." } },
        },
    })
}

fn describe(operation: &Operation, schemas: &mut SchemaGenerator) -> Value {
    let (media_type, schema) = match operation.response {
        ResponseBody::Json(schema) => ("application/json", schema(schemas).to_value()),
        // OpenAPI 3.1 can't describe event streams. The schema is that of each `data` line.
        ResponseBody::Events(schema) => (
            "text/event-stream",
            json!({ "type": "string", "contentMediaType": "application/json", "contentSchema": schema(schemas).to_value() }),
        ),
    };
    let mut responses: Map<String, Value> = Map::new();
    let mut content = json!({ media_type: { "schema": schema } });
    let lists = csv::lists(&operation.response);
    let is_list = !lists.is_empty();
    if is_list {
        content["text/csv"] = json!({ "schema": { "type": "string" } });
    }
    responses.insert(
        "200".to_owned(),
        json!({ "description": operation.summary, "content": content }),
    );
    if operation.is_of_trigger() {
        responses.insert(
            "308".to_owned(),
            json!({
                "description": "The trigger was renamed: `Location` has the same request with the present name.",
                "headers": { "Location": { "schema": { "type": "string" } } },
            }),
        );
    }
    let problem = Problem::schema_ref(schemas);
    let of_body = operation.body.map_or(&[][..], |_| OF_BODY);
    let of_acts = match operation.role {
        Role::Read => &[][..],
        _ => OF_ACTS,
    };
    let of_list = match is_list && !operation.problems.contains(&csv::PROBLEM) {
        true => &[csv::PROBLEM][..],
        false => &[],
    };
    let own = of_body.iter().chain(of_acts).chain(of_list);
    let own = own.chain(operation.problems);
    for (status, code) in COMMON.iter().chain(own) {
        let response = responses.entry(status.to_string()).or_insert_with(|| {
            json!({
                "description": "",
                "content": { "application/problem+json": { "schema": problem } },
            })
        });
        let before = response["description"].as_str().unwrap_or_default();
        let separator = if before.is_empty() { "`code`: " } else { ", " };
        response["description"] = format!("{before}{separator}`{code}`").into();
    }
    let in_path = operation
        .in_path
        .iter()
        .map(|parameter| (parameter, "path"));
    let format = is_list.then_some(&csv::FORMAT);
    let list = (lists.len() > 1).then_some(&csv::LIST);
    let in_query = operation.query.iter().chain(format).chain(list);
    let in_query = in_query.map(|parameter| (parameter, "query"));
    let in_header = operation
        .header
        .iter()
        .map(|parameter| (parameter, "header"));
    let parameters: Vec<Value> = in_path
        .chain(in_query)
        .chain(in_header)
        .map(|(parameter, place)| describe_parameter(parameter, place))
        .collect();
    let mut described = json!({
        "operationId": operation.id,
        "summary": operation.summary,
        "parameters": parameters,
        "responses": responses,
    });
    if let Some(body) = operation.body {
        described["requestBody"] = describe_body(body);
    }
    described
}

fn describe_body(body: RequestBody) -> Value {
    // In requests, optional fields may be left out.
    let mut schemas = SchemaSettings::draft2020_12()
        .for_deserialize()
        .with(|settings| {
            settings.inline_subschemas = true;
            settings.meta_schema = None;
        })
        .with_transform(RecursiveTransform(plain_enum))
        .into_generator();
    let schema = (body.schema)(&mut schemas).to_value();
    json!({
        "required": body.required,
        "description": format!("At most {} bytes.", body.max_size),
        "content": { "application/json": { "schema": schema } },
    })
}

fn describe_parameter(parameter: &Parameter, place: &str) -> Value {
    json!({
        "name": parameter.name,
        "in": place,
        "required": parameter.required || place == "path",
        "description": parameter.description,
        "schema": (parameter.schema)(),
        "example": parameter.example,
    })
}
