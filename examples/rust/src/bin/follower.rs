//! Follows the live feed. The library reconnects by itself, and goes on after the last event.
//!
//! `TAGTRAIL_API=http://127.0.0.1:8401 cargo run --bin follower`

use std::env;

use futures_util::StreamExt as _;
use reqwest_eventsource::{Event, EventSource};
use serde_json::Value;

#[tokio::main(flavor = "current_thread")]
async fn main() {
    let api = env::var("TAGTRAIL_API").unwrap_or("http://127.0.0.1:8401".to_owned());
    let client = reqwest::Client::new();
    let mut last = String::new();
    loop {
        let mut request = client.get(format!("{api}/v1/revisions"));
        if !last.is_empty() {
            request = request.header("Last-Event-ID", &last);
        }
        let mut events = EventSource::new(request).expect("a GET request can be repeated");
        while let Some(event) = events.next().await {
            match event {
                Ok(Event::Message(message)) => {
                    last.clone_from(&message.id);
                    // Look at the name: `place` and names of later versions are no revisions.
                    if message.event == "revision" {
                        show(&message.data);
                    }
                }
                Ok(Event::Open) => {}
                // The stream goes on after a lost connection. It ends if the answer is an error,
                // such as 503 while the api waits for Postgres.
                Err(error) => eprintln!("{error}"),
            }
        }
        tokio::time::sleep(std::time::Duration::from_secs(1)).await;
    }
}

fn show(data: &str) {
    if let Ok(revision) = serde_json::from_str::<Value>(data) {
        let (subject, data) = (&revision["subject"], &revision["data"]);
        let [subject, digest] = [subject, &data["digest"]].map(|text| text.as_str().unwrap_or("-"));
        println!("{subject}#{} {digest}", data["revision"]);
    }
}
