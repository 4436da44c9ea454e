//! `/v1/rollouts`: what was rolled out, newest first.

use axum::Json;
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, State};
use axum::http::Uri;
use tagtrail_proto::{Name, Rollout};
use uuid::Uuid;

use crate::database::Database;
use crate::error::Error;
use crate::paging::{Items, Page};
use crate::parameters::Parameters;
use crate::store;

/// Those of one trigger (also one that is no longer configured), or of all.
pub(crate) async fn list(
    State(database): State<Database>,
    uri: Uri,
) -> Result<Json<Items<Rollout>>, Error> {
    let parameters = Parameters::read(&uri, &["trigger", "limit", "cursor"])?;
    let Some(name) = parameters.text("trigger") else {
        let page = Page::read("rollouts", &parameters)?;
        let mut db = database.connection().await?;
        let rollouts = store::rollouts(&mut db, &page).await?;
        return Ok(Json(page.cut(rollouts)));
    };
    let page = Page::read("rollouts-of-trigger", &parameters)?;
    let name: Name = name.parse().map_err(|_| Error::TriggerUnknown)?;
    let mut db = database.connection().await?;
    let Some(trigger) = store::trigger(&mut db, &name).await? else {
        return Err(Error::TriggerUnknown);
    };
    let rollouts = store::rollouts_of(&mut db, trigger, &page).await?;
    Ok(Json(page.cut(rollouts)))
}

pub(crate) async fn one(
    State(database): State<Database>,
    path: Result<Path<String>, PathRejection>,
    uri: Uri,
) -> Result<Json<Rollout>, Error> {
    Parameters::read(&uri, &[])?;
    let Path(id) = path?;
    let id: Uuid = id.parse().map_err(|_| Error::RolloutUnknown)?;
    let mut db = database.connection().await?;
    let found = store::rollout(&mut db, id).await?;
    found.map(Json).ok_or(Error::RolloutUnknown)
}
