//! A power cut loses data that was not synced to disk, but no push that was answered with 2xx.

#![expect(clippy::unwrap_used, reason = "in tests a panic is the report")]
#![expect(clippy::print_stdout, reason = "a test has no log of its own")]

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use serde_json::json;
use tagtrail_e2e::{HOOK_SECRET, Up, config, disk, use_ring};
use tagtrail_proto::{Digest, instant};
use tagtrail_testkit::{Disk, SOON, TestNats, eventually};
use time::OffsetDateTime;
use tokio::task::JoinSet;

/// Counts the messages that nats-server acknowledged, and the number that a power cut loses.
async fn lost_by_nats(disk: &Disk, durable: bool) -> (u64, u64) {
    let nats = TestNats::start_in(&disk.folder(), durable).await;
    let context = nats.jetstream().await;
    let config = async_nats::jetstream::stream::Config {
        name: "PUSHES".to_owned(),
        subjects: vec!["tagtrail.push.>".to_owned()],
        ..Default::default()
    };
    context.create_stream(config).await.unwrap();
    let mut acknowledged = 0;
    for n in 0..500 {
        let sent = context.publish("tagtrail.push.0.test", format!("{n}").into());
        acknowledged = sent.await.unwrap().await.unwrap().sequence;
    }
    disk.cut();
    nats.stop().await;
    drop(nats);
    disk.restore().await;
    let nats = TestNats::start_in(&disk.folder(), durable).await;
    let kept = nats.messages("PUSHES").await.len();
    (acknowledged, acknowledged - u64::try_from(kept).unwrap())
}

#[tokio::test(flavor = "multi_thread")]
async fn sync_interval_always_loses_nothing_in_a_power_cut_and_the_default_does() {
    let Some(disk) = disk() else { return };
    assert_eq!(lost_by_nats(&disk, true).await, (500, 0));
    drop(disk);
    let Some(disk) = tagtrail_e2e::disk() else {
        return;
    };
    let (acknowledged, lost) = lost_by_nats(&disk, false).await;
    assert!(
        lost > 0,
        "the test proves nothing: {acknowledged} acknowledged, none lost"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn every_push_that_got_2xx_is_in_history_after_a_power_cut() {
    use_ring();
    let Some(disk) = disk() else { return };
    let disk = Arc::new(disk);
    let folder = tempfile::tempdir().unwrap();
    let registry = "registry.example.com";
    let file = config(folder.path(), registry, "http://127.0.0.1:9/nobody");
    let digest = |repository: &str, n: u32| {
        Digest::sha256_of(format!("{repository}/{n}").as_bytes()).to_string()
    };
    let mut counts = [0_u32; 4];
    // The first cut comes shortly after the first start.
    for round in 0..2 {
        let mut up = Up::start(&disk.folder(), &file).await;
        let hook = format!("{}/hooks/ci", up.address("gateway"));
        let dark = Arc::new(AtomicBool::new(false));
        let mut senders = JoinSet::new();
        for (number, count) in counts.iter().copied().enumerate() {
            let (hook, dark) = (hook.clone(), Arc::clone(&dark));
            senders.spawn(async move {
                let client = reqwest::Client::builder().timeout(Duration::from_secs(3)).build().unwrap();
                let repository = format!("shop/r{number}");
                let mut next = count;
                loop {
                    let time = OffsetDateTime::now_utc();
                    let body = json!({
                        "repository": repository, "tag": "latest", "digest": digest(&repository, next),
                        "time": instant::format(time).unwrap(), "id": format!("{next}"),
                    });
                    let answer = client.post(&hook).bearer_auth(HOOK_SECRET).json(&body).send().await;
                    match answer.map(|answer| answer.status().as_u16()) {
                        // After the cut, a real machine would not have answered.
                        Ok(202) if !dark.load(Ordering::SeqCst) => next += 1,
                        _ => return (number, next),
                    }
                }
            });
        }
        tokio::time::sleep(Duration::from_millis(1500 + 700 * round)).await;
        dark.store(true, Ordering::SeqCst);
        disk.cut();
        up.process.kill();
        while let Some(done) = senders.join_next().await {
            let (number, accepted) = done.unwrap();
            assert!(
                accepted > counts[number],
                "nothing was accepted before the cut"
            );
            counts[number] = accepted;
        }
        drop(up);
        disk.restore().await;
        let up = Up::start(&disk.folder(), &file).await;
        for (number, count) in counts.iter_mut().enumerate() {
            let repository = format!("shop/r{number}");
            let wanted: Vec<String> = (0..*count).map(|n| digest(&repository, n)).collect();
            let found = eventually(&format!("all pushes of {repository}"), SOON, async || {
                let found = history(up.address("api"), registry, &repository).await?;
                (found.len() >= wanted.len()).then_some(found)
            })
            .await;
            assert_eq!(found[..wanted.len()], wanted, "round {round}, {repository}");
            // Another push may have been stored just before the cut, without an answer.
            assert!(found.len() <= wanted.len() + 1);
            *count = u32::try_from(found.len()).unwrap();
        }
        drop(up);
        // The processes that use the folder must end before the next round.
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    println!("{} pushes, none lost", counts.iter().sum::<u32>());
}

/// The digests of an image, oldest first.
async fn history(api: &str, registry: &str, repository: &str) -> Option<Vec<String>> {
    let mut all = Vec::new();
    let mut cursor = String::new();
    loop {
        let url = format!("{api}/v1/history?image={registry}/{repository}&limit=1000{cursor}");
        let answer: serde_json::Value = reqwest::get(url).await.ok()?.json().await.ok()?;
        let items = answer["items"].as_array()?;
        all.extend(
            items
                .iter()
                .filter_map(|item| Some(item["digest"].as_str()?.to_owned())),
        );
        match answer["next"].as_str() {
            Some(next) => cursor = format!("&cursor={next}"),
            None => break,
        }
    }
    all.reverse();
    Some(all)
}
