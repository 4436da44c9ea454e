//! Reports with more rows than one answer of a list has: as JSON and CSV they are whole, or cut off
//! so that a client sees it.

use tagtrail_testkit::{SOON, eventually};

use crate::rows::Rows;
use crate::server::Api;

const TIME: &str = "from=2026-03-01&to=2026-03-31";

/// Writes a release that moves this many times.
async fn moves(rows: &mut Rows, count: i64) {
    let tag = rows.empty_tag("registry.example.com/shop/web:v1.2.3").await;
    rows.burst(tag, count + 1).await;
}

#[tokio::test]
async fn a_report_of_many_rows_is_whole_as_json_and_as_csv() {
    let (api, mut rows) = Api::start().await;
    moves(&mut rows, 12_345).await;
    let answer = api
        .found(&format!("/v1/reports/releases-moved?{TIME}"))
        .await;
    let items = answer["items"].as_array().unwrap();
    let numbers: Vec<i64> = items
        .iter()
        .map(|item| item["revision"].as_i64().unwrap())
        .collect();
    assert!(numbers.iter().copied().eq((2..=12_346).rev()));
    assert_eq!(answer["columns"].as_array().unwrap().len(), 8);
    let csv = api
        .once("GET", &format!("/reports/releases-moved.csv?{TIME}"))
        .await;
    assert!(
        csv.headers()["content-disposition"]
            .to_str()
            .unwrap()
            .contains("releases-moved.csv")
    );
    let csv = csv.text().await.unwrap();
    assert_eq!(csv.lines().count(), 12_346);
    assert!(csv.starts_with("image,revision,kind,"));
    assert!(
        csv.lines()
            .last()
            .unwrap()
            .starts_with("registry.example.com/shop/web:v1.2.3,2,moved,")
    );
    // A page has the first rows, and says so.
    let page = api
        .once("GET", &format!("/reports/releases-moved?{TIME}"))
        .await;
    let page = page.text().await.unwrap();
    assert!(page.contains("The first 100 rows; JSON and CSV have all"));
    assert!(page.len() < 100_000, "{} bytes", page.len());
    let cards = api.once("GET", &format!("/reports?{TIME}")).await;
    assert!(cards.text().await.unwrap().contains("More than 5,000"));
}

#[tokio::test]
async fn an_answer_that_fails_in_the_middle_is_cut_off() {
    let (api, mut rows) = Api::start().await;
    moves(&mut rows, 90_000).await;
    for path in [
        format!("/reports/releases-moved.csv?{TIME}"),
        format!("/v1/reports/releases-moved?{TIME}"),
    ] {
        let mut answer = api.once("GET", &path).await;
        assert_eq!(answer.status(), 200);
        let first = answer.chunk().await.unwrap().unwrap();
        assert!(!first.is_empty());
        // The client reads nothing, so the api waits with a part of the rows.
        eventually("the session of the download to be ended", SOON, async || {
            let ended: i64 = sqlx::query_scalar(
                "select count(*) from (
                     select pg_terminate_backend(pid) from pg_stat_activity
                     where application_name like 'tagtrail-api%' and state = 'idle in transaction' and query like 'fetch forward%') e",
            )
            .fetch_one(&mut rows.db)
            .await
            .unwrap();
            (ended == 1).then_some(())
        })
        .await;
        let mut failed = false;
        loop {
            match answer.chunk().await {
                Ok(Some(_)) => {}
                Ok(None) => break,
                Err(_) => {
                    failed = true;
                    break;
                }
            }
        }
        assert!(failed, "{path} looks whole");
    }
    // The next one is served.
    let answer = api
        .found(&format!("/v1/reports/releases-moved?{TIME}"))
        .await;
    assert_eq!(answer["items"].as_array().unwrap().len(), 90_000);
}
