//! The identity in a client's certificate, once TLS has verified it.

use std::fmt;

use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{FromDer as _, X509Certificate};

use crate::config::CertificateName;
use crate::timestamp::Timestamp;

/// Bytes of the text of a certificate's names at most.
const TEXT_BYTES: usize = 512;

/// The names of a certificate, and the last second in which it is good.
#[derive(Debug, Default)]
pub(super) struct Certificate {
    /// Names by which a tenant may be known.
    pub names: Vec<CertificateName>,
    /// `notAfter`
    pub not_after: Timestamp,
}

impl Certificate {
    /// Reads DER (RFC 5280). `None` when it cannot be read whole; a name that is odd is left out.
    pub(super) fn parse(der: &[u8]) -> Option<Self> {
        let (rest, certificate) = X509Certificate::from_der(der).ok()?;
        if !rest.is_empty() {
            return None;
        }
        let mut names = Vec::new();
        if let Some(alternatives) = certificate.subject_alternative_name().ok()? {
            for name in &alternatives.value.general_names {
                match name {
                    GeneralName::DNSName(name) => {
                        names.push(CertificateName::Dns(name.to_ascii_lowercase()));
                    }
                    GeneralName::URI(uri) => names.push(CertificateName::Uri((*uri).to_owned())),
                    _ => {}
                }
            }
        }
        let mut common = certificate.subject().iter_common_name();
        if let (Some(name), None) = (common.next(), common.next())
            && let Ok(name) = name.as_str()
        {
            names.push(CertificateName::CommonName(name.to_owned()));
        }
        Some(Self {
            names,
            not_after: Timestamp::from_unix(certificate.validity().not_after.timestamp()),
        })
    }
}

/// The names, as `client_certs` has them, for a log: a client chooses how many and how long.
impl fmt::Display for Certificate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<_> = self.names.iter().map(ToString::to_string).collect();
        let text = names.join(", ");
        let end = text.floor_char_boundary(TEXT_BYTES);
        f.write_str(text.get(..end).unwrap_or_default())?;
        f.write_str(if end < text.len() { " …" } else { "" })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rcgen::{CertificateParams, DnType, KeyPair, SanType};

    use super::*;

    fn der() -> Vec<u8> {
        let mut params = CertificateParams::new(["Acme.Example".to_owned()]).unwrap();
        let uri = SanType::URI("spiffe://acme/a".try_into().unwrap());
        params.subject_alt_names.push(uri);
        params
            .distinguished_name
            .push(DnType::CommonName, "acme, inc");
        let key = KeyPair::generate().unwrap();
        params.self_signed(&key).unwrap().der().to_vec()
    }

    #[test]
    fn names_of_all_three_kinds_are_found() {
        let names = Certificate::parse(&der()).unwrap().names;
        let names: Vec<_> = names.iter().map(ToString::to_string).collect();
        let expected = [
            "san:dns:acme.example",
            "san:uri:spiffe://acme/a",
            "subject:CN=acme, inc",
        ];
        assert_eq!(names, expected);
    }

    #[test]
    fn the_text_of_many_names_has_an_end() {
        let names = vec![
            CertificateName::Dns("é".repeat(300)),
            CertificateName::Dns("b".into()),
        ];
        let mut certificate = Certificate {
            names,
            not_after: Timestamp::default(),
        };
        let text = certificate.to_string();
        assert!(
            text.len() < TEXT_BYTES + 8 && text.ends_with(" …"),
            "{text}"
        );
        certificate.names.remove(0);
        assert_eq!(certificate.to_string(), "san:dns:b");
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(64) })]

        #[test]
        fn no_bytes_panic(at in any::<prop::sample::Index>(), byte in any::<u8>(), length in any::<prop::sample::Index>()) {
            let mut der = der();
            let at = at.index(der.len());
            der[at] = byte;
            der.truncate(length.index(der.len()) + 1);
            let _ = Certificate::parse(&der);
        }
    }
}
