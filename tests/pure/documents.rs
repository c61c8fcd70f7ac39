//! What the documents say of the tests is true.

use std::fs;
use std::path::Path;
use std::sync::Arc;

use cosgate::tenant::Identity;

/// The rows that the page must have: what each letter ends with.
const ROWS: [(char, usize); 6] = [
    ('A', 12),
    ('B', 21),
    ('C', 7),
    ('D', 12),
    ('E', 13),
    ('F', 17),
];

fn text(path: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(path);
    fs::read_to_string(&path).unwrap_or_default()
}

/// The texts between backticks that look like `file::test`.
fn tests_in(cell: &str) -> Vec<(&str, &str)> {
    let quoted = cell.split('`').skip(1).step_by(2);
    quoted.filter_map(|name| name.rsplit_once("::")).collect()
}

/// Whether the file has a test of this name: a `#[test]`, or tokio's, stands within the lines before.
fn has_test(file: &str, name: &str) -> bool {
    let text = if file.starts_with("src/") {
        text(&format!("{file}.rs"))
    } else {
        text(&format!("tests/{file}.rs"))
    };
    let lines: Vec<&str> = text.lines().collect();
    lines.iter().enumerate().any(|(at, line)| {
        let line = line.trim_start();
        let is_it = [format!("fn {name}("), format!("async fn {name}(")];
        let before = lines.iter().take(at).rev().take(3);
        is_it.iter().any(|it| line.starts_with(it.as_str()))
            && before.into_iter().any(|line| line.contains("test"))
    })
}

#[test]
fn every_test_that_the_security_page_names_exists() {
    let page = text("docs/security.md");
    let mut missing = Vec::new();
    let mut named = 0;
    for row in page.lines().filter(|line| line.starts_with("| ")) {
        for (file, name) in tests_in(row) {
            named += 1;
            if !has_test(file, name) {
                missing.push(format!("{file}::{name}"));
            }
        }
    }
    assert!(named > 60, "{named}");
    assert!(missing.is_empty(), "no such tests: {missing:#?}");
}

#[test]
fn the_security_page_has_every_row_with_its_test() {
    let page = text("docs/security.md");
    for (letter, last) in ROWS {
        for number in 1..=last {
            let front = format!("| {letter}{number} |");
            let mut rows = page.lines().filter(|line| line.starts_with(&front));
            let row = rows.next().unwrap_or_default();
            assert!(rows.next().is_none(), "two rows {letter}{number}");
            assert_eq!(row.matches(" | ").count(), 4, "{letter}{number}: {row}");
            let shown = row.rsplit(" | ").next().unwrap_or_default();
            let says = !tests_in(shown).is_empty() || shown.contains("nothing to show");
            assert!(says, "{letter}{number}: {shown}");
        }
    }
}

#[test]
fn the_security_page_has_every_word_for_an_identity() {
    let id: Arc<str> = "id".into();
    let page = text("docs/security.md");
    for identity in [
        Identity::Anonymous,
        Identity::Bearer(Arc::clone(&id)),
        Identity::Certificate(Arc::clone(&id)),
        Identity::Form(Arc::clone(&id)),
        Identity::Header(Arc::clone(&id)),
        Identity::Presigned(Arc::clone(&id)),
        Identity::PresignedV2(Arc::clone(&id)),
        Identity::Qsign(Arc::clone(&id)),
        Identity::Session {
            key_id: id,
            subject: None,
            access_key: None,
        },
    ] {
        let row = format!("| `{}` |", identity.kind());
        assert_eq!(page.matches(&row).count(), 1, "{row}");
    }
}
