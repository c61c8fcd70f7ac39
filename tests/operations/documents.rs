//! The documents are true: their links, what they say of the tests, of the program and of its output, and their examples.
#![expect(
    clippy::expect_used,
    clippy::string_slice,
    clippy::unwrap_used,
    reason = "a test stops at the first surprise"
)]

use std::fs;
use std::io::{self, Write};
#[cfg(feature = "emulator")]
use std::io::{BufRead as _, BufReader};
use std::iter;
use std::net::Ipv4Addr;
use std::path::Path;
#[cfg(feature = "emulator")]
use std::process::{Child, Stdio};
use std::process::{Command, Output};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use crate::support;
use cosgate::decision::{Step, Verdict};
use cosgate::error::{Code, S3Error};
use cosgate::observe::{
    AccessLine, EndedRequest, Metrics, MetricsView, SharedLimitsView, TextFormat, TraceId,
    access_log,
};
use cosgate::s3::Operation;
use cosgate::s3::sts::sts_code;
use cosgate::tenant::{Identity, KeyState};
use cosgate::timestamp::Timestamp;
use http::{StatusCode, Version};

/// The pages that are not below `docs/`.
const PAGES_AT_ROOT: [&str; 6] = [
    "ARCHITECTURE.md",
    "CHANGELOG.md",
    "CONTRIBUTING.md",
    "README.md",
    "SECURITY.md",
    "tests/vectors/README.md",
];

/// The rows that the page must have: what each letter ends with.
const ROWS: [(char, usize); 6] = [
    ('A', 12),
    ('B', 21),
    ('C', 7),
    ('D', 13),
    ('E', 13),
    ('F', 17),
];

/// The list of the book's pages.
const SUMMARY: &str = "docs/SUMMARY.md";

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
            let has_word = !tests_in(shown).is_empty() || shown.contains("nothing to show");
            assert!(has_word, "{letter}{number}: {shown}");
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
        Identity::Unix(0),
        Identity::VendToken,
    ] {
        // A new one does not compile until it is in both lists.
        match identity {
            Identity::Assumed // of `explain` alone: no log has it
            | Identity::Anonymous
            | Identity::Bearer(_)
            | Identity::Certificate(_)
            | Identity::Form(_)
            | Identity::Header(_)
            | Identity::Presigned(_)
            | Identity::PresignedV2(_)
            | Identity::Qsign(_)
            | Identity::Session { .. }
            | Identity::Unix(_)
            | Identity::VendToken => {}
        }
        let row = format!("| `{}` |", identity.kind());
        assert_eq!(page.matches(&row).count(), 1, "{row}");
    }
}

/// Every page, as its path from the repository's root.
fn pages() -> Vec<String> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut found: Vec<String> = PAGES_AT_ROOT.iter().map(|&page| page.to_owned()).collect();
    for folder in ["docs", "docs/clients"] {
        for entry in fs::read_dir(root.join(folder)).unwrap() {
            let path = entry.unwrap().path();
            let name = path.file_name().unwrap().to_str().unwrap();
            if path.extension().is_some_and(|ending| ending == "md") {
                found.push(format!("{folder}/{name}"));
            }
        }
    }
    found
}

/// A code block: the words after its fence, and its lines.
struct Block {
    info: String,
    text: String,
}

/// A page cut into its code blocks, and the lines that are outside of them.
fn split(page: &str) -> (Vec<Block>, Vec<String>) {
    let (mut blocks, mut lines) = (Vec::new(), Vec::new());
    let mut open: Option<Block> = None;
    for line in text(page).lines() {
        match (line.strip_prefix("```"), open.take()) {
            (Some(info), None) => {
                open = Some(Block {
                    info: info.to_owned(),
                    text: String::new(),
                });
            }
            (Some(_), Some(block)) => blocks.push(block),
            (None, Some(mut block)) => {
                block.text += line;
                block.text.push('\n');
                open = Some(block);
            }
            (None, None) => lines.push(line.to_owned()),
        }
    }
    assert!(open.is_none(), "{page} ends within a code block");
    (blocks, lines)
}

