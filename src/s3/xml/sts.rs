//! The responses of an STS, as AWS SDKs read them.

use super::document::Writer;
use crate::error::S3Error;
use crate::s3::sts::{StsRequest, sts_code};

const NAMESPACE: &str = "https://sts.amazonaws.com/doc/2011-06-15/";

/// Session keys, as a response has them.
#[derive(Clone, Copy, Debug)]
pub(crate) struct StsResponseBody<'a> {
    /// `AccessKeyId`
    pub key_id: &'a str,
    /// `SecretAccessKey`
    pub secret: &'a str,
    /// `SessionToken`
    pub token: &'a str,
    /// `Expiration`, ISO 8601.
    pub expires: &'a str,
    /// `SubjectFromWebIdentityToken`
    pub subject: Option<&'a str>,
}

/// The document of `body` to `requested`.
pub(crate) fn sts_response(
    requested: &StsRequest,
    body: &StsResponseBody<'_>,
    request_id: &str,
) -> String {
    let action = requested.action_name();
    let (response, result) = (format!("{action}Response"), format!("{action}Result"));
    let mut writer = Writer::in_namespace(&response, NAMESPACE);
    writer.open(&result);
    writer.element_if("SubjectFromWebIdentityToken", body.subject);
    if let Some(role) = requested.role() {
        writer.open("AssumedRoleUser");
        writer.element("Arn", &format!("{}/{}", role.arn, role.session));
        let id = format!("{}:{}", body.key_id, role.session);
        writer.element("AssumedRoleId", &id);
        writer.close("AssumedRoleUser");
    }
    writer.open("Credentials");
    writer.element("AccessKeyId", body.key_id);
    writer.element("SecretAccessKey", body.secret);
    writer.element("SessionToken", body.token);
    writer.element("Expiration", body.expires);
    writer.close("Credentials");
    writer.close(&result);
    writer.open("ResponseMetadata");
    writer.element("RequestId", request_id);
    writer.close("ResponseMetadata");
    writer.finish(&response)
}

/// Who calls, as a response has it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct CallerIdentity<'a> {
    /// `Account`: the owner id of the caller's buckets.
    pub account: &'a str,
    /// `Arn`
    pub arn: &'a str,
    /// `UserId`
    pub user: &'a str,
}

/// The document of who calls.
pub(crate) fn caller_identity(caller: &CallerIdentity<'_>, request_id: &str) -> String {
    let mut writer = Writer::in_namespace("GetCallerIdentityResponse", NAMESPACE);
    writer.open("GetCallerIdentityResult");
    writer.element("Arn", caller.arn);
    writer.element("UserId", caller.user);
    writer.element("Account", caller.account);
    writer.close("GetCallerIdentityResult");
    writer.open("ResponseMetadata");
    writer.element("RequestId", request_id);
    writer.close("ResponseMetadata");
    writer.finish("GetCallerIdentityResponse")
}

/// The document of an error.
pub fn sts_error(error: &S3Error, request_id: &str) -> String {
    let (code, status) = sts_code(error);
    let mut writer = Writer::in_namespace("ErrorResponse", NAMESPACE);
    writer.open("Error");
    let kind = if status.is_server_error() {
        "Receiver"
    } else {
        "Sender"
    };
    writer.element("Type", kind);
    writer.element("Code", code);
    writer.element("Message", error.message());
    writer.close("Error");
    writer.element("RequestId", request_id);
    writer.finish("ErrorResponse")
}
