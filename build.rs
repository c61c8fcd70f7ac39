//! Tells the program which commit it is built from: `COSGATE_COMMIT`, as a release sets it, or what git says of a
//! checkout. Without either it is `unknown`, and nothing fails.

use std::path::Path;
use std::process::Command;
use std::{env, fs};

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    println!("cargo:rerun-if-env-changed=COSGATE_COMMIT");
    let root = env::var("CARGO_MANIFEST_DIR").unwrap_or_default();
    let root = Path::new(&root);
    // While developing, each commit would mean building everything again.
    let is_debug = env::var("PROFILE").is_ok_and(|profile| profile == "debug");
    let given = env::var("COSGATE_COMMIT").ok();
    if !is_debug && given.is_none() {
        watch(root);
    }
    let commit = commit(given.as_deref(), (!is_debug).then_some(root));
    println!("cargo:rustc-env=COSGATE_COMMIT={commit}");
}

/// The commit that was `given`, or that of the checkout at `root`.
pub(crate) fn commit(given: Option<&str>, root: Option<&Path>) -> String {
    let of_checkout = || {
        let root = root.filter(|root| root.join(".git").exists())?; // no other repository around it
        git(
            root,
            &[
                "describe",
                "--always",
                "--dirty",
                "--abbrev=12",
                "--exclude=*",
            ],
        )
    };
    let given = given.map(str::to_owned);
    let commit = given.or_else(of_checkout).unwrap_or_default();
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "-+._".contains(c);
    if !commit.is_empty() && commit.len() <= 64 && commit.chars().all(is_plain) {
        commit
    } else {
        "unknown".to_owned()
    }
}

/// Has cargo run this again after the next commit or checkout.
fn watch(root: &Path) {
    for name in ["HEAD", "logs/HEAD"] {
        let path = git(root, &["rev-parse", "--git-path", name]);
        let path = path
            .map(|path| root.join(path))
            .filter(|path| fs::metadata(path).is_ok());
        if let Some(path) = path {
            println!("cargo:rerun-if-changed={}", path.display());
        }
    }
}

fn git(root: &Path, arguments: &[&str]) -> Option<String> {
    let output = Command::new("git")
        .arg("-C")
        .arg(root)
        .args(arguments)
        .output()
        .ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    output.status.success().then(|| text.trim().to_owned())
}
