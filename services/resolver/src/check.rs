//! The checks of a registry for `tagtrail doctor`, with the resolver's own client.

use std::time::Duration;

use tagtrail_config::{ConfigError, File, RegistryAccess};
use tagtrail_proto::Repository;
use tagtrail_registry::{AskError, Ping, RegistryClient};

/// The reasons for which a registry could not be checked.
#[derive(Debug, thiserror::Error)]
pub enum CheckError {
    /// The entry in the file is wrong.
    #[error(transparent)]
    Entry(#[from] ConfigError),
    /// The registry gave no answer.
    #[error("{0}")]
    Unreachable(AskError),
    /// The registry gave no answer in time.
    #[error("no answer within {0:?}")]
    TooLate(Duration),
}

/// Checks that a registry answers and accepts the configured credentials, and compares clocks.
///
/// # Errors
/// [`CheckError`] if the registry could not be checked.
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

/// Checks that a registry lists the tags of a repository, as a comparison needs them.
///
/// # Errors
/// [`CheckError`] if the list can't be read.
pub async fn check_list(
    file: &File,
    access: &RegistryAccess,
    repository: &Repository,
    patience: Duration,
) -> Result<(), CheckError> {
    let registry = RegistryClient::new(file, access)?;
    match tokio::time::timeout(patience, registry.tags(repository, None)).await {
        Ok(Ok(_)) => Ok(()),
        Ok(Err(error)) => Err(CheckError::Unreachable(error)),
        Err(_) => Err(CheckError::TooLate(patience)),
    }
}
