//! The choice of an operation for a request.

use http::Method;

use super::reserved::{RESERVED, RESERVED_FAMILIES, Reserved, reserved};
use super::table::{BY_PART, OperationRow, ROWS};
use super::{Local, Operation, Performer, Resource};
use crate::error::{Code, S3Error};
use crate::s3::query::{Query, plain_name, shown};

impl Operation {
    /// Finds the operation by method, address and the exact set of keys in the query; `copies` is
    /// whether there is an `x-amz-copy-source`. Default deny: there is no operation to fall back to.
    pub fn resolve(
        method: &Method,
        scope: Resource,
        query: &Query<'_>,
        copies: bool,
    ) -> Result<Self, S3Error> {
        check_method(method)?;
        check_served(query)?;
        let mut selectors: Vec<&str> = query.asking().filter(|name| is_selector(name)).collect();
        selectors.sort_unstable();
        let operation = select(method, scope, &selectors, copies)?;
        if copies && operation.copy_source_action().is_none() {
            return Err(S3Error::new(
                Code::InvalidArgument,
                format!("x-amz-copy-source does not belong to {}.", operation.name()),
            ));
        }
        for name in query.asking() {
            if !operation.takes(name) {
                check_ignored(method, operation, name, query.get(name))?;
            }
        }
        Ok(operation)
    }

    /// Whether the parameter `name` means something to it.
    fn takes(self, name: &str) -> bool {
        let row = self.row();
        let mut taken = [row.selectors, row.parameters, row.own_parameters]
            .into_iter()
            .flatten();
        taken.any(|taken| *taken == name)
    }
}

/// Whether the parameter `name` chooses among the operations.
pub(super) fn is_selector(name: &str) -> bool {
    let mut all = Operation::ALL
        .iter()
        .flat_map(|operation| operation.row().selectors);
    all.any(|selector| *selector == name)
}

/// Methods are compared by case (RFC 9110 section 9.1): `get` is unknown.
fn check_method(method: &Method) -> Result<(), S3Error> {
    match *method {
        Method::DELETE | Method::GET | Method::HEAD | Method::POST | Method::PUT => Ok(()),
        // What follows them on the connection is not for us to read.
        Method::CONNECT | Method::TRACE => Err(not_allowed().close()),
        _ => Err(not_allowed()),
    }
}

fn check_served(query: &Query<'_>) -> Result<(), S3Error> {
    for name in query.asking() {
        match reserved(name) {
            Some(Reserved::WithoutCounterpart) => {
                return Err(S3Error::new(
                    Code::NotImplemented,
                    format!("Tencent COS has no counterpart of ?{name}."),
                ));
            }
            Some(Reserved::Unserved) => return Err(unserved(name)),
            Some(Reserved::OfCos) => {
                return Err(denied(format!(
                    "cosgate does not support COS's ?{name}. Remove the parameter."
                )));
            }
            Some(Reserved::Misplaced) | None => {}
        }
    }
    Ok(())
}

/// Refuses the parameter `name`, which is none of `operation`'s, unless S3 would not know it either.
///
/// A write with a bare name, or an empty value, has the form of a sub-resource that S3 may have by now:
/// passing over that would store its document as the object, or delete the object instead.
fn check_ignored(
    method: &Method,
    operation: Operation,
    name: &str,
    value: Option<&str>,
) -> Result<(), S3Error> {
    let plain = plain_name(name).to_ascii_lowercase();
    let is_named = |known: &&&str| known.eq_ignore_ascii_case(&plain);
    let of_others = || {
        let rows = Operation::ALL.iter().map(|other| other.row());
        let mut names = rows.flat_map(|row| {
            let names = [row.selectors, row.parameters, row.own_parameters];
            names.into_iter().flatten()
        });
        names.any(|known| is_named(&known))
    };
    let is_reserved = || {
        let mut names = RESERVED.iter().flat_map(|(_, names)| *names);
        let mut families = RESERVED_FAMILIES.iter();
        names.any(|known| is_named(&known)) || families.any(|front| plain.starts_with(front))
    };
    let reads = matches!(*method, Method::GET | Method::HEAD);
    let has_no_meaning = value.is_none_or(str::is_empty);
    if of_others() || is_reserved() {
        return Err(S3Error::new(
            Code::InvalidArgument,
            format!(
                "The query parameter {} does not belong to {}. Remove it.",
                shown(name),
                operation.name()
            ),
        ));
    }
    if !reads && has_no_meaning {
        return Err(S3Error::new(
            Code::InvalidArgument,
            format!(
                "The query parameter {} has no value and may be a sub-resource that cosgate does not know. \
                 Remove it.",
                shown(name)
            ),
        ));
    }
    Ok(())
}