/// What is outside of backticks.
fn without_code(line: &str) -> String {
    let parts: Vec<&str> = line.split('`').step_by(2).collect();
    parts.join("CODE")
}

/// What each inline link of a page leads to, images included.
fn links(page: &str) -> Vec<String> {
    let (_, lines) = split(page);
    let mut found = Vec::new();
    for line in lines {
        let line = without_code(&line);
        for after in line.split("](").skip(1) {
            found.extend(after.split_once(')').map(|(target, _)| target.to_owned()));
        }
    }
    found
}

/// The anchors of a page's headings, as GitHub and mdBook make them.
fn anchors(page: &str) -> Vec<String> {
    let (_, lines) = split(page);
    let headings = lines.iter().filter(|line| line.starts_with('#'));
    let mut found: Vec<String> = Vec::new();
    for heading in headings {
        let plain = heading.trim_start_matches('#').trim().to_lowercase();
        let kept = |c: &char| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_');
        let anchor = plain.chars().filter(kept).collect::<String>();
        let anchor = anchor.replace(' ', "-");
        assert!(!found.contains(&anchor), "{page} has two headings {anchor}");
        found.push(anchor);
    }
    found
}

/// `target`, which a link on `page` names, from the repository's root.
fn resolved(page: &str, target: &str) -> String {
    let mut parts: Vec<&str> = page.split('/').collect();
    parts.pop();
    for part in target.split('/') {
        if part == ".." {
            assert!(parts.pop().is_some(), "{page}: {target} leads outside");
        } else {
            parts.push(part);
        }
    }
    parts.join("/")
}

#[test]
fn links_lead_to_files_and_headings() {
    let mut count = 0;
    for page in pages() {
        for link in links(&page) {
            if link.starts_with("https://") {
                continue;
            }
            count += 1;
            let (target, anchor) = link.split_once('#').unwrap_or((&link, ""));
            let file = if target.is_empty() {
                page.clone()
            } else {
                resolved(&page, target)
            };
            let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(&file);
            assert!(path.is_file(), "{page}: {link} leads nowhere");
            let is_known = anchor.is_empty() || anchors(&file).iter().any(|known| known == anchor);
            assert!(is_known, "{page}: {file} has no heading #{anchor}");
            // The book has nothing else.
            let is_in_book = !page.starts_with("docs/") || file.starts_with("docs/");
            assert!(is_in_book, "{page}: {link} leads out of the book");
            // mdBook renames it and does not follow.
            let is_kept = page == SUMMARY || file != "docs/README.md";
            assert!(is_kept, "{page}: {link} leads nowhere in the book");
        }
    }
    assert!(count > 80, "only {count} links were found");
}

#[test]
fn every_page_of_the_book_is_in_its_summary() {
    let listed = links(SUMMARY);
    for page in pages() {
        let Some(name) = page.strip_prefix("docs/") else {
            continue;
        };
        let is_listed = name == "SUMMARY.md" || listed.iter().any(|link| link == name);
        assert!(is_listed, "docs/SUMMARY.md does not list {name}");
    }
}

/// The files and folders that a line names in backticks: `src/…`, or below `src/` where the page says so.
fn files_in(line: &str) -> Vec<&str> {
    let quoted = line.split('`').skip(1).step_by(2);
    let is_path = |name: &&str| {
        let plain = name
            .chars()
            .all(|c| c.is_ascii_alphanumeric() || "_-./".contains(c));
        let ends = [".rs", ".py", ".toml", ".md", "/"]
            .iter()
            .any(|end| name.ends_with(end));
        plain
            && ends
            && name.contains(|c: char| c.is_ascii_alphabetic())
            && !name.starts_with(['.', '/'])
    };
    quoted.filter(is_path).collect()
}

