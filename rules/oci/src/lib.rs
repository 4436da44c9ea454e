//! The fields of manifests and image configs that Tagtrail uses (OCI image specification).
//!
//! In scope: parsing untrusted bytes field by field, within bounds ([`contents`]). Pure: no I/O.
//!
//! Out of scope: fetching the bytes and checking their digest (`tagtrail-registry`).

pub mod contents;
