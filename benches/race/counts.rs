//! What one request costs however busy the machine is: user instructions and allocations by callgrind, system calls by strace.
//!
//! `counts.toml` keeps those of cosgate, and [`check`] fails when one has grown by more than [`TOLERANCE`].

use std::collections::HashMap;
use std::fmt::Write as _;
use std::fs;
use std::io::{self, BufRead as _, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};

use rustix::process::{Pid, Signal, kill_process};
use serde::Deserialize;

use super::load::{self, Load, Until, Work};
use super::peers::{Proxy, Running, Scheme, Site};

/// What a count may be above the one that is kept.
pub(crate) const TOLERANCE: f64 = 0.03;
const KEPT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/benches/race/counts.toml");
const OBJECT: u64 = 1024;
/// The first requests of all: what grows to its size and what is made once is over by then.
const WARM_UP: u64 = 200;
const REQUESTS: u64 = 1000;
/// Functions that hash. Valgrind's processor has no instructions for it, so they cost there what they cost nowhere else.
const HASHES: [&str; 3] = ["sha2::", "sha256", "sha1::"];
const ALLOCATORS: [&str; 5] = [
    "malloc",
    "calloc",
    "realloc",
    "posix_memalign",
    "aligned_alloc",
];

/// Counts of a request.
#[derive(Clone, Copy, Debug, Deserialize)]
pub(crate) struct Counts {
    /// User instructions of the thread that serves, without those that hash.
    pub(crate) instructions: f64,
    pub(crate) allocations: f64,
}

/// Those of a GET and of a PUT of 1 KiB.
#[derive(Clone, Copy, Debug, Deserialize)]
pub(crate) struct GetAndPut {
    pub(crate) get: Counts,
    pub(crate) put: Counts,
}

/// Counts cosgate and compares it with what is kept; keeps it if `save`. Says whether it is within the bounds.
pub(crate) fn check(site: &Site, save: bool) -> io::Result<bool> {
    let now = count(site, Proxy::Cosgate)?;
    if save {
        fs::write(KEPT, written(&now))?;
    }
    let kept: GetAndPut = toml::from_str(&fs::read_to_string(KEPT)?).map_err(io::Error::other)?;
    let mut within = true;
    for (name, now, kept) in [
        (
            "GET: instructions",
            now.get.instructions,
            kept.get.instructions,
        ),
        (
            "GET: allocations",
            now.get.allocations,
            kept.get.allocations,
        ),
        (
            "PUT: instructions",
            now.put.instructions,
            kept.put.instructions,
        ),
        (
            "PUT: allocations",
            now.put.allocations,
            kept.put.allocations,
        ),
    ] {
        let grown = now / kept - 1.0;
        let verdict = if grown > TOLERANCE {
            within = false;
            "FAILED: make it cheaper, or say in the commit why it must cost this, and run with --save"
        } else if grown < -TOLERANCE {
            "cheaper: keep it with --save"
        } else {
            "ok"
        };
        println!(
            "{name:18} {now:>9.2}, kept {kept:>9.2}, {:>+6.2} %: {verdict}",
            grown * 100.0
        );
    }
    Ok(within)
}

/// Runs a proxy under callgrind.
pub(crate) fn count(site: &Site, proxy: Proxy) -> io::Result<GetAndPut> {
    let out = site.folder.join(format!("callgrind-{}", proxy.name()));
    let mut file = std::ffi::OsString::from("--callgrind-out-file=");
    file.push(&out);
    let valgrind = [
        "valgrind".into(),
        "--quiet".into(),
        "--tool=callgrind".into(),
        "--separate-threads=yes".into(),
        file,
    ];
    let running = Running::start_under(site, proxy, Scheme::Plain, &valgrind)?;
    let mut dumps = 0;
    let mut counted = |work, requests| {
        requests_of(&running, work, requests)?;
        dumps += 1;
        dump(running.pid(), &out, dumps)
    };
    counted(Work::Get(OBJECT), WARM_UP)?;
    counted(Work::Put(OBJECT), WARM_UP)?;
    let get = counted(Work::Get(OBJECT), REQUESTS)?;
    let put = counted(Work::Put(OBJECT), REQUESTS)?;
    Ok(GetAndPut {
        get: get.of_a_request(),
        put: put.of_a_request(),
    })
}

/// System calls a request.
pub(crate) fn system_calls(running: &Running, work: Work) -> io::Result<f64> {
    let pid = running.pid().as_raw_nonzero().to_string();
    let mut strace = Command::new("strace")
        .args(["-f", "-c", "-p", &pid])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()?;
    let mut said = BufReader::new(strace.stderr.take().ok_or(io::ErrorKind::BrokenPipe)?).lines();
    // It says so when it has every thread.
    for line in said.by_ref() {
        if line?.contains("attached") {
            break;
        }
    }
    requests_of(running, work, REQUESTS)?;
    kill_process(Pid::from_child(&strace), Signal::INT)?;
    let mut total = None;
    for line in said {
        let line = line?;
        let words: Vec<&str> = line.split_whitespace().collect();
        if let [_, _, _, calls, .., "total"] = words[..] {
            total = calls.parse::<f64>().ok();
        }
    }
    strace.wait()?;
    let total = total.ok_or_else(|| io::Error::other("strace told no total"))?;
    Ok(total / REQUESTS as f64)
}