#[test]
fn files_that_the_architecture_names_exist() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut count = 0;
    for page in ["ARCHITECTURE.md", "CONTRIBUTING.md"] {
        let (_, lines) = split(page);
        for name in lines.iter().flat_map(|line| files_in(line)) {
            count += 1;
            let places = ["", "src/", "tests/interop/", "tests/proxy/isolation/"];
            let is_there = places
                .iter()
                .any(|place| root.join(place).join(name).exists());
            assert!(is_there, "{page} names {name}, which does not exist");
        }
    }
    assert!(count > 80, "only {count} files are named");
}

/// What the program prints for these arguments.
fn printed_by_cosgate(arguments: &[&str]) -> String {
    let program = env!("CARGO_BIN_EXE_cosgate");
    let output = Command::new(program).args(arguments).output().unwrap();
    assert!(output.status.success(), "{arguments:?}");
    String::from_utf8(output.stdout).unwrap()
}

/// The names in the list of commands of a help text.
fn commands_in(help: &str) -> Vec<String> {
    let list = help
        .split_once("\nCommands:\n")
        .map_or("", |(_, list)| list);
    let lines = list.lines().take_while(|line| !line.is_empty());
    let named = lines.filter_map(|line| line.strip_prefix("  "));
    named
        .filter(|line| !line.starts_with(' '))
        .filter_map(|line| line.split(' ').next())
        .map(str::to_owned)
        .collect()
}

/// The long options in the list of options of a help text.
fn options_in(help: &str) -> Vec<String> {
    let list = help.split_once("\nOptions:\n").map_or("", |(_, list)| list);
    let words = list.lines().filter(|line| line.starts_with("  "));
    let words = words.flat_map(|line| line.trim_start().split(' ').take(2));
    words
        .filter(|word| word.starts_with("--"))
        .map(str::to_owned)
        .collect()
}

/// Checks the sections of `command` and of all its subcommands.
fn check_command(command: &[&str], count: &mut usize) {
    let help = printed_by_cosgate(&[command, &["--help"]].concat());
    if !command.is_empty() {
        *count += 1;
        let page = text("docs/commands.md");
        let heading = format!("\n## cosgate {}\n", command.join(" "));
        let (_, section) = page.split_once(&heading).expect(&heading);
        let section = section.split("\n## ").next().unwrap_or_default();
        for option in options_in(&help) {
            let is_documented = option == "--help" || section.contains(&format!("`{option}"));
            assert!(
                is_documented || section.contains(&format!(" {option} ")),
                "{heading} lacks {option}"
            );
        }
    }
    for name in commands_in(&help) {
        if name != "help" {
            check_command(&[command, &[&name]].concat(), count);
        }
    }
}

#[test]
fn every_command_and_option_is_documented() {
    let mut count = 0;
    check_command(&[], &mut count);
    assert!(count >= 6, "only {count} commands were found");
}

#[test]
fn every_error_code_is_documented_with_its_status() {
    let page = text("docs/errors.md");
    for code in Code::ALL {
        let start = format!("| `{}` | {} | ", code.as_str(), code.status().as_u16());
        let rows: Vec<&str> = page.lines().filter(|row| row.starts_with(&start)).collect();
        assert_eq!(rows.len(), 1, "{start}");
        let cells = rows[0]
            .trim_matches('|')
            .split(" | ")
            .filter(|cell| cell.len() > 5);
        assert!(cells.count() >= 3, "{}", rows[0]);
        let (sts_name, _) = sts_code(&S3Error::new(*code, ""));
        if sts_name != code.as_str() {
            let start = format!("| `{sts_name}` | ");
            let mut rows = page.lines().filter(|row| row.starts_with(&start));
            let is_documented = rows.any(|row| row.contains(&format!("`{}`", code.as_str())));
            assert!(
                is_documented,
                "{sts_name} is not documented for {}",
                code.as_str()
            );
        }
    }
    let rows = page.lines().filter(|row| row.starts_with("| `"));
    for code in rows.filter_map(|row| row.split('`').nth(1)) {
        let is_known = Code::ALL
            .iter()
            .any(|known| known.as_str() == code || sts_code(&S3Error::new(*known, "")).0 == code);
        assert!(is_known, "{code} is no code");
    }
}

