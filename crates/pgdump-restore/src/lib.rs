//! Restores archives of `pg_dump` into a PostgreSQL server, in parallel and in one pass over the archive.
//!
//! [`prepare()`] compares a dump with a server and a [policy](policy::Policy) before anything is restored. It needs no
//! connection, only what is known of the server:
//!
//! ```
//! use std::collections::BTreeMap;
//!
//! use pgdump_archive::{Archive, ArchiveSource, DecryptionKeys, Limits};
//! use pgdump_restore::policy::{Extensions, Policy, Selection};
//! use pgdump_restore::{Rewriter, error::FailureReason, postgres::ServerFacts, prepare};
//!
//! let text = "--\n-- PostgreSQL database dump\n--\n\n\
//!     --\n-- Name: hstore; Type: EXTENSION; Schema: -; Owner: -\n--\n\n\
//!     CREATE EXTENSION hstore WITH SCHEMA public;\n\n\
//!     --\n-- PostgreSQL database dump complete\n--\n";
//! let source = ArchiveSource::once(text.as_bytes());
//! let archive = Archive::open(source, Limits::default(), &DecryptionKeys::default())?;
//! // A server without extensions; `Session::facts` queries a real one.
//! let facts = ServerFacts { version: 180000, ..ServerFacts::default() };
//!
//! let strict = Rewriter::new(facts.clone(), Policy::default(), BTreeMap::new());
//! let refused = prepare(&archive, &Selection::default(), None, &strict).unwrap_err();
//! assert_eq!(refused.reason(), FailureReason::ExtensionMissing);
//!
//! let policy = Policy { extensions: Extensions::SkipMissing, ..Policy::default() };
//! let lenient = Rewriter::new(facts, policy, BTreeMap::new());
//! let prepared = prepare(&archive, &Selection::default(), None, &lenient)?;
//! assert!(prepared.notes[0].starts_with("the server does not have: extension hstore"));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! [`load()`] then restores it. One thread (several for a directory) reads the archive forward ([`pgdump_archive`]),
//! decompresses it and queues chunks of whole rows. `sessions` connections send chunks with COPY, and create
//! indexes and keys as their tables complete. The order comes from `plan` if there is a table of contents, and
//! from `script`, statement by statement, for SQL text; `schedule` enforces both. `ddl` has the statements for an
//! entry, `rewrite` the changes that another server needs.

#![warn(missing_docs, unreachable_pub)]

pub mod error;
pub mod policy;
pub mod postgres;
pub mod retry;
pub mod steps;
pub mod work_record;

mod archive_masking;
mod arrivals;
mod binary;
mod choice;
mod conversion;
mod copy;
mod copy_lines;
mod data_only;
mod database_name;
mod database_options;
mod ddl;
mod dependence;
mod dependency_groups;
mod dependents;
mod extension_calls;
mod extension_hooks;
mod finishing;
mod fixes;
mod globals;
mod hints;
mod ids;
mod left_out;
mod load;
mod load_context;
mod load_turns;
mod masking;
mod notes;
mod observer;
mod parallelism;
mod plan;
mod post_load;
mod pre_data;
mod preflight;
mod prepare;
mod producer;
mod profiles;
mod refusal;
mod refusals;
mod rewrite;
mod roles;
mod schedule;
mod script;
mod select;
mod session;
mod session_loop;
mod sort_memory;
mod stage;
mod table_locks;
mod table_shapes;
mod trailing_roles;
mod unsupported;
mod use_list;
mod work_queue;

pub use archive_masking::{ArchiveMasking, columns_without_rule, copied_columns};
pub use binary::Columns;
pub use conversion::convert_texts;
pub use data_only::{SuspendedConstraints, open_tables};
pub use database_name::that_name_their_database;
pub use database_options::DatabaseOptions;
pub use extension_calls::resume_extensions;
pub use extension_hooks::{
    ExtensionHooks, HOOKS, Preload, WithoutLibrary, hooks_of, says_restoring,
};
pub use finishing::{FinishingSql, MAX_FINISHING_BYTES, finish};
pub use fixes::fixes_of;
pub use globals::roles_of;
pub use load::{LoadOptions, Loaded, Rehearsed, load, rehearse};
pub use masking::{LoadMasking, MaskedColumn, MaskedTable, MaskingReport, check_masking};
pub use notes::{NameList, listed};
pub use observer::LoadObserver;
pub use post_load::{HealthReport, analyze, check, rename_schemas, survey};
pub use preflight::{Finding, Level, Requirements, large_objects_in, preflight};
pub use prepare::{PreparedArchive, prepare};
pub use refusal::{LISTED_REFUSALS, Refusal};
pub use refusals::{Refusals, refusal_error};
pub use rewrite::{RULES, Rewriter, Rule};
pub use stage::Stage;
pub use table_shapes::{shape_for_copy, table_shapes};
pub use trailing_roles::{TAIL, roles_at_end};
pub use use_list::UseList;
pub use work_record::{
    AllProven, Body, Mark, RecordFault, RecordKey, Resumed, ResumedTotals, RowCheck, Tallies,
    Touched, UnitId, WorkRecord, check_recorded, contradicts_record, not_recordable,
    that_read_the_catalog,
};
