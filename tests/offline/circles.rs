//! No circle between source files: a file imports no file that imports it, directly or through others. Declaring and
//! re-exporting a child module is no import.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use proc_macro2::{Delimiter, TokenStream, TokenTree};

/// A module's path in its crate, such as `["database", "swap"]`.
type Module = Vec<String>;
/// The imports of each file.
type Graph = BTreeMap<Module, BTreeSet<Module>>;

/// A path in the code, such as `super::advisory_locks::take_locks`, and whether it belongs to a `pub use`.
#[derive(Debug, PartialEq, Eq)]
struct Mention {
    path: Vec<String>,
    is_export: bool,
}

/// Collects the paths of a file that begin with `crate`, `self`, `super` or one of its child modules.
struct Mentions<'a> {
    children: &'a BTreeSet<String>,
    found: Vec<Mention>,
    is_export: bool,
}

fn is_punct(token: Option<&TokenTree>, c: char) -> bool {
    matches!(token, Some(TokenTree::Punct(p)) if p.as_char() == c)
}

fn is_path_separator(tokens: &[TokenTree], at: usize) -> bool {
    is_punct(tokens.get(at), ':') && is_punct(tokens.get(at + 1), ':')
}

fn ident(token: Option<&TokenTree>) -> Option<String> {
    match token {
        Some(TokenTree::Ident(i)) => Some(i.to_string()),
        _ => None,
    }
}

impl Mentions<'_> {
    /// Reads the path at `at`, with `prefix` before it; returns the index after it.
    fn path(&mut self, tokens: &[TokenTree], mut at: usize, mut prefix: Vec<String>) -> usize {
        while let Some(name) = ident(tokens.get(at)) {
            prefix.push(name);
            at += 1;
            if !is_path_separator(tokens, at) {
                break;
            }
            at += 2;
            if let Some(TokenTree::Group(group)) = tokens.get(at) {
                self.branches(group.stream(), &prefix);
                return at + 1;
            }
        }
        self.found.push(Mention {
            path: prefix,
            is_export: self.is_export,
        });
        at
    }

    /// The paths within the braces of `use prefix::{…}`.
    fn branches(&mut self, stream: TokenStream, prefix: &[String]) {
        let tokens: Vec<TokenTree> = stream.into_iter().collect();
        for branch in tokens.split(|t| is_punct(Some(t), ',')) {
            if !branch.is_empty() {
                self.path(branch, 0, prefix.to_vec());
            }
        }
    }

    fn code(&mut self, stream: TokenStream) {
        let tokens: Vec<TokenTree> = stream.into_iter().collect();
        let mut at = 0;
        while at < tokens.len() {
            at = self.step(&tokens, at);
        }
    }

    /// Reads the token at `at` and what belongs to it; returns the index after it.
    fn step(&mut self, tokens: &[TokenTree], at: usize) -> usize {
        if is_punct(tokens.get(at), '#') && is_test(tokens.get(at + 1)) {
            return after_item(tokens, at + 2);
        }
        if let TokenTree::Group(group) = &tokens[at] {
            self.code(group.stream());
            return at + 1;
        }
        if is_punct(tokens.get(at), ';') {
            self.is_export = false;
            return at + 1;
        }
        let Some(name) = ident(tokens.get(at)) else {
            return at + 1;
        };
        if name == "pub" {
            // `pub(in crate::a)` is no import.
            let is_restricted = matches!(tokens.get(at + 1), Some(TokenTree::Group(g)) if g.delimiter() == Delimiter::Parenthesis);
            let next = at + 1 + usize::from(is_restricted);
            self.is_export = ident(tokens.get(next)).as_deref() == Some("use");
            return next;
        }
        let is_rest =
            at >= 1 && (is_punct(tokens.get(at - 1), ':') || is_punct(tokens.get(at - 1), '.'));
        let is_root =
            ["crate", "self", "super"].contains(&name.as_str()) || self.children.contains(&name);
        if is_root && !is_rest && is_path_separator(tokens, at + 1) {
            return self.path(tokens, at, vec![]);
        }
        at + 1
    }
}

/// Whether these brackets are `[cfg(test)]`.
fn is_test(token: Option<&TokenTree>) -> bool {
    matches!(token, Some(TokenTree::Group(g)) if g.stream().to_string().replace(' ', "") == "cfg(test)")
}

/// The index after the item at `at`: after its braces or its semicolon.
fn after_item(tokens: &[TokenTree], at: usize) -> usize {
    let end = tokens[at..].iter().position(|t| match t {
        TokenTree::Group(g) => g.delimiter() == Delimiter::Brace,
        other => is_punct(Some(other), ';'),
    });
    end.map_or(tokens.len(), |end| at + end + 1)
}