/// Everything that is counted, with a request and an identity provider, so that no metric is missing.
fn rendered_metrics() -> String {
    let metrics = Metrics::new(1);
    metrics.core(0).request(&EndedRequest {
        operation: None,
        status: StatusCode::OK,
        error: Some((Step::Parse, Code::InternalError)),
        duration: Duration::ZERO,
        first_byte: Some(Duration::ZERO),
        upstream: Some(Duration::ZERO),
        received: 1,
        sent: 1,
        is_limited: true,
        tenant: Some(0),
    });
    let key = KeyState {
        name: "login".to_owned(),
        age: Some(1),
        usable: true,
    };
    let view = MetricsView {
        identities: vec![key],
        issuers: vec![("main".to_owned(), false)],
        certificate_end: Some(Timestamp::default()),
        first_key_end: Some(Timestamp::default()),
        shared_limits: Some(SharedLimitsView::default()),
        ..MetricsView::default()
    };
    metrics.render(&view, TextFormat::Prometheus)
}

#[test]
fn every_metric_is_documented_with_its_type_and_labels() {
    let page = text("docs/metrics-and-logs.md");
    let rendered = rendered_metrics();
    let mut names = Vec::new();
    for line in rendered.lines() {
        if let Some(typed) = line.strip_prefix("# TYPE ") {
            let (name, kind) = typed.split_once(' ').unwrap();
            let row = format!("\n| `{name}` | {kind} | ");
            assert_eq!(page.matches(&row).count(), 1, "{row}");
            names.push(name);
        }
        let labels = line
            .split_once('{')
            .and_then(|(_, rest)| rest.split_once('}'));
        for label in labels
            .map_or("", |(labels, _)| labels)
            .split(',')
            .filter(|l| !l.is_empty())
        {
            let (label, value) = label.split_once('=').unwrap();
            let mut rows = page
                .lines()
                .filter(|row| row.starts_with(&format!("| `{label}`")));
            let value = format!("`{}`", value.trim_matches('"'));
            // Numbers and names of the configuration are not listed one by one.
            let is_listed = matches!(
                label,
                "status"
                    | "identity"
                    | "issuer"
                    | "tenant"
                    | "le"
                    | "code"
                    | "version"
                    | "commit"
                    | "features"
            ) || rows.any(|row| row.contains(&value));
            assert!(is_listed, "{label} {value} is not documented");
        }
    }
    assert!(names.len() > 25, "{names:?}");
    for row in page.lines().filter(|row| row.starts_with("| `cosgate_")) {
        let name = row.split(['`', '{']).nth(1).unwrap();
        assert!(names.contains(&name), "{name} is no metric");
    }
}

/// A metric that a dashboard or an alert names and cosgate does not have shows nothing, for ever.
#[test]
fn alerts_and_the_dashboard_name_metrics_that_exist() {
    let rendered = rendered_metrics();
    let names: Vec<&str> = rendered
        .lines()
        .filter_map(|line| line.strip_prefix("# TYPE ")?.split(' ').next())
        .collect();
    let is_name = |character: char| character.is_ascii_alphanumeric() || character == '_';
    for file in [
        "packaging/prometheus/alerts.yml",
        "packaging/grafana/cosgate.json",
    ] {
        let text = text(file);
        let words = text.split(|character| !is_name(character));
        let used =
            words.filter(|word| word.starts_with("cosgate_") || word.starts_with("process_"));
        let mut count = 0;
        for word in used {
            let family = word.trim_end_matches("_bucket");
            assert!(names.contains(&family), "{file}: {word} is no metric");
            count += 1;
        }
        assert!(count > 10, "{file}: {count}");
    }
    let dashboard: serde_json::Value =
        serde_json::from_str(&text("packaging/grafana/cosgate.json")).unwrap();
    assert_eq!(dashboard["uid"], "cosgate");
    let panels = dashboard["panels"].to_string();
    let shared = names
        .iter()
        .filter(|name| name.starts_with("cosgate_shared_limit"));
    for name in shared {
        assert!(panels.contains(name), "no panel shows {name}");
    }
}

