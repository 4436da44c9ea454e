//! Server-sent events, parsed as section 9.2 of the HTML standard defines.

use std::collections::VecDeque;

/// An event.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct ServerSentEvent {
    /// Value of the field `event`; empty if the event has none.
    pub(crate) name: String,
    pub(crate) data: String,
}

/// An open stream of events.
pub(crate) struct EventStream {
    response: reqwest::Response,
    parser: Parser,
}

impl EventStream {
    pub(crate) fn new(response: reqwest::Response) -> EventStream {
        EventStream {
            response,
            parser: Parser::default(),
        }
    }

    /// Waits for the next event. Returns `None` once the server ended the stream.
    pub(crate) async fn next(&mut self) -> reqwest::Result<Option<ServerSentEvent>> {
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

    /// The `Last-Event-ID` with which a new connection continues after the last event or heartbeat.
    pub(crate) fn last_id(&self) -> Option<&str> {
        self.parser.id.as_deref()
    }
}

/// Bound of the line buffer: an event of the API has at most 1 MiB.
const MAX_LINE: usize = 4 * 1024 * 1024;

#[derive(Debug, Default)]
struct Parser {
    line: Vec<u8>,
    /// The event read so far.
    event: ServerSentEvent,
    /// The id of the event read so far.
    next_id: Option<String>,
    /// The id of the last complete event.
    id: Option<String>,
    ready: VecDeque<ServerSentEvent>,
}

impl Parser {
    fn take(&mut self, bytes: &[u8]) {
        for byte in bytes {
            match byte {
                b'\n' => {
                    let line = std::mem::take(&mut self.line);
                    self.take_line(String::from_utf8_lossy(&line).trim_end_matches('\r'));
                }
                _ if self.line.len() < MAX_LINE => self.line.push(*byte),
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
            _ => {} // A comment, or a field that the standard does not define.
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_are_parsed_however_the_bytes_are_split() {
        let text = ": hello\nid: 1\n\nevent: revision\r\nid: 2\ndata: {\"a\":\ndata:1}\n\nid: 3\n\ndata: last\n\ndata: unfinished";
        for size in [1, 2, 7, text.len()] {
            let mut parser = Parser::default();
            for chunk in text.as_bytes().chunks(size) {
                parser.take(chunk);
            }
            let event = |name: &str, data: &str| ServerSentEvent {
                name: name.to_owned(),
                data: data.to_owned(),
            };
            let events: Vec<ServerSentEvent> = parser.ready.into();
            assert_eq!(
                events,
                [event("revision", "{\"a\":\n1}"), event("", "last")]
            );
            // An id without data makes no event, but still counts as the last id.
            assert_eq!(parser.id.as_deref(), Some("3"));
        }
    }
}
