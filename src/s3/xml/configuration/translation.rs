//! The translation of a document from one side's words into the other's.

use std::borrow::Cow;

use super::Holds::{
    Bucket, BucketResource, Class, Date, Default, Elements, Number, Text, Withheld, Words,
};

use super::{ElementRow, Holds, Vocabulary};
use crate::error::{Code, S3Error};
use crate::s3::query::shown;
use crate::s3::storage_class::{cos_class, s3_class};
use crate::s3::xml::document::{Document, Writer, malformed};
use crate::s3::xml::requests::unknown;

/// Gives the other side's name for a bucket of this name, and region if that is given too. `None` if the
/// client has no such bucket.
pub(super) type BucketNames<'n> = &'n dyn Fn(Option<&str>, &str) -> Option<String>;

/// From whose words into whose.
#[derive(Clone, Copy)]
pub(super) struct Translation<'n> {
    pub(super) from: Vocabulary,
    pub(super) to: Vocabulary,
    /// COS reports it, and no client.
    pub(super) is_response: bool,
    pub(super) buckets: BucketNames<'n>,
}

impl Translation<'_> {
    /// What stands in the current element, which is left.
    pub(super) fn elements(
        self,
        document: &mut Document<'_>,
        writer: &mut Writer,
        rows: &'static [ElementRow],
    ) -> Result<(), S3Error> {
        let mut seen: Vec<&str> = Vec::new();
        while let Some(name) = document.child()? {
            let row = rows.iter().find(|row| row.name(self.from) == name);
            let row = row.ok_or_else(|| unknown(&name))?;
            let name = row.name(self.from);
            if !seen.contains(&name) {
                seen.push(name);
            } else if !row.may_repeat {
                return Err(malformed(&format!("an element has two {name}")));
            }
            self.element(document, writer, row)?;
        }
        let unstated = rows.iter().filter(|row| !row.implied.is_empty());
        for row in unstated.filter(|row| !seen.contains(&row.name(self.from))) {
            match (self.from, self.to) {
                (Vocabulary::Cos, Vocabulary::S3) => writer.element(row.s3, row.implied),
                (Vocabulary::Cos, Vocabulary::Cos) => {}
                (Vocabulary::S3, _) => {
                    return Err(malformed(&format!("an element has no {}", row.s3)));
                }
            }
        }
        let mut needed = rows.iter().filter(|row| row.is_needed);
        match needed.find(|row| !seen.contains(&row.name(self.from))) {
            Some(row) => Err(malformed(&format!(
                "an element has no {}",
                row.name(self.from)
            ))),
            None => Ok(()),
        }
    }

    fn element(
        self,
        document: &mut Document<'_>,
        writer: &mut Writer,
        row: &'static ElementRow,
    ) -> Result<(), S3Error> {
        let name = row.name(self.to);
        match row.holds {
            // All that stands in it has no name there either.
            Elements(rows) if name.is_empty() => self.elements(document, writer, rows),
            Elements(rows) => {
                writer.open_all(name);
                self.elements(document, writer, rows)?;
                writer.close_all(name);
                Ok(())
            }
            holds => {
                let text = document.text()?;
                if matches!(holds, Withheld) && self.is_response {
                    return Ok(());
                }
                if name.is_empty() || matches!(holds, Withheld) {
                    return self.check_default(row, holds, &text);
                }
                let text = self.text(row, holds, &text)?;
                writer.open_all(name);
                writer.text(&text);
                writer.close_all(name);
                Ok(())
            }
        }
    }

    /// Refuses what means something that the other side cannot say.
    fn check_default(self, row: &ElementRow, holds: Holds, text: &str) -> Result<(), S3Error> {
        match holds {
            Default(values) if values.contains(&text.trim()) => Ok(()),
            _ => Err(self.untranslatable(row.name(self.from))),
        }
    }

    /// A text in the words of the other side.
    fn text<'t>(
        self,
        row: &ElementRow,
        holds: Holds,
        text: &'t str,
    ) -> Result<Cow<'t, str>, S3Error> {
        let trimmed = text.trim();
        let fits = |fits: &dyn Fn(u8) -> bool| {
            !trimmed.is_empty() && trimmed.len() <= MAX_VALUE && trimmed.bytes().all(fits)
        };
        let wrong = || {
            malformed(&format!(
                "the value of {} is not valid",
                row.name(self.from)
            ))
        };
        let value = match holds {
            Elements(_) | Text | Withheld => return Ok(Cow::Borrowed(text)),
            Bucket | BucketResource => return self.bucket(row, trimmed).map(Cow::Owned),
            Class => {
                let class = match self.to {
                    Vocabulary::Cos => cos_class(trimmed),
                    Vocabulary::S3 => s3_class(trimmed),
                };
                return class.map(Cow::Borrowed).ok_or_else(|| {
                    let class = format!("StorageClass {}", shown(trimmed));
                    self.untranslatable(&class)
                });
            }
            Words(words) => {
                let word = |whose, (s3, cos): &(&'static str, &'static str)| match whose {
                    Vocabulary::Cos => *cos,
                    Vocabulary::S3 => *s3,
                };
                let mut matches = words.iter().filter(|_| !trimmed.is_empty());
                let pair = matches.find(|pair| word(self.from, pair) == trimmed);
                return match pair.map(|pair| word(self.to, pair)) {
                    Some("") => Err(self.untranslatable(&format!("{} {trimmed}", row.s3))),
                    Some(other) => Ok(Cow::Borrowed(other)),
                    None => Err(wrong()),
                };
            }
            Date => fits(&|byte| byte.is_ascii_alphanumeric() || b"-:.+".contains(&byte)),
            Default(_) => fits(&|byte| byte.is_ascii_graphic()),
            Number => fits(&|byte| byte.is_ascii_digit()),
        };
        if value {
            Ok(Cow::Borrowed(trimmed))
        } else {
            Err(wrong())
        }
    }

    /// The other side's name for the bucket that is `named`.
    fn bucket(self, row: &ElementRow, named: &str) -> Result<String, S3Error> {
        let (region, name) = match row.holds {
            BucketResource => named
                .strip_prefix("qcs::cos:")
                .and_then(|rest| rest.split_once("::"))
                .map_or((None, named), |(region, name)| (Some(region), name)),
            _ => (None, named),
        };
        let other = (self.buckets)(region, name);
        match (row.holds, self.to, other) {
            (Bucket, _, Some(other)) => Ok(other),
            (BucketResource, Vocabulary::S3, Some(other)) => Ok(format!("arn:aws:s3:::{other}")),
            (BucketResource, Vocabulary::Cos, Some(other)) if self.is_response => {
                let region = region.unwrap_or_default();
                Ok(format!("qcs::cos:{region}::{other}"))
            }
            (_, _, None) if !self.is_response => Err(S3Error::new(
                Code::AccessDenied,
                format!(
                    "Name a bucket of yours in {} that is in the same region, and that you may write to as a whole.",
                    row.name(self.from)
                ),
            )),
            _ => Err(self.untranslatable(row.name(self.from))),
        }
    }

    fn untranslatable(self, what: &str) -> S3Error {
        let text = match self.to {
            Vocabulary::Cos => {
                format!("Tencent COS has no counterpart of {what} with this value. Leave it out.")
            }
            Vocabulary::S3 => format!(
                "This bucket has a setting of Tencent COS, {what}, that S3 cannot express. Read it in the COS console."
            ),
        };
        S3Error::new(Code::NotImplemented, text)
    }
}