/// Prometheus's own tool, from Debian's package `prometheus`. `TEST_PROMTOOL` forbids to go without it.
#[test]
fn prometheus_accepts_the_metrics_and_the_alerts() {
    let alerts = Path::new(env!("CARGO_MANIFEST_DIR")).join("packaging/prometheus/alerts.yml");
    let promtool = |arguments: &[&str], input: &str| {
        let mut command = Command::new("promtool");
        command.args(arguments).stdin(Stdio::piped());
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().ok()?;
        let mut stdin = child.stdin.take().unwrap();
        stdin.write_all(input.as_bytes()).unwrap();
        drop(stdin);
        let output = child.wait_with_output().unwrap();
        let printed = [output.stdout, output.stderr].concat();
        Some((output.status.success(), String::from_utf8(printed).unwrap()))
    };
    let Some((is_good, printed)) = promtool(&["check", "metrics"], &rendered_metrics()) else {
        assert!(std::env::var_os("TEST_PROMTOOL").is_none(), "no promtool");
        println!("SKIPPED: promtool is not installed (apt-get install prometheus)");
        return;
    };
    assert!(is_good, "{printed}");
    let (is_good, printed) = promtool(&["check", "rules", alerts.to_str().unwrap()], "").unwrap();
    assert!(is_good, "{printed}");
}

/// Where a test reads what a log has written.
#[derive(Clone, Default)]
struct Written(Arc<Mutex<Vec<u8>>>);

impl Write for Written {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// A line with every field. It is written without `..`, so that a new field does not compile until it is here.
fn whole_line() -> AccessLine<'static> {
    AccessLine {
        time: Timestamp::from_unix(1_768_480_245),
        request_id: "R1",
        trace_id: Some(TraceId([1; 16])),
        http: Version::HTTP_11,
        tls: Some("1.3"),
        client: Some(Ipv4Addr::LOCALHOST.into()),
        uid: Some(1),
        tenant: Some("acme"),
        identity: Some("sigv4"),
        key_id: Some("KEY"),
        session_of: Some("KEY"),
        subject: Some("alice"),
        method: Some("PUT"),
        operation: Some(Operation::PutObject),
        sts_action: None,
        bucket: Some("photos"),
        key: Some("a"),
        prefix: Some("a"),
        source: Some("photos/b"),
        denied: 1,
        verdict: Some(Verdict::Refused),
        step: Some(Step::Parse),
        status: StatusCode::FORBIDDEN,
        code: Some("AccessDenied"),
        received: 1,
        unchecked: Some("x-amz-checksum-crc32"),
        sent: 1,
        duration: Duration::from_millis(1),
        tries: 2,
        upstream_time: Some(Duration::from_millis(1)),
        upstream_status: Some(StatusCode::OK),
        upstream_request_id: Some("R2"),
        user_agent: Some(b"aws-cli"),
        referer_host: Some(b"example.com"),
        detail: Some("why"),
    }
}

