//! The table: each cost of cosgate's as a part of what nginx needs for the same, side by side on this machine.

use std::io;
use std::time::Duration;

use super::counts;
use super::load::{self, Load, Until, Work};
use super::peers::{Proxy, Running, Scheme, Site};
use super::usage;

pub(crate) const KIB: u64 = 1 << 10;
pub(crate) const GIB: u64 = 1 << 30;
/// Streams that are held to see what each keeps.
const STREAMS: usize = 1000;
/// After this, all of them have stalled.
const STALLED: Duration = Duration::from_secs(6);
const RATE: u32 = 500;

/// How long and how often.
pub(crate) struct Effort {
    pub(crate) rounds: usize,
    pub(crate) measurement: Duration,
    pub(crate) latency: Duration,
    /// Between the end of the slow readers and the look at what is still held. None: not measured.
    pub(crate) quiet: Option<Duration>,
}

/// A line of the table.
struct Row {
    scheme: Scheme,
    object: u64,
    connections: usize,
    base: Proxy,
}

const ROWS: [Row; 6] = [
    row(Scheme::Plain, KIB, 32, Proxy::Nginx),
    row(Scheme::Tls, KIB, 32, Proxy::Nginx),
    row(Scheme::Plain, 64 * KIB, 16, Proxy::Nginx),
    row(Scheme::Tls, 64 * KIB, 16, Proxy::Nginx),
    row(Scheme::Plain, GIB, 1, Proxy::Nginx128k),
    row(Scheme::Tls, GIB, 1, Proxy::Nginx),
];

const fn row(scheme: Scheme, object: u64, connections: usize, base: Proxy) -> Row {
    Row {
        scheme,
        object,
        connections,
        base,
    }
}

impl Row {
    fn has(&self, running: &Running) -> bool {
        let proxy = running.proxy;
        running.scheme == self.scheme
            && match proxy {
                Proxy::Nginx | Proxy::Nginx128k => proxy == self.base,
                Proxy::NginxNjs => self.object == KIB,
                Proxy::Cosgate | Proxy::Haproxy | Proxy::Envoy => true,
            }
    }

    fn name(&self, method: &str) -> String {
        let scheme = match self.scheme {
            Scheme::Plain => "plain",
            Scheme::Tls => "TLS",
        };
        let size = match self.object {
            GIB => "1 GiB".to_owned(),
            object => format!("{} KiB", object / KIB),
        };
        format!("{size} {method}, {scheme}")
    }
}

/// Measures and prints.
pub(crate) fn run(site: &Site, proxies: &[Proxy], effort: &Effort) -> io::Result<()> {
    let running = start_all(site, proxies);
    cpu_table(&running, effort)?;
    latency(site, &running, effort)?;
    let plain = running.iter().filter(|one| one.scheme == Scheme::Plain);
    system_calls(plain);
    drop(running);
    instructions(site, proxies);
    memory(site, proxies, effort)
}

fn start_all(site: &Site, proxies: &[Proxy]) -> Vec<Running> {
    let mut running = Vec::new();
    for scheme in [Scheme::Plain, Scheme::Tls] {
        for &proxy in proxies {
            let serves = match proxy {
                Proxy::Nginx128k | Proxy::NginxNjs => scheme == Scheme::Plain,
                _ => true,
            };
            if !serves {
                continue;
            }
            match Running::start(site, proxy, scheme) {
                Ok(started) => running.push(started),
                Err(error) => println!("left out: {error}"),
            }
        }
    }
    running
}

/// One cost of one proxy, by round.
type Costs = Vec<(Proxy, Vec<f64>)>;