fn select(
    method: &Method,
    scope: Resource,
    selectors: &[&str],
    copies: bool,
) -> Result<Operation, S3Error> {
    // A read of a part is a read.
    let is_part_read = |row: &OperationRow, selectors: &[&str]| {
        row.own_parameters == BY_PART && selectors == BY_PART
    };
    let method_name = method.as_str();
    let fits = |row: &OperationRow| {
        row.scope == scope
            && row.method == method_name
            && (row.selectors == selectors || is_part_read(row, selectors))
    };
    let fitting = || {
        let rows = Operation::ALL.iter().zip(ROWS);
        rows.filter_map(|(operation, row)| fits(row).then_some((*operation, row.is_copy)))
    };
    // A copy has the form of an upload, but for its header.
    let exact = fitting().find(|(_, is_copy)| *is_copy == copies);
    if let Some((operation, _)) = exact.or_else(|| fitting().next()) {
        return Ok(operation);
    }
    Err(match (scope, method.as_str(), selectors) {
        (Resource::Bucket, "DELETE", []) => {
            denied("cosgate does not delete buckets. Ask the operator to do it.")
        }
        (_, _, ["policy"]) => S3Error::new(
            Code::NotImplemented,
            "A bucket policy names accounts, which S3 and Tencent COS do not have in common. Ask the operator \
             to grant the access in cosgate's configuration.",
        ),
        (_, "PUT", ["replication"]) => S3Error::new(
            Code::NotImplemented,
            "A replication names the account that copies, which S3 and Tencent COS do not have in common. Set it \
             up in the COS console.",
        ),
        (_, _, [name]) if is_question(name) => unserved(name),
        (Resource::Object, "PUT", ["partNumber" | "uploadId"]) => S3Error::new(
            Code::InvalidArgument,
            "A part needs both partNumber and uploadId.",
        ),
        (_, _, [_, _, ..]) => S3Error::new(
            Code::InvalidArgument,
            format!(
                "The query mixes what belongs to different operations: {}.",
                selectors.join(", ")
            ),
        ),
        _ => not_allowed(),
    })
}

/// Whether a read of the sub-resource `name` is served here: what else S3 does with it is not offered.
fn is_question(name: &str) -> bool {
    Operation::ALL.iter().any(|operation| {
        let row = operation.row();
        row.selectors == [name]
            && matches!(
                row.performer,
                Performer::CosIfGranted(_)
                    | Performer::Cosgate(Local::Absent(_) | Local::Unset(..))
            )
    })
}

fn not_allowed() -> S3Error {
    S3Error::new(
        Code::MethodNotAllowed,
        "The specified method is not allowed against this resource.",
    )
}

/// What S3 has and cosgate does not offer.
fn unserved(name: &str) -> S3Error {
    S3Error::new(
        Code::NotImplemented,
        format!(
            "cosgate does not support this operation on ?{name}. Remove the parameter, or configure the bucket in the COS console."
        ),
    )
}

