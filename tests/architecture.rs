//! The order of the house: what `ARCHITECTURE.md` says of who may import whom holds in the code.

#![allow(
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a test may panic"
)]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

/// The top-level modules, from top to bottom: none imports one above it. The modules of one line are
/// leaves that may import each other, without circles.
const ORDER: &[&[&str]] = &[
    &["main"],
    &["cli"],
    &["load"],
    &["doctor"],
    &["emulator"],
    &["downstream"],
    &["proxy"],
    &["credentials"],
    &["upstream"],
    &["body"],
    &["observe"],
    &["transport"],
    &["clock"],
    &["decision"],
    &["rewrite"],
    &["tenant"],
    &["payload"],
    &["sign"],
    &["s3"],
    &["config"],
    &["encoding", "error", "json", "seal", "secret", "timestamp"],
];
/// From here on nothing knows a socket, a clock or a task.
const FIRST_PURE: &str = "decision";
/// Pure files among the others.
const PURE_FILES: [&str; 6] = [
    "downstream/header_block.rs",
    "downstream/proxy_header.rs",
    "downstream/request_body.rs",
    "downstream/request_head.rs",
    "transport/framing.rs",
    "transport/line.rs",
];
/// What a pure file does not name.
const IO: [&str; 7] = [
    "tokio::",
    "hyper::",
    "hyper_util::",
    "rustls::",
    "std::net::Tcp",
    "std::fs",
    "SystemTime::now",
];
/// Folders whose files import each other without a circle, too.
const WITHOUT_CIRCLES_WITHIN: [&str; 2] = ["config", "credentials"];

#[test]
fn modules_import_only_what_stands_below_them() {
    for (file, imports) in imports() {
        let own = top(&file);
        let Some(place) = level(&own) else {
            assert_eq!(own, "lib", "{own} is missing in ORDER");
            continue;
        };
        for import in &imports {
            let name = import.split("::").next().unwrap_or_default();
            let Some(below) = level(name) else {
                panic!("{file}: {import} is missing in ORDER");
            };
            let is_leaf = ORDER[place].len() > 1;
            let is_allowed = name == own || below > place || (is_leaf && below == place);
            assert!(is_allowed, "{file} imports {import}, which stands above it");
        }
    }
}

#[test]
fn leaves_import_each_other_without_circles() {
    assert_eq!(circle(&graph(|file| Some(top(file)))), None);
}

#[test]
fn files_of_a_folder_import_each_other_without_circles() {
    for folder in WITHOUT_CIRCLES_WITHIN {
        let within = |file: &str| {
            let name = file.strip_prefix(folder)?.strip_prefix('/')?;
            Some(name.trim_end_matches(".rs").replace('/', "::"))
        };
        assert_eq!(circle(&graph(within)), None, "in {folder}");
    }
}

#[test]
fn pure_modules_know_no_io() {
    let first = level(FIRST_PURE).unwrap();
    let mut count = 0;
    for (path, name) in sources() {
        let is_pure = level(&top(&name)).is_some_and(|level| level >= first);
        if !is_pure && !PURE_FILES.contains(&name.as_str()) {
            continue;
        }
        count += 1;
        for line in code(&path).lines() {
            let io = IO.iter().find(|io| line.contains(*io));
            assert_eq!(io, None, "{name}: {line}");
        }
    }
    assert!(count > 80, "only {count} pure files were found");
}

#[test]
fn explain_alone_takes_a_tenant_at_its_word() {
    let assumes = |(path, _): &(PathBuf, String)| code(path).contains(".assume(");
    let names: Vec<String> = sources()
        .into_iter()
        .filter(assumes)
        .map(|(_, name)| name)
        .collect();
    assert_eq!(names, ["cli/explain/mod.rs"]);
}

#[test]
fn each_type_name_has_one_meaning() {
    let mut files = BTreeMap::<String, Vec<String>>::new();
    for (path, name) in sources() {
        for line in code(&path).lines() {
            let Some(defined) = defined_type(line) else {
                continue;
            };
            // clap's arguments, one type a command.
            let is_commands = defined == "Arguments" && name.starts_with("cli/");
            if !is_commands {
                let files = files.entry(defined.to_owned()).or_default();
                files.push(name.clone());
            }
        }
    }
    assert!(files.len() > 500, "{} types", files.len());
    files.retain(|_, files| files.len() > 1);
    assert_eq!(files, BTreeMap::new());
}

