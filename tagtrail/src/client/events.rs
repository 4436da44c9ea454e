//! Server-sent events, as the HTML standard (section 9.2) reads them.

use std::collections::VecDeque;

/// An event.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Event {
    /// Its name; `message` if it has none.
    pub(crate) name: String,
    pub(crate) data: String,
}

/// An open stream of events.
pub(crate) struct Events {
    response: reqwest::Response,
    parser: Parser,
}

impl Events {
    pub(crate) fn new(response: reqwest::Response) -> Events {
        Events {
            response,
            parser: Parser::default(),
        }
    }

    /// The next event. `None`: the server has ended the stream.
    pub(crate) async fn next(&mut self) -> reqwest::Result<Option<Event>> {
        loop {
            if let Some(event) = self.parser.ready.pop_front() {
                return Ok(Some(event));
            }
            match self.response.chunk().await? {
                Some(chunk) => self.parser.take(&chunk),
                None => return Ok(None),
            }
        }
    }

    /// What `Last-Event-ID` must say to go on after the last event, and after the last heartbeat.
    pub(crate) fn last_id(&self) -> Option<&str> {
        self.parser.id.as_deref()
    }
}

/// Longer than any line of ours: an event has at most 1 MiB.
const LONGEST: usize = 4 * 1024 * 1024;

#[derive(Debug, Default)]
struct Parser {
    line: Vec<u8>,
    /// The event that is being read.
    event: Event,
    /// The identifier that is being read, and the last whole one.
    next_id: Option<String>,
    id: Option<String>,
    ready: VecDeque<Event>,
}

impl Parser {
    fn take(&mut self, bytes: &[u8]) {
        for byte in bytes {
            match byte {
                b'\n' => {
                    let line = std::mem::take(&mut self.line);
                    self.take_line(String::from_utf8_lossy(&line).trim_end_matches('\r'));
                }
                _ if self.line.len() < LONGEST => self.line.push(*byte),
                _ => {}
            }
        }
    }

    fn take_line(&mut self, line: &str) {
        if line.is_empty() {
            if self.next_id.is_some() {
                self.id = self.next_id.take();
            }
            let event = std::mem::take(&mut self.event);
            if !event.data.is_empty() {
                self.ready.push_back(event);
            }
            return;
        }
        let (field, value) = line.split_once(':').unwrap_or((line, ""));
        let value = value.strip_prefix(' ').unwrap_or(value);
        match field {
            "event" => value.clone_into(&mut self.event.name),
            "id" => self.next_id = Some(value.to_owned()),
            "data" => {
                if !self.event.data.is_empty() {
                    self.event.data.push('\n');
                }
                self.event.data.push_str(value);
            }
            _ => {} // A comment, or something of a later standard.
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_are_read_however_they_are_cut() {
        let text = ": hello\nid: 1\n\nevent: revision\r\nid: 2\ndata: {\"a\":\ndata:1}\n\nid: 3\n\ndata: last\n\ndata: unfinished";
        for size in [1, 2, 7, text.len()] {
            let mut parser = Parser::default();
            for chunk in text.as_bytes().chunks(size) {
                parser.take(chunk);
            }
            let event = |name: &str, data: &str| Event {
                name: name.to_owned(),
                data: data.to_owned(),
            };
            let events: Vec<Event> = parser.ready.into();
            assert_eq!(
                events,
                [event("revision", "{\"a\":\n1}"), event("", "last")]
            );
            // Without data there is no event, but there is an identifier.
            assert_eq!(parser.id.as_deref(), Some("3"));
        }
    }
}
