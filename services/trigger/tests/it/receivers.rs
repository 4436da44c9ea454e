//! Rollouts to emulations of the receivers that webhooks usually have, with the settings of
//! `docs/webhook.md`.

use tagtrail_proto::RolloutState::Succeeded;
use tagtrail_testkit::{Answer, Delivery, SOON, Sink, eventually};

use crate::world::*;

/// A receiver: its name, the settings of the target, the path, and the checks of the product.
struct Receiver {
    name: &'static str,
    settings: &'static str,
    path: &'static str,
    judge: fn(&Delivery) -> Answer,
}

const RECEIVERS: [Receiver; 7] = [
    Receiver {
        name: "github",
        settings: "url = 'BASE/repos/acme/deploy/dispatches'\nheaders.Authorization = { file = 'token', prefix = 'Bearer ' }\n\
             body = '{\"event_type\": \"deploy\", \"client_payload\": {\"image\": {{ images.web.pinned }}, \"rollout\": {{ number }}}}'",
        path: "/repos/acme/deploy/dispatches",
        judge: github,
    },
    Receiver {
        name: "gitlab",
        settings: "url = { file = 'gitlab.url' }\ncontent_type = 'application/json'",
        path: "/api/v4/projects/1/ref/main/trigger/pipeline?token=glptt-0123456789abcdef",
        judge: gitlab,
    },
    Receiver {
        name: "gitlab-variables",
        settings: "url = { file = 'gitlab.url' }\nbody = '{\"variables\": {\"IMAGE\": {{ images.web.pinned }}}}'",
        path: "/api/v4/projects/1/ref/main/trigger/pipeline?token=glptt-0123456789abcdef",
        judge: gitlab,
    },
    Receiver {
        name: "jenkins",
        settings: "url = { file = 'jenkins.url' }\ncontent_type = 'application/json'",
        path: "/generic-webhook-trigger/invoke?token=jenkins-secret",
        judge: jenkins,
    },
    Receiver {
        name: "jenkins-header",
        settings: "url = 'BASE/generic-webhook-trigger/invoke'\nheaders.token = { file = 'jenkins' }\ncontent_type = 'application/json'",
        path: "/generic-webhook-trigger/invoke",
        judge: jenkins,
    },
    Receiver {
        name: "slack",
        settings: "url = { file = 'slack.url' }\nbody = '{\"text\": {{ \"deploy \" ~ images.web.pinned }}}'",
        path: "/services/T0000/B0000/slack-token-of-24-letters",
        judge: slack,
    },
    Receiver {
        name: "express",
        settings: "url = 'BASE/hook'\nsecret = { file = 'secret' }\ncontent_type = 'application/json'",
        path: "/hook",
        judge: express,
    },
];

/// Refuses with the text of the product.
fn refused(status: u16, text: &str) -> Answer {
    Answer::Said(status, text.to_owned())
}

fn github(delivery: &Delivery) -> Answer {
    if delivery.header("authorization") != "Bearer ghp_0123456789abcdef" {
        return refused(401, "{\"message\":\"Requires authentication\"}");
    }
    if delivery.header("user-agent").is_empty() {
        return refused(403, "Request forbidden by administrative rules.");
    }
    let body = delivery.json();
    let payload = body["client_payload"].as_object();
    match body["event_type"].is_string() && payload.is_some_and(|payload| payload.len() <= 10) {
        true => Answer::Status(204),
        false => refused(422, "{\"message\":\"Invalid request.\"}"),
    }
}

fn gitlab(delivery: &Delivery) -> Answer {
    if delivery.header("content-type") != "application/json" {
        return refused(
            415,
            "{\"error\":\"The provided content-type is not supported.\"}",
        );
    }
    let query = delivery.uri.query().unwrap_or_default();
    let variables = &delivery.json()["variables"];
    match query.contains("token=glptt-") && (variables.is_null() || variables.is_object()) {
        true => Answer::Said(201, "{}".to_owned()),
        false => refused(404, "{\"message\":\"404 Not Found\"}"),
    }
}

fn jenkins(delivery: &Delivery) -> Answer {
    let query = delivery.uri.query().unwrap_or_default();
    let known = query == "token=jenkins-secret" || delivery.header("token") == "jenkins-secret";
    match known && delivery.header("content-type") == "application/json" {
        true => Answer::Said(200, "{\"jobs\":{}}".to_owned()),
        false => refused(
            404,
            "{\"message\":\"Did not find any jobs with GenericTrigger configured!\"}",
        ),
    }
}

fn slack(delivery: &Delivery) -> Answer {
    match delivery.json()["text"].as_str() {
        Some(text) if text.starts_with("deploy ") => Answer::Said(200, "ok".to_owned()),
        _ => refused(400, "no_text"),
    }
}

/// `express.json()` leaves a body of another type unparsed.
fn express(delivery: &Delivery) -> Answer {
    let parsed = delivery.header("content-type") == "application/json";
    match parsed && delivery.json()["data"]["images"].is_object() {
        true => Answer::Status(204),
        false => refused(400, "no images in body"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn each_usual_receiver_takes_a_rollout_with_its_settings() {
    let mut world = World::new().await;
    let write = |name: &str, text: &str| {
        std::fs::write(world.folder.path().join(name), text).unwrap();
    };
    write("token", "ghp_0123456789abcdef");
    write("jenkins", "jenkins-secret");
    let (mut sinks, mut config) = (Vec::new(), String::new());
    for receiver in RECEIVERS {
        let sink = Sink::start().await;
        sink.judge(receiver.judge);
        let base = sink.url().trim_end_matches("/hook");
        // A file of its own for each receiver, because each has a port of its own.
        let address = format!("{}.address", receiver.name);
        write(&address, &format!("{base}{}\n", receiver.path));
        let settings = receiver.settings.replace("BASE", base);
        let settings = ["gitlab.url", "jenkins.url", "slack.url"]
            .iter()
            .fold(settings, |settings, file| settings.replace(file, &address));
        config += &format!(
            "[[trigger]]\nname = \"{}\"\nsettle = \"0s\"\nimages.web = \"{WEB}\"\n[trigger.target.webhook]\n{settings}\n",
            receiver.name
        );
        sinks.push(sink);
    }
    world.configure(&config);
    world.push(WEB, 1).await;
    let service = world.start().await;
    eventually("a rollout of each trigger to end", SOON, async || {
        let ended: Vec<_> = world.rollouts().await;
        (ended.len() == RECEIVERS.len() && ended.iter().all(|rollout| rollout.1 == Succeeded))
            .then_some(())
    })
    .await;
    for (receiver, sink) in RECEIVERS.iter().zip(&sinks) {
        let deliveries = sink.deliveries();
        assert_eq!(deliveries.len(), 1, "{}", receiver.name);
        assert_eq!(deliveries[0].uri.to_string(), receiver.path);
    }
    service.stop().await;
}