#[test]
fn functions_are_short_and_take_few_parameters() {
    let mut count = 0;
    for (path, name) in sources() {
        for function in functions(&fs::read_to_string(&path).unwrap()) {
            count += 1;
            let Function {
                name: function,
                lines,
                parameters,
            } = function;
            assert!(lines <= 60, "{name}: {function} has {lines} lines");
            assert!(
                parameters <= 5,
                "{name}: {function} has {parameters} parameters"
            );
        }
    }
    assert!(count > 2000, "{count} functions");
}

#[test]
fn every_module_of_the_order_exists() {
    let found: BTreeSet<String> = sources().iter().map(|(_, name)| top(name)).collect();
    for name in ORDER.iter().flat_map(|line| line.iter()) {
        assert!(found.contains(*name), "{name} does not exist");
    }
}

/// The top-level module of a file below `src`.
fn top(file: &str) -> String {
    let first = file.split('/').next().unwrap_or_default();
    first.trim_end_matches(".rs").to_owned()
}

/// The name of the type that `line` defines.
fn defined_type(line: &str) -> Option<&str> {
    let mut rest = line.trim_start();
    let is_inner = rest.len() < line.len();
    if let Some(public) = rest.strip_prefix("pub") {
        rest = match public.strip_prefix('(') {
            Some(scope) => scope.split_once(") ")?.1,
            None => public.strip_prefix(' ')?,
        };
    }
    let (keyword, rest) = rest.split_once(' ')?;
    let is_type =
        ["enum", "struct", "trait", "union"].contains(&keyword) || keyword == "type" && !is_inner; // within a trait or an `impl` it is that one's
    let end = rest.find(|c: char| !(c.is_alphanumeric() || c == '_'));
    is_type.then(|| &rest[..end.unwrap_or(rest.len())])
}

/// Where a module stands in [`ORDER`].
fn level(module: &str) -> Option<usize> {
    ORDER.iter().position(|line| line.contains(&module))
}

/// For each file its imports from this crate, as paths without `crate::`.
fn imports() -> Vec<(String, BTreeSet<String>)> {
    let of = |(path, name): (PathBuf, String)| {
        let imports = paths(&code(&path), &module(&name));
        (name, imports)
    };
    sources().into_iter().map(of).collect()
}

/// Who imports whom, where `name` says what a file counts as.
fn graph(name: impl Fn(&str) -> Option<String>) -> BTreeMap<String, BTreeSet<String>> {
    let mut graph = BTreeMap::<_, BTreeSet<_>>::new();
    let files: Vec<String> = sources().into_iter().map(|(_, name)| name).collect();
    for (file, imports) in imports() {
        let Some(from) = name(&file) else { continue };
        for import in imports {
            let Some(target) = file_of(&import, &files).and_then(|file| name(file)) else {
                continue;
            };
            if target != from {
                graph.entry(from.clone()).or_default().insert(target);
            }
        }
    }
    graph
}

/// The file of the module that `import` is or is in.
fn file_of<'f>(import: &str, files: &'f [String]) -> Option<&'f String> {
    let mut parts: Vec<&str> = import.split("::").collect();
    while !parts.is_empty() {
        let path = parts.join("/");
        let is_it =
            |file: &&String| **file == format!("{path}.rs") || **file == format!("{path}/mod.rs");
        if let Some(file) = files.iter().find(is_it) {
            return Some(file);
        }
        parts.pop();
    }
    None
}

/// A circle of `graph`, if it has one.
fn circle(graph: &BTreeMap<String, BTreeSet<String>>) -> Option<Vec<String>> {
    fn walk(
        at: &str,
        graph: &BTreeMap<String, BTreeSet<String>>,
        path: &mut Vec<String>,
        done: &mut BTreeSet<String>,
    ) -> bool {
        if path.iter().any(|seen| seen == at) {
            path.push(at.to_owned());
            return true;
        }
        if !done.insert(at.to_owned()) {
            return false;
        }
        path.push(at.to_owned());
        for next in graph.get(at).into_iter().flatten() {
            if walk(next, graph, path, done) {
                return true;
            }
        }
        path.pop();
        false
    }
    let mut done = BTreeSet::new();
    graph.keys().find_map(|start| {
        let mut path = Vec::new();
        walk(start, graph, &mut path, &mut done).then_some(path)
    })
}

