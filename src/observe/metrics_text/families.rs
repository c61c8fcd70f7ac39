//! The metrics that are one number, or a few with a label.

use crate::observe::metrics::Event;

/// A metric made of events: one sample for each pair of labels and event.
pub(super) struct Family {
    pub(super) name: &'static str,
    pub(super) help: &'static str,
    pub(super) samples: &'static [(&'static str, Event)],
}

pub(super) const FAMILIES: [Family; 26] = [
    Family {
        name: "cosgate_requests_started_total",
        help: "Requests whose head has come.",
        samples: &[("", Event::RequestStarted)],
    },
    Family {
        name: "cosgate_received_bytes_total",
        help: "Bytes of bodies received from clients.",
        samples: &[("", Event::BytesReceived)],
    },
    Family {
        name: "cosgate_sent_bytes_total",
        help: "Bytes of bodies sent to clients.",
        samples: &[("", Event::BytesSent)],
    },
    Family {
        name: "cosgate_connections_accepted_total",
        help: "Connections accepted from clients.",
        samples: &[("", Event::ConnectionOpened)],
    },
    Family {
        name: "cosgate_connections_closed_total",
        help: "Connections of clients that ended.",
        samples: &[("", Event::ConnectionClosed)],
    },
    Family {
        name: "cosgate_connections_refused_total",
        help: "Connections closed at once because their address or network had too many, by reason.",
        samples: &[
            ("{reason=\"address\"}", Event::ConnectionRefusedAddress),
            ("{reason=\"network\"}", Event::ConnectionRefusedNetwork),
        ],
    },
    Family {
        name: "cosgate_accept_pauses_total",
        help: "Times that cosgate accepted no connections for a while, by reason.",
        samples: &[
            ("{reason=\"connections\"}", Event::AcceptPausedConnections),
            ("{reason=\"descriptors\"}", Event::AcceptPausedDescriptors),
        ],
    },
    Family {
        name: "cosgate_proxy_headers_refused_total",
        help: "Connections of trusted proxies that did not begin with a header of the PROXY protocol, by reason.",
        samples: &[
            ("{reason=\"address\"}", Event::ProxyHeaderAddress),
            ("{reason=\"checksum\"}", Event::ProxyHeaderChecksum),
            ("{reason=\"closed\"}", Event::ProxyHeaderClosed),
            ("{reason=\"command\"}", Event::ProxyHeaderCommand),
            ("{reason=\"failed\"}", Event::ProxyHeaderFailed),
            ("{reason=\"malformed\"}", Event::ProxyHeaderMalformed),
            ("{reason=\"missing\"}", Event::ProxyHeaderMissing),
            ("{reason=\"timeout\"}", Event::ProxyHeaderTimeout),
            ("{reason=\"too_long\"}", Event::ProxyHeaderTooLong),
        ],
    },
    Family {
        name: "cosgate_heads_refused_total",
        help: "Request heads that were refused before they were requests, by reason.",
        samples: &[
            ("{reason=\"fragment\"}", Event::HeadFragment),
            ("{reason=\"framing\"}", Event::HeadFraming),
            ("{reason=\"http2\"}", Event::HeadOfHttp2),
            ("{reason=\"malformed\"}", Event::HeadMalformed),
            ("{reason=\"silent\"}", Event::HeadSilent),
            ("{reason=\"target_too_long\"}", Event::HeadTargetTooLong),
            ("{reason=\"timeout\"}", Event::HeadTimeout),
            ("{reason=\"too_large\"}", Event::HeadTooLarge),
        ],
    },
    Family {
        name: "cosgate_http2_failures_total",
        help: "HTTP/2 connections that cosgate ended because of what their client did, by reason.",
        samples: &[
            ("{reason=\"flood\"}", Event::Http2Flood),
            ("{reason=\"ping_timeout\"}", Event::Http2PingTimeout),
            ("{reason=\"protocol\"}", Event::Http2Protocol),
        ],
    },
    Family {
        name: "cosgate_heads_unexpectedly_refused_total",
        help: "Connections closed because the HTTP library refused a request head that cosgate had accepted. Always 0 unless there is a defect: report it.",
        samples: &[("", Event::HeadUnexpectedlyRefused)],
    },
    Family {
        name: "cosgate_tls_handshake_failures_total",
        help: "TLS handshakes of clients that failed, by reason.",
        samples: &[
            (
                "{reason=\"certificate_expired\"}",
                Event::TlsCertificateExpired,
            ),
            (
                "{reason=\"certificate_invalid\"}",
                Event::TlsCertificateInvalid,
            ),
            (
                "{reason=\"certificate_missing\"}",
                Event::TlsCertificateMissing,
            ),
            (
                "{reason=\"certificate_not_yet_valid\"}",
                Event::TlsCertificateNotYetValid,
            ),
            (
                "{reason=\"certificate_revoked\"}",
                Event::TlsCertificateRevoked,
            ),
            (
                "{reason=\"certificate_unknown_authority\"}",
                Event::TlsCertificateUnknownAuthority,
            ),
            ("{reason=\"client_alert\"}", Event::TlsClientAlert),
            ("{reason=\"closed\"}", Event::TlsClosed),
            ("{reason=\"crl_unusable\"}", Event::TlsCrlUnusable),
            ("{reason=\"incompatible\"}", Event::TlsIncompatible),
            ("{reason=\"not_tls\"}", Event::TlsNotTls),
            ("{reason=\"other\"}", Event::TlsOther),
            ("{reason=\"timeout\"}", Event::TlsTimeout),
        ],
    },
    Family {
        name: "cosgate_upstream_calls_total",
        help: "Requests sent to COS, by outcome.",
        samples: &[
            ("{outcome=\"broken\"}", Event::UpstreamBroken),
            ("{outcome=\"client_error\"}", Event::UpstreamClientError),
            ("{outcome=\"connect_failed\"}", Event::UpstreamConnectFailed),
            ("{outcome=\"ok\"}", Event::UpstreamOk),
            ("{outcome=\"server_error\"}", Event::UpstreamServerError),
            ("{outcome=\"timeout\"}", Event::UpstreamTimeout),
        ],
    },
    Family {
        name: "cosgate_upstream_connections_total",
        help: "Connections to COS used for a request, by state: opened for it, or reused.",
        samples: &[
            ("{state=\"opened\"}", Event::UpstreamOpened),
            ("{state=\"reused\"}", Event::UpstreamReused),
        ],
    },
    Family {
        name: "cosgate_upstream_connections_closed_total",
        help: "Connections to COS that ended.",
        samples: &[("", Event::UpstreamClosed)],
    },
    Family {
        name: "cosgate_upstream_retries_total",
        help: "Requests sent to COS again.",
        samples: &[("", Event::Retry)],
    },
    Family {
        name: "cosgate_credential_cache_total",
        help: "Requests that found a live temporary key (hit) or waited for one (miss).",
        samples: &[
            ("{result=\"hit\"}", Event::CacheHit),
            ("{result=\"miss\"}", Event::CacheMiss),
        ],
    },
    Family {
        name: "cosgate_answers_out_of_scope_total",
        help: "Responses of COS that named something outside the caller's grants, and were cut off.",
        samples: &[("", Event::ResponseOutOfScope)],
    },
    Family {
        name: "cosgate_answers_unusable_total",
        help: "Responses of COS that could not be read or not be passed on whole, or that reported a success without what belongs to one.",
        samples: &[("", Event::ResponseUnusable)],
    },
    Family {
        name: "cosgate_bodies_damaged_total",
        help: "Requests that COS refused because their body did not arrive as it was sent.",
        samples: &[("", Event::Damaged)],
    },
    Family {
        name: "cosgate_bodies_withheld_total",
        help: "Uploads whose end was withheld because the body was not what the client declared.",
        samples: &[("", Event::BodyWithheld)],
    },
    Family {
        name: "cosgate_stored_otherwise_total",
        help: "Uploads of which COS reported another digest than that of what was sent.",
        samples: &[("", Event::StoredOtherwise)],
    },
    Family {
        name: "cosgate_limited_requests_total",
        help: "Requests refused by their tenant's own limits.",
        samples: &[
            ("{reason=\"concurrency\"}", Event::LimitedConcurrency),
            ("{reason=\"object_size\"}", Event::LimitedObjectSize),
            ("{reason=\"rate\"}", Event::LimitedRate),
        ],
    },
    Family {
        name: "cosgate_shared_limit_decisions_total",
        help: "Requests whose rate is shared by replicas: decided by the shared rate, or by this replica's own since the Redis had not responded.",
        samples: &[
            ("{by=\"own\"}", Event::SharedLimitFallback),
            ("{by=\"shared\"}", Event::SharedLimitDecided),
        ],
    },
    Family {
        name: "cosgate_access_log_dropped_total",
        help: "Lines of the access log that were lost.",
        samples: &[("", Event::LogLineDropped)],
    },
    Family {
        name: "cosgate_panics_total",
        help: "Requests that ended in a panic.",
        samples: &[("", Event::Panic)],
    },
];

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::decision::Step;
    use crate::error::Code;
    use crate::observe::metrics::EVENTS;
    use crate::observe::metrics::STATUSES;
    use crate::s3::Operation;

    #[test]
    fn tables_are_complete_and_in_order() {
        for (index, operation) in Operation::ALL.iter().enumerate() {
            assert_eq!(*operation as usize, index, "{operation:?}");
        }
        for (index, step) in Step::ALL.iter().enumerate() {
            assert_eq!(*step as usize, index, "{step:?}");
        }
        for (index, code) in Code::ALL.iter().enumerate() {
            assert_eq!(*code as usize, index, "{code:?}");
        }
        assert!(STATUSES.is_sorted());
        let events: Vec<usize> = FAMILIES
            .iter()
            .flat_map(|family| family.samples)
            .map(|(_, event)| *event as usize)
            .collect();
        assert_eq!(events.len(), EVENTS);
        assert_eq!(events.iter().collect::<BTreeSet<_>>().len(), EVENTS);
    }
}
