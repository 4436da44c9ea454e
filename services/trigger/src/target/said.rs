//! The end of the answer or output of a target.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tagtrail_proto::clean_text;

/// Most bytes of the text.
const KEPT: usize = 16 * 1024;
/// Shortest text that is cut out as a secret: shorter ones are parts of words.
const HIDDEN: usize = 4;

/// The last 16 KiB of the answer or output of a target, in the order of arrival. Clones share the
/// content, so it can be read while the attempt runs.
#[derive(Debug, Clone, Default)]
pub(crate) struct Said(Arc<Mutex<Tail>>);

#[derive(Default)]
struct Tail {
    /// The last bytes: [`KEPT`], and before them room for the begin of a secret.
    bytes: VecDeque<u8>,
    /// Whether earlier bytes were dropped.
    cut: bool,
    /// The secrets to cut out.
    hidden: Vec<Vec<u8>>,
    status: Option<i32>,
}

/// Displays the size, never the content: it may hold secrets.
impl std::fmt::Debug for Tail {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Tail({} bytes)", self.bytes.len())
    }
}

impl Said {
    /// Cuts these secrets out of the text. A secret of several lines is also cut out line by line.
    pub(crate) fn hide<'a>(&self, secrets: impl IntoIterator<Item = &'a str>) {
        let mut tail = self.tail();
        for secret in secrets {
            let lines = secret.lines().filter(|line| *line != secret);
            let parts = std::iter::once(secret).chain(lines).map(str::trim);
            let parts = parts.filter(|part| part.len() >= HIDDEN);
            tail.hidden.extend(parts.map(|part| part.as_bytes().into()));
        }
    }

    /// Adds bytes that the target sent.
    pub(crate) fn push(&self, bytes: &[u8]) {
        let mut tail = self.tail();
        let room = KEPT + tail.hidden.iter().map(Vec::len).max().unwrap_or(0);
        let new = &bytes[bytes.len().saturating_sub(room)..];
        let over = (tail.bytes.len() + new.len()).saturating_sub(room);
        tail.bytes.drain(..over);
        tail.bytes.extend(new);
        tail.cut |= over > 0 || new.len() < bytes.len();
    }

    /// Records the HTTP status or the exit code.
    pub(crate) fn ended(&self, status: i32) {
        self.tail().status = Some(status);
    }

    /// Returns the HTTP status or the exit code. `None`: there was no answer, or a signal ended the
    /// program.
    pub(crate) fn status(&self) -> Option<i32> {
        self.tail().status
    }

    /// Returns the text, of at most 16 KiB: secrets are cut out, and characters that control a
    /// terminal are replaced.
    pub(crate) fn text(&self) -> String {
        let (bytes, hidden, cut) = {
            let tail = self.tail();
            let bytes: Vec<u8> = tail.bytes.iter().copied().collect();
            (bytes, tail.hidden.clone(), tail.cut)
        };
        // A secret that begins in the dropped bytes ends before `start`.
        let mut start = 0;
        if cut {
            start = bytes.len().saturating_sub(KEPT);
            let rest = bytes[start..].iter().take(3);
            start += rest.take_while(|byte| **byte & 0xc0 == 0x80).count();
        }
        end_of(&shown(&bytes, start, &hidden), KEPT).to_owned()
    }

    /// Returns other bytes of the target as text, without the secrets.
    pub(crate) fn shown(&self, bytes: &[u8]) -> String {
        shown(bytes, 0, &self.tail().hidden)
    }

    /// Returns the end of the text, of at most `most` bytes, in one line.
    pub(crate) fn end(&self, most: usize) -> String {
        let text = self.text();
        let lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
        let line: Vec<&str> = lines.collect();
        end_of(&line.join(" | "), most).to_owned()
    }

    fn tail(&self) -> MutexGuard<'_, Tail> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Returns the bytes from `start` on as text, without secrets and control characters.
fn shown(bytes: &[u8], start: usize, hidden: &[Vec<u8>]) -> String {
    let (secret, mut text) = (secret(bytes, hidden), String::new());
    for run in start..bytes.len() {
        let first = run == start || secret[run] != secret[run - 1];
        if first && secret[run] {
            text.push('…');
        } else if first {
            let rest = secret[run..].iter();
            let end = run + rest.take_while(|secret| !**secret).count();
            clean(&String::from_utf8_lossy(&bytes[run..end]), &mut text);
        }
    }
    text
}

/// Returns for each byte whether it belongs to a secret. The begin of a secret at the end counts,
/// since its rest may follow.
fn secret(bytes: &[u8], hidden: &[Vec<u8>]) -> Vec<bool> {
    let mut secret = vec![false; bytes.len()];
    for value in hidden {
        for at in 0..bytes.len() {
            let rest = &bytes[at..];
            if rest.starts_with(value) {
                secret[at..at + value.len()].fill(true);
            } else if rest.len() >= HIDDEN && value.starts_with(rest) {
                secret[at..].fill(true);
            }
        }
    }
    secret
}

