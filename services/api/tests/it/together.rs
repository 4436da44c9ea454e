//! Questions that are asked at the same time: each is answered as if it were asked alone.

use std::time::{Duration, Instant};

use serde_json::Value;
use sqlx::PgConnection;
use tagtrail_testkit::{SOON, eventually};

use crate::rows::{Rows, digest, late_move, on_time, text};
use crate::server::{Answer, Api};

const WEB: &str = "registry.example.com/shop/web";

/// Asks all questions at once. Returns the answers in the order of the questions.
async fn at_once(api: &Api, questions: &[String]) -> Vec<Answer> {
    let asked = questions.iter().map(|question| api.get(question));
    futures_util::future::join_all(asked).await
}

/// Makes other transactions wait for the table, until [`unlock`].
async fn lock(db: &mut PgConnection, table: &str) {
    let statement = format!("begin; lock table {table} in access exclusive mode");
    sqlx::raw_sql(sqlx::AssertSqlSafe(statement))
        .execute(db)
        .await
        .unwrap();
}

async fn unlock(db: &mut PgConnection) {
    sqlx::raw_sql("rollback").execute(db).await.unwrap();
}

/// Returns the number of statements that answered questions together, and the number of questions.
fn asked_together(api: &Api) -> (u64, u64) {
    let text = api.ctx.metrics.text().unwrap();
    let sum = |part: &str| {
        let lines = text.lines().filter(|line| line.starts_with(part));
        lines
            .map(|line| line.rsplit(' ').next().unwrap().parse::<f64>().unwrap())
            .sum::<f64>() as u64
    };
    (
        sum("tagtrail_api_asked_together_count"),
        sum("tagtrail_api_asked_together_sum"),
    )
}

/// Returns questions of all kinds, each with its answer: number and digest of the revision, or the
/// problem.
fn questions() -> Vec<(String, String)> {
    let mut questions = Vec::new();
    for tag in 0..40_u8 {
        let image = format!("/v1/resolve?image={WEB}:v{tag}");
        let known = |number: u64, content: u8| format!("{number} {} v{tag}", digest(content));
        questions.extend([
            (image.clone(), known(2, 3 + tag)),
            (format!("{image}&at={}", text(10)), known(1, 1 + tag)),
            (format!("{image}&at={}", text(29)), known(3, 2 + tag)),
            (
                format!("{image}&at={}", text(9)),
                "404 tag_unknown".to_owned(),
            ),
            (format!("{image}-none"), "404 tag_unknown".to_owned()),
            (
                format!("{image}-none&at={}", text(20)),
                "404 tag_unknown".to_owned(),
            ),
        ]);
    }
    questions
}

async fn write_tags(rows: &mut Rows) {
    for tag in 0..40_u8 {
        let moves = late_move().map(|revision| crate::rows::Revision {
            content: revision.content + tag,
            ..revision
        });
        rows.tag(&format!("{WEB}:v{tag}"), &moves).await;
    }
}

fn told(answer: &Answer) -> String {
    let body = |field: &str| answer.body[field].as_str().unwrap().to_owned();
    match answer.status {
        200 => format!(
            "{} {} {}",
            answer.body["revision"],
            body("digest"),
            body("image").rsplit(':').next().unwrap()
        ),
        _ => answer.problem(),
    }
}

#[tokio::test]
async fn questions_asked_at_once_have_each_its_own_answer() {
    let (api, mut rows) = Api::start().await;
    write_tags(&mut rows).await;
    let (paths, expected): (Vec<String>, Vec<String>) = questions().into_iter().unzip();
    assert!(paths.len() >= 200);
    for (path, expected) in paths.iter().zip(&expected) {
        assert_eq!(&told(&api.get(path).await), expected, "alone, {path}");
    }
    for round in 0..5 {
        for (path, (answer, expected)) in paths
            .iter()
            .zip(at_once(&api, &paths).await.iter().zip(&expected))
        {
            assert_eq!(&told(answer), expected, "round {round}, {path}");
        }
    }
    let (statements, questions) = asked_together(&api);
    assert_eq!(questions, 6 * 240);
    assert!(statements < questions, "{statements} statements");
}

#[tokio::test]
async fn a_caller_without_a_token_never_asks() {
    let db = tagtrail_testkit::postgres().await;
    let folder = tempfile::tempdir().unwrap();
    let config = folder.path().join("tagtrail.toml");
    let secret = folder.path().join("secret");
    std::fs::write(&secret, "reader-0123456789abcdef").unwrap();
    let token =
        format!("[[token]]\nname = \"ui\"\nrole = \"read\"\nsecret = {{ file = {secret:?} }}\n");
    std::fs::write(&config, token).unwrap();
    let api = Api::with(&db, |settings| settings.config = Some(config)).await;
    api.ctx.health.wait_ready().await;
    let mut rows = Rows::new(db.connect().await).await;
    write_tags(&mut rows).await;
    let asked = (0..120_u8).map(async |number| {
        let path = format!("/v1/resolve?image={WEB}:v{}", number % 40);
        let request = api.request("GET", &path);
        let request = match number % 2 {
            0 => request.bearer_auth("reader-0123456789abcdef"),
            _ => request,
        };
        let answer = Answer::read(request.send().await.unwrap()).await;
        match number % 2 {
            0 => assert_eq!(
                told(&answer),
                format!("2 {} v{}", digest(3 + number % 40), number % 40)
            ),
            _ => assert_eq!(answer.body.get("digest"), None, "{answer:?}"),
        }
        answer.status
    });
    let statuses = futures_util::future::join_all(asked).await;
    assert_eq!(statuses.iter().filter(|status| **status == 200).count(), 60);
    assert_eq!(asked_together(&api).1, 60);
}

