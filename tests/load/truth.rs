//! The report finds every kind of damage, and isolation probes find a hole.

use cosgate::load::Report;

use crate::store::{Damage, Store};
use crate::support::World;
use crate::{assert_passed, one_tenant, run, two_tenants};

fn swept(damage: Damage, more: &str) -> (Report, Store) {
    let store = Store::new(damage);
    store.put("another/key");
    let text = format!("sizes = \"100\"\nrequests = 300\nconcurrency = 4\nthreads = 2\n{more}");
    (run(&one_tenant(store.addr, &text)), store)
}

#[test]
fn good_store_passes_and_keeps_foreign_objects() {
    let (report, store) = swept(
        Damage::default(),
        "mix = \"put=10,get=5,range=3,head=2,delete=4,copy=0\"",
    );
    assert_passed(&report);
    assert_eq!(store.keys(), ["another/key"]);
}

#[test]
fn finds_lost_objects() {
    let damage = Damage {
        lose: Some(50),
        ..Damage::default()
    };
    let (report, _) = swept(damage, "mix = \"put=1\"");
    assert_eq!(report.truth.lost, 6, "{:?}", report.truth);
    assert_eq!(report.failures, ["6 lost objects"]);
    assert_eq!((report.truth.corrupted, report.truth.phantom), (0, 0));
}

#[test]
fn read_of_a_lost_object_is_a_wrong_read() {
    let damage = Damage {
        lose: Some(2),
        ..Damage::default()
    };
    let (report, _) = swept(damage, "mix = \"get=1\"\nobjects = 20");
    assert!(report.truth.bad_reads > 50, "{:?}", report.truth);
    assert_eq!(report.truth.lost, 10, "{:?}", report.truth);
}

#[test]
fn finds_flipped_bytes_in_sweep_and_reads() {
    let damage = Damage {
        flip: Some(50),
        ..Damage::default()
    };
    let (report, _) = swept(damage.clone(), "mix = \"put=1\"");
    assert_eq!(report.truth.corrupted, 6, "{:?}", report.truth);
    let (report, _) = swept(damage, "mix = \"put=1\"\nsweep = \"list\"");
    assert_eq!(report.truth.corrupted, 0); // names and sizes are right
    let damage = Damage {
        flip_reads: Some(20),
        ..Damage::default()
    };
    let (report, _) = swept(
        damage.clone(),
        "mix = \"get=1\"\nobjects = 20\nsweep = \"none\"",
    );
    assert!(
        (14..=16).contains(&report.truth.bad_reads),
        "{:?}",
        report.truth
    );
    assert_eq!(report.failures.len(), 1);
    let (report, _) = swept(
        damage,
        "mix = \"get=1\"\nobjects = 20\nsweep = \"none\"\nno_verify = true",
    );
    assert_passed(&report);
}

#[test]
fn finds_phantoms() {
    let damage = Damage {
        phantom: Some(100),
        ..Damage::default()
    };
    let (report, _) = swept(damage, "mix = \"put=1\"");
    assert_eq!(report.truth.phantom, 3, "{:?}", report.truth);
    let damage = Damage {
        undelete: Some(10),
        ..Damage::default()
    };
    let (report, _) = swept(damage, "mix = \"delete=1,put=1\"\nkeep = true");
    assert!(report.truth.phantom >= 5, "{:?}", report.truth);
}

#[test]
fn finds_unlisted_objects() {
    let damage = Damage {
        hide: Some(10),
        ..Damage::default()
    };
    let (report, _) = swept(damage, "mix = \"put=1\"\nkeep = true");
    assert!(report.truth.unlisted >= 20, "{:?}", report.truth);
    assert_eq!(report.truth.lost, 0);
}

#[test]
fn failed_requests_are_uncertain_and_no_damage() {
    let damage = Damage {
        doubt: Some(10),
        ..Damage::default()
    };
    let (report, store) = swept(damage, "mix = \"put=10,get=5\"\noverwrite = \"50%\"");
    assert!(
        report.sides[0].all.errors >= 15,
        "{}",
        report.sides[0].all.errors
    );
    assert!(report.truth.uncertain >= 15, "{:?}", report.truth);
    assert_passed(&report);
    assert_eq!(store.keys(), ["another/key"]); // the uncertain object is removed too
}

#[test]
fn proxy_refuses_isolation_probes() {
    let world = World::new();
    let text = "requests = 400\nprobe_isolation = \"40%\"\nmix = \"put=1,get=1\"";
    let report = run(&two_tenants(world.gateway.addr, text));
    assert_passed(&report);
    let isolation = &report.isolation;
    assert!(
        isolation.probes > 100 && isolation.refused == isolation.probes,
        "{isolation:?}"
    );
}

#[test]
fn isolation_probes_find_a_hole() {
    let store = Store::new(Damage::default());
    let text = two_tenants(
        store.addr,
        "requests = 200\nprobe_isolation = \"20%\"\nmix = \"put=1\"\nobjects = 40",
    );
    let report = run(&text.replace("\"photos\"", "\"b\""));
    assert!(report.isolation.holes > 10, "{:?}", report.isolation);
    assert!(
        report
            .failures
            .iter()
            .any(|failure| failure.contains("isolation probes succeeded"))
    );
}
