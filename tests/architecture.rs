//! The pure core stays pure: no socket, no clock, no task.

use std::fs;
use std::path::{Path, PathBuf};

/// What knows no IO: see `ARCHITECTURE.md`.
const PURE: [&str; 12] = [
    "config",
    "payload",
    "rewrite",
    "s3",
    "sign",
    "tenant",
    "header_block.rs",
    "json.rs",
    "proxy_header.rs",
    "secret.rs",
    "seal.rs",
    "timestamp.rs",
];
const IMPURE: [&str; 6] = [
    "tokio",
    "hyper",
    "hyper_util",
    "rustls",
    "std::net::Tcp",
    "std::fs",
];

#[test]
fn pure_modules_import_no_io() {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut files = Vec::new();
    for name in PURE {
        collect(&source.join(name), &mut files);
    }
    assert!(files.len() > 20, "the list of pure modules is out of date");
    for file in files {
        let text = fs::read_to_string(&file).unwrap_or_default();
        for line in text
            .lines()
            .map(str::trim_start)
            .filter(|line| !line.starts_with("//"))
        {
            let impure = IMPURE.iter().find(|name| {
                line.contains(&format!("use {name}")) || line.contains(&format!("{name}::"))
            });
            assert_eq!(impure, None, "{}: {line}", file.display());
        }
    }
}

fn collect(path: &Path, files: &mut Vec<PathBuf>) {
    if path.is_file() {
        files.push(path.to_owned());
        return;
    }
    for entry in fs::read_dir(path).into_iter().flatten().flatten() {
        collect(&entry.path(), files);
    }
}
