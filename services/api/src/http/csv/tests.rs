//! Tests of lists as comma-separated values.

use schemars::JsonSchema;
use serde_json::json;

use super::*;
use crate::http::operation::{ResponseBody, schema};
use crate::http::paging::Items;
use crate::operations::ALL;

#[derive(JsonSchema)]
#[expect(dead_code, reason = "only its schema is read")]
struct Item {
    name: String,
    head: Option<Head>,
    also: Vec<String>,
    again: Option<i64>,
}

#[derive(JsonSchema)]
#[expect(dead_code, reason = "only its schema is read")]
struct Head {
    number: i64,
    digest: Option<String>,
}

#[test]
fn each_field_has_a_column_in_the_order_of_the_type() {
    let lists = lists(&ResponseBody::Json(schema::<Items<Item>>));
    let text = write(
        &lists[0],
        &json!({ "next": null, "items": [
            { "again": null, "also": ["x", "y"], "head": { "digest": "sha256:1", "number": 3 }, "name": "web" },
            { "again": 7, "also": [], "head": null, "name": "=cmd" },
        ] }),
    );
    assert_eq!(
        text,
        "name,head.number,head.digest,also,again\r\n\
         web,3,sha256:1,\"[\"\"x\"\",\"\"y\"\"]\",\r\n\
         \"'=cmd\",,,[],7\r\n"
    );
}

#[test]
fn an_answer_without_items_has_no_columns() {
    assert!(lists(&ResponseBody::Json(schema::<Head>)).is_empty());
    assert!(lists(&ResponseBody::Events(schema::<Items<Item>>)).is_empty());
}

#[test]
fn each_list_in_pages_has_columns() {
    for operation in ALL {
        if operation.query.iter().any(|one| one.name == CURSOR.name) {
            let lists = lists(&operation.response);
            assert!(lists[0].columns.len() > 2, "{}: {lists:?}", operation.id);
        }
    }
}
