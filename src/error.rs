//! [`S3Error`]: what went wrong, whose fault it is, and what the client may know about it.

use std::borrow::Cow;
use std::fmt;

use http::{HeaderName, HeaderValue, StatusCode};

/// A request that failed. The client reads [`S3Error::message`]; the log gets [`S3Error::detail`] too.
#[derive(Debug)]
pub struct S3Error(Box<Inner>);

#[derive(Debug)]
struct Inner {
    code: Code,
    message: Cow<'static, str>,
    detail: Option<String>,
    elements: Vec<(&'static str, String)>,
    headers: Vec<(HeaderName, HeaderValue)>,
    fault: Fault,
    status: StatusCode,
    retry_after: Option<u32>,
    close: bool,
    limit: Option<TenantLimit>,
}

/// Which of a tenant's own limits a request exceeds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum TenantLimit {
    /// Requests in flight.
    Concurrency,
    /// The size of an object or part.
    ObjectSize,
    /// Requests a second.
    Rate,
}

/// Whose fault a failure is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The client sent something wrong, or something it may not.
    Client,
    /// cosgate itself failed.
    Proxy,
    /// STS gave no usable key.
    Sts,
    /// COS failed, or could not be reached.
    Upstream,
}

impl S3Error {
    /// An error of the client's making, with the text that the client will read: say what is wrong
    /// and how to fix it.
    pub fn new(code: Code, message: impl Into<Cow<'static, str>>) -> Self {
        Self(Box::new(Inner {
            code,
            message: message.into(),
            detail: None,
            elements: Vec::new(),
            headers: Vec::new(),
            fault: Fault::Client,
            status: code.status(),
            retry_after: None,
            close: false,
            limit: None,
        }))
    }

    /// A state that is a bug in cosgate: `detail` for the log. It is no panic, so that other requests go on.
    pub(crate) fn internal(detail: impl fmt::Display) -> Self {
        Self::new(
            Code::InternalError,
            "We encountered an internal error. Please try again.",
        )
        .fault(Fault::Proxy)
        .detail(detail.to_string())
    }

    /// Adds what only the log may know. Never put a secret in it.
    #[must_use]
    pub fn detail(mut self, detail: impl Into<String>) -> Self {
        self.0.detail = Some(detail.into());
        self
    }

    /// Adds an element that S3's document has for this code.
    #[must_use]
    pub fn element(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.0.elements.push((name, value.into()));
        self
    }

    /// Adds `headers` to the response.
    #[must_use]
    pub(crate) fn headers(mut self, headers: Vec<(HeaderName, HeaderValue)>) -> Self {
        self.0.headers = headers;
        self
    }

    /// Says whose fault it is.
    #[must_use]
    pub fn fault(mut self, fault: Fault) -> Self {
        self.0.fault = fault;
        self
    }

    /// Has another status than the code's own (an upstream's, passed through).
    #[must_use]
    pub fn status(mut self, status: StatusCode) -> Self {
        self.0.status = status;
        self
    }

    /// Has the client come back after `seconds` (`Retry-After`).
    #[must_use]
    pub fn retry_after(mut self, seconds: u32) -> Self {
        self.0.retry_after = Some(seconds);
        self
    }

    /// Closes the client's connection after the response: its framing cannot be trusted any more.
    #[must_use]
    pub fn close(mut self) -> Self {
        self.0.close = true;
        self
    }

    /// Says which of the tenant's own limits the request exceeds.
    #[must_use]
    pub(crate) fn exceeds(mut self, limit: TenantLimit) -> Self {
        self.0.limit = Some(limit);
        self
    }

    /// The S3 error code.
    pub fn code(&self) -> Code {
        self.0.code
    }

    /// The text for the client.
    pub fn message(&self) -> &str {
        &self.0.message
    }

    /// What the document says beside code and message.
    pub fn elements(&self) -> &[(&'static str, String)] {
        &self.0.elements
    }

    /// What the response's head has besides.
    pub(crate) fn own_headers(&self) -> &[(HeaderName, HeaderValue)] {
        &self.0.headers
    }

    /// The text for the log alone.
    pub(crate) fn log_detail(&self) -> Option<&str> {
        self.0.detail.as_deref()
    }

    /// Whose fault it is.
    pub(crate) fn whose_fault(&self) -> Fault {
        self.0.fault
    }

    /// The HTTP status.
    pub fn http_status(&self) -> StatusCode {
        self.0.status
    }

    /// Seconds for `Retry-After`, where coming back later helps.
    pub(crate) fn retry_after_seconds(&self) -> Option<u32> {
        self.0.retry_after
    }

    /// The tenant's own limit that the request exceeds.
    pub(crate) fn exceeded(&self) -> Option<TenantLimit> {
        self.0.limit
    }

    /// Whether the connection must be closed after this response.
    pub fn closes(&self) -> bool {
        self.0.close
    }
}

impl fmt::Display for S3Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.0.code.as_str(), self.0.message)?;
        match &self.0.detail {
            Some(detail) => write!(f, " ({detail})"),
            None => Ok(()),
        }
    }
}

