//! Key names as people and programs make them: photos, office files, backups, data lakes, caches. Pure.
//!
//! A name is a function of the object's id and ends in that id. A listing can therefore be compared with the
//! writes without storing any name.

use serde::{Deserialize, Serialize};

use super::content::mix;

/// The style of key names.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum NameStyle {
    /// Plain names, and names with spaces, other scripts, `+`, `%` and brackets.
    #[default]
    Natural,
    /// Letters, digits, `/` and `-` only.
    Plain,
    /// Names of backup programs such as restic: hashes in 256 folders.
    Backup,
    /// Names of tables in a data lake: `year=2026/month=03/part-….parquet`.
    DataLake,
}

const PEOPLE: [&str; 6] = ["anna", "Jörg Müller", "张三", "maría", "o'brien", "søren"];
const DOCUMENTS: [&str; 8] = [
    "Invoice",
    "合同（终稿）",
    "Q3 report [final]",
    "notes + ideas",
    "100% done",
    "Übersicht",
    "résumé, v2",
    "budget = plan & actual",
];
const PHOTOS: [&str; 4] = ["IMG_", "DSC0", "微信图片_", "WhatsApp Image (2) "];
const PHOTO_TYPES: [&str; 4] = ["JPG", "HEIC", "jpeg", "png"];
const DOCUMENT_TYPES: [&str; 4] = ["pdf", "docx", "xlsx", "txt"];

/// The key of an object, below the prefix of the run.
pub(super) fn name(style: NameStyle, seed: u64, id: u64) -> String {
    let hash = mix(seed ^ mix(id));
    let tail = base36(id);
    let pick = |words: &[&'static str], shift: u32| {
        let index = (hash >> shift) % words.len().max(1) as u64;
        let index = usize::try_from(index).unwrap_or(0);
        words.get(index).copied().unwrap_or_default()
    };
    let (year, month, day) = (
        2020 + (hash >> 8) % 7,
        1 + (hash >> 16) % 12,
        1 + (hash >> 24) % 28,
    );
    match style {
        NameStyle::Plain => format!("{:02x}/object-{tail}", hash & 0xff),
        NameStyle::Backup => format!(
            "data/{:02x}/{hash:016x}{:016x}-{tail}",
            hash & 0xff,
            mix(hash)
        ),
        NameStyle::DataLake => format!(
            "events/year={year}/month={month:02}/day={day:02}/part-{:05}-{tail}.snappy.parquet",
            (hash >> 32) % 100_000
        ),
        NameStyle::Natural => match hash % 6 {
            0 | 1 => format!(
                "photos/{year}/{month:02}/{}{:04}-{tail}.{}",
                pick(&PHOTOS, 32),
                (hash >> 40) % 10_000,
                pick(&PHOTO_TYPES, 34)
            ),
            2 => format!(
                "Users/{}/Documents/{}-{tail}.{}",
                pick(&PEOPLE, 32),
                pick(&DOCUMENTS, 40),
                pick(&DOCUMENT_TYPES, 48)
            ),
            3 => format!(
                "logs/{year}-{month:02}-{day:02}/app.log.{}-{tail}.gz",
                (hash >> 40) % 24
            ),
            4 => format!("data/{:02x}/{hash:016x}-{tail}", hash >> 56),
            _ => format!("web/static/js/main.{:08x}.chunk-{tail}.js.map", hash >> 32),
        },
    }
}

/// The id at the end of a name; `None` without one. The caller must compare the name with [`name`].
pub(super) fn id_of(name: &str) -> Option<u64> {
    let (_, tail) = name.rsplit_once('-')?;
    let digits = tail.split('.').next()?;
    if !(1..=13).contains(&digits.len()) || digits.starts_with('+') {
        return None;
    }
    u64::from_str_radix(digits, 36).ok()
}

fn base36(mut number: u64) -> String {
    let mut digits = Vec::new();
    loop {
        let digit = u32::try_from(number % 36).unwrap_or(0);
        digits.push(char::from_digit(digit, 36).unwrap_or('0'));
        number /= 36;
        if number == 0 {
            return digits.iter().rev().collect();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    const STYLES: [NameStyle; 4] = [
        NameStyle::Natural,
        NameStyle::Plain,
        NameStyle::Backup,
        NameStyle::DataLake,
    ];

    #[test]
    fn names_are_unique_and_contain_their_id() {
        for style in STYLES {
            let ids = (0..2000).chain([u64::MAX, 1 << 48, (3 << 48) + 35]);
            let mut names = HashSet::new();
            for id in ids {
                let name = name(style, 42, id);
                assert_eq!(id_of(&name), Some(id), "{name}");
                assert!(name.len() < 400, "{name}");
                assert!(names.insert(name));
            }
        }
    }

    #[test]
    fn natural_names_contain_difficult_characters() {
        let all: String = (0..500).map(|id| name(NameStyle::Natural, 1, id)).collect();
        for part in [" ", "+", "%", "[", "（", "&", "=", ",", "'", "ü"] {
            assert!(all.contains(part), "{part}");
        }
        let plain: String = (0..500).map(|id| name(NameStyle::Plain, 1, id)).collect();
        assert!(
            plain
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || b == b'/' || b == b'-')
        );
    }

    #[test]
    fn foreign_name_has_no_id() {
        for text in ["", "a", "a-", "a-+1", "a-ü", "a-zzzzzzzzzzzzzz"] {
            assert_eq!(id_of(text), None, "{text}");
        }
    }
}
