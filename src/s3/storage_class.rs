//! The storage classes of S3 and those of COS (436/33417).

/// COS's class for one of S3's, or of its own; `None` where COS has no counterpart.
pub(crate) fn cos_class(class: &str) -> Option<&'static str> {
    Some(match class {
        "ARCHIVE" | "GLACIER" => "ARCHIVE",
        "DEEP_ARCHIVE" => "DEEP_ARCHIVE",
        "INTELLIGENT_TIERING" => "INTELLIGENT_TIERING",
        "MAZ_INTELLIGENT_TIERING" => "MAZ_INTELLIGENT_TIERING",
        "MAZ_STANDARD" => "MAZ_STANDARD",
        "MAZ_STANDARD_IA" => "MAZ_STANDARD_IA",
        "ONEZONE_IA" | "STANDARD_IA" => "STANDARD_IA",
        "REDUCED_REDUNDANCY" | "STANDARD" => "STANDARD",
        _ => return None,
    })
}

/// S3's class for one of COS's; those of several zones keep their names, which S3 does not have.
pub(crate) fn s3_class(class: &str) -> Option<&'static str> {
    match cos_class(class)? {
        "ARCHIVE" => Some("GLACIER"),
        other => Some(other),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_class_of_s3_comes_back_under_its_name() {
        for class in [
            "DEEP_ARCHIVE",
            "GLACIER",
            "INTELLIGENT_TIERING",
            "STANDARD",
            "STANDARD_IA",
        ] {
            let there = cos_class(class).unwrap();
            assert_eq!(s3_class(there), Some(class));
        }
        assert_eq!(cos_class("GLACIER"), Some("ARCHIVE"));
        for class in ["", "GLACIER_IR", "glacier", "OUTPOSTS"] {
            assert_eq!((cos_class(class), s3_class(class)), (None, None), "{class}");
        }
    }
}
