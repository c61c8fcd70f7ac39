//! The operations that a load is made of, and their mix by weight.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::quantity::{as_text, weighted};

/// One operation of a client. A multipart upload is one operation of several requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Deserialize, Serialize)]
#[serde(try_from = "String", into = "String")]
pub enum LoadOperation {
    /// `PutObject`
    Put,
    /// `GetObject`
    Get,
    /// `HeadObject`
    Head,
    /// `ListObjectsV2`, one page.
    List,
    /// `GetObject` with a `Range`.
    Range,
    /// `CreateMultipartUpload`, `UploadPart`, `CompleteMultipartUpload`.
    Multipart,
    /// `CopyObject`
    Copy,
    /// `DeleteObject`
    Delete,
    /// `DeleteObjects`
    MultiDelete,
    /// `GetObject` by presigned URL.
    PresignedGet,
    /// `PutObject` by presigned URL.
    PresignedPut,
    /// `POST Object`: a browser's form.
    PostForm,
}

impl LoadOperation {
    /// Every operation, in the order of a report.
    pub const ALL: [Self; 12] = [
        Self::Put,
        Self::Get,
        Self::Head,
        Self::List,
        Self::Range,
        Self::Multipart,
        Self::Copy,
        Self::Delete,
        Self::MultiDelete,
        Self::PresignedGet,
        Self::PresignedPut,
        Self::PostForm,
    ];

    /// The name in a scenario and in reports.
    pub fn name(self) -> &'static str {
        match self {
            Self::Put => "put",
            Self::Get => "get",
            Self::Head => "head",
            Self::List => "list",
            Self::Range => "range",
            Self::Multipart => "multipart",
            Self::Copy => "copy",
            Self::Delete => "delete",
            Self::MultiDelete => "multi-delete",
            Self::PresignedGet => "presigned-get",
            Self::PresignedPut => "presigned-put",
            Self::PostForm => "post-form",
        }
    }

    /// Whether it needs an existing object.
    pub(super) fn needs_object(self) -> bool {
        matches!(
            self,
            Self::Get
                | Self::Head
                | Self::Range
                | Self::Copy
                | Self::Delete
                | Self::MultiDelete
                | Self::PresignedGet
        )
    }

    pub(super) fn index(self) -> usize {
        self as usize
    }
}

impl fmt::Display for LoadOperation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for LoadOperation {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let known = Self::ALL.into_iter().find(|o| o.name() == text);
        known.ok_or_else(|| {
            let names = Self::ALL.map(Self::name).join(", ");
            format!("`{text}` is not an operation; choose from {names}")
        })
    }
}

/// Operations by weight: `put=20,get=60,list=5`.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
#[serde(try_from = "String", into = "String")]
pub struct Mix(Vec<(LoadOperation, f64)>);

impl Mix {
    /// The operation at `point` (0 to 1) of the cumulative weights.
    pub(super) fn at(&self, point: f64) -> LoadOperation {
        let total: f64 = self.0.iter().map(|(_, weight)| weight).sum();
        let mut left = point * total;
        for (operation, weight) in &self.0 {
            left -= weight;
            if left < 0.0 {
                return *operation;
            }
        }
        let last = self.0.iter().rev().find(|(_, weight)| *weight > 0.0);
        last.map_or(LoadOperation::Get, |(operation, _)| *operation)
    }

    /// Whether any of its operations needs an existing object.
    pub(super) fn needs_objects(&self) -> bool {
        let mut all = self.0.iter();
        all.any(|(operation, weight)| operation.needs_object() && *weight > 0.0)
    }
}

impl Default for Mix {
    fn default() -> Self {
        Self(vec![
            (LoadOperation::Put, 20.0),
            (LoadOperation::Get, 50.0),
            (LoadOperation::Head, 10.0),
            (LoadOperation::List, 5.0),
            (LoadOperation::Range, 10.0),
            (LoadOperation::Delete, 5.0),
        ])
    }
}

impl FromStr for Mix {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        weighted(text, '=').map(Self)
    }
}

impl fmt::Display for Mix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, (operation, weight)) in self.0.iter().enumerate() {
            let comma = if index == 0 { "" } else { "," };
            write!(f, "{comma}{operation}={weight}")?;
        }
        Ok(())
    }
}

as_text!(LoadOperation, Mix);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mix_gives_each_operation_its_share() {
        let mix: Mix = "put=1, get=3,list=0".parse().unwrap();
        let drawn: Vec<_> = (0..100).map(|n| mix.at(f64::from(n) / 100.0)).collect();
        let count = |operation| drawn.iter().filter(|o| **o == operation).count();
        assert_eq!(
            (count(LoadOperation::Put), count(LoadOperation::Get)),
            (25, 75)
        );
        assert_eq!(mix.at(1.0), LoadOperation::Get);
    }

    #[test]
    fn writes_a_mix_as_it_reads_it() {
        let text = "put=20,get=60,multi-delete=0.5";
        assert_eq!(text.parse::<Mix>().unwrap().to_string(), text);
        for text in ["", "push=1", "put=-1", "put=x", "put=0"] {
            assert!(text.parse::<Mix>().is_err(), "{text}");
        }
    }

    #[test]
    fn index_is_the_position_in_all() {
        for (index, operation) in LoadOperation::ALL.into_iter().enumerate() {
            assert_eq!(operation.index(), index);
        }
    }
}
