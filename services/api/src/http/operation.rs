//! The type of an operation: a row of the table, from which come the route, the check of the role,
//! and the description in OpenAPI.

use axum::routing::{MethodFilter, MethodRouter};
use schemars::{JsonSchema, Schema, SchemaGenerator};
use tagtrail_config::Role;

use crate::http::parameters::Parameter;
use crate::http::tokens::ACCESS_TOKEN;
use crate::shared::Shared;

/// An operation of the API.
pub(crate) struct Operation {
    /// `operationId`.
    pub(crate) id: &'static str,
    pub(crate) method: Method,
    /// In the notation that axum and OpenAPI share.
    pub(crate) path: &'static str,
    pub(crate) summary: &'static str,
    /// The role that a token must have.
    pub(crate) role: Role,
    /// Parameters in the path.
    pub(crate) in_path: &'static [Parameter],
    /// Parameters after the `?`.
    pub(crate) query: &'static [Parameter],
    /// Parameters in headers.
    pub(crate) header: &'static [Parameter],
    /// The body of a request. `None`: the handler reads no body.
    pub(crate) body: Option<RequestBody>,
    pub(crate) response: ResponseBody,
    /// Status and code of the operation's own problems, besides the problems of all operations.
    pub(crate) problems: &'static [(u16, &'static str)],
    /// The handler, as a route of the operation's method.
    pub(crate) serve: fn(MethodFilter) -> MethodRouter<Shared>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Method {
    Get,
    Post,
    Put,
    Delete,
}

impl Operation {
    /// Whether the path names a trigger, which may have been renamed.
    pub(crate) fn is_of_trigger(&self) -> bool {
        self.path.starts_with("/v1/triggers/{name}")
    }

    /// Whether the query may carry the token.
    pub(crate) fn takes_token(&self) -> bool {
        self.query
            .iter()
            .any(|parameter| parameter.name == ACCESS_TOKEN.name)
    }
}

impl Method {
    /// The name as OpenAPI writes it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Method::Get => "get",
            Method::Post => "post",
            Method::Put => "put",
            Method::Delete => "delete",
        }
    }

    pub(crate) fn filter(self) -> MethodFilter {
        match self {
            Method::Get => MethodFilter::GET,
            Method::Post => MethodFilter::POST,
            Method::Put => MethodFilter::PUT,
            Method::Delete => MethodFilter::DELETE,
        }
    }
}

/// The JSON body of a request.
#[derive(Debug, Clone, Copy)]
pub(crate) struct RequestBody {
    /// The schema, without references: requests and responses may describe the same type
    /// differently.
    pub(crate) schema: fn(&mut SchemaGenerator) -> Schema,
    /// Largest size in bytes. A larger body is refused before all of it is read.
    pub(crate) max_size: usize,
    /// False if the operation also takes a request without a body.
    pub(crate) required: bool,
}

/// The body of a successful response.
pub(crate) enum ResponseBody {
    /// One JSON document.
    Json(fn(&mut SchemaGenerator) -> Schema),
    /// Server-sent events; the schema is that of `data`.
    Events(fn(&mut SchemaGenerator) -> Schema),
}

/// Returns a reference to the schema of a body.
pub(crate) fn schema<T: JsonSchema>(schemas: &mut SchemaGenerator) -> Schema {
    schemas.subschema_for::<T>()
}
