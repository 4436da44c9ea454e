//! Whether a registry can be asked, for `tagtrail doctor`: the resolver's own way of asking, from where the doctor stands.

use std::time::Duration;

use tagtrail_config::{ConfigError, File, RegistryAccess};
use tagtrail_registry::{AskError, Ping, RegistryClient};

/// Why nothing is known about a registry.
#[derive(Debug, thiserror::Error)]
pub enum CheckError {
    /// Its entry in the file is wrong.
    #[error(transparent)]
    Entry(#[from] ConfigError),
    /// It gave no answer.
    #[error("{0}")]
    Unreachable(AskError),
    /// It gave none in time.
    #[error("no answer within {0:?}")]
    TooLate(Duration),
}

/// Asks a registry whether it is there, whether it takes the configured credentials, and what time it has.
///
/// # Errors
/// Nothing is known about it: see [`CheckError`].
pub async fn check_registry(
    file: &File,
    access: &RegistryAccess,
    patience: Duration,
) -> Result<Ping, CheckError> {
    let registry = RegistryClient::new(file, access)?;
    match tokio::time::timeout(patience, registry.ping()).await {
        Ok(answer) => answer.map_err(CheckError::Unreachable),
        Err(_) => Err(CheckError::TooLate(patience)),
    }
}
