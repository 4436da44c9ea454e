//! The OCI image specification as Tagtrail reads it: the fields of a manifest and of an image configuration.
//!
//! In scope: parsing untrusted bytes field by field, within bounds ([`contents`]). It is pure: no I/O.
//!
//! Out of scope: fetching the bytes and checking their digest (`tagtrail-registry`).

pub mod contents;