/// Appends a text without characters that control a terminal. Newlines and tabs stay.
fn clean(text: &str, to: &mut String) {
    let text = text.replace("\r\n", "\n");
    for piece in text.split_inclusive(['\n', '\t']) {
        let plain = piece.strip_suffix(['\n', '\t']).unwrap_or(piece);
        to.push_str(&clean_text(plain, usize::MAX));
        to.push_str(&piece[plain.len()..]);
    }
}

/// Returns the end of a text, of at most `most` bytes.
fn end_of(text: &str, most: usize) -> &str {
    let mut at = text.len().saturating_sub(most);
    while !text.is_char_boundary(at) {
        at += 1;
    }
    &text[at..]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(secrets: &[&str], chunks: &[&[u8]]) -> Said {
        let said = Said::default();
        said.hide(secrets.iter().copied());
        chunks.iter().for_each(|chunk| said.push(chunk));
        said
    }

    #[test]
    fn the_end_stays_in_the_order_of_arrival() {
        let said = Said::default();
        assert_eq!((said.text().as_str(), said.status()), ("", None));
        for line in 0..10_000 {
            said.push(format!("line {line}\n").as_bytes());
        }
        said.ended(3);
        let text = said.clone().text();
        assert!(
            text.len() <= KEPT && text.len() > KEPT - 20,
            "{}",
            text.len()
        );
        assert!(text.ends_with("line 9998\nline 9999\n"), "{text}");
        assert_eq!(said.end(21), "line 9998 | line 9999");
        assert_eq!(said.status(), Some(3));
    }

    #[test]
    fn a_flood_costs_no_memory() {
        let said = said(&["hidden"], &[]);
        let chunk = vec![b'x'; 1024 * 1024];
        for _ in 0..400 {
            said.push(&chunk);
        }
        said.push(b"end");
        assert!(said.tail().bytes.capacity() <= 4 * KEPT);
        let text = said.text();
        assert!(text.len() == KEPT && text.ends_with("xend"));
    }

    #[test]
    fn control_characters_are_replaced_and_lines_stay() {
        let raw = "a\tb\r\n\u{1b}[31mred\u{7}\u{9b}\u{7f}\u{202e}\u{200b}\0end".as_bytes();
        let said = said(&[], &[raw, b"\xff\xfe\n"]);
        let end =
            "\u{fffd}[31mred\u{fffd}\u{fffd}\u{fffd}\u{fffd}\u{fffd}\u{fffd}end\u{fffd}\u{fffd}";
        assert_eq!(said.text(), format!("a\tb\n{end}\n"));
        assert_eq!(said.end(1000), format!("a\tb | {end}"));
        // A replaced character takes three bytes, and the bound holds.
        said.push(&[0x1b; 2 * KEPT]);
        let text = said.text();
        assert!(
            text.len() <= KEPT && text.len() > KEPT - 3,
            "{}",
            text.len()
        );
    }

    #[test]
    fn characters_are_not_torn_apart() {
        let torn = said(&[], &[b"gr\xc3", b"\xb6\xc3\x9fe"]);
        assert_eq!(torn.text(), "größe");
        for start in 0..4 {
            let long = format!("{}{}", "x".repeat(start), "€".repeat(KEPT));
            let text = said(&[], &[long.as_bytes()]).text();
            assert!(text.chars().all(|character| character == '€'), "{text}");
        }
    }

    #[test]
    fn a_secret_is_cut_out_wherever_it_stands() {
        const KEY: &str = "s3cr3t-k3y";
        let text = |chunks: &[&[u8]]| said(&[KEY, "s3cr3t", "abc"], chunks).text();
        assert_eq!(text(&[b"user s3cr3t-k3y", b"s3cr3t abc!"]), "user … abc!");
        // In two chunks, and while its rest is still to come.
        assert_eq!(text(&[b"key=s3cr", b"3t-k3y;"]), "key=…;");
        assert_eq!(text(&[b"key=s3cr"]), "key=…");
        assert_eq!(text(&[b"key=s3cr", b"eam"]), "key=s3cream");
        // At the place where earlier output is dropped.
        for after in KEPT - 15..KEPT + 15 {
            let long = format!("{KEY}{}", "x".repeat(after));
            let text = text(&[long.as_bytes()]);
            let shown = text.trim_start_matches('…');
            assert!(shown.bytes().all(|byte| byte == b'x'), "{}", &text[..30]);
        }
        let lines = said(
            &["-----BEGIN-----\nMIIE\n"],
            &[b"got MIIE of -----BEGIN-----"],
        );
        assert_eq!(lines.text(), "got … of …");
    }
}
