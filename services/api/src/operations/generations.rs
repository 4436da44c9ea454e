//! `/v1/triggers/{name}/generations`: the settings of a trigger over time.

use axum::Json;
use axum::extract::State;
use axum::http::Uri;
use axum::routing::on;
use schemars::JsonSchema;
use serde::Serialize;
use tagtrail_config::Role;
use tagtrail_proto::Name;

use crate::database::Database;
use crate::http::error::Error;
use crate::http::operation::{Method, Operation, ResponseBody, schema};
use crate::http::paging::{CURSOR, Items, LIMIT, List, Page};
use crate::http::parameters::{Parameters, PathValues};
use crate::operations::triggers::NAME;
use crate::store;
use crate::store::generations::{Generation, Process};

pub(crate) const LIST: Operation = Operation {
    id: "generations",
    method: Method::Get,
    path: "/v1/triggers/{name}/generations",
    summary: "The settings of a trigger over time, newest first, also of a removed trigger; and the processes that act on it.",
    role: Role::Read,
    in_path: &[NAME],
    query: &[LIMIT, CURSOR],
    header: &[],
    body: None,
    response: ResponseBody::Json(schema::<Generations>),
    problems: &[
        (400, "limit_invalid"),
        (400, "cursor_invalid"),
        (404, "trigger_unknown"),
    ],
    serve: |method| on(method, list),
};

const GENERATIONS: List<1> = List {
    name: "generations",
    time: None,
};

/// The settings of a trigger over time.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct Generations {
    #[serde(flatten)]
    generations: Items<Generation>,
    /// The processes of the trigger service that run. If none has the newest generation, no attempt
    /// begins.
    processes: Vec<Process>,
}

async fn list(
    State(database): State<Database>,
    path: PathValues,
    uri: Uri,
) -> Result<Json<Generations>, Error> {
    let parameters = Parameters::read(&uri, LIST.query)?;
    let name: Name = path.parse(&NAME).map_err(|_| Error::TriggerUnknown)?;
    let page = Page::read(GENERATIONS, &parameters)?;
    let trigger = database
        .ask(async |db| store::triggers::id(db, &name).await)
        .await?;
    let trigger = trigger.ok_or(Error::TriggerUnknown)?;
    let found = database
        .ask_large(async |db| {
            let list = store::generations::list(db, trigger, page.after, page.fetch()).await?;
            let processes = store::generations::processes(db, trigger).await?;
            Ok((list, processes))
        })
        .await?;
    Ok(Json(Generations {
        generations: page.cut(found.0),
        processes: found.1,
    }))
}
