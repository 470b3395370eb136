//! Restores archives of `pg_dump` into a PostgreSQL server, in parallel and in one pass over the archive.
//!
//! One thread (of a directory, several) reads the archive forward ([`pgdump_archive`]), decompresses it and
//! queues pieces of whole rows; `sessions` connections take pieces as COPY, and indexes and keys as
//! their tables complete. With a table of contents, the order comes from `plan`; of SQL text, from
//! `script`, statement by statement; `schedule` keeps both. `ddl` says what is sent for an entry,
//! `fit` what is sent otherwise than the dump says.

pub mod error;
pub mod policy;
pub mod postgres;
pub mod retry;
pub mod steps;

mod advice;
mod append;
mod arrivals;
mod binary;
mod board;
mod context;
mod conversion;
mod database_name;
mod ddl;
mod dependence;
mod families;
mod feeder;
mod fit;
mod globals;
mod holds;
mod lane;
mod load;
mod making;
mod notes;
mod observer;
mod plan;
mod preflight;
mod prepare;
mod refusals;
mod roles;
mod schedule;
mod script;
mod select;
mod session;
mod settle;
mod sorting;
mod spread;
mod tail;
mod turns;

pub use append::{Opened, open_tables};
pub use binary::Columns;
pub use conversion::convert_texts;
pub use database_name::that_name_their_database;
pub use fit::{Fit, RULES, Rule};
pub use globals::roles_of;
pub use load::{LoadOptions, Loaded, load};
pub use notes::listed;
pub use observer::LoadObserver;
pub use preflight::{Finding, Level, Needs, preflight};
pub use prepare::{Prepared, prepare};
pub use settle::{Survey, analyze, check, rename_schemas, survey};
pub use tail::{TAIL, roles_at_end};
