//! The query, parsed once.

use std::borrow::Cow;

/// Decoded pairs in the client's order. A parameter without `=` has an empty value.
#[derive(Clone, Debug, Default)]
pub struct Query<'a>(Vec<(Cow<'a, str>, Cow<'a, str>)>);