/// The module, seen from the crate's root, that `mention` in `file` names; it may have the name of an item at its end.
fn absolute(file: &Module, path: &[String]) -> Module {
    let mut base = file.clone();
    let mut rest = path;
    while let Some((first, others)) = rest.split_first() {
        match first.as_str() {
            "crate" => base.clear(),
            "super" => drop(base.pop()),
            "self" => {}
            _ => break,
        }
        rest = others;
    }
    base.extend(rest.iter().cloned());
    base
}

/// The imports of every file, by the files' texts.
fn graph(texts: &BTreeMap<Module, String>) -> Graph {
    let imports = texts.iter().map(|(file, text)| {
        let children = texts
            .keys()
            .filter(|m| m.len() == file.len() + 1 && m.starts_with(file))
            .filter_map(|m| m.last().cloned())
            .collect();
        let mut mentions = Mentions {
            children: &children,
            found: vec![],
            is_export: false,
        };
        mentions.code(text.parse().unwrap_or_else(|e| panic!("{file:?}: {e}")));
        let imported = mentions.found.iter().filter_map(|m| {
            let named = absolute(file, &m.path);
            let module = (1..=named.len())
                .rev()
                .map(|n| named[..n].to_vec())
                .find(|m| texts.contains_key(m))?;
            let is_child = module.len() > file.len() && module.starts_with(file);
            (module != *file && !(m.is_export && is_child)).then_some(module)
        });
        (file.clone(), imported.collect())
    });
    imports.collect()
}

/// The files that are part of a circle, or import one that is.
fn circles(mut graph: Graph) -> Graph {
    loop {
        let done: BTreeSet<Module> = graph
            .iter()
            .filter(|(_, to)| to.is_empty())
            .map(|(m, _)| m.clone())
            .collect();
        if done.is_empty() {
            return graph;
        }
        graph.retain(|m, _| !done.contains(m));
        graph
            .values_mut()
            .for_each(|to| to.retain(|m| !done.contains(m)));
    }
}

fn texts_of(sources: &Path) -> BTreeMap<Module, String> {
    let files = super::architecture::sources(sources)
        .into_iter()
        .map(|path| {
            let relative = path.strip_prefix(sources).unwrap().with_extension("");
            let module = relative
                .iter()
                .map(|part| part.to_str().unwrap().to_owned())
                .collect();
            (module, std::fs::read_to_string(path).unwrap())
        });
    let root = |m: &Module| {
        ["lib", "main"]
            .map(|name| vec![name.to_owned()])
            .contains(m)
    };
    files.filter(|(m, _)| !root(m)).collect()
}

#[test]
fn no_file_imports_a_file_that_imports_it() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    for sources in [
        "src",
        "crates/gcp-emulator/src",
        "crates/pgdump-archive/src",
        "crates/pgdump-mask/src",
        "crates/pgdump-restore/src",
    ] {
        let graph = graph(&texts_of(&root.join(sources)));
        assert!(!graph.is_empty(), "{sources}: no files were found");
        let circles = circles(graph);
        assert!(circles.is_empty(), "{sources}: {circles:#?}");
    }
}

#[test]
fn circles_are_found() {
    let module = |path: &str| path.split('/').map(str::to_owned).collect::<Module>();
    let found = |files: &[(&str, &str)]| {
        let texts = files
            .iter()
            .map(|(m, text)| (module(m), (*text).to_owned()));
        circles(graph(&texts.collect()))
            .into_keys()
            .map(|m| m.join("/"))
            .collect::<Vec<_>>()
    };
    let child = ("a/b", "use super::Shared;");
    assert_eq!(
        found(&[("a", "mod b; struct Shared; fn f() { b::g() }"), child]),
        ["a", "a/b"]
    );
    assert_eq!(
        found(&[("a", "mod b; pub use b::{G, H}; struct Shared;"), child]),
        [""; 0]
    );
    assert_eq!(
        found(&[
            ("a", "use crate::{c::{D, E}, f};"),
            ("c", "fn f() { x!(crate::a::g) }"),
            ("f", "")
        ]),
        ["a", "c"]
    );
    assert_eq!(
        found(&[
            ("a", "use crate::c;"),
            ("c", "#[cfg(test)]\nmod tests { use crate::a::X; }")
        ]),
        [""; 0]
    );
    assert_eq!(
        found(&[
            ("a", "use crate::c::D;"),
            ("c", "pub(in crate::a) fn f() { // crate::a::g\n }")
        ]),
        [""; 0]
    );
}