#[tokio::test]
async fn a_question_that_cannot_be_answered_fails_alone() {
    let (api, mut rows) = Api::start().await;
    write_tags(&mut rows).await;
    rows.tag(
        &format!("{WEB}:odd"),
        &[on_time(1, 1, 10), on_time(2, 2, 20)],
    )
    .await;
    // A kind of a later version, which this program cannot read.
    sqlx::raw_sql(
        "alter type revision_kind add value 'odd'; alter table revision disable trigger append_only",
    )
    .execute(&mut rows.db)
    .await
    .unwrap();
    sqlx::raw_sql(
        "update revision v set kind = 'odd' from tag t where t.id = v.tag_id and v.number = 2 and t.name = 'odd'",
    )
    .execute(&mut rows.db)
    .await
    .unwrap();
    let (mut paths, mut expected): (Vec<String>, Vec<String>) = questions().into_iter().unzip();
    for at in (0..paths.len()).step_by(60) {
        let time = if at % 120 == 0 {
            ""
        } else {
            "&at=2026-03-03T15:00:00Z"
        };
        paths.insert(at, format!("/v1/resolve?image={WEB}:odd{time}"));
        expected.insert(at, "500 internal".to_owned());
    }
    for (path, (answer, expected)) in paths
        .iter()
        .zip(at_once(&api, &paths).await.iter().zip(&expected))
    {
        assert_eq!(&told(answer), expected, "{path}");
    }
}

#[tokio::test]
async fn a_slow_statement_ends_in_its_time_out_for_all_its_questions() {
    let (api, mut rows) = Api::start().await;
    write_tags(&mut rows).await;
    let (paths, expected): (Vec<String>, Vec<String>) = questions().into_iter().unzip();
    let other = api.found("/v1/acts").await;
    lock(&mut rows.db, "revision").await;
    let begun = Instant::now();
    let slow = async {
        let answers = at_once(&api, &paths).await;
        for (path, answer) in paths.iter().zip(&answers) {
            // Unknown tags wait for the same lock.
            assert_eq!(told(answer), "503 store_unavailable", "{path}");
            assert_eq!(answer.header("retry-after"), "2");
        }
    };
    let others = async {
        tokio::time::sleep(Duration::from_secs(1)).await;
        assert_eq!(
            api.found("/v1/acts").await,
            other,
            "other questions are answered"
        );
    };
    tokio::join!(slow, others);
    // The statements that run and, after them, those of the questions that waited.
    assert!(
        begun.elapsed() < Duration::from_secs(14),
        "{:?}",
        begun.elapsed()
    );
    unlock(&mut rows.db).await;
    for (answer, expected) in at_once(&api, &paths).await.iter().zip(&expected) {
        assert_eq!(&told(answer), expected);
    }
}

#[tokio::test]
async fn a_question_whose_client_is_gone_is_not_asked() {
    let (api, mut rows) = Api::start().await;
    write_tags(&mut rows).await;
    let image = format!("/v1/resolve?image={WEB}:v1");
    assert_eq!(api.get(&image).await.status, 200);
    lock(&mut rows.db, "revision").await;
    let both_askers = async {
        let one = async || assert_eq!(api.get(&image).await.status, 200);
        tokio::join!(one(), async {
            eventually("the first statement", SOON, async || {
                (asked_together(&api).0 == 2).then_some(())
            })
            .await;
            one().await;
        });
    };
    let gone = async {
        eventually("the second statement", SOON, async || {
            (asked_together(&api).0 == 3).then_some(())
        })
        .await;
        let gone = (0..50).map(|_| {
            let request = api
                .request("GET", &image)
                .timeout(Duration::from_millis(500));
            request.send()
        });
        for answer in futures_util::future::join_all(gone).await {
            assert!(answer.unwrap_err().is_timeout());
        }
        // The server has seen that the clients are gone.
        tokio::time::sleep(Duration::from_millis(300)).await;
        unlock(&mut rows.db).await;
    };
    tokio::join!(both_askers, gone);
    let last: Value = api.found(&image).await;
    assert_eq!(last["revision"], 2);
    assert_eq!(asked_together(&api).1, 4, "those that were answered");
}