/// The longest number, date or flag.
const MAX_VALUE: usize = 1024;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::s3::Configuration;
    use crate::s3::xml::configuration::tests::SAME;

    #[test]
    fn what_cos_implies_is_stated_to_s3_and_demanded_of_it() {
        let until = "<RetainUntilDate>2030-01-01T00:00:00.000Z</RetainUntilDate>";
        let without = format!("<Retention>{until}</Retention>");
        let kind = Configuration::Retention;
        let read = kind.for_client(without.as_bytes(), Vocabulary::S3, SAME);
        assert!(read.unwrap().contains("<Mode>COMPLIANCE</Mode>"));
        let read = kind.for_client(without.as_bytes(), Vocabulary::Cos, SAME);
        assert!(!read.unwrap().contains("Mode"));
        let sent = kind.for_cos(without.as_bytes(), Vocabulary::S3, SAME);
        assert_eq!(sent.unwrap_err().code(), Code::MalformedXML);
        assert!(
            kind.for_cos(without.as_bytes(), Vocabulary::Cos, SAME)
                .is_ok()
        );
        for (mode, code) in [
            ("GOVERNANCE", Code::NotImplemented),
            ("", Code::MalformedXML),
            ("compliance", Code::MalformedXML),
        ] {
            let document = format!("<Retention><Mode>{mode}</Mode>{until}</Retention>");
            let sent = kind.for_cos(document.as_bytes(), Vocabulary::S3, SAME);
            assert_eq!(sent.unwrap_err().code(), code, "{mode}");
        }
    }

    #[test]
    fn a_bucket_of_another_is_never_named() {
        let document = "<ReplicationConfiguration><Role>qcs::cam::uin/1:uin/1</Role><Rule><Status>Enabled</Status>\
            <Destination><Bucket>qcs::cos:ap-beijing::copy-1250000000</Bucket></Destination></Rule></ReplicationConfiguration>";
        let read = |words, buckets: BucketNames<'_>| {
            Configuration::Replication.for_client(document.as_bytes(), words, buckets)
        };
        let own: BucketNames<'_> = &|region, name| {
            let is_own = (region, name) == (Some("ap-beijing"), "copy-1250000000");
            is_own.then(|| "copy".to_owned())
        };
        for (words, bucket) in [
            (Vocabulary::S3, "arn:aws:s3:::copy"),
            (Vocabulary::Cos, "qcs::cos:ap-beijing::copy"),
        ] {
            let shown = read(words, own).unwrap();
            assert!(
                shown.contains(&format!("<Bucket>{bucket}</Bucket>")),
                "{shown}"
            );
            assert!(
                !shown.contains("uin") && !shown.contains("1250000000"),
                "{shown}"
            );
            let refused = read(words, &|_, _| None).unwrap_err();
            assert_eq!(refused.code(), Code::NotImplemented);
            assert!(!refused.message().contains("1250000000"), "{refused}");
        }
    }

    #[test]
    fn a_client_of_coss_own_api_reads_and_writes_coss_words() {
        let document = "<CORSConfiguration><CORSRule><AllowedOrigin>*</AllowedOrigin><AllowedMethod>GET</AllowedMethod>\
                        </CORSRule><ResponseVary>true</ResponseVary></CORSConfiguration>";
        let sent = Configuration::Cors.for_cos(document.as_bytes(), Vocabulary::Cos, SAME);
        assert!(sent.unwrap().ends_with(document));
        let read = Configuration::Cors.for_client(document.as_bytes(), Vocabulary::Cos, SAME);
        assert!(read.unwrap().ends_with(document));
        let read = Configuration::Cors.for_client(document.as_bytes(), Vocabulary::S3, SAME);
        assert!(!read.unwrap().contains("ResponseVary"));
        let refused = Configuration::Cors.for_cos(document.as_bytes(), Vocabulary::S3, SAME);
        assert_eq!(refused.unwrap_err().code(), Code::MalformedXML);
    }
}