/// Every source file, with its path below `src`.
fn sources() -> Vec<(PathBuf, String)> {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut files = Vec::new();
    collect(&source, &source, &mut files);
    files.sort();
    files
}

fn collect(root: &Path, folder: &Path, files: &mut Vec<(PathBuf, String)>) {
    for entry in fs::read_dir(folder).unwrap().flatten() {
        let path = entry.path();
        if path.is_dir() {
            collect(root, &path, files);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let name = path
                .strip_prefix(root)
                .unwrap()
                .to_string_lossy()
                .replace('\\', "/");
            files.push((path, name));
        }
    }
}

/// The code of a file: without comments and without its tests, which stand last.
fn code(path: &Path) -> String {
    let text = fs::read_to_string(path).unwrap();
    let tests = text.find("\n#[cfg(test)]\nmod ").unwrap_or(text.len());
    let lines = text[..tests].lines();
    let code = lines.filter(|line| !line.trim_start().starts_with("//"));
    code.collect::<Vec<_>>().join("\n")
}

/// A function outside tests.
#[derive(Debug, PartialEq, Eq)]
struct Function {
    name: String,
    /// From its first line to its last, comments included.
    lines: usize,
    /// Without `self`.
    parameters: usize,
}

/// The functions with a body of a file that rustfmt has formatted, without those of its tests, which
/// stand last.
fn functions(text: &str) -> Vec<Function> {
    let tests = text.find("\n#[cfg(test)]\nmod ").unwrap_or(text.len());
    let lines: Vec<&str> = text[..tests].lines().collect();
    let function = |(index, line): (usize, &&str)| {
        let code = line.trim_start();
        let (before, after) = code.split_once("fn ")?;
        let mut words = before.split_whitespace();
        let is_function = words.all(|word| {
            word.starts_with("pub") || word.ends_with(')') || word == "async" || word == "const"
        });
        if !is_function || !after.starts_with(|c: char| c.is_alphabetic() || c == '_') {
            return None;
        }
        let name = after.find(|c: char| !(c.is_alphanumeric() || c == '_'))?;
        let rest = lines[index..].iter().take(60);
        let rest = rest.copied().collect::<Vec<_>>().join("\n");
        let rest = &rest[rest.find(&after[name..])?..];
        let (parameters, length) = parameters(rest)?;
        let end = format!("{}}}", &line[..line.len() - code.len()]);
        let last = if line.ends_with('}') {
            0
        } else {
            lines[index..].iter().position(|line| **line == end)?
        };
        has_body(&rest[length..]).then(|| Function {
            name: after[..name].to_owned(),
            lines: last + 1,
            parameters,
        })
    };
    lines.iter().enumerate().filter_map(function).collect()
}

/// How many parameters, `self` apart, stand in the brackets that `text`, what follows a function's name,
/// has after its generics; and where they end.
fn parameters(text: &str) -> Option<(usize, usize)> {
    let mut depth = 0;
    let mut count = 0;
    let mut start = None;
    let mut before = ' ';
    for (at, c) in text.char_indices() {
        match c {
            '(' if depth == 0 => (start, depth) = (Some(at + 1), 1),
            '(' | '[' | '{' | '<' => depth += 1,
            '>' if before == '-' || before == '=' => {}
            ')' | ']' | '}' | '>' => depth -= 1,
            _ => {}
        }
        let is_end = depth == 0 && c == ')';
        if let Some(from) = start
            && (is_end || (depth == 1 && c == ','))
        {
            let parameter = text[from..at].trim();
            let is_self = parameter
                .split(|c: char| !c.is_alphanumeric())
                .any(|w| w == "self");
            count += usize::from(!parameter.is_empty() && (!is_self || parameter.contains(": ")));
            start = Some(at + 1);
        }
        if is_end {
            return Some((count, at + 1));
        }
        before = c;
    }
    None
}

/// Whether a body follows, and not the end of a declaration; `text` is what follows the parameters.
fn has_body(text: &str) -> bool {
    let mut depth = 0;
    for c in text.chars() {
        match c {
            '[' => depth += 1,
            ']' => depth -= 1,
            '{' => return true,
            ';' if depth == 0 => return false,
            _ => {}
        }
    }
    false
}

