//! Quantities of a scenario, written as text.

use std::str::FromStr;

pub(super) use crate::emulator::quantity::as_text;
pub use crate::emulator::{ByteSize, Share, Span};

/// Reads `NAME=WEIGHT,NAME=WEIGHT`. A missing weight is 1.
pub(super) fn weighted<T: FromStr<Err = String>>(
    text: &str,
    separator: char,
) -> Result<Vec<(T, f64)>, String> {
    let mut parts = Vec::new();
    for part in text.split(',').map(str::trim) {
        let (name, weight) = part.split_once(separator).unwrap_or((part, "1"));
        let weight: f64 = weight
            .trim()
            .parse()
            .ok()
            .filter(|weight: &f64| weight.is_finite() && *weight >= 0.0)
            .ok_or_else(|| format!("`{weight}` is not a weight; write a number such as 20"))?;
        parts.push((name.trim().parse()?, weight));
    }
    if parts.iter().all(|(_, weight)| *weight == 0.0) {
        return Err("all weights are 0; give one of them a positive weight".to_owned());
    }
    Ok(parts)
}
