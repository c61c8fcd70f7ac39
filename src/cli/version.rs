//! The text of `cosgate --version`: the version, the commit that it is built from, and the optional parts in it.

use std::sync::LazyLock;

use cosgate::observe::{COMMIT, FEATURES};

pub(super) fn long_version() -> &'static str {
    static TEXT: LazyLock<String> = LazyLock::new(|| {
        let features = match FEATURES {
            [] => "none".to_owned(),
            features => features.join(", "),
        };
        format!(
            "{}\ncommit: {COMMIT}\nfeatures: {features}",
            env!("CARGO_PKG_VERSION")
        )
    });
    &TEXT
}
