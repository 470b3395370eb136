//! Against real PostgreSQL: equality with `pg_restore`, staging and swap, damaged archives.

#[path = "../support/mod.rs"]
mod support;

mod damage;
mod round_trip;
mod swap;