/// The path of the module that a file is.
fn module(file: &str) -> Vec<String> {
    let path = file.trim_end_matches(".rs").trim_end_matches("/mod");
    path.split('/').map(str::to_owned).collect()
}

/// The paths that `code` of `module` names after `crate::` (`cosgate::` in the binary) and `super::`,
/// groups taken apart.
fn paths(code: &str, module: &[String]) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for root in ["crate::", "cosgate::", "super::"] {
        for (index, _) in code.match_indices(root) {
            let before = code[..index].chars().next_back();
            if before.is_some_and(|c| c.is_alphanumeric() || c == '_' || c == ':') {
                continue;
            }
            let mut rest = &code[index..];
            let mut parents = module;
            while let Some(shorter) = rest.strip_prefix("super::") {
                rest = shorter;
                parents = &parents[..parents.len().saturating_sub(1)];
            }
            let prefix = match root {
                "super::" if !parents.is_empty() => parents.join("::") + "::",
                _ => String::new(),
            };
            take_tree(rest.strip_prefix(root).unwrap_or(rest), &prefix, &mut found);
        }
    }
    found
}

/// Takes apart the tree at the start of `text`; gives the length that it has.
fn take_tree(text: &str, prefix: &str, found: &mut BTreeSet<String>) -> usize {
    let end = text
        .find(|c: char| !(c.is_alphanumeric() || c == '_' || c == ':'))
        .unwrap_or(text.len());
    let path = format!("{prefix}{}", &text[..end]);
    if !(path.ends_with("::") && text[end..].starts_with('{')) {
        found.insert(
            path.trim_end_matches(':')
                .trim_end_matches("::self")
                .to_owned(),
        );
        return end;
    }
    let mut at = end + 1;
    loop {
        let skipped = text[at..].len() - text[at..].trim_start_matches([' ', '\n', ',']).len();
        at += skipped;
        if text[at..].starts_with('}') || at >= text.len() {
            return at + 1;
        }
        let taken = take_tree(&text[at..], &path, found);
        at += taken.max(1);
        if let Some(alias) = text[at..].strip_prefix(" as ") {
            let name = alias.find(|c: char| !(c.is_alphanumeric() || c == '_'));
            at += " as ".len() + name.unwrap_or(alias.len());
        }
    }
}

#[test]
fn reads_the_code() {
    let code = "use crate::a::{self, b::{C, D as E}, f};\nlet x = crate::g::h();\n\
        use super::i::J;\nuse super::super::k::{L, m::N};";
    let expected = ["a", "a::b::C", "a::b::D", "a::f", "g::h"];
    let parents = ["k::L", "k::m::N", "o::i::J"];
    let expected = expected.into_iter().chain(parents);
    let expected: BTreeSet<String> = expected.map(str::to_owned).collect();
    assert_eq!(paths(code, &module("o/p.rs")), expected);
    assert_eq!(module("o/p.rs"), ["o", "p"]);
    assert_eq!(module("o/mod.rs"), ["o"]);
    for (line, expected) in [
        ("struct A;", Some("A")),
        ("pub(in crate::b) enum C<D> {", Some("C")),
        ("pub type E = F;", Some("E")),
        ("    struct G;", Some("G")),
        ("    type H = I;", None),
        ("pub fn struct_of() {", None),
    ] {
        assert_eq!(defined_type(line), expected, "{line}");
    }
    let text = "trait A {\n    fn b(&self) -> [u8; 2];\n\n    fn c() {}\n}\n\n\
        pub(in crate::d) async fn e<F: Fn(u8) -> u8>(\n    &mut self,\n    (g, h): (u8, u8),\n    \
        i: [u8; 2],\n    j: Map<u8, u8>,\n) -> [u8; 2] {\n    // k\n}\n\n\
        #[cfg(test)]\nmod tests {\n    fn l() {}\n}\n";
    let expected = [("c", 1, 0), ("e", 8, 3)].map(|(name, lines, parameters)| Function {
        name: name.to_owned(),
        lines,
        parameters,
    });
    assert_eq!(functions(text), expected);
    let two = BTreeMap::from([
        ("a".to_owned(), BTreeSet::from(["b".to_owned()])),
        ("b".to_owned(), BTreeSet::from(["a".to_owned()])),
    ]);
    assert!(circle(&two).is_some());
}
