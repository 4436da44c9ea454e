//! The HTTP side of the API, apart from its resources: the type of an operation, the OpenAPI
//! document, parameters, bodies, pages, formats, tokens, cross-origin requests and problems.

pub(crate) mod body;
pub(crate) mod cors;
pub(crate) mod csv;
pub(crate) mod error;
pub(crate) mod guard;
pub(crate) mod identity;
pub(crate) mod openapi;
pub(crate) mod operation;
pub(crate) mod paging;
pub(crate) mod parameters;
pub(crate) mod renamed;
pub(crate) mod session;
pub(crate) mod tokens;
