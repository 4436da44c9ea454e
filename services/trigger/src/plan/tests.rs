//! Planning, attempts and orders together, on a real Postgres.

mod walk;
