//! What comes with the program: its version, completions for shells, man pages, and the schema for editors.
#![expect(clippy::unwrap_used, reason = "a test stops at the first surprise")]

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

#[expect(dead_code, reason = "its `main` is cargo's")]
#[path = "../../build.rs"]
mod build_script;

fn cosgate(arguments: &[&str]) -> Output {
    let program = Command::new(env!("CARGO_BIN_EXE_cosgate"))
        .args(arguments)
        .output()
        .unwrap();
    assert!(program.status.success(), "{arguments:?}");
    program
}

fn printed(arguments: &[&str]) -> String {
    String::from_utf8(cosgate(arguments).stdout).unwrap()
}

/// The commands of the program's own help.
fn commands() -> Vec<String> {
    let help = printed(&["--help"]);
    let (_, list) = help.split_once("\nCommands:\n").unwrap();
    let lines = list.lines().take_while(|line| !line.is_empty());
    let names = lines.filter_map(|line| line.strip_prefix("  ")?.split(' ').next());
    let names = names.filter(|name| !name.is_empty());
    names
        .filter(|name| *name != "help")
        .map(str::to_owned)
        .collect()
}

#[test]
fn version_says_commit_and_features() {
    let text = printed(&["--version"]);
    let mut lines = text.lines();
    assert_eq!(
        lines.next(),
        Some(concat!("cosgate ", env!("CARGO_PKG_VERSION")))
    );
    assert!(
        lines
            .next()
            .unwrap()
            .strip_prefix("commit: ")
            .is_some_and(|commit| !commit.is_empty())
    );
    assert!(lines.next().unwrap().starts_with("features: ") && lines.next().is_none());
    assert_eq!(printed(&["-V"]).lines().count(), 1);
}

#[test]
fn the_commit_is_given_or_git_s_or_unknown() {
    let folder = tempfile::tempdir().unwrap();
    let root = Some(folder.path());
    assert_eq!(build_script::commit(None, root), "unknown", "no checkout");
    assert_eq!(
        build_script::commit(None, None),
        "unknown",
        "a build for development"
    );
    assert_eq!(build_script::commit(Some("1234abc"), root), "1234abc");
    for wrong in ["", "two\nlines", "a b", &"a".repeat(65)] {
        assert_eq!(
            build_script::commit(Some(wrong), root),
            "unknown",
            "{wrong:?}"
        );
    }
    fs::create_dir(folder.path().join(".git")).unwrap();
    assert_eq!(build_script::commit(None, root), "unknown", "no repository");
    fs::remove_dir(folder.path().join(".git")).unwrap();
    let git = |arguments: &[&str]| {
        let who = ["-c", "user.name=a", "-c", "user.email=a@example.com"];
        let mut git = Command::new("git");
        git.arg("-C").arg(folder.path()).args(who).args(arguments);
        git.output().is_ok_and(|output| output.status.success())
    };
    if !git(&["init", "--quiet"]) {
        return; // no git here, which is the first case
    }
    fs::write(folder.path().join("a"), "1").unwrap();
    assert!(git(&["add", "a"]) && git(&["commit", "--quiet", "-m", "a"]));
    let commit = build_script::commit(None, root);
    assert!(
        commit.len() == 12 && commit.bytes().all(|byte| byte.is_ascii_hexdigit()),
        "{commit}"
    );
    assert!(git(&["tag", "v1"]));
    assert_eq!(
        build_script::commit(None, root),
        commit,
        "a tag is no commit"
    );
    fs::write(folder.path().join("a"), "2").unwrap();
    assert_eq!(build_script::commit(None, root), format!("{commit}-dirty"));
}

#[test]
fn shells_complete_commands() {
    for shell in ["bash", "elvish", "fish", "powershell", "zsh"] {
        let script = printed(&["completions", shell]);
        for command in commands() {
            assert!(script.contains(&command), "{shell}: {command}");
        }
    }
    let script = printed(&["completions", "bash"])
        + "\nCOMP_WORDS=(cosgate ser) COMP_CWORD=1\n_cosgate cosgate ser cosgate\nprintf '%s\\n' \"${COMPREPLY[@]}\"\n";
    let bash = Command::new("bash")
        .args(["-euc", &script])
        .output()
        .unwrap();
    assert_eq!(String::from_utf8_lossy(&bash.stdout), "serve\n", "{bash:?}");
    let wrong = Command::new(env!("CARGO_BIN_EXE_cosgate"))
        .args(["completions", "dos"])
        .output();
    assert_eq!(wrong.unwrap().status.code(), Some(2));
}

#[test]
fn the_manual_has_a_page_for_each_command() {
    let folder = tempfile::tempdir().unwrap();
    let pages = folder.path().join("man1");
    cosgate(&["man", pages.to_str().unwrap()]);
    let page = |name: &str| fs::read_to_string(pages.join(name)).unwrap_or_default();
    assert!(
        page("cosgate.1").contains(".TH cosgate 1"),
        "{}",
        page("cosgate.1")
    );
    for command in commands() {
        let text = page(&format!("cosgate-{command}.1"));
        assert!(
            text.contains(&format!(".TH cosgate-{command} 1")),
            "{command}: {text}"
        );
        assert!(text.contains(".SH SYNOPSIS"), "{command}: {text}");
    }
    let file = folder.path().join("file");
    fs::write(&file, "").unwrap();
    let refused = Command::new(env!("CARGO_BIN_EXE_cosgate"))
        .arg("man")
        .arg(&file)
        .output()
        .unwrap();
    assert_eq!(refused.status.code(), Some(2));
}

#[test]
fn the_schema_is_the_one_that_is_packaged() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("packaging/cosgate.schema.json");
    assert_eq!(printed(&["schema"]), fs::read_to_string(path).unwrap());
}
