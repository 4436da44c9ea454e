//! Comfort on the command line: completions, manual pages, checking `tagtrail.toml`, asking a process for its health.

pub(crate) mod completions;
pub(crate) mod config_check;
pub(crate) mod health;
pub(crate) mod man;

use std::io::Write as _;
use std::process::ExitCode;

/// To standard output. A reader that has gone (`| head`) is no failure.
fn write(text: &[u8]) -> ExitCode {
    match std::io::stdout().write_all(text) {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => ExitCode::FAILURE,
        _ => ExitCode::SUCCESS,
    }
}