fn cpu_table(running: &[Running], effort: &Effort) -> io::Result<()> {
    println!("\nCPU time of the proxy, as a part of nginx's; the last column is that of nginx.\n");
    let columns = [
        Proxy::Cosgate,
        Proxy::Haproxy,
        Proxy::Envoy,
        Proxy::NginxNjs,
    ];
    let names: Vec<&str> = columns.iter().map(|proxy| proxy.name()).collect();
    println!("| work | {} | cosgate ÷ Envoy | nginx |", names.join(" | "));
    println!("|---|{}", "---|".repeat(names.len() + 2));
    for row in &ROWS {
        for (method, work) in [
            ("GET", Work::Get(row.object)),
            ("PUT", Work::Put(row.object)),
        ] {
            let costs = costs_of(running, row, work, effort)?;
            let cells = columns.iter().map(|&proxy| ratio(&costs, proxy, row.base));
            let mut cells: Vec<String> = cells.collect();
            cells.push(ratio(&costs, Proxy::Cosgate, Proxy::Envoy));
            cells.push(absolute(&costs, row));
            println!("| {} | {} |", row.name(method), cells.join(" | "));
        }
    }
    Ok(())
}

/// Seconds of CPU time for a request, or for a byte of large objects. Each round begins with another proxy.
fn costs_of(running: &[Running], row: &Row, work: Work, effort: &Effort) -> io::Result<Costs> {
    let mut contenders: Vec<&Running> = running.iter().filter(|one| row.has(one)).collect();
    let mut costs: Costs = contenders
        .iter()
        .map(|one| (one.proxy, Vec::new()))
        .collect();
    for _ in 0..effort.rounds {
        for one in &contenders {
            let load = Load {
                work,
                connections: row.connections,
                rate: None,
                until: Until::Elapsed(effort.measurement),
            };
            let before = usage::cpu_time(one.pid())?;
            let outcome = load::run(one.addr, load)?;
            let used = usage::cpu_time(one.pid())?.saturating_sub(before);
            let units = if row.object == KIB {
                outcome.requests
            } else {
                outcome.bytes
            };
            let cost = used.as_secs_f64() / units.max(1) as f64;
            let of_proxy = costs.iter_mut().find(|(proxy, _)| *proxy == one.proxy);
            if let Some((_, costs)) = of_proxy {
                costs.push(cost);
            }
        }
        if !contenders.is_empty() {
            contenders.rotate_left(1);
        }
    }
    Ok(costs)
}

fn costs_by(costs: &Costs, proxy: Proxy) -> Option<&Vec<f64>> {
    costs
        .iter()
        .find(|(one, _)| *one == proxy)
        .map(|(_, costs)| costs)
}

fn absent() -> String {
    "–".to_owned()
}

/// The median of the ratios within each round.
fn ratio(costs: &Costs, proxy: Proxy, base: Proxy) -> String {
    let both = costs_by(costs, proxy).zip(costs_by(costs, base));
    both.map_or_else(absent, |(costs, base)| {
        let ratios = costs.iter().zip(base).map(|(cost, base)| cost / base);
        format!("{:.2}", median(ratios.collect()))
    })
}

fn absolute(costs: &Costs, row: &Row) -> String {
    costs_by(costs, row.base).map_or_else(absent, |costs| {
        let cost = median(costs.clone());
        if row.object == KIB {
            format!("{:.1} µs a request", cost * 1e6)
        } else {
            format!("{:.3} s a GiB", cost * GIB as f64)
        }
    })
}

fn latency(site: &Site, running: &[Running], effort: &Effort) -> io::Result<()> {
    println!("\nMedian time that the proxy adds to a GET of 1 KiB at {RATE} requests a second.\n");
    println!("| proxy | µs |\n|---|---|");
    let plain = |one: &&Running| one.scheme == Scheme::Plain && one.proxy != Proxy::Nginx128k;
    let contenders: Vec<&Running> = running.iter().filter(plain).collect();
    let mut added = vec![Vec::new(); contenders.len()];
    let load = Load {
        work: Work::Get(KIB),
        connections: 32,
        rate: Some(RATE),
        until: Until::Elapsed(effort.latency),
    };
    for _ in 0..effort.rounds {
        let direct = load::run(site.plain, load)?.median_latency();
        for (one, added) in contenders.iter().zip(&mut added) {
            let through = load::run(one.addr, load)?.median_latency();
            added.push(through.saturating_sub(direct).as_secs_f64() * 1e6);
        }
    }
    for (one, added) in contenders.iter().zip(added) {
        println!("| {} | {:.0} |", one.proxy.name(), median(added));
    }
    Ok(())
}

