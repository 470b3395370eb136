//! Restores archives of `pg_dump` into a PostgreSQL server, in parallel and in one pass over the archive.
//!
//! One thread (of a directory, several) reads the archive forward ([`pgdump_archive`]), decompresses it and
//! queues chunks of whole rows; `sessions` connections take chunks as COPY, and indexes and keys as
//! their tables complete. With a table of contents, the order comes from `plan`; of SQL text, from
//! `script`, statement by statement; `schedule` keeps both. `ddl` says what is sent for an entry,
//! `rewriter` what is sent otherwise than the dump says.

#![warn(unreachable_pub)]

pub mod error;
pub mod policy;
pub mod postgres;
pub mod retry;
pub mod steps;

mod hints;
mod data_only;
mod arrivals;
mod binary;
mod work_queue;
mod context;
mod conversion;
mod database_name;
mod ddl;
mod dependence;
mod dependency_groups;
mod producer;
mod rewrite;
mod globals;
mod locks;
mod copy;
mod load;
mod pre_data;
mod notes;
mod observer;
mod plan;
mod preflight;
mod prepare;
mod unsupported;
mod roles;
mod schedule;
mod script;
mod select;
mod session;
mod post_load;
mod sort_memory;
mod parallelism;
mod trailing_roles;
mod load_turns;

pub use binary::Columns;
pub use conversion::convert_texts;
pub use data_only::{SuspendedConstraints, open_tables};
pub use database_name::that_name_their_database;
pub use globals::roles_of;
pub use load::{LoadOptions, Loaded, load};
pub use notes::{NameList, listed};
pub use observer::LoadObserver;
pub use post_load::{HealthReport, analyze, check, rename_schemas, survey};
pub use preflight::{Finding, Level, Requirements, preflight};
pub use prepare::{Prepared, prepare};
pub use rewrite::{RULES, Rewriter, Rule};
pub use trailing_roles::{TAIL, roles_at_end};
