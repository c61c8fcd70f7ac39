//! [`Form`]: the fields before the file.

use super::MAX_FORM_BYTES;
use super::malformed;
use crate::error::{Code, S3Error};
use crate::s3::headers::must_be_signed;
use crate::s3::query::shown;

/// Stands for the file's name, in every field but those that the signature is made of.
const FILENAME: &str = "${filename}";
/// The fields of a signature, of both versions. None of them means anything but that.
const OF_SIGNATURE: [&str; 8] = [
    "awsaccesskeyid",
    "policy",
    "signature",
    "x-amz-algorithm",
    "x-amz-credential",
    "x-amz-date",
    "x-amz-security-token",
    "x-amz-signature",
];
/// Fields that S3 names and that are no headers of a PUT.
const OF_FORM: [&str; 7] = [
    "acl",
    "bucket",
    "key",
    "redirect",
    "success_action_redirect",
    "success_action_status",
    "tagging",
];
/// Fields that are headers of a PUT, those with a prefix aside.
const HEADERS: [&str; 11] = [
    "cache-control",
    "content-disposition",
    "content-encoding",
    "content-language",
    "content-md5",
    "content-type",
    "expires",
    "if-match",
    "if-modified-since",
    "if-none-match",
    "if-unmodified-since",
];
/// Headers that say how a request's own body is framed or what it copies: a form's file is a part.
const NEVER: [&str; 4] = [
    "x-amz-content-sha256",
    "x-amz-decoded-content-length",
    "x-amz-te",
    "x-amz-trailer",
];
const IGNORED: &str = "x-ignore-";

/// The fields of a form, each once, and where its file begins.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Form {
    fields: Vec<(String, String)>,
    file_at: u64,
}

impl Form {
    /// Makes the form of `fields` (lower-case names) whose file is called `filename` and begins at
    /// the byte `file_at` of the body.
    pub(super) fn new(
        mut fields: Vec<(String, String)>,
        filename: &str,
        file_at: u64,
    ) -> Result<Self, S3Error> {
        // Some browsers have sent the path on their user's disk.
        let filename = filename.rsplit(['/', '\\']).next().unwrap_or_default();
        let mut total = 0;
        for (name, value) in &mut fields {
            if !OF_SIGNATURE.contains(&name.as_str()) {
                let times = value.matches(FILENAME).count();
                total += value.len() + times * filename.len();
                if total > MAX_FORM_BYTES {
                    return Err(malformed(
                        "its fields are too large with the file's name in them",
                    ));
                }
                *value = value.replace(FILENAME, filename);
            }
        }
        Ok(Self { fields, file_at })
    }

    /// The value of the field `name` (lower case).
    pub fn get(&self, name: &str) -> Option<&str> {
        let mut fields = self.fields.iter();
        fields
            .find(|(known, _)| known == name)
            .map(|(_, value)| value.as_str())
    }

    /// The value of a field that there must be.
    pub fn need(&self, name: &str) -> Result<&str, S3Error> {
        self.get(name).ok_or_else(|| {
            S3Error::new(
                Code::InvalidArgument,
                format!(
                    "Bucket POST must contain a field named '{name}'. If it is specified, please \
                     check the order of the fields: file is the last."
                ),
            )
        })
    }

    /// All fields, in the form's order.
    pub fn fields(&self) -> impl Iterator<Item = (&str, &str)> {
        let fields = self.fields.iter();
        fields.map(|(name, value)| (name.as_str(), value.as_str()))
    }

    /// How many bytes of the body come before the file.
    pub fn file_at(&self) -> u64 {
        self.file_at
    }

    /// Whether the form has any field of a signature, and so must be signed well.
    pub fn is_signed(&self) -> bool {
        self.fields().any(|(name, _)| OF_SIGNATURE.contains(&name))
    }

    /// Refuses a field that means nothing here. A policy may cover such fields; without one nobody
    /// vouches for them.
    pub(crate) fn check_all_known(&self) -> Result<(), S3Error> {
        let unknown = self
            .fields()
            .find(|(name, _)| !OF_FORM.contains(name) && !is_ignored(name) && !is_header(name));
        match unknown {
            None => Ok(()),
            Some((name, _)) => Err(S3Error::new(
                Code::InvalidArgument,
                format!(
                    "The form has the unknown field {}. Remove it, or begin its name with {IGNORED} if the \
                     store need not see it.",
                    shown(name)
                ),
            )),
        }
    }
}

/// Whether the field (lower case) is there for others than S3.
pub(super) fn is_ignored(name: &str) -> bool {
    name.starts_with(IGNORED)
}

/// Whether the field (lower case) is a header of the PUT that the form stands for.
pub(super) fn is_header(name: &str) -> bool {
    HEADERS.contains(&name) || (must_be_signed(name) && !OF_SIGNATURE.contains(&name))
}

/// Whether the field (lower case) is a header that no form can have.
pub(super) fn is_never(name: &str) -> bool {
    NEVER.contains(&name) || name.starts_with("x-amz-copy-source")
}
