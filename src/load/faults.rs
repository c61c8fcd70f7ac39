//! The schedule of faults: what STS and COS do wrong, and when. Pure.
//!
//! A window holds what the emulator's fault switch takes today ([`Faults`]); a richer fault language has
//! only this one type to replace.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::quantity::Span;
use crate::emulator::Faults;

/// A fault and when it is in force.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct FaultWindow {
    /// Its name in plots; what it does, without one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// From the start of the load.
    pub from: Span,
    /// Its end; without one it is an event of an instant.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until: Option<Span>,
    /// What goes wrong, as the emulator's `PUT /faults` takes it.
    #[serde(
        default,
        rename = "do",
        skip_serializing_if = "is_nothing",
        serialize_with = "write_changed"
    )]
    pub fault: Faults,
    /// Make COS forget all temporary keys at the start of the window.
    #[serde(default, skip_serializing_if = "is_false")]
    pub revoke_keys: bool,
}

/// The windows of a run, checked.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Schedule(Vec<FaultWindow>);

/// What is to be done at one moment of a run.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Change {
    /// From the start of the load.
    pub(super) at: Duration,
    /// What is in force from now on.
    pub(super) faults: Faults,
    /// Whether all temporary keys are revoked.
    pub(super) revoke_keys: bool,
}

/// Windows of one schedule.
const WINDOWS: usize = 1000;

impl Schedule {
    /// Checks the windows. Two that overlap may not change the same thing.
    pub(super) fn new(mut windows: Vec<FaultWindow>) -> Result<Self, String> {
        if windows.len() > WINDOWS {
            return Err(format!("faults: at most {WINDOWS} windows"));
        }
        windows.sort_by_key(|window| window.from.0);
        for (index, window) in windows.iter().enumerate() {
            let name = window.label();
            if window.until.is_some_and(|until| until.0 <= window.from.0) {
                return Err(format!("fault `{name}`: until must be later than from"));
            }
            let does_something = !is_nothing(&window.fault);
            if !does_something && !window.revoke_keys {
                return Err(format!(
                    "fault `{name}` does nothing; set do or revoke_keys"
                ));
            }
            if does_something && window.until.is_none() {
                return Err(format!("fault `{name}`: set until, or it would never end"));
            }
            let mut earlier = windows.iter().take(index);
            if let Some(other) = earlier.find(|other| {
                other.until.is_some_and(|until| until.0 > window.from.0)
                    && changed(&other.fault)
                        .iter()
                        .any(|key| changed(&window.fault).contains(key))
            }) {
                return Err(format!(
                    "faults `{}` and `{name}` overlap and change the same thing",
                    other.label()
                ));
            }
        }
        Ok(Self(windows))
    }

    /// The windows, by their start.
    pub(super) fn windows(&self) -> &[FaultWindow] {
        &self.0
    }

    /// What to do when, in order.
    pub(super) fn changes(&self) -> Vec<Change> {
        let starts = self.0.iter().map(|window| window.from.0);
        let ends = self.0.iter().filter_map(|window| Some(window.until?.0));
        let mut times: Vec<Duration> = starts.chain(ends).collect();
        times.sort();
        times.dedup();
        let change = |at| Change {
            at,
            faults: self.in_force(at),
            revoke_keys: self
                .0
                .iter()
                .any(|window| window.revoke_keys && window.from.0 == at),
        };
        times.into_iter().map(change).collect()
    }

    fn in_force(&self, at: Duration) -> Faults {
        let mut all = serde_json::Map::new();
        for window in &self.0 {
            if window.from.0 <= at && window.until.is_some_and(|until| at < until.0) {
                all.extend(fields(&window.fault));
            }
        }
        // What was written from the type can be read as the type.
        serde_json::from_value(all.into()).unwrap_or_default()
    }
}

impl FaultWindow {
    /// Its name, or what it does.
    pub(super) fn label(&self) -> String {
        if let Some(name) = &self.name {
            return name.clone();
        }
        let mut parts: Vec<String> = fields(&self.fault)
            .into_iter()
            .map(|(key, value)| format!("{key} {}", value.to_string().replace(['"', '{', '}'], "")))
            .collect();
        if self.revoke_keys {
            parts.push("keys revoked".to_owned());
        }
        parts.join(", ")
    }
}

