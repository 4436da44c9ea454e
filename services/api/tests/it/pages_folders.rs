//! Folders and busy repositories, by the numbers that the indexer keeps and by the revisions since.

use crate::pages_repository::{many, show};
use crate::server::Api;

#[tokio::test]
async fn folders_and_busy_repositories_are_the_same_before_and_after_the_indexer_has_counted() {
    let (api, mut rows) = Api::start().await;
    for (repository, count) in [("shop/web", 3), ("shop/api", 1), ("busy/one", 60)] {
        many(
            &mut rows,
            &format!("registry.example.com/{repository}"),
            count,
        )
        .await;
    }
    let paths = ["/i", "/i?sort=name", "/i/registry.example.com/shop", "/"];
    let mut before = Vec::new();
    for path in paths {
        before.push(show(&api, path).await.text);
    }
    sqlx::raw_sql(
        "insert into stats_position select partition, max(ordinal) from revision group by partition;
         insert into tag_stats select repository_id, count(*), count(*), 0 from tag where head is not null group by repository_id;
         insert into half_hour_stats
         select floor(extract(epoch from v.recorded_at) / 1800), t.repository_id, count(*), max(v.push_id)
         from revision v join tag t on t.id = v.tag_id group by 1, 2;
         insert into minute_stats select floor(extract(epoch from recorded_at) / 60), count(*) from revision group by 1",
    )
    .execute(&mut rows.db)
    .await
    .unwrap();
    let drawn = |text: &str| -> Vec<String> {
        let charts = text.split("<svg class=\"ch").skip(1);
        let rows = text.split("<td class=\"r n\"").skip(1);
        let cut = |part: &str, end: &str| part.split(end).next().unwrap_or_default().to_owned();
        // The chart of the last hour moves on with the minute.
        charts
            .map(|part| cut(part, "</svg>"))
            .filter(|chart| !chart.contains("last hour"))
            .chain(rows.map(|part| cut(part, "</td>")))
            .collect()
    };
    for (path, before) in paths.iter().zip(&before) {
        let after = show(&api, path).await.text;
        assert_eq!(drawn(&after), drawn(before), "{path}");
        assert!(drawn(&after).len() > 2, "{path}");
    }
    let folders = show(&api, "/i").await.text;
    assert!(folders.contains("60 changes of registry.example.com/busy over 24 hours"));
    assert!(folders.contains("4 changes of registry.example.com/shop over 24 hours"));
    // Numbers that the indexer has not counted come on top.
    many(&mut rows, "registry.example.com/shop/new", 2).await;
    let folders = show(&api, "/i").await.text;
    assert!(folders.contains("6 changes of registry.example.com/shop over 24 hours"));
}
