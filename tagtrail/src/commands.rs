//! Small commands that need neither the API nor an operator's credentials.

pub(crate) mod completions;
pub(crate) mod config_check;
pub(crate) mod env;
pub(crate) mod health;
pub(crate) mod init;
pub(crate) mod man;
pub(crate) mod notify;
pub(crate) mod upgrade_data;

use std::io::Write as _;
use std::process::ExitCode;

/// Writes to standard output. A closed pipe (`| head`) counts as success.
fn write(text: &[u8]) -> ExitCode {
    match std::io::stdout().write_all(text) {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => ExitCode::FAILURE,
        _ => ExitCode::SUCCESS,
    }
}
