//! Digests by their first digits.

use serde_json::{Value, json};

use crate::rows::{Rows, digest, on_time};
use crate::server::Api;

/// Writes a manifest of a digest that ends otherwise than the digest of `content`.
async fn similar(rows: &mut Rows, content: u8, last: u8) -> String {
    let mut bytes = digest(content).as_bytes().to_vec();
    *bytes.last_mut().unwrap() = last;
    sqlx::query(
        "insert into manifest (digest, registry, repository, media_type, size_bytes, platforms, labels, annotations, read_at)
         select $1, 'registry.example.com', 'shop/web', 'application/json', 1, '[]', '{}', '{}', now()",
    )
    .bind(&bytes)
    .execute(&mut rows.db)
    .await
    .unwrap();
    tagtrail_proto::Digest::from_bytes(&bytes)
        .unwrap()
        .to_string()
}

#[tokio::test]
async fn six_digits_find_a_digest_with_and_without_the_function() {
    let (api, mut rows) = Api::start().await;
    let web = "registry.example.com/shop/web";
    rows.tag(
        &format!("{web}:latest"),
        &[on_time(1, 1, 10), on_time(2, 2, 20)],
    )
    .await;
    // Many tags have the same digest.
    for tag in 1..9 {
        rows.tag(&format!("{web}:v{tag}"), &[on_time(1, 1, 10)])
            .await;
    }
    rows.manifest(1).await;
    let whole = digest(1).to_string();
    let hex = whole.strip_prefix("sha256:").unwrap();
    for digits in [
        &hex[..6],
        &hex[..7],
        &hex[..12],
        &hex[..63],
        hex,
        &whole[..13],
        &whole,
    ] {
        let found = api.found(&format!("/v1/digests/{digits}")).await;
        assert_eq!(found["digest"], json!(whole), "{digits}");
        assert_eq!(found["items"].as_array().unwrap().len(), 9, "{digits}");
        let manifest = api.found(&format!("/v1/manifests/{digits}")).await;
        assert_eq!(manifest["digest"], json!(whole), "{digits}");
    }
    // A revision's digest may have no manifest.
    let other = &digest(2).to_string()[..20];
    let missing = api.get(&format!("/v1/manifests/{other}")).await;
    assert_eq!(missing.problem(), "404 manifest_unknown");
    for unknown in ["000000", "ffffff", &format!("sha512:{}", &hex[..8])] {
        let answer = api.get(&format!("/v1/digests/{unknown}")).await;
        assert_eq!(answer.problem(), "404 digest_unknown", "{unknown}");
    }
    let short = api.get(&format!("/v1/digests/{}", &hex[..5])).await;
    assert_eq!(short.problem(), "400 digest_invalid");
}

#[tokio::test]
async fn digits_of_several_digests_list_the_candidates() {
    let (api, mut rows) = Api::start().await;
    rows.tag("registry.example.com/shop/web:latest", &[on_time(1, 1, 10)])
        .await;
    let mut all = vec![digest(1).to_string()];
    for last in [0, 1] {
        all.push(similar(&mut rows, 1, last).await);
    }
    all.sort();
    let path = format!("/v1/digests/{}", &all[0][7..13]);
    let answer = api.get(&path).await;
    assert_eq!(answer.problem(), "400 digest_ambiguous");
    let detail = |body: &Value| body["detail"].as_str().unwrap().to_owned();
    assert!(detail(&answer.body).contains(&all.join(", ")), "{answer:?}");
    for last in 2..9 {
        all.push(similar(&mut rows, 1, last).await);
    }
    let answer = api.get(&path).await;
    let detail = detail(&answer.body);
    assert_eq!(detail.matches("sha256:").count(), 5, "{detail}");
    assert!(detail.contains("and others"), "{detail}");
    assert_eq!(
        api.found(&format!("/v1/digests/{}", digest(1))).await["items"][0]["revision"],
        1
    );
}

#[tokio::test]
async fn the_look_up_reads_the_index_and_not_the_table() {
    let (_api, mut rows) = Api::start().await;
    let tag = rows.empty_tag("registry.example.com/shop/web:latest").await;
    rows.burst(tag, 20_000).await;
    let statement = tagtrail_history::prefix::STATEMENT
        .replace("$1", "'\\xabcdef'::bytea")
        .replace("$2", "'\\xabcdefffffff'::bytea")
        .replace("$3", "6")
        .replace("$4", "32");
    sqlx::raw_sql("analyze revision")
        .execute(&mut rows.db)
        .await
        .unwrap();
    let plan: Vec<String> = sqlx::query_scalar(sqlx::AssertSqlSafe(format!("explain {statement}")))
        .fetch_all(&mut rows.db)
        .await
        .unwrap();
    let plan = plan.join("\n");
    let scans = plan
        .matches("Index Only Scan using revision_of_digest")
        .count();
    assert!(scans > 0, "{plan}");
    assert!(!plan.contains("Seq Scan on revision"), "{plan}");
}
