//! The pieces that pages are made of. Each is a function that returns markup.

pub(crate) mod bars;
pub(crate) mod command;
pub(crate) mod commit;
pub(crate) mod digest;
pub(crate) mod form;
pub(crate) mod icon;
pub(crate) mod image;
pub(crate) mod kind;
pub(crate) mod lane;
pub(crate) mod layer;
pub(crate) mod lines;
pub(crate) mod question;
pub(crate) mod rollout;
pub(crate) mod sampled;
pub(crate) mod standing;
pub(crate) mod text;
pub(crate) mod when;