#[test]
fn every_field_of_the_access_log_is_documented() {
    let written = Written::default();
    let metrics = Metrics::new(1);
    let anywhere = (Ipv4Addr::LOCALHOST, 1).into();
    let config = support::config(&support::toml(anywhere, anywhere, "")).log;
    let (log, writer) = access_log::start(&config, written.clone(), metrics.core(0)).unwrap();
    log.buffer(metrics.core(0)).write(&whole_line());
    drop(log);
    assert!(writer.finish(Duration::from_secs(10)));
    let line: serde_json::Value = serde_json::from_slice(&written.0.lock().unwrap()).unwrap();
    let fields: Vec<&String> = line.as_object().unwrap().keys().collect();

    let page = text("docs/metrics-and-logs.md");
    let (_, section) = page.split_once("\n## Access log\n").unwrap();
    let (table, _) = section.split_once("\n| `verdict` | meaning |").unwrap();
    let documented: Vec<&str> = table
        .lines()
        .filter(|row| row.starts_with("| `"))
        .filter_map(|row| row.split(" | ").next())
        .flat_map(|cell| cell.split('`').skip(1).step_by(2))
        .collect();
    for field in &fields {
        assert!(
            documented.contains(&field.as_str()),
            "{field} is not documented"
        );
    }
    for name in documented {
        assert!(
            fields.iter().any(|field| *field == name),
            "{name} is no field"
        );
    }
}

/// The same of verdicts.
fn verdict_after(verdict: Verdict) -> Option<Verdict> {
    match verdict {
        Verdict::Allowed => Some(Verdict::Local),
        Verdict::Local => Some(Verdict::Failed),
        Verdict::Failed => Some(Verdict::Refused),
        Verdict::Refused => None,
    }
}

#[test]
fn every_verdict_and_step_of_the_access_log_is_documented() {
    let page = text("docs/metrics-and-logs.md");
    for verdict in iter::successors(Some(Verdict::Allowed), |last| verdict_after(*last)) {
        let row = format!("\n| `{}` | ", verdict.as_str());
        assert_eq!(page.matches(&row).count(), 1, "{verdict:?}");
    }
    let rows = page.lines().filter(|row| row.starts_with("| `step` | "));
    for row in rows {
        for step in Step::ALL {
            assert!(row.contains(&format!("`{}`", step.as_str())), "{step:?}");
        }
    }
}

/// A configuration on a page, in a file, and a command with every secret that it names in the environment.
fn on_configuration(folder: &Path, configuration: &str, arguments: &[&str]) -> Output {
    let file = folder.join("cosgate.toml");
    fs::write(&file, configuration).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_cosgate"));
    command.args(arguments).arg("--config").arg(&file);
    for named in configuration.split("\"env:").skip(1) {
        let name = named.split('"').next().unwrap_or_default();
        command.env(name, format!("{name}-is-only-an-example-of-a-secret"));
    }
    command.output().unwrap()
}

#[test]
fn configurations_that_are_documented_are_valid() {
    let folder = tempfile::tempdir().unwrap();
    let mut count = 0;
    for page in pages() {
        let (blocks, _) = split(&page);
        for block in blocks.iter().filter(|block| block.info == "toml check") {
            count += 1;
            let checked = on_configuration(folder.path(), &block.text, &["check"]);
            let printed = String::from_utf8_lossy(&checked.stdout).into_owned()
                + &String::from_utf8_lossy(&checked.stderr);
            assert!(checked.status.success(), "{page}: {printed}");
            assert!(!printed.contains("warning"), "{page}: {printed}");
        }
    }
    assert!(count > 0, "no configuration was checked");
}

/// What a temporary key may do must be what its issuer may do, or COS refuses it.
#[test]
fn the_documented_policy_allows_every_action_of_the_documented_tenants() {
    let (blocks, _) = split("docs/quickstart.md");
    let block = |info: &str| &blocks.iter().find(|block| block.info == info).unwrap().text;
    let policy: serde_json::Value = serde_json::from_str(block("json policy")).unwrap();
    let allowed = actions_of(&policy);
    assert!(allowed.contains(&"name/sts:GetFederationToken".to_owned()));

    let folder = tempfile::tempdir().unwrap();
    let arguments = [
        "explain",
        "--tenant",
        "acme",
        "--format",
        "json",
        "GET",
        "/photos/acme/x",
    ];
    let explained = on_configuration(folder.path(), block("toml check"), &arguments);
    let explained: serde_json::Value = serde_json::from_slice(&explained.stdout).unwrap();
    let needed = actions_of(&explained["credential"]["policy"]);
    assert!(needed.len() > 10, "{needed:?}");
    for action in needed {
        assert!(allowed.contains(&action), "the policy lacks {action}");
    }
}

