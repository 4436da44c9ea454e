//! The views of the schema `report`: they agree with the API, and every query of the documentation
//! runs.

use std::collections::BTreeMap;

use serde_json::{Value, json};
use sqlx::Row as _;

use crate::rows::{on_time, text};
use crate::server::Api;

const WEB: &str = "registry.example.com/shop/web:latest";

/// Returns the rows of a query as JSON.
async fn rows_of(db: &mut sqlx::PgConnection, query: &str) -> Vec<Value> {
    let wrapped = format!("select to_jsonb(q) from ({query}) q");
    sqlx::query(sqlx::AssertSqlSafe(wrapped))
        .fetch_all(db)
        .await
        .unwrap_or_else(|error| panic!("{query}: {error}"))
        .iter()
        .map(|row| row.get(0))
        .collect()
}

#[tokio::test]
async fn the_views_agree_with_the_api() {
    let (api, mut rows) = Api::start().await;
    rows.tag(
        WEB,
        &[on_time(1, 1, 10), on_time(2, 2, 20), on_time(3, 0, 30)],
    )
    .await;
    rows.tag("registry.example.com/shop/web:v1", &[on_time(1, 1, 5)])
        .await;
    let shop = rows.trigger("shop", true).await;
    let id = rows.rollout(shop, 1, "succeeded", 10).await;

    let history = rows_of(
        &mut rows.db,
        &format!("select * from report.history where image = '{WEB}' order by occurred_at desc, revision desc"),
    )
    .await;
    let items = api.found(&format!("/v1/history?image={WEB}")).await["items"].take();
    let items = items.as_array().unwrap();
    assert_eq!(history.len(), items.len());
    for (viewed, item) in history.iter().zip(items) {
        for field in [
            "registry",
            "repository",
            "tag",
            "revision",
            "kind",
            "digest",
            "pinned",
            "late",
            "origin",
            "source",
            "actor",
            "media_type",
        ] {
            assert_eq!(viewed[field], item[field], "{field}");
        }
        assert_eq!(viewed["previous_digest"], item["previous"]["digest"]);
        assert_eq!(viewed["size_bytes"], item["size"]);
    }
    assert_eq!(history[0]["until"], Value::Null);
    assert_eq!(history[1]["until"], history[0]["occurred_at"]);

    let heads = rows_of(
        &mut rows.db,
        "select image, revision, digest, deleted, revisions from report.head order by image",
    )
    .await;
    let digest = crate::rows::digest(1).to_string();
    assert_eq!(
        heads,
        [
            json!({ "image": WEB, "revision": 3, "digest": null, "deleted": true, "revisions": 3 }),
            json!({ "image": "registry.example.com/shop/web:v1", "revision": 1, "digest": digest, "deleted": false, "revisions": 1 }),
        ]
    );

    let pushes = rows_of(
        &mut rows.db,
        "select tag, action, scope, digest from report.push order by occurred_at",
    )
    .await;
    assert_eq!(pushes.len(), 4);
    assert_eq!(
        pushes[3],
        json!({ "tag": "latest", "action": "delete", "scope": "tag", "digest": null })
    );

    let rollouts = rows_of(
        &mut rows.db,
        "select id, trigger, number, state, cause, name, pinned, changed from report.rollout",
    )
    .await;
    let pinned = &crate::rows::images(1)["web"]["pinned"];
    assert_eq!(
        rollouts,
        [
            json!({ "id": id, "trigger": "shop", "number": 1, "state": "succeeded", "cause": "revision", "name": "web", "pinned": pinned, "changed": true })
        ]
    );
}