/// One connection, so that nothing depends on who is faster.
fn requests_of(running: &Running, work: Work, requests: u64) -> io::Result<()> {
    let until = Until::Requests(requests);
    load::run(
        running.addr,
        Load {
            work,
            connections: 1,
            rate: None,
            until,
        },
    )
    .map(drop)
}

/// Has callgrind write what it has counted since it last did: a file for each thread.
/// The busiest is the one that serves requests. How often the others wake up depends on the clock.
fn dump(pid: Pid, out: &Path, number: usize) -> io::Result<Totals> {
    let pid = pid.as_raw_nonzero().to_string();
    let done = Command::new("callgrind_control")
        .args(["--dump", &pid])
        .output()?;
    let folder = out.parent().ok_or(io::ErrorKind::NotFound)?;
    let prefix = format!(
        "{}.{number}-",
        out.file_name().unwrap_or_default().display()
    );
    let mut busiest = None;
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        if entry.file_name().to_string_lossy().starts_with(&prefix) {
            let totals = Totals::read(&fs::read_to_string(entry.path())?);
            busiest = busiest.max(Some(totals));
        }
    }
    busiest.ok_or_else(|| {
        let said = String::from_utf8_lossy(&done.stderr);
        io::Error::other(format!("callgrind_control: {said}"))
    })
}

fn written(counts: &GetAndPut) -> String {
    let mut text = "# What one request of 1 KiB costs cosgate: `benches/race/run count --save` writes this, and `benches/race/run count`\n\
         # fails when one of them has grown by more than 3 %. Instructions are those of the user, without hashing.\n"
        .to_owned();
    for (name, counts) in [("get", counts.get), ("put", counts.put)] {
        let Counts {
            instructions,
            allocations,
        } = counts;
        let _ = write!(
            text,
            "\n[{name}]\ninstructions = {instructions:.0}\nallocations = {allocations:.2}\n"
        );
    }
    text
}

/// What a profile of callgrind's comes to.
/// Its form: <https://valgrind.org/docs/manual/cl-format.html>
#[derive(Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
struct Totals {
    instructions: u64,
    allocations: u64,
}

impl Totals {
    fn of_a_request(&self) -> Counts {
        Counts {
            instructions: self.instructions as f64 / REQUESTS as f64,
            allocations: self.allocations as f64 / REQUESTS as f64,
        }
    }

    fn read(profile: &str) -> Self {
        let mut totals = Self::default();
        let mut names = HashMap::new();
        let (mut hashes, mut allocates, mut of_call) = (false, false, false);
        for line in profile.lines() {
            if let Some(name) = line.strip_prefix("fn=") {
                let name = uncompressed(&mut names, name);
                hashes = HASHES.iter().any(|hash| name.contains(hash));
            } else if let Some(name) = line.strip_prefix("cfn=") {
                allocates = ALLOCATORS.contains(&uncompressed(&mut names, name));
            } else if let Some(calls) = line.strip_prefix("calls=") {
                let count = calls.split(' ').next().and_then(|count| count.parse().ok());
                totals.allocations += if allocates { count.unwrap_or(0) } else { 0 };
                // The next line is the cost of what was called, which counts there.
                of_call = true;
            } else if line
                .starts_with(|first: char| first.is_ascii_digit() || "+-*".contains(first))
            {
                let cost = line.split(' ').nth(1).and_then(|cost| cost.parse().ok());
                if !hashes && !of_call {
                    totals.instructions += cost.unwrap_or(0);
                }
                of_call = false;
            }
        }
        totals
    }
}

/// A name is written once, after its number, and is the number alone from then on.
fn uncompressed<'a>(names: &mut HashMap<&'a str, &'a str>, text: &'a str) -> &'a str {
    match text.split_once(' ') {
        Some((number, name)) if number.starts_with('(') => {
            names.insert(number, name);
            name
        }
        _ => names.get(text).copied().unwrap_or(text),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_self_cost_and_calls_of_allocators() {
        let profile = "version: 1\nevents: Ir\n\nfl=(1) a.rs\nfn=(1) cosgate::serve\n10 7\n+1 3\ncfn=(2) malloc\n\
            calls=4 20\n11 400\ncfn=(3) sha2::compress\ncalls=2 1\n* 900\n-1 5\n\n\
            fn=(2)\n20 400\n\nfn=(3)\n1 900\n\nfn=(4) other\n1 1\ncfn=(2)\ncalls=1 20\n1 100\n\ntotals: 1316\n";
        let expected = Totals {
            instructions: 7 + 3 + 5 + 400 + 1,
            allocations: 5,
        };
        assert_eq!(Totals::read(profile), expected);
    }
}