fn actions_of(policy: &serde_json::Value) -> Vec<String> {
    let statements = policy["statement"].as_array().unwrap();
    let actions = statements
        .iter()
        .flat_map(|one| one["action"].as_array().unwrap());
    actions
        .map(|action| action.as_str().unwrap().to_owned())
        .collect()
}

/// Words that no document uses, since a plainer one says the same. What is in backticks is not looked at.
const FORBIDDEN: [&str; 14] = [
    "answer",
    "answered",
    "answers",
    "held against",
    "is asked",
    "most so many",
    "mend",
    "mended",
    "mends",
    "on its way",
    "told apart",
    "under way",
    "whoever",
    "whosever",
];
/// Words in a sentence: all of a page on average, and one sentence.
const WORDS_ON_AVERAGE: usize = 20;
const WORDS_AT_MOST: usize = 30;

/// The sentences of a page: paragraphs and items of lists. Code, tables and headings are none.
fn sentences(page: &str) -> Vec<String> {
    let (_, lines) = split(page);
    let mut paragraphs = vec![String::new()];
    for line in &lines {
        let line = line.trim();
        let is_other = line.starts_with(['|', '#', '<', '!', '{']) || line.is_empty();
        let item = line.strip_prefix("- ").or_else(|| {
            line.split_once(". ")
                .filter(|(n, _)| n.parse::<u8>().is_ok())
                .map(|(_, item)| item)
        });
        if is_other || item.is_some() {
            paragraphs.push(String::new());
        }
        if !is_other && let Some(paragraph) = paragraphs.last_mut() {
            *paragraph += item.unwrap_or(line);
            paragraph.push(' ');
        }
    }
    let mut found = Vec::new();
    for paragraph in paragraphs {
        let mut sentence = String::new();
        for word in without_code(&paragraph).split_whitespace() {
            sentence += word;
            sentence.push(' ');
            let word = word.trim_end_matches(['*', ')', '"']);
            if word.ends_with(['.', '?', '!', ':', ';']) {
                found.push(std::mem::take(&mut sentence));
            }
        }
        if !sentence.is_empty() {
            found.push(sentence);
        }
    }
    found
}

#[test]
fn documents_are_written_in_plain_words() {
    let mut problems = Vec::new();
    for page in pages() {
        let (_, lines) = split(&page);
        for line in &lines {
            let found = FORBIDDEN.iter().filter(|word| has_word(line, word));
            problems.extend(found.map(|word| format!("{page} says {word:?}: {line}")));
        }
        let sentences = sentences(&page);
        let words = |sentence: &String| sentence.split_whitespace().count();
        let long = sentences
            .iter()
            .filter(|sentence| words(sentence) > WORDS_AT_MOST);
        problems.extend(long.map(|sentence| format!("{page}, a long sentence: {sentence}")));
        let all: usize = sentences.iter().map(words).sum();
        if all > WORDS_ON_AVERAGE * sentences.len() {
            problems.push(format!(
                "{page}: {all} words in {} sentences",
                sentences.len()
            ));
        }
    }
    assert!(problems.is_empty(), "{}", problems.join("\n"));
}

/// Whether a line has this word outside of backticks.
fn has_word(line: &str, word: &str) -> bool {
    let plain = without_code(line).to_lowercase();
    let is_letter = |c: char| c.is_alphanumeric() || c == '-';
    plain.match_indices(word).any(|(at, _)| {
        let before = plain[..at].chars().next_back();
        let after = plain[at + word.len()..].chars().next();
        !before.is_some_and(is_letter) && !after.is_some_and(is_letter)
    })
}

/// `cosgate dev` on a free port, until it is dropped.
#[cfg(feature = "emulator")]
struct Dev {
    child: Child,
    port: String,
}

