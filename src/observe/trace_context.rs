//! W3C Trace Context: the `traceparent` header of a request.

use std::fmt;

use http::{HeaderMap, HeaderName};

const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");
/// `00-` and three parts in hex, with dashes between.
const LENGTH: usize = 55;
/// The flag that says that the caller records this trace.
const SAMPLED: u8 = 1;

/// The trace that a request is a part of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TraceContext {
    /// The trace.
    pub trace_id: TraceId,
    /// The caller's span; `None`: the trace begins here.
    pub parent: Option<[u8; 8]>,
    /// It is recorded.
    pub is_sampled: bool,
}

/// The id of a trace.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct TraceId(pub [u8; 16]);

impl TraceContext {
    /// A trace that begins here.
    pub(crate) fn begun(is_sampled: bool) -> Self {
        Self {
            trace_id: TraceId(fastrand::u128(1..).to_be_bytes()),
            parent: None,
            is_sampled,
        }
    }

    /// The trace that `headers` name. One that is malformed, or given twice, is none (W3C Trace Context
    /// section 3.2).
    pub fn of(headers: &HeaderMap) -> Option<Self> {
        let mut values = headers.get_all(TRACEPARENT).iter();
        let value = values.next()?;
        if values.next().is_some() {
            return None;
        }
        Self::parse(value.as_bytes())
    }

    /// Reads `00-…-…-01`. A later version may have more behind it.
    fn parse(text: &[u8]) -> Option<Self> {
        let head = text.get(..LENGTH)?;
        let rest = text.get(LENGTH..)?;
        let dashes = [2, 35, 52].map(|at| head.get(at));
        let [version] = hex_at(head, 0)?;
        let is_whole = rest.is_empty() || (version > 0 && rest.starts_with(b"-"));
        if version == 0xff || !is_whole || dashes.iter().any(|dash| *dash != Some(&b'-')) {
            return None;
        }
        let (trace_id, parent): ([u8; 16], [u8; 8]) = (hex_at(head, 3)?, hex_at(head, 36)?);
        let [flags] = hex_at(head, 53)?;
        if trace_id == [0; 16] || parent == [0; 8] {
            return None;
        }
        Some(Self {
            trace_id: TraceId(trace_id),
            parent: Some(parent),
            is_sampled: flags & SAMPLED != 0,
        })
    }
}

/// The bytes that the digits from `start` on stand for. Upper case is not allowed.
fn hex_at<const N: usize>(text: &[u8], start: usize) -> Option<[u8; N]> {
    let digits = text.get(start..start + 2 * N)?;
    let mut bytes = [0; N];
    for (byte, pair) in bytes.iter_mut().zip(digits.chunks_exact(2)) {
        let [high, low] = pair else { return None };
        *byte = digit(*high)? << 4 | digit(*low)?;
    }
    Some(bytes)
}

fn digit(byte: u8) -> Option<u8> {
    match byte {
        b'0'..=b'9' => Some(byte - b'0'),
        b'a'..=b'f' => Some(byte - b'a' + 10),
        _ => None,
    }
}

impl TraceId {
    /// Appends its 32 digits.
    pub(crate) fn push(self, text: &mut String) {
        for byte in self.0 {
            for nibble in [byte >> 4, byte & 15] {
                text.push(char::from_digit(nibble.into(), 16).unwrap_or('0'));
            }
        }
    }
}

impl fmt::Debug for TraceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut text = String::with_capacity(32);
        self.push(&mut text);
        f.write_str(&text)
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
    const SPAN: &str = "00f067aa0ba902b7";

    fn read(value: &str) -> Option<TraceContext> {
        let mut headers = HeaderMap::new();
        headers.insert(TRACEPARENT, HeaderValue::from_str(value).unwrap());
        TraceContext::of(&headers)
    }

    #[test]
    fn reads_traceparent() {
        let context = read(&format!("00-{TRACE}-{SPAN}-01")).unwrap();
        assert_eq!(format!("{:?}", context.trace_id), TRACE);
        assert_eq!(
            context.parent,
            Some([0, 0xf0, 0x67, 0xaa, 0x0b, 0xa9, 0x02, 0xb7])
        );
        assert!(context.is_sampled);
        assert!(!read(&format!("00-{TRACE}-{SPAN}-00")).unwrap().is_sampled);
        assert!(!read(&format!("00-{TRACE}-{SPAN}-fe")).unwrap().is_sampled);
        assert!(read(&format!("cc-{TRACE}-{SPAN}-01-more")).is_some());
    }

    #[test]
    fn ignores_malformed_traceparent() {
        let upper = TRACE.to_uppercase();
        for value in [
            String::new(),
            "00".to_owned(),
            format!("00-{TRACE}-{SPAN}"),
            format!("00-{TRACE}-{SPAN}-1"),
            format!("00-{TRACE}-{SPAN}-01-more"),
            format!("cc-{TRACE}-{SPAN}-01more"),
            format!("ff-{TRACE}-{SPAN}-01"),
            format!("00-{upper}-{SPAN}-01"),
            format!("00-{}-{SPAN}-01", "0".repeat(32)),
            format!("00-{TRACE}-{}-01", "0".repeat(16)),
            format!("00_{TRACE}-{SPAN}-01"),
            format!("00-{TRACE}-{SPAN}-0g"),
            format!("00-{}中-{SPAN}-01", &TRACE[3..]),
        ] {
            let value = HeaderValue::from_bytes(value.as_bytes()).unwrap();
            let headers = HeaderMap::from_iter([(TRACEPARENT, value.clone())]);
            assert_eq!(TraceContext::of(&headers), None, "{value:?}");
        }
        let mut twice = HeaderMap::new();
        let value = HeaderValue::from_str(&format!("00-{TRACE}-{SPAN}-01")).unwrap();
        twice.append(TRACEPARENT, value.clone());
        twice.append(TRACEPARENT, value);
        assert_eq!(TraceContext::of(&twice), None);
    }
}
