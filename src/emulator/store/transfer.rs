//! Bytes between a connection and a file, in constant memory.
//!
//! Files are read and written on the threads that serve requests. A chunk goes to or from the page cache in
//! microseconds, faster than through a blocking thread.

use std::fs::File;
use std::io::{self, Read as _, Seek as _, SeekFrom, Write as _};
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use crc_fast::CrcAlgorithm;
use http_body::{Body, Frame, SizeHint};
use http_body_util::BodyExt as _;
use md5::{Digest as _, Md5};
use s3s::dto::StreamingBlob;
use s3s::{S3Error, S3ErrorCode, S3Result};
use sha1::Sha1;
use tempfile::NamedTempFile;

use super::{Store, hex};

/// Bytes that are read from a file at a time.
const CHUNK: u64 = 256 * 1024;

/// Content that has arrived completely. It is removed when it is dropped.
#[derive(Debug)]
pub(in crate::emulator) struct Received {
    pub(super) file: NamedTempFile,
    pub(in crate::emulator) size: u64,
    pub(in crate::emulator) md5: [u8; 16],
    pub(in crate::emulator) crc64: u64,
}

/// Hashes the bytes that are written through it to a file.
pub(super) struct HashingWriter {
    file: NamedTempFile,
    size: u64,
    md5: Md5,
    crc64: crc_fast::Digest,
}

impl Received {
    pub(super) fn etag(&self) -> String {
        hex(&self.md5)
    }

    /// SHA-1 of the content, in lower-case hex.
    pub(in crate::emulator) fn sha1(&self) -> io::Result<String> {
        let mut content = self.file.reopen()?;
        let mut sha1 = Sha1::new();
        let mut chunk = vec![0; 64 * 1024];
        loop {
            match content.read(&mut chunk)? {
                0 => return Ok(hex(&sha1.finalize())),
                length => sha1.update(chunk.get(..length).unwrap_or_default()),
            }
        }
    }
}

impl Store {
    /// Receives a whole body, of `declared` bytes if that is known. Nothing is kept of a body that is cut short or
    /// does not match its `x-amz-content-sha256`.
    pub(in crate::emulator) async fn receive(
        &self,
        body: Option<StreamingBlob>,
        declared: Option<i64>,
    ) -> S3Result<Received> {
        let mut intake = self.intake().map_err(S3Error::internal_error)?;
        if let Some(body) = body {
            let mut body = s3s::Body::from(body);
            while let Some(frame) = body.frame().await {
                let frame = frame.map_err(|e| broken_body(&e.to_string()))?;
                if let Some(data) = frame.data_ref() {
                    intake.write_all(data).map_err(S3Error::internal_error)?;
                }
            }
        }
        if declared.is_some_and(|n| u64::try_from(n) != Ok(intake.size)) {
            return Err(S3ErrorCode::IncompleteBody.into());
        }
        Ok(intake.finish())
    }

    /// Receives what comes of a body: its end may be missing.
    pub(in crate::emulator) async fn receive_cut(
        &self,
        body: Option<StreamingBlob>,
    ) -> S3Result<Received> {
        let mut intake = self.intake().map_err(S3Error::internal_error)?;
        let mut body = body.map(s3s::Body::from).unwrap_or_default();
        while let Some(Ok(frame)) = body.frame().await {
            if let Some(data) = frame.data_ref() {
                intake.write_all(data).map_err(S3Error::internal_error)?;
            }
        }
        Ok(intake.finish())
    }

    /// Content that is in memory already.
    pub(in crate::emulator) fn received(&self, content: &[u8]) -> io::Result<Received> {
        let mut intake = self.intake()?;
        intake.write_all(content)?;
        Ok(intake.finish())
    }

    pub(super) fn intake(&self) -> io::Result<HashingWriter> {
        let crc64 = crc_fast::Digest::new(CrcAlgorithm::Crc64Xz);
        Ok(HashingWriter {
            file: self.scratch()?,
            size: 0,
            md5: Md5::new(),
            crc64,
        })
    }

    /// Copies `length` bytes of `source` from `start` on. Blocks.
    pub(in crate::emulator) fn copy(
        &self,
        mut source: File,
        start: u64,
        length: u64,
    ) -> io::Result<Received> {
        let mut intake = self.intake()?;
        source.seek(SeekFrom::Start(start))?;
        io::copy(
            &mut io::BufReader::with_capacity(64 * 1024, source.take(length)),
            &mut intake,
        )?;
        Ok(intake.finish())
    }
}

impl HashingWriter {
    pub(super) fn finish(self) -> Received {
        let (md5, crc64) = (self.md5.finalize().into(), self.crc64.finalize());
        Received {
            file: self.file,
            size: self.size,
            md5,
            crc64,
        }
    }
}

impl io::Write for HashingWriter {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        self.file.write_all(data)?;
        self.md5.update(data);
        self.crc64.update(data);
        self.size += data.len() as u64;
        Ok(data.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// A part of a file as a body.
pub(in crate::emulator) struct FileBody {
    file: File,
    left: u64,
}

impl FileBody {
    /// `length` bytes of `file` from `start` on.
    pub(in crate::emulator) fn new(mut file: File, start: u64, length: u64) -> io::Result<Self> {
        file.seek(SeekFrom::Start(start))?;
        Ok(Self { file, left: length })
    }
}

impl Body for FileBody {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, io::Error>>> {
        if self.left == 0 {
            return Poll::Ready(None);
        }
        let wanted = self.left.min(CHUNK);
        let mut chunk = Vec::with_capacity(usize::try_from(wanted).unwrap_or_default());
        if let Err(error) = (&self.file).take(wanted).read_to_end(&mut chunk) {
            return Poll::Ready(Some(Err(error)));
        }
        if chunk.len() as u64 != wanted {
            return Poll::Ready(Some(Err(io::ErrorKind::UnexpectedEof.into())));
        }
        self.left -= wanted;
        Poll::Ready(Some(Ok(Frame::data(chunk.into()))))
    }

    fn is_end_stream(&self) -> bool {
        self.left == 0
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.left)
    }
}

/// The error for a broken body: `s3s` reports the reason only in the text of its error.
fn broken_body(text: &str) -> S3Error {
    if text.contains("Sha256Mismatch") {
        let message =
            "The provided 'x-amz-content-sha256' header does not match what was computed.";
        let code = S3ErrorCode::Custom("XAmzContentSHA256Mismatch".into());
        let mut error = S3Error::with_message(code, message);
        error.set_status_code(http::StatusCode::BAD_REQUEST);
        return error;
    }
    S3ErrorCode::IncompleteBody.into()
}
