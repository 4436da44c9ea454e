//! Bodies that real registries sent while real clients worked (`tests/fixtures/captured`).

use super::*;

/// All requests of a registry during one command.
#[derive(Deserialize)]
struct Captured {
    source: Sender,
    requests: Vec<Request>,
    expected: Outcome,
}

#[derive(Deserialize)]
struct Sender {
    kind: String,
    registry: String,
}

#[derive(Deserialize)]
struct Request {
    headers: BTreeMap<String, String>,
    body: String,
}

#[derive(Deserialize)]
struct Outcome {
    /// The events that count, in order of arrival.
    events: Vec<Value>,
    /// The number of other events.
    ignored: usize,
    /// The number of requests that repeat an earlier request.
    #[serde(default)]
    repeats: usize,
}

impl Request {
    fn decode(&self, sender: &Sender) -> Vec<Meaning> {
        let mut headers = HeaderMap::new();
        for (name, value) in &self.headers {
            let name: HeaderName = name.parse().unwrap();
            headers.insert(name, value.parse().unwrap());
        }
        let route = Route::of(Some(&sender.registry));
        decode_with(&sender.kind, &route, &headers, self.body.as_bytes()).unwrap()
    }
}

/// The fields of an event that the fixture names. Fields that are null count as absent.
fn fields(event: &Meaning) -> Value {
    let (push, resolve) = match event {
        Meaning::Push(push) => (push, false),
        Meaning::Unresolved(push) => (push, true),
        other => panic!("not an event that counts: {other:?}"),
    };
    let mut all = serde_json::to_value(push).unwrap();
    if push.occurred_at_source != TimeSource::Event {
        all["occurred_at"] = Value::Null;
    }
    if resolve {
        all["resolve"] = true.into();
    }
    without_nulls(all)
}

fn without_nulls(mut event: Value) -> Value {
    let fields = event.as_object_mut().unwrap();
    for unnamed in [
        "registry",
        "source",
        "origin",
        "occurred_at_source",
        "actor",
    ] {
        fields.remove(unnamed);
    }
    if fields["action"] == "delete" {
        // Some registries name the type of the deleted manifest.
        fields.remove("media_type");
        fields.remove("size");
    }
    fields.retain(|_, value| !value.is_null());
    // A time has more or fewer zeros at its end, as its writer likes.
    if let Some(Value::String(time)) = fields.get_mut("occurred_at") {
        *time = instant::format(instant::parse(time).unwrap()).unwrap();
    }
    event
}

#[test]
fn captured_requests_decode_to_the_events_that_count() {
    let mut files = 0;
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/captured");
    for file in std::fs::read_dir(folder).unwrap() {
        let path = file.unwrap().path();
        let name = path.file_name().unwrap().display();
        let captured: Captured = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
        let mut counted: Vec<Meaning> = Vec::new();
        let (mut ignored, mut repeats) = (0, 0);
        for request in &captured.requests {
            for event in request.decode(&captured.source) {
                match event {
                    Meaning::Push(_) | Meaning::Unresolved(_) if counted.contains(&event) => {
                        repeats += 1;
                    }
                    Meaning::Push(_) | Meaning::Unresolved(_) => counted.push(event),
                    Meaning::Malformed(error) => panic!("{name}: {error}"),
                    _ => ignored += 1,
                }
            }
        }
        let counted: Vec<Value> = counted.iter().map(fields).collect();
        let expected = captured.expected.events.into_iter().map(without_nulls);
        assert_eq!(counted, expected.collect::<Vec<Value>>(), "{name}");
        let others = (captured.expected.ignored, captured.expected.repeats);
        assert_eq!((ignored, repeats), others, "{name}");
        files += 1;
    }
    assert!(files >= 28, "{files} files");
}