#[cfg(feature = "emulator")]
impl Dev {
    fn start() -> Self {
        let mut child = Command::new(env!("CARGO_BIN_EXE_cosgate"))
            .args(["dev", "--listen", "127.0.0.1:0"])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut out = BufReader::new(child.stdout.take().unwrap());
        let mut first = String::new();
        out.read_line(&mut first).unwrap();
        // Its log must not stop it.
        std::thread::spawn(move || io::copy(&mut out, &mut io::sink()));
        let port = first.trim_end().rsplit(':').next().unwrap_or_default();
        assert!(port.parse::<u16>().is_ok(), "{first}");
        Self {
            child,
            port: port.to_owned(),
        }
    }
}

#[cfg(feature = "emulator")]
impl Drop for Dev {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The blocks marked `sh run` of a page run in order, as they are written but for the port. Each line of the block
/// `text output` below one must be in what it prints, in that order.
#[cfg(feature = "emulator")]
#[test]
fn examples_that_are_marked_run() {
    let dev = Dev::start();
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("README.md"), text("README.md")).unwrap();
    let program = Path::new(env!("CARGO_BIN_EXE_cosgate"));
    let path = std::env::var("PATH").unwrap();
    let path = format!("{}:{path}", program.parent().unwrap().display());
    let mut count = 0;
    for page in pages() {
        let (blocks, _) = split(&page);
        let mut printed: Option<String> = None;
        for block in blocks {
            if block.info == "sh run" {
                count += 1;
                let script = block
                    .text
                    .replace("127.0.0.1:9000", &format!("127.0.0.1:{}", dev.port));
                let output = Command::new("sh")
                    .args(["-euc", &script])
                    .current_dir(folder.path())
                    .env("PATH", &path)
                    .output()
                    .unwrap();
                let error = String::from_utf8_lossy(&output.stderr);
                assert!(output.status.success(), "{page}: {script}{error}");
                printed = Some(String::from_utf8(output.stdout).unwrap());
            } else if block.info == "text output" {
                let printed = printed.take().expect("output belongs to a block that runs");
                let mut rest = printed.as_str();
                for line in block.text.lines() {
                    let (_, after) = rest.split_once(line).unwrap_or_else(|| {
                        panic!("{page}: no {line:?} in what was printed: {printed}")
                    });
                    rest = after;
                }
            }
        }
    }
    assert!(count >= 4, "only {count} examples ran");
}

/// `tests/interop/run` runs the marked blocks of several pages at once.
#[test]
fn no_two_pages_use_the_same_objects() {
    let mut users: Vec<(String, String)> = Vec::new();
    for page in pages() {
        let (blocks, _) = split(&page);
        let is_run = |block: &&Block| block.info.split(' ').any(|word| word == "interop");
        for block in blocks.iter().filter(is_run) {
            for object in demo_objects(&block.text) {
                let user = (object, page.clone());
                if !users.contains(&user) {
                    users.push(user);
                }
            }
        }
    }
    users.sort();
    for pair in users.windows(2) {
        let [(one, page), (other, other_page)] = pair else {
            unreachable!("windows of two");
        };
        assert_ne!(one, other, "both in {page} and in {other_page}");
    }
    assert!(users.len() > 10, "{users:?}");
}

/// The first parts of the names that `text` gives objects in the folders of the demo's tenants.
fn demo_objects(text: &str) -> Vec<String> {
    let is_of_name = |c: char| c.is_alphanumeric() || "._-".contains(c);
    let folders = ["alice/", "bob/", "carol/"];
    let places = folders
        .iter()
        .flat_map(|folder| text.match_indices(folder).map(|(at, _)| (*folder, at)));
    let names = places.map(|(folder, at)| {
        let rest = text.split_at(at + folder.len()).1;
        let end = rest.find(|c| !is_of_name(c)).unwrap_or(rest.len());
        (folder, rest.split_at(end).0)
    });
    names
        .filter(|(_, name)| !name.is_empty())
        .map(|(folder, name)| format!("{folder}{name}"))
        .collect()
}
