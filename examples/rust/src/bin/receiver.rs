//! Receives the signed webhook of a trigger, and prints each rollout once.
//!
//! `LISTEN=127.0.0.1:9000 SHOP_WEBHOOK_SECRET=whsec_… cargo run --bin receiver`

use std::collections::HashMap;
use std::env;

use http::{HeaderMap, HeaderName, HeaderValue};
use serde_json::Value;
use standardwebhooks::Webhook;
use tiny_http::{Request, Response, Server};

fn main() -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    // The library refuses a secret with a newline at its end.
    let webhook = Webhook::new(env::var("SHOP_WEBHOOK_SECRET")?.trim())?;
    let server = Server::http(env::var("LISTEN").unwrap_or("127.0.0.1:9000".to_owned()))?;
    let mut last = HashMap::new(); // trigger -> (epoch, number); a real receiver keeps it on disk
    for mut request in server.incoming_requests() {
        // The signature covers the bytes as they came.
        let mut body = Vec::new();
        request.as_reader().read_to_end(&mut body)?;
        let status = match webhook.verify(&body, &headers(&request)) {
            Ok(()) => accept(&serde_json::from_slice(&body)?, &mut last),
            Err(_) => 401,
        };
        request.respond(Response::empty(status))?;
    }
    Ok(())
}

fn headers(request: &Request) -> HeaderMap {
    let pairs = request.headers().iter().filter_map(|header| {
        let name = HeaderName::from_bytes(header.field.as_str().as_str().as_bytes()).ok()?;
        Some((name, HeaderValue::from_str(header.value.as_str()).ok()?))
    });
    pairs.collect()
}

fn accept(event: &Value, last: &mut HashMap<String, (String, u64)>) -> u16 {
    let rollout = &event["data"];
    let [Some(trigger), Some(epoch)] = ["trigger", "epoch"].map(|key| rollout[key].as_str()) else {
        return 400;
    };
    let Some(number) = rollout["number"].as_u64() else {
        return 400;
    };
    // A delivery may come twice, and an older one after a newer one. Numbers of a later epoch begin
    // again.
    let place = (epoch.to_owned(), number);
    if last.get(trigger).is_none_or(|last| place > *last) {
        let images = rollout["images"].as_object().into_iter().flatten();
        let pinned = images.filter_map(|(_, image)| image["pinned"].as_str());
        println!("{trigger}#{number} {}", pinned.collect::<Vec<_>>().join(" ")); // deploy here
        last.insert(trigger.to_owned(), place);
    }
    204
}
