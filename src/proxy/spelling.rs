//! The names of a response's headers as COS spells them.
//!
//! Names have no letter case (RFC 9110 section 5.1), but COS's Python SDK, and so coscmd, and the one for Java look
//! them up as they came. hyper writes them in lower case unless it has read another spelling, and its record of
//! that has no maker of its own: so it is given a head to read, once.

use std::cell::RefCell;
use std::convert::Infallible;
use std::pin::pin;
use std::task::{Context, Waker};

use http::Extensions;
use http_body_util::Empty;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;

const SPELT: &[u8] = b"GET / HTTP/1.1\r\nHost: cos\r\n\
    Accept-Ranges: x\r\nCache-Control: x\r\nConnection: close\r\nContent-Disposition: x\r\n\
    Content-Encoding: x\r\nContent-Language: x\r\nContent-Length: 0\r\nContent-Range: x\r\n\
    Content-Type: x\r\nDate: x\r\nETag: x\r\nExpires: x\r\nLast-Modified: x\r\nRetry-After: x\r\n\
    Vary: x\r\n\r\n";

/// What makes hyper write a response's names so, put into its extensions.
pub(crate) fn of_cos() -> Extensions {
    let read = RefCell::new(Extensions::new());
    let service = service_fn(|request: http::Request<_>| {
        read.replace(request.into_parts().0.extensions);
        async { Ok::<_, Infallible>(http::Response::new(Empty::<&[u8]>::new())) }
    });
    let io = TokioIo::new(tokio::io::join(SPELT, tokio::io::sink()));
    let connection = http1::Builder::new()
        .preserve_header_case(true)
        .serve_connection(io, service);
    // All is there already: nothing is waited for.
    let _ = pin!(connection).poll(&mut Context::from_waker(Waker::noop()));
    read.take()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_spelling_is_read() {
        assert!(!of_cos().is_empty());
    }
}
