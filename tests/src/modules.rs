//! Who of a crate's top-level modules uses whom, read from the sources, and whether they go in circles.
//!
//! A use is a path that begins with `crate::` or with so many `super::` that it reaches the top. What the
//! top re-exports (`pub use error::Error`) counts as a use of the module that it comes from. Tests,
//! comments and documentation do not count.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use crate::documents::{is_test, product_lines, read, rust_sources};

/// The modules that each module of a crate uses; `crate` is the file at the top.
pub type Uses = BTreeMap<String, BTreeSet<String>>;

/// What lib.rs or main.rs is called here.
const TOP: &str = "crate";

/// Reads the crate whose sources are below `folder`, an absolute path that ends in `src`.
///
/// # Panics
/// When it has neither a lib.rs nor a main.rs.
pub fn uses(folder: &Path) -> Uses {
    let programs = folder.join("bin");
    let files: Vec<PathBuf> = rust_sources()
        .into_iter()
        .filter(|path| path.starts_with(folder) && !path.starts_with(&programs) && !is_test(path))
        .collect();
    let has_library = files.contains(&folder.join("lib.rs"));
    let texts = files
        .iter()
        // A thin main beside a library is a program on top of it.
        .filter(|path| !(has_library && **path == folder.join("main.rs")))
        .map(|path| {
            let inside = path.strip_prefix(folder).unwrap_or(path);
            (module_path(inside), product(&read(path)))
        });
    uses_of(&texts.collect::<Vec<_>>())
}

/// `a/b.rs` and `a/b/mod.rs` are `[a, b]`; the file at the top is `[]`.
fn module_path(inside: &Path) -> Vec<String> {
    let mut names: Vec<String> = inside
        .with_extension("")
        .iter()
        .map(|name| name.to_string_lossy().into_owned())
        .collect();
    let last = names.last().map(String::as_str);
    let is_top = names.len() == 1 && matches!(last, Some("lib" | "main"));
    if last == Some("mod") || is_top {
        names.pop();
    }
    names
}

/// A source without its tests and comments, and without the paths of visibilities.
fn product(text: &str) -> String {
    let mut kept = String::new();
    for line in text.lines().take(product_lines(text)) {
        let code = line.split("//").next().unwrap_or_default();
        match code.split_once("pub(in ") {
            Some((before, path)) => kept.extend([before, path.split_once(')').map_or("", |p| p.1)]),
            None => kept += code,
        }
        kept.push('\n');
    }
    kept
}

fn uses_of(texts: &[(Vec<String>, String)]) -> Uses {
    let modules: BTreeSet<&str> = texts
        .iter()
        .filter_map(|(path, _)| path.first().map(String::as_str))
        .collect();
    let top = texts.iter().find(|(path, _)| path.is_empty());
    let top = top.map_or("", |(_, text)| text.as_str());
    let exported = re_exports(top, &modules);
    let mut uses: Uses = modules
        .iter()
        .map(|name| ((*name).to_owned(), BTreeSet::new()))
        .collect();
    for (path, text) in texts {
        let Some(module) = path.first() else {
            continue;
        };
        for name in names_at_the_top(text, path.len()) {
            let used = match exported.get(name.as_str()) {
                Some(module) => module,
                None if modules.contains(name.as_str()) => &name,
                // A module that stands in the file at the top, or a macro, has no file of its own.
                None if declares(top, &name) => TOP,
                None => continue,
            };
            if used != module {
                uses.entry(module.clone())
                    .or_default()
                    .insert(used.to_owned());
            }
        }
    }
    uses.insert(TOP.into(), own_uses(top, &modules));
    uses
}

/// Name → module of what the file at the top gives on: `pub use error::{Error, Result};`.
fn re_exports(top: &str, modules: &BTreeSet<&str>) -> BTreeMap<String, String> {
    let mut found = BTreeMap::new();
    for statement in statements(top, "use ") {
        let Some((module, rest)) = statement.split_once("::") else {
            continue;
        };
        if !modules.contains(module) {
            continue;
        }
        let rest = rest.trim().trim_start_matches('{').trim_end_matches('}');
        for item in rest.split(',') {
            let name = item.rsplit(" as ").next().unwrap_or(item);
            let name = name.rsplit("::").next().unwrap_or(name).trim();
            found.insert(name.to_owned(), module.to_owned());
        }
    }
    found
}

/// The modules that the code of the file at the top names; what it only gives on is no use.
fn own_uses(top: &str, modules: &BTreeSet<&str>) -> BTreeSet<String> {
    let code = statements(top, "use ")
        .iter()
        .fold(top.to_owned(), |code, statement| {
            code.replace(statement.as_str(), "")
        });
    let named = |module: &&&str| {
        code.match_indices(**module).any(|(at, _)| {
            let before = code[..at].chars().next_back();
            code[at + module.len()..].starts_with("::") && before.is_none_or(|c| !is_name(c))
        })
    };
    modules
        .iter()
        .filter(named)
        .map(|name| (*name).to_owned())
        .collect()
}

/// What stands between `start` and the semicolon, for each line that begins with it or with `pub` and it.
fn statements(text: &str, start: &str) -> Vec<String> {
    let mut found = Vec::new();
    let mut at = 0;
    for line in text.split_inclusive('\n') {
        let statement = line.trim_start_matches("pub(crate) ");
        let statement = statement.trim_start_matches("pub ");
        if statement.starts_with(start) {
            let from = at + line.len() - statement.len() + start.len();
            let length = text[from..].find(';').unwrap_or(0);
            found.push(text[from..from + length].to_owned());
        }
        at += line.len();
    }
    found
}

