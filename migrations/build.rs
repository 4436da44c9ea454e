//! Rebuilds the crate when a migration is added: `migrate!` alone only sees the files it already
//! knew.

fn main() {
    println!("cargo:rerun-if-changed=sql");
}
