//! What one request costs however busy the machine is: user instructions and allocations by callgrind, system calls by strace.
//!
//! `counts.toml` keeps those of cosgate, and [`check`] fails when one has grown by more than [`TOLERANCE`].

use std::collections::{BTreeMap, HashMap};
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
/// The head of that file.
const HEAD: &str = "\
# What one request of 1 KiB costs cosgate, for each build: `benches/race/run count --save` writes this, and `benches/race/run count`
# fails when one of them has grown by more than 3 %. Instructions are those of the user, without hashing. The build of the tests is there
# anyway: it tells whether a request got dearer, and `dist` how dear it is. Save on a machine that is idle.
";
/// So often it is counted before a growth is believed.
const ATTEMPTS: usize = 3;
const OBJECT: u64 = 1024;
/// The first requests of all: what grows to its size and what is made once is over by then.
const WARM_UP: u64 = 100;
const REQUESTS: u64 = 500;
/// Connections that keep a proxy busy: it finds requests of several whenever it wakes up.
const BUSY: usize = 32;
/// Functions that hash. Valgrind's processor has no instructions for it, so they cost there what they cost nowhere else.
const HASHES: [&str; 3] = ["sha2::", "sha256", "sha1::"];
/// What the clock sets off, however many requests there were since: it is no part of the cost of one, with all that it calls.
const CLOCKED: [&str; 1] = ["LogBuffer::flush"];
/// Of the system and of jemalloc.
const ALLOCATORS: [&str; 10] = [
    "malloc",
    "calloc",
    "realloc",
    "posix_memalign",
    "aligned_alloc",
    "_rjem_malloc",
    "_rjem_mallocx",
    "_rjem_calloc",
    "_rjem_realloc",
    "_rjem_rallocx",
];

/// A build of cosgate, whose counts are compared with its own alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Build {
    /// Profile `dist`, which is packaged.
    Dist,
    /// Profile `dev` with all features, as the tests have it.
    Tests,
}

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
pub(crate) fn check(site: &Site, build: Build, save: bool) -> io::Result<bool> {
    let mut now = count(site, Proxy::Cosgate)?;
    let kept = fs::read_to_string(KEPT)?;
    let mut kept: BTreeMap<Build, GetAndPut> = toml::from_str(&kept).map_err(io::Error::other)?;
    if save {
        kept.insert(build, now);
        fs::write(KEPT, written(&kept))?;
    }
    let kept = kept.get(&build).ok_or_else(|| {
        io::Error::other("counts.toml has nothing of this build: run this with --save")
    })?;
    for _ in 1..ATTEMPTS {
        if now.growth(kept).iter().all(Growth::is_allowed) {
            break;
        }
        // Work that the clock sets off, such as passing on the log, can only add to what requests need.
        now = now.least(&count(site, Proxy::Cosgate)?);
    }
    let growth = now.growth(kept);
    for one in &growth {
        one.print();
    }
    Ok(growth.iter().all(Growth::is_allowed))
}

impl GetAndPut {
    fn least(&self, other: &Self) -> Self {
        Self {
            get: self.get.least(&other.get),
            put: self.put.least(&other.put),
        }
    }

    fn growth(&self, kept: &Self) -> [Growth; 4] {
        let growth = |name, now, kept| Growth { name, now, kept };
        [
            growth(
                "GET: instructions",
                self.get.instructions,
                kept.get.instructions,
            ),
            growth(
                "GET: allocations",
                self.get.allocations,
                kept.get.allocations,
            ),
            growth(
                "PUT: instructions",
                self.put.instructions,
                kept.put.instructions,
            ),
            growth(
                "PUT: allocations",
                self.put.allocations,
                kept.put.allocations,
            ),
        ]
    }
}

impl Counts {
    fn least(&self, other: &Self) -> Self {
        Self {
            instructions: self.instructions.min(other.instructions),
            allocations: self.allocations.min(other.allocations),
        }
    }
}

/// A count beside the one that is kept.
struct Growth {
    name: &'static str,
    now: f64,
    kept: f64,
}

impl Growth {
    fn ratio(&self) -> f64 {
        self.now / self.kept - 1.0
    }

    fn is_allowed(&self) -> bool {
        self.ratio() <= TOLERANCE
    }