fn denied(message: impl Into<std::borrow::Cow<'static, str>>) -> S3Error {
    S3Error::new(Code::AccessDenied, message)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::s3::operation::tests::resolve;

    #[test]
    fn strange_methods_are_not_allowed() {
        for method in ["CONNECT", "TRACE", "PATCH", "get", "Put", "FOO", "PROPFIND"] {
            assert_eq!(
                resolve(method, Resource::Object, "", false),
                Err(Code::MethodNotAllowed),
                "{method}"
            );
        }
        assert_eq!(
            resolve("POST", Resource::Object, "", false),
            Err(Code::MethodNotAllowed)
        );
        assert_eq!(
            resolve("PUT", Resource::Service, "", false),
            Err(Code::MethodNotAllowed)
        );
        assert_eq!(
            resolve("PUT", Resource::Bucket, "versions", false),
            Err(Code::MethodNotAllowed)
        );
        assert_eq!(
            resolve("OPTIONS", Resource::Object, "", false),
            Err(Code::MethodNotAllowed)
        );
    }

    #[test]
    fn rejects_names_of_s3_and_cos_that_an_operation_does_not_take() {
        for query in [
            "imageMogr2/thumbnail/!50p",
            "imagemogr2/thumbnail/!50p",
            "imageMogr2|watermark/1",
            "%69mageView2/1/w/1",
            "%2569mageView2/1/w/1",
            "imageInfo",
            "exif",
            "watermark/2/text/eA",
            "watermark",
            "style/small",
            "pic-operations=%7B%7D",
            "Pic-Operations=%7B%7D",
            "CI-Process=x",
            "ci-host=x",
            "x-cos-process=image",
            "x-ci-x=1",
            "x-image-x=1",
            "saveas=x",
            "prefix[]=a",
            "x-amz-acl=private",
            "X-Amz-Acl=public-read",
            "x-amz-storage-class=GLACIER",
            "x-amz-expected-bucket-owner=acme",
            "response-x=1",
            "max-buckets=1",
            "ACL",
            "Policy=x",
            "%61cl%20",
            "ac%256c",
            "Tagging[]",
            "sign=q",
            "q-AK=x",
        ] {
            assert_eq!(
                resolve("GET", Resource::Object, query, false),
                Err(Code::InvalidArgument),
                "{query}"
            );
            assert_eq!(
                resolve("GET", Resource::Bucket, query, false),
                Err(Code::InvalidArgument),
                "{query}"
            );
        }
    }

    #[test]
    fn ignores_parameters_that_s3_does_not_know() {
        for query in [
            "_=1",
            "utm_source=",
            "utm_source=a&utm_medium=b",
            "Version=2006-03-01",
            "x-user=u",
            "metadata=true",
            "zzz",
            "city=ci",
            "pictures=1",
            "imageless=1",
        ] {
            for (method, operation, value) in [
                ("GET", Operation::GetObject, ""),
                ("HEAD", Operation::HeadObject, ""),
                ("PUT", Operation::PutObject, "1"),
                ("DELETE", Operation::DeleteObject, "1"),
            ] {
                let query = match (value, query.ends_with('='), query.contains('=')) {
                    ("", ..) | (_, false, true) => query.to_owned(),
                    (_, true, _) => format!("{query}1"),
                    (_, false, false) => format!("{query}=1"),
                };
                let found = resolve(method, Resource::Object, &query, false);
                assert_eq!(found, Ok(operation), "{method} {query}");
            }
            assert_eq!(
                resolve(
                    "GET",
                    Resource::Bucket,
                    &format!("list-type=2&{query}"),
                    false
                ),
                Ok(Operation::ListObjectsV2)
            );
        }
    }

    #[test]
    fn rejects_unknown_names_without_a_value_on_writes() {
        for query in ["newThing", "newThing=", "newThing&x=1"] {
            for (method, scope) in [
                ("PUT", Resource::Object),
                ("DELETE", Resource::Object),
                ("POST", Resource::Bucket),
                ("PUT", Resource::Bucket),
            ] {
                let found = resolve(method, scope, query, false);
                assert_eq!(found, Err(Code::InvalidArgument), "{method} {query}");
            }
        }
    }

    #[test]
    fn keys_of_two_operations_are_refused_together() {
        for query in [
            "uploads&versions",
            "list-type=2&versions",
            "uploads&uploadId=u",
            "tagging&uploadId=u",
        ] {
            assert_eq!(
                resolve("GET", Resource::Bucket, query, false),
                Err(Code::InvalidArgument),
                "{query}"
            );
            assert_eq!(
                resolve("GET", Resource::Object, query, false),
                Err(Code::InvalidArgument),
                "{query}"
            );
        }
        assert_eq!(
            resolve("GET", Resource::Bucket, "list-type=2&marker=a", false),
            Err(Code::InvalidArgument)
        );
        assert_eq!(
            resolve("GET", Resource::Bucket, "versions&acl", false),
            Err(Code::InvalidArgument)
        );
        assert_eq!(
            resolve("PUT", Resource::Object, "partNumber=1", false),
            Err(Code::InvalidArgument)
        );
    }

    #[test]
    fn a_copy_source_is_refused_where_nothing_is_copied() {
        for (method, scope, query) in [
            ("GET", Resource::Object, ""),
            ("PUT", Resource::Object, "tagging"),
            ("PUT", Resource::Bucket, ""),
            ("POST", Resource::Object, "uploads"),
        ] {
            assert_eq!(
                resolve(method, scope, query, true),
                Err(Code::InvalidArgument),
                "{method} {query}"
            );
        }
    }

    #[test]
    fn what_sdks_add_for_themselves_changes_nothing() {
        let query = "x-id=GetObject&X-Amz-Date=d&X-Amz-Signature=s&X-Amz-Checksum-Mode=ENABLED&x-amz-checksum-crc32=c";
        assert_eq!(
            resolve("GET", Resource::Object, query, false),
            Ok(Operation::GetObject)
        );
    }
}