fn declares(top: &str, name: &str) -> bool {
    let items = [
        "fn ", "struct ", "enum ", "trait ", "type ", "const ", "static ", "mod ",
    ];
    top.lines().any(|line| {
        let line = line.trim_start_matches("pub(crate) ");
        let line = line.trim_start_matches("pub ");
        items.iter().any(|item| {
            let rest = line.strip_prefix(item).and_then(|l| l.strip_prefix(name));
            rest.is_some_and(|rest| !rest.starts_with(is_name) && !rest.trim().starts_with(';'))
        })
    })
}

fn is_name(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

/// The first names behind `crate::`, or behind so many `super::` that a module of this depth is left.
fn names_at_the_top(text: &str, depth: usize) -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    for (at, _) in text.match_indices("crate::") {
        if !text[..at].ends_with(is_name) {
            collect_names(&text[at + "crate::".len()..], &mut names);
        }
    }
    let chain = "super::".repeat(depth);
    for (at, _) in text.match_indices(&chain) {
        let longer = text[..at].ends_with("super::") || text[..at].ends_with(is_name);
        let rest = &text[at + chain.len()..];
        if depth > 0 && !longer && !rest.starts_with("super::") {
            collect_names(rest, &mut names);
        }
    }
    names
}

/// `name…` or `{name…, name…}`.
fn collect_names(text: &str, names: &mut BTreeSet<String>) {
    let mut add = |text: &str| {
        let name: String = text
            .trim_start()
            .chars()
            .take_while(|c| is_name(*c))
            .collect();
        if !name.is_empty() {
            names.insert(name);
        }
    };
    let Some(group) = text.strip_prefix('{') else {
        return add(text);
    };
    let (mut open, mut from) = (1, 0);
    for (at, c) in group.char_indices() {
        match c {
            '{' => open += 1,
            '}' => open -= 1,
            ',' if open == 1 => {
                add(&group[from..at]);
                from = at + 1;
            }
            _ => {}
        }
        if open == 0 {
            return add(&group[from..at]);
        }
    }
}

/// The sets of modules that use each other in a circle, directly or by others.
pub fn circles(uses: &Uses) -> Vec<BTreeSet<String>> {
    let reached: BTreeMap<&str, BTreeSet<&str>> = uses
        .keys()
        .map(|from| (from.as_str(), reachable(uses, from)))
        .collect();
    let mut found: Vec<BTreeSet<String>> = Vec::new();
    for (from, forward) in &reached {
        if forward.contains(from) && !found.iter().any(|circle| circle.contains(*from)) {
            let both = forward.iter().filter(|to| reached[**to].contains(from));
            found.push(both.map(|name| (*name).to_owned()).collect());
        }
    }
    found
}

fn reachable<'a>(uses: &'a Uses, from: &str) -> BTreeSet<&'a str> {
    let (mut found, mut left) = (BTreeSet::new(), vec![from]);
    while let Some(next) = left.pop() {
        for used in uses.get(next).into_iter().flatten() {
            if uses.contains_key(used) && found.insert(used.as_str()) {
                left.push(used);
            }
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(files: &[(&str, &str)]) -> Vec<Vec<String>> {
        let texts: Vec<_> = files
            .iter()
            .map(|(path, text)| (module_path(Path::new(path)), product(text)))
            .collect();
        let circles = circles(&uses_of(&texts));
        circles
            .into_iter()
            .map(|circle| circle.into_iter().collect())
            .collect()
    }

    #[test]
    fn modules_that_use_each_other_are_a_circle() {
        let top = (
            "lib.rs",
            "mod a;\nmod b;\nmod c;\npub use b::{Error, x::Y};\n",
        );
        let circle = vec![vec!["a".to_owned(), "b".to_owned()]];
        for (a, b) in [
            ("use crate::b::X;\n", "use crate::a::Y;\n"),
            ("use super::b::X;\n", "fn f() { crate::a::f() }\n"),
            (
                "use crate::{\n    Error,\n    c::{d, e},\n};\n",
                "use super::{a, c};\n",
            ),
            ("use super::Y;\n", "use crate::a;\n"),
        ] {
            assert_eq!(
                found(&[top, ("a.rs", a), ("b/mod.rs", b), ("c.rs", "")]),
                circle
            );
        }
        // By a deeper file, and by way of a third.
        let three = [
            top,
            ("a/deep.rs", "use super::super::b;\n"),
            ("b.rs", "use crate::c;\n"),
            ("c.rs", "use crate::a;\n"),
        ];
        assert_eq!(found(&three), [["a", "b", "c"]]);
        // By what stands in the file at the top.
        let top = ("lib.rs", "mod a;\npub fn f() { a::f() }\n");
        assert_eq!(found(&[top, ("a.rs", "use crate::f;\n")]), [["a", "crate"]]);
    }

    #[test]
    fn what_stays_inside_or_is_no_code_is_no_circle() {
        let top = ("lib.rs", "mod a;\nmod b;\npub use a::A;\n");
        let files = [
            top,
            ("a/mod.rs", "mod deep;\nuse deep::X;\n"),
            (
                "a/deep.rs",
                "use super::b::X;\n// crate::b\npub(in crate::b) fn f() {}\n",
            ),
            (
                "b.rs",
                "use crate::A;\n#[cfg(test)]\nmod tests {\n    use crate::b;\n}\n",
            ),
        ];
        assert!(found(&files).is_empty());
    }
}