    fn print(&self) {
        let Self { name, now, kept } = self;
        let verdict = if !self.is_allowed() {
            "FAILED: make it cheaper, or say in the commit why it must cost this, and run with --save"
        } else if self.ratio() < -TOLERANCE {
            "cheaper: keep it with --save"
        } else {
            "ok"
        };
        let percent = self.ratio() * 100.0;
        println!("{name:18} {now:>9.2}, kept {kept:>9.2}, {percent:>+6.2} %: {verdict}");
    }
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
        // One connection, so that nothing depends on who is faster.
        requests_of(&running, work, requests, 1)?;
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

/// System calls a request, of a busy proxy.
pub(crate) fn system_calls(running: &Running, work: Work) -> io::Result<f64> {
    let pid = running.pid().as_raw_nonzero().to_string();
    let mut strace = Command::new("strace")
        .args(["-f", "-c", "-p", &pid])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()?;
    let mut printed =
        BufReader::new(strace.stderr.take().ok_or(io::ErrorKind::BrokenPipe)?).lines();
    // It says so when it has every thread.
    for line in printed.by_ref() {
        if line?.contains("attached") {
            break;
        }
    }
    requests_of(running, work, REQUESTS, BUSY)?;
    kill_process(Pid::from_child(&strace), Signal::INT)?;
    let mut total = None;
    for line in printed {
        let line = line?;
        let words: Vec<&str> = line.split_whitespace().collect();
        if let [_, _, _, calls, .., "total"] = words[..] {
            total = calls.parse::<f64>().ok();
        }
    }
    strace.wait()?;
    let total = total.ok_or_else(|| io::Error::other("strace reported no total"))?;
    Ok(total / REQUESTS as f64)
}

fn requests_of(running: &Running, work: Work, requests: u64, connections: usize) -> io::Result<()> {
    let load = Load {
        work,
        connections,
        rate: None,
        until: Until::Requests(requests),
    };
    load::run(running.addr, load).map(drop)
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
        let printed = String::from_utf8_lossy(&done.stderr);
        io::Error::other(format!("callgrind_control: {printed}"))
    })
}

fn written(kept: &BTreeMap<Build, GetAndPut>) -> String {
    let mut text = HEAD.to_owned();
    for (build, counts) in kept {
        let build = match build {
            Build::Dist => "dist",
            Build::Tests => "tests",
        };
        for (work, counts) in [("get", counts.get), ("put", counts.put)] {
            let Counts {
                instructions,
                allocations,
            } = counts;
            let _ = write!(
                text,
                "\n[{build}.{work}]\ninstructions = {instructions:.0}\nallocations = {allocations:.2}\n"
            );
        }
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
        let (mut hashes, mut allocates, mut clocked, mut of_call) = (false, false, false, false);
        let mut of_the_clock = 0;
        for line in profile.lines() {
            if let Some(name) = line.strip_prefix("fn=") {
                let name = uncompressed(&mut names, name);
                hashes = HASHES.iter().any(|hash| name.contains(hash));
            } else if let Some(name) = line.strip_prefix("cfn=") {
                let name = uncompressed(&mut names, name);
                allocates = ALLOCATORS.contains(&name);
                clocked = CLOCKED.iter().any(|clocked| name.contains(clocked));
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
                } else if clocked && of_call {
                    of_the_clock += cost.unwrap_or(0);
                }
                of_call = false;
            }
        }
        totals.instructions = totals.instructions.saturating_sub(of_the_clock);
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
    fn allows_no_more_than_the_tolerance() {
        let growth = |now| Growth {
            name: "",
            now,
            kept: 100.0,
        };
        assert!(growth(103.0 - 1e-9).is_allowed());
        assert!(!growth(103.1).is_allowed());
        assert!(growth(50.0).is_allowed());
    }

    #[test]
    fn reads_self_cost_and_calls_of_allocators_without_the_work_of_the_clock() {
        let profile = "version: 1\nevents: Ir\n\nfl=(1) a.rs\nfn=(1) cosgate::serve\n10 7\n+1 3\ncfn=(2) malloc\n\
            calls=4 20\n11 400\ncfn=(3) sha2::compress\ncalls=2 1\n* 900\n-1 5\n\n\
            fn=(2)\n20 400\n\nfn=(3)\n1 900\n\nfn=(4) other\n1 1\ncfn=(2)\ncalls=1 20\n1 100\n\n\
            fn=(5) core_loop\ncfn=(6) cosgate::LogBuffer::flush\ncalls=9 1\n* 90\nfn=(6)\n2 60\nfn=(7) offer\n3 30\n\ntotals: 1406\n";
        let expected = Totals {
            instructions: 7 + 3 + 5 + 400 + 1,
            allocations: 5,
        };
        assert_eq!(Totals::read(profile), expected);
    }
}
