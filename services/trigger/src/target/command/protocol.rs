//! The messages between the trigger service and the supervisor of a command. Both are the same
//! program file, so the form has no versions.

use std::ffi::OsString;
use std::io;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::io::{AsyncRead, AsyncReadExt as _};

/// Most bytes of a message: the rollout and the environment are far below.
const LONGEST: u32 = 16 * 1024 * 1024;

/// The task of a supervisor: its first message, followed by the input of the program.
#[derive(Serialize, Deserialize)]
pub(super) struct Task {
    /// The file of the program.
    pub(super) program: OsString,
    /// The program as its settings name it, and its arguments.
    pub(super) words: Vec<String>,
    /// The working folder.
    pub(super) folder: OsString,
    /// The whole environment.
    pub(super) environment: Vec<(OsString, OsString)>,
    /// The user; `None`: that of the supervisor.
    pub(super) user: Option<Ids>,
    /// The time between SIGTERM and SIGKILL.
    pub(super) grace: Duration,
    /// Whether processes that the program leaves behind after a success stay.
    pub(super) keep: bool,
}

/// The numbers of a user and the user's groups.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Ids {
    pub(super) uid: u32,
    pub(super) gid: u32,
    pub(super) groups: Vec<u32>,
}

/// The result of a command, as the supervisor reports it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Report {
    /// The program has ended.
    Ended {
        /// The status as `wait` returns it.
        status: i32,
        /// Whether the supervisor had begun to end the program.
        ordered: bool,
    },
    /// The program can't be started.
    NotStarted {
        /// The step that failed, for people.
        step: String,
        /// The system's number of the error.
        code: i32,
    },
}

/// The kind of a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// A [`Task`] as JSON.
    Task,
    /// The input of the program.
    Input,
    /// Output of the program.
    Output,
    /// A [`Report`] as JSON.
    Report,
}

impl Kind {
    const ALL: [Kind; 4] = [Kind::Task, Kind::Input, Kind::Output, Kind::Report];
}

/// Returns a message: the kind, the length of the content, and the content.
pub(super) fn message(kind: Kind, content: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(content.len() + 5);
    bytes.push(kind as u8);
    let length = u32::try_from(content.len()).unwrap_or(u32::MAX);
    bytes.extend_from_slice(&length.to_be_bytes());
    bytes.extend_from_slice(content);
    bytes
}

/// Reads a message into `content`. `None`: the other side has closed the pipe.
pub(super) async fn read(
    from: &mut (impl AsyncRead + Unpin),
    content: &mut Vec<u8>,
) -> io::Result<Option<Kind>> {
    let kind = match from.read_u8().await {
        Ok(kind) => kind,
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
        Err(error) => return Err(error),
    };
    let length = from.read_u32().await?;
    let kind = Kind::ALL.into_iter().find(|known| *known as u8 == kind);
    let kind = kind.filter(|_| length <= LONGEST).ok_or_else(wrong)?;
    content.resize(length as usize, 0);
    from.read_exact(content).await?;
    Ok(Some(kind))
}

/// The error of a message that does not belong here.
pub(super) fn wrong() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, "a wrong message")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn messages_arrive_as_they_were_sent() {
        let report = Report::Ended {
            status: 256,
            ordered: false,
        };
        let json = serde_json::to_vec(&report).unwrap();
        let sent = [message(Kind::Output, b"text"), message(Kind::Report, &json)].concat();
        let (mut from, mut content) = (sent.as_slice(), Vec::new());
        assert_eq!(
            read(&mut from, &mut content).await.unwrap(),
            Some(Kind::Output)
        );
        assert_eq!(content, b"text");
        assert_eq!(
            read(&mut from, &mut content).await.unwrap(),
            Some(Kind::Report)
        );
        assert_eq!(serde_json::from_slice::<Report>(&content).unwrap(), report);
        assert_eq!(read(&mut from, &mut content).await.unwrap(), None);
    }

    #[tokio::test]
    async fn other_bytes_are_refused() {
        let mut content = Vec::new();
        for bytes in [
            &b"\x09\0\0\0\0"[..],
            b"\x02\xff\xff\xff\xff",
            b"\x02\0\0\0\x05four",
        ] {
            read(&mut &*bytes, &mut content).await.unwrap_err();
        }
    }
}