fn system_calls<'a>(running: impl Iterator<Item = &'a Running>) {
    println!("\nSystem calls for a request of 1 KiB, 32 connections.\n");
    println!("| proxy | GET | PUT |\n|---|---|---|");
    for one in running.filter(|one| one.proxy != Proxy::Nginx128k) {
        let get = counts::system_calls(one, Work::Get(KIB));
        match get.and_then(|get| Ok((get, counts::system_calls(one, Work::Put(KIB))?))) {
            Ok((get, put)) => println!("| {} | {get:.2} | {put:.2} |", one.proxy.name()),
            Err(error) => println!("| {} | {error} | |", one.proxy.name()),
        }
    }
}

/// Of cosgate and nginx alone: Envoy takes minutes under valgrind.
fn instructions(site: &Site, proxies: &[Proxy]) {
    println!("\nUser instructions for a request of 1 KiB without hashing, and allocations.\n");
    println!("| proxy | GET | PUT | allocations, GET | PUT |\n|---|---|---|---|---|");
    for proxy in [Proxy::Cosgate, Proxy::Nginx] {
        if !proxies.contains(&proxy) {
            continue;
        }
        match counts::count(site, proxy) {
            Ok(counts::GetAndPut { get, put }) => println!(
                "| {} | {:.0} | {:.0} | {:.1} | {:.1} |",
                proxy.name(),
                get.instructions,
                put.instructions,
                get.allocations,
                put.allocations
            ),
            Err(error) => println!("| {} | {error} | | | |", proxy.name()),
        }
    }
}

/// A proxy whose streams were held and then let go.
struct Emptied {
    running: Running,
    idle: u64,
    get: f64,
    put: f64,
}

impl Emptied {
    fn new(site: &Site, proxy: Proxy) -> io::Result<Self> {
        let (_, _, put) = Self::hold(site, proxy, Work::StalledPut(GIB))?;
        let (running, idle, get) = Self::hold(site, proxy, Work::StalledGet(GIB))?;
        Ok(Self {
            running,
            idle,
            get,
            put,
        })
    }

    /// A fresh process, what it holds at first, and what each stream adds, in KiB. The streams end here.
    fn hold(site: &Site, proxy: Proxy, work: Work) -> io::Result<(Running, u64, f64)> {
        let running = Running::start(site, proxy, Scheme::Plain)?;
        let idle = usage::resident(running.pid())?;
        let load = Load {
            work,
            connections: STREAMS,
            rate: None,
            until: Until::Elapsed(STALLED),
        };
        let streams = load::run(running.addr, load)?;
        let more = usage::resident(running.pid())?.saturating_sub(idle);
        drop(streams);
        Ok((running, idle, more as f64 / STREAMS as f64))
    }
}

/// Prints what `proxies` hold for streams whose readers have stopped, and after `effort`'s quiet.
pub(crate) fn memory(site: &Site, proxies: &[Proxy], effort: &Effort) -> io::Result<()> {
    println!("\nResident memory, with {STREAMS} streams whose reader has stopped.\n");
    println!("| proxy | idle, MiB | KiB a stream, GET | KiB a stream, PUT | after the GETs, MiB |");
    println!("|---|---|---|---|---|");
    let mut emptied = Vec::new();
    for &proxy in proxies {
        if matches!(proxy, Proxy::Cosgate | Proxy::Nginx | Proxy::Envoy) {
            match Emptied::new(site, proxy) {
                Ok(one) => emptied.push(one),
                Err(error) => println!("| {} | {error} | | | |", proxy.name()),
            }
        }
    }
    if let Some(quiet) = effort.quiet {
        std::thread::sleep(quiet);
    }
    for Emptied {
        running,
        idle,
        get,
        put,
    } in emptied
    {
        let after = match effort.quiet {
            Some(_) => format!("{:.1}", mib(usage::resident(running.pid())?)),
            None => absent(),
        };
        let name = running.proxy.name();
        println!(
            "| {name} | {:.1} | {get:.0} | {put:.0} | {after} |",
            mib(idle)
        );
    }
    Ok(())
}

fn mib(kib: u64) -> f64 {
    kib as f64 / KIB as f64
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}
