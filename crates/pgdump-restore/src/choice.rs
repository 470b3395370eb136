//! What `--skip 'KIND NAME'` and `--only-kinds KIND` mean: in a table of contents (`select`), and in SQL text, whose
//! statements say themselves what they are about. Pure.

mod pattern;
mod statements;
mod subject;

pub(crate) use self::pattern::{has_arguments, is_exact, is_kind, means_entry};
pub(crate) use self::statements::StatementChoice;
pub(crate) use self::subject::part_or_creation;
