//! A database as the entries of a dump of it, to compare what two restores made of one backup.

use std::collections::{BTreeMap, BTreeSet};

/// What a dump says of one object.
#[derive(Default)]
pub struct DumpedObject {
    owner: Option<String>,
    /// Its statements and rows, line by line.
    lines: BTreeSet<String>,
}

/// By kind and name, as results name entries.
pub type DumpedObjects = BTreeMap<String, DumpedObject>;

/// Takes SQL text of `pg_dump` apart.
pub fn entries_of(text: &str) -> DumpedObjects {
    let mut entries = DumpedObjects::new();
    let mut name = String::new();
    for line in text.lines() {
        if let Some(next) = name_in(line) {
            entries.entry(next.clone()).or_default();
            name = next;
            continue;
        }
        // Before the first entry, and what belongs to none.
        let is_outside = line.is_empty() || line.starts_with("--") || line.starts_with("SET ");
        let Some(entry) = entries.get_mut(&name).filter(|_| !is_outside) else {
            continue;
        };
        match line.split_once(" OWNER TO ") {
            Some((object, owner)) if object.starts_with("ALTER ") => {
                entry.owner = Some(owner.to_owned());
            }
            _ => {
                entry.lines.insert(line.to_owned());
            }
        }
    }
    entries
}

/// `-- Name: t; Type: TABLE; Schema: public; Owner: app`. Default privileges of one schema differ by their owner alone.
fn name_in(line: &str) -> Option<String> {
    let line = line
        .strip_prefix("-- Data for ")
        .or(line.strip_prefix("-- "))?;
    let (name, rest) = line.strip_prefix("Name: ")?.split_once("; Type: ")?;
    let (kind, rest) = rest.split_once("; Schema: ")?;
    let (schema, owner) = rest.split_once("; Owner:")?;
    let owner = match kind {
        "DEFAULT ACL" => format!(" FOR{owner}"),
        _ => String::new(),
    };
    Some(match schema {
        "-" => format!("{kind} {name}{owner}"),
        schema => format!("{kind} {schema}.{name}{owner}"),
    })
}

/// One backup restored by `pg_restore` and by us, and the database that it is of.
pub struct RestoreComparison<'a> {
    pub theirs: &'a DumpedObjects,
    pub ours: &'a DumpedObjects,
    pub source: &'a DumpedObjects,
}

impl RestoreComparison<'_> {
    /// What we did worse than `pg_restore`, or differently from the source. `is_platform`: whether an entry is of the service
    /// alone, and goes without it. `says`: whether our result names what it left out.
    pub fn faults(
        &self,
        is_platform: impl Fn(&str) -> bool,
        says: impl Fn(&str) -> bool,
    ) -> Vec<String> {
        let mut faults = Vec::new();
        let users = self.source.iter().filter(|(name, _)| !is_platform(name));
        for (name, source) in users {
            let theirs = self.theirs.get(name);
            let fault = match self.ours.get(name) {
                Some(ours) => of_entry(name, (ours, theirs, source)),
                None if theirs.is_some() => Some("pg_restore restores it".to_owned()),
                None => (!says(name)).then(|| "the result does not name it".to_owned()),
            };
            faults.extend(fault.map(|fault| format!("{name}: {fault}")));
        }
        let made_up = self
            .ours
            .keys()
            .filter(|name| !self.source.contains_key(*name));
        faults.extend(made_up.map(|name| format!("{name}: not in the source")));
        faults
    }
}

/// What is wrong with an entry that we restored.
fn of_entry(
    name: &str,
    (ours, theirs, source): (&DumpedObject, Option<&DumpedObject>, &DumpedObject),
) -> Option<String> {
    // Privileges are those that differ from the owner's, who may be another one. Policies lose roles that are not here.
    let is_by_role = name.starts_with("ACL ") || name.starts_with("POLICY ");
    let new = ours
        .lines
        .difference(&source.lines)
        .next()
        .filter(|_| !is_by_role);
    if let Some(line) = new {
        return Some(format!("not in the source: {line}"));
    }
    let theirs = theirs?;
    let mut right = theirs.lines.intersection(&source.lines);
    if let Some(line) = right.find(|line| !ours.lines.contains(*line)) {
        return Some(format!("pg_restore restores {line}"));
    }
    let is_right = ours.owner == source.owner;
    let is_theirs = ours.owner == theirs.owner;
    (!is_right && !is_theirs).then(|| format!("belongs to {:?}", ours.owner))
}

#[test]
fn what_is_worse_than_theirs_is_a_fault() {
    let of = |owner: &str, rows: &str| {
        entries_of(&format!(
            "SET x = 1;\n--\n-- Name: t; Type: TABLE; Schema: s; Owner: {owner}\n--\n\nCREATE TABLE s.t (a int);\n\n
ALTER TABLE s.t OWNER TO {owner};\n--\n-- Data for Name: t; Type: TABLE DATA; Schema: s; Owner: {owner}\n--\n\n{rows}\n"
        ))
    };
    let (source, other, empty) = (of("a", "1"), of("b", "1"), DumpedObjects::new());
    let faults = |ours: &DumpedObjects, theirs: &DumpedObjects, said: &[&str]| {
        let source = &source;
        let comparison = RestoreComparison {
            theirs,
            ours,
            source,
        };
        comparison.faults(|name| name == "SCHEMA s", |name| said.contains(&name))
    };
    assert_eq!(faults(&source, &other, &[]), [""; 0]);
    assert_eq!(faults(&other, &other, &[]), [""; 0]);
    assert_eq!(
        faults(&other, &source, &[]),
        ["TABLE s.t: belongs to Some(\"b;\")"]
    );
    let changed = of("a", "2");
    assert_eq!(
        faults(&changed, &source, &[]),
        ["TABLE DATA s.t: not in the source: 2"]
    );
    let no_rows = of("a", "");
    assert_eq!(
        faults(&no_rows, &source, &[]),
        ["TABLE DATA s.t: pg_restore restores 1"]
    );
    let said = ["TABLE s.t"];
    let restores = ["TABLE DATA s.t", "TABLE s.t"].map(|e| format!("{e}: pg_restore restores it"));
    assert_eq!(faults(&empty, &source, &said), restores);
    assert_eq!(
        faults(&empty, &empty, &said),
        ["TABLE DATA s.t: the result does not name it"]
    );
}
