//! One definition that a server refused, as results and reports write it.

/// Most refusals in a result or an error; the total is beside them.
pub const LISTED_REFUSALS: usize = 100;

/// A definition of a backup that the server refused, or that was left out with one.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[cfg_attr(feature = "cli", derive(schemars::JsonSchema))]
pub struct Refusal {
    /// Kind and name, such as `EVENT TRIGGER on_ddl`. `OWNER OF TABLE public.t` is its owner alone: the table itself is
    /// restored.
    pub entry: String,
    /// Five-character SQLSTATE of the server's answer to this entry, or to the one that it was left out with.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sqlstate: Option<String>,
    /// The server's message, or that the entry depends on one that was refused. Never a value of a row.
    pub message: String,
    /// Root cause: this entry, the one that it depends on, or what the server lacks, such as `ROLE app`.
    pub root: String,
    /// The refused entry that this one was left out with.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub caused_by: Option<String>,
}

impl Refusal {
    /// That of what is left out with this entry.
    pub(crate) fn of_dependent(&self, entry: String) -> Refusal {
        Refusal {
            entry,
            message: format!("depends on {}, which was refused", self.entry),
            caused_by: Some(self.entry.clone()),
            ..self.clone()
        }
    }
}
