//! OTLP: recorded requests in the protobuf messages that a collector takes.

use std::time::Duration;

use opentelemetry_proto::tonic::collector::trace::v1::{
    ExportTraceServiceRequest, ExportTraceServiceResponse,
};
use opentelemetry_proto::tonic::common::v1::{
    AnyValue, InstrumentationScope, KeyValue, any_value::Value,
};
use opentelemetry_proto::tonic::resource::v1::Resource;
use opentelemetry_proto::tonic::trace::v1::span::SpanKind;
use opentelemetry_proto::tonic::trace::v1::status::StatusCode;
use opentelemetry_proto::tonic::trace::v1::{ResourceSpans, ScopeSpans, Span, Status};
use prost::Message as _;

use crate::observe::{RequestTrace, TracePart, TracePartKind, TraceValue};

/// The message with the spans of `traces`.
pub(super) fn request(traces: &[RequestTrace]) -> Vec<u8> {
    let scope = InstrumentationScope {
        name: env!("CARGO_PKG_NAME").to_owned(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        ..InstrumentationScope::default()
    };
    let resource = Resource {
        attributes: vec![
            text("service.name", env!("CARGO_PKG_NAME")),
            text("service.version", env!("CARGO_PKG_VERSION")),
        ],
        ..Resource::default()
    };
    let request = ExportTraceServiceRequest {
        resource_spans: vec![ResourceSpans {
            resource: Some(resource),
            scope_spans: vec![ScopeSpans {
                scope: Some(scope),
                spans: traces.iter().flat_map(spans_of).collect(),
                ..ScopeSpans::default()
            }],
            ..ResourceSpans::default()
        }],
    };
    request.encode_to_vec()
}

/// How many spans a collector that has taken a message says it has refused.
pub(super) fn refused(response: &[u8]) -> u64 {
    let response = ExportTraceServiceResponse::decode(response).unwrap_or_default();
    let refused = response.partial_success.unwrap_or_default().rejected_spans;
    u64::try_from(refused).unwrap_or_default()
}

/// The span of a request, and one for each of its parts.
fn spans_of(trace: &RequestTrace) -> Vec<Span> {
    let mut spans = vec![Span {
        trace_id: trace.context.trace_id.0.to_vec(),
        trace_state: trace.state.as_deref().unwrap_or_default().to_owned(),
        span_id: trace.span.to_vec(),
        parent_span_id: trace.context.parent.map_or_else(Vec::new, Vec::from),
        name: trace.name.to_owned(),
        kind: SpanKind::Server.into(),
        start_time_unix_nano: nanos(trace.began),
        end_time_unix_nano: nanos(trace.began + trace.duration),
        attributes: trace.attributes.iter().map(attribute).collect(),
        status: Some(status(trace.is_error)),
        ..Span::default()
    }];
    spans.extend(trace.parts.iter().map(|part| part_of(trace, part)));
    spans
}

fn part_of(trace: &RequestTrace, part: &TracePart) -> Span {
    let kind = match part.kind {
        TracePartKind::Upstream => SpanKind::Client,
        _ => SpanKind::Internal,
    };
    let responded = part.status.map(|status| {
        let value = TraceValue::Number(status.as_u16().into());
        attribute(&("http.response.status_code", value))
    });
    Span {
        trace_id: trace.context.trace_id.0.to_vec(),
        span_id: part.span.to_vec(),
        parent_span_id: trace.span.to_vec(),
        name: part.kind.as_str().to_owned(),
        kind: kind.into(),
        start_time_unix_nano: nanos(trace.began + part.start),
        end_time_unix_nano: nanos(trace.began + part.end),
        attributes: responded.into_iter().collect(),
        status: Some(status(
            part.status.is_some_and(|status| status.as_u16() >= 400),
        )),
        ..Span::default()
    }
}

fn status(is_error: bool) -> Status {
    let code = if is_error {
        StatusCode::Error
    } else {
        StatusCode::Unset
    };
    Status {
        code: code.into(),
        ..Status::default()
    }
}

fn attribute((name, value): &(&'static str, TraceValue)) -> KeyValue {
    match value {
        TraceValue::Text(value) => text(name, value),
        TraceValue::Number(number) => key_value(name, Value::IntValue(*number)),
    }
}

fn text(name: &str, value: &str) -> KeyValue {
    key_value(name, Value::StringValue(value.to_owned()))
}

fn key_value(name: &str, value: Value) -> KeyValue {
    KeyValue {
        key: name.to_owned(),
        value: Some(AnyValue { value: Some(value) }),
        ..KeyValue::default()
    }
}

fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use opentelemetry_proto::tonic::collector::trace::v1::ExportTracePartialSuccess;

    use super::*;

    #[test]
    fn reads_how_many_spans_were_refused() {
        let some = ExportTraceServiceResponse {
            partial_success: Some(ExportTracePartialSuccess {
                rejected_spans: 3,
                error_message: "too old".to_owned(),
            }),
        };
        assert_eq!(refused(&some.encode_to_vec()), 3);
        assert_eq!(refused(b""), 0);
        assert_eq!(refused(b"\xff\xff\xff"), 0);
    }
}