impl std::error::Error for S3Error {}

/// Declares the codes, each with its text and status, so that no list can miss one.
macro_rules! codes {
    ($($(#[$doc:meta])* $name:ident $status:ident,)+) => {
        /// An S3 error code (AWS's names; COS shares most of them).
        #[allow(missing_docs, reason = "the names are the S3 API reference's own")]
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum Code { $($(#[$doc])* $name,)+ }

        impl Code {
            /// Every code.
            pub const ALL: &[Self] = &[$(Self::$name,)+];

            /// The code as it stands in the XML.
            pub fn as_str(self) -> &'static str {
                match self { $(Self::$name => stringify!($name),)+ }
            }

            /// The HTTP status that goes with the code.
            pub fn status(self) -> StatusCode {
                match self { $(Self::$name => StatusCode::$status,)+ }
            }
        }
    };
}

codes! {
    AccessDenied FORBIDDEN,
    /// Of a preflight.
    AccessForbidden FORBIDDEN,
    AuthorizationHeaderMalformed BAD_REQUEST,
    AuthorizationQueryParametersError BAD_REQUEST,
    BadDigest BAD_REQUEST,
    BadGateway BAD_GATEWAY,
    BadRequest BAD_REQUEST,
    BucketAlreadyExists CONFLICT,
    BucketAlreadyOwnedByYou CONFLICT,
    EntityTooLarge BAD_REQUEST,
    EntityTooSmall BAD_REQUEST,
    ExpectationFailed EXPECTATION_FAILED,
    ExpiredToken BAD_REQUEST,
    FileAlreadyExists CONFLICT,
    GatewayTimeout GATEWAY_TIMEOUT,
    IncompleteBody BAD_REQUEST,
    IncorrectNumberOfFilesInPostRequest BAD_REQUEST,
    InternalError INTERNAL_SERVER_ERROR,
    InvalidAccessKeyId FORBIDDEN,
    /// STS's.
    InvalidAction BAD_REQUEST,
    InvalidArgument BAD_REQUEST,
    InvalidBucketName BAD_REQUEST,
    InvalidChunkSizeError BAD_REQUEST,
    InvalidDigest BAD_REQUEST,
    InvalidPart BAD_REQUEST,
    InvalidPartNumber RANGE_NOT_SATISFIABLE,
    InvalidPartOrder BAD_REQUEST,
    InvalidPolicyDocument BAD_REQUEST,
    InvalidRange RANGE_NOT_SATISFIABLE,
    InvalidRequest BAD_REQUEST,
    InvalidTag BAD_REQUEST,
    InvalidToken BAD_REQUEST,
    InvalidURI BAD_REQUEST,
    /// COS's own word for `KeyTooLongError`.
    KeyTooLong BAD_REQUEST,
    KeyTooLongError BAD_REQUEST,
    MalformedPOSTRequest BAD_REQUEST,
    /// STS's.
    MalformedPolicyDocument BAD_REQUEST,
    MalformedTrailerError BAD_REQUEST,
    MalformedXML BAD_REQUEST,
    MaxPostPreDataLengthExceededError BAD_REQUEST,
    MetadataTooLarge BAD_REQUEST,
    MethodNotAllowed METHOD_NOT_ALLOWED,
    /// STS's.
    MissingAuthenticationToken FORBIDDEN,
    MissingContentLength LENGTH_REQUIRED,
    MissingSecurityHeader BAD_REQUEST,
    NoSuchBucket NOT_FOUND,
    NoSuchBucketPolicy NOT_FOUND,
    NoSuchCORSConfiguration NOT_FOUND,
    NoSuchKey NOT_FOUND,
    NoSuchLifecycleConfiguration NOT_FOUND,
    NoSuchObjectLockConfiguration NOT_FOUND,
    NoSuchPublicAccessBlockConfiguration NOT_FOUND,
    NoSuchTagSet NOT_FOUND,
    NoSuchUpload NOT_FOUND,
    NoSuchVersion NOT_FOUND,
    NoSuchWebsiteConfiguration NOT_FOUND,
    NotImplemented NOT_IMPLEMENTED,
    NotModified NOT_MODIFIED,
    ObjectLockConfigurationNotFoundError NOT_FOUND,
    OwnershipControlsNotFoundError NOT_FOUND,
    /// STS's.
    PackedPolicyTooLarge BAD_REQUEST,
    PreconditionFailed PRECONDITION_FAILED,
    ReplicationConfigurationNotFoundError NOT_FOUND,
    RequestTimeTooSkewed FORBIDDEN,
    RequestTimeout BAD_REQUEST,
    ServerSideEncryptionConfigurationNotFoundError NOT_FOUND,
    ServiceUnavailable SERVICE_UNAVAILABLE,
    SignatureDoesNotMatch FORBIDDEN,
    SlowDown SERVICE_UNAVAILABLE,
    XAmzContentSHA256Mismatch BAD_REQUEST,
}