#[tokio::test]
async fn every_query_of_the_documentation_runs() {
    let (_api, mut rows) = Api::start().await;
    rows.tag(WEB, &[on_time(1, 1, 10), on_time(2, 2, 20)]).await;
    let shop = rows.trigger("shop", true).await;
    rows.rollout(shop, 1, "succeeded", 10).await;
    let page = include_str!("../../../../docs/reports.md");
    let queries: Vec<&str> = page
        .split("```sql\n")
        .skip(1)
        .map(|rest| rest.split_once(";\n```").unwrap().0)
        .collect();
    assert!(queries.len() >= 7);
    // Most queries cover the last days; the first covers the time of these rows.
    let mut answers = Vec::new();
    for query in queries {
        answers.push(rows_of(&mut rows.db, query).await);
    }
    assert_eq!(answers[0][0]["revision"], 2, "in force since {}", text(20));
    assert_eq!(
        answers[1],
        [json!({ "tag": "latest", "revision": 2, "digest": crate::rows::digest(2) })]
    );
}

/// The tables of columns of the documentation, by view: name and type of each column, and whether
/// it is never null.
fn documented_columns() -> BTreeMap<&'static str, Vec<(&'static str, &'static str, bool)>> {
    let page = include_str!("../../../../docs/reports.md");
    let sections = page.split("\n### `report.").skip(1);
    let column = |line: &'static str| {
        let cells: Vec<&str> = line.split('|').map(str::trim).collect();
        (cells[1].trim_matches('`'), cells[2], cells[4].is_empty())
    };
    let table = |section: &'static str| {
        let (view, rest) = section.split_once('`').unwrap();
        let rows = rest.lines().filter(|line| line.starts_with("| `"));
        (view, rows.map(column).collect())
    };
    sections.map(table).collect()
}

#[tokio::test]
async fn every_column_of_the_views_is_documented_with_its_type() {
    let (_api, mut rows) = Api::start().await;
    let columns = rows_of(
        &mut rows.db,
        "select c.relname as view, a.attname as name, format_type(a.atttypid, a.atttypmod) as type
         from pg_attribute a join pg_class c on c.oid = a.attrelid
         where c.relnamespace = 'report'::regnamespace and a.attnum > 0 and not a.attisdropped
         order by c.relname, a.attnum",
    )
    .await;
    let mut found: BTreeMap<&str, Vec<(&str, &str)>> = BTreeMap::new();
    for column in &columns {
        let of = |key: &str| column[key].as_str().unwrap();
        let kind = match of("type") {
            "timestamp with time zone" => "timestamptz",
            other => other,
        };
        found
            .entry(of("view"))
            .or_default()
            .push((of("name"), kind));
    }
    let documented = documented_columns();
    let without_null = documented.iter().map(|(view, columns)| {
        let columns = columns.iter().map(|(name, kind, _)| (*name, *kind));
        (*view, columns.collect())
    });
    assert_eq!(found, without_null.collect());

    // Rows with every absent part: a delete, an image without a manifest of its own, a rollout that
    // has not begun.
    rows.tag(WEB, &[on_time(1, 1, 10), on_time(2, 0, 20)]).await;
    rows.manifest(1).await;
    let shop = rows.trigger("shop", true).await;
    rows.rollout(shop, 1, "pending", 10).await;
    for (view, columns) in documented {
        for (name, ..) in columns.iter().filter(|(.., never_null)| *never_null) {
            let query = format!("select * from report.{view} where \"{name}\" is null");
            let nulls = rows_of(&mut rows.db, &query).await;
            assert!(nulls.is_empty(), "report.{view}.{name} is null: {nulls:?}");
        }
    }
}

#[tokio::test]
async fn the_report_role_reads_only_reports_and_changes_nothing() {
    let (_api, mut rows) = Api::start().await;
    rows.tag(WEB, &[on_time(1, 1, 10)]).await;
    sqlx::raw_sql("set role tagtrail_report")
        .execute(&mut rows.db)
        .await
        .unwrap();
    assert_eq!(
        rows_of(&mut rows.db, "select * from report.history")
            .await
            .len(),
        1
    );
    for statement in [
        "select * from revision",
        "select * from push",
        "delete from report.push",
        "create table report.mine (id int)",
        "create table mine (id int)",
    ] {
        let error = sqlx::raw_sql(statement)
            .execute(&mut rows.db)
            .await
            .unwrap_err();
        let refused = error.to_string();
        assert!(
            refused.contains("permission denied") || refused.contains("cannot delete"),
            "{statement}: {refused}"
        );
    }
}