/// The fields that differ from no fault at all.
fn fields(faults: &Faults) -> serde_json::Map<String, serde_json::Value> {
    let written = |faults: &Faults| match serde_json::to_value(faults) {
        Ok(serde_json::Value::Object(fields)) => fields,
        _ => serde_json::Map::new(),
    };
    let none = written(&Faults::default());
    let all = written(faults).into_iter();
    all.filter(|(key, value)| none.get(key) != Some(value))
        .collect()
}

/// Writes what differs from no fault at all, as a user would.
fn write_changed<S: serde::Serializer>(faults: &Faults, serializer: S) -> Result<S::Ok, S::Error> {
    fields(faults).serialize(serializer)
}

fn changed(faults: &Faults) -> Vec<String> {
    fields(faults).into_iter().map(|(key, _)| key).collect()
}

fn is_nothing(faults: &Faults) -> bool {
    *faults == Faults::default()
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde's form")]
fn is_false(flag: &bool) -> bool {
    !flag
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::emulator::{CosFault, StsFault};

    fn schedule(text: &str) -> Result<Schedule, String> {
        #[derive(Deserialize)]
        struct File {
            faults: Vec<FaultWindow>,
        }
        Schedule::new(toml::from_str::<File>(text).unwrap().faults)
    }

    #[test]
    fn windows_that_overlap_are_in_force_together() {
        let schedule = schedule(
            r#"
[[faults]]
from = "1s"
until = "4s"
do = { cos = "slow-down" }
[[faults]]
from = "2s"
until = "3s"
do = { sts = { error = "InternalError" }, cos_latency_ms = 50 }
[[faults]]
from = "3s"
revoke_keys = true
"#,
        )
        .unwrap();
        let changes = schedule.changes();
        let at: Vec<u64> = changes.iter().map(|change| change.at.as_secs()).collect();
        assert_eq!(at, [1, 2, 3, 4]);
        assert_eq!(changes[0].faults.cos, Some(CosFault::SlowDown));
        assert_eq!(changes[1].faults.cos, Some(CosFault::SlowDown));
        assert_eq!(
            changes[1].faults.sts,
            Some(StsFault::Error("InternalError".into()))
        );
        assert_eq!(changes[1].faults.cos_latency_ms, 50);
        assert!(changes[2].revoke_keys && changes[2].faults.sts.is_none());
        assert_eq!(changes[3].faults, Faults::default());
    }

    #[test]
    fn refuses_windows_that_cannot_be_meant() {
        let window = |rest: &str| schedule(&format!("[[faults]]\nfrom = \"2s\"\n{rest}"));
        assert!(window("until = \"1s\"\ndo = { cos = \"stall\" }").is_err());
        assert!(window("until = \"3s\"").is_err());
        assert!(window("do = { cos = \"stall\" }").is_err());
        let twice = "until = \"4s\"\ndo = { cos = \"stall\" }\n[[faults]]\nfrom = \"3s\"\nuntil = \"5s\"\ndo = { cos = \"reset\" }";
        assert!(window(twice).unwrap_err().contains("overlap"));
        let after = twice.replace("\"3s\"", "\"4s\"");
        assert!(window(&after).is_ok());
    }

    #[test]
    fn a_window_is_read_as_it_was_written() {
        let text =
            "[[faults]]\nfrom = \"0s\"\nuntil = \"1s\"\ndo = { cos = { reset-after-sent = 5 } }\n";
        let window = schedule(text).unwrap().windows()[0].clone();
        let written = serde_json::to_string(&window).unwrap();
        assert_eq!(
            written,
            r#"{"from":"0s","until":"1s","do":{"cos":{"reset-after-sent":5}}}"#
        );
        assert_eq!(
            serde_json::from_str::<FaultWindow>(&written).unwrap(),
            window
        );
    }

    #[test]
    fn a_fault_without_a_name_is_called_by_what_it_does() {
        let schedule =
            schedule("[[faults]]\nfrom = \"0s\"\nuntil = \"1s\"\ndo = { cos_latency_ms = 200 }\n")
                .unwrap();
        assert_eq!(schedule.windows()[0].label(), "cos_latency_ms 200");
    }
}
