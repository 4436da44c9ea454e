//! What an operation of the API is: from its [`Operation`] come its route, who may use it, and its description in OpenAPI.

use axum::routing::MethodRouter;
use schemars::{JsonSchema, Schema, SchemaGenerator};
use tagtrail_config::Role;

use crate::http::parameters::Parameter;
use crate::shared::Shared;

/// Something that can be asked, or told.
pub(crate) struct Operation {
    /// `operationId`.
    pub(crate) id: &'static str,
    pub(crate) method: Method,
    /// As axum and OpenAPI both write it.
    pub(crate) path: &'static str,
    pub(crate) summary: &'static str,
    /// What stands in the path.
    pub(crate) in_path: &'static [Parameter],
    /// What may stand after the `?`.
    pub(crate) query: &'static [Parameter],
    /// What may stand in a header.
    pub(crate) header: &'static [Parameter],
    pub(crate) response: ResponseBody,
    /// Codes of its problems, besides those that any operation has.
    pub(crate) problems: &'static [(u16, &'static str)],
    pub(crate) serve: fn() -> MethodRouter<Shared>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Method {
    /// Asks; a token with the role `read` may.
    Get,
    /// Changes something; takes the role `operate`.
    Post,
}

impl Method {
    pub(crate) fn role(self) -> Role {
        match self {
            Method::Get => Role::Read,
            Method::Post => Role::Operate,
        }
    }
}

/// What a good answer is.
pub(crate) enum ResponseBody {
    /// One JSON document.
    Json(fn(&mut SchemaGenerator) -> Schema),
    /// Server-sent events; the schema is that of `data`.
    Events(fn(&mut SchemaGenerator) -> Schema),
}

/// Reference to the schema of an answer.
pub(crate) fn schema<T: JsonSchema>(schemas: &mut SchemaGenerator) -> Schema {
    schemas.subschema_for::<T>()
}
