//! Which bucket a Host names. COS is virtual-hosted only (436/6224, 436/102489). Pure.

/// The meaning of a Host header.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum HostKind {
    /// `<bucket>.cos.<region>.<suffix>`
    Bucket { name: String, region: String },
    /// `cos.<region>.<suffix>`: the buckets of one region. Path-style requests use it too.
    Region(String),
    /// `service.cos.<suffix>`: all buckets.
    Service,
}

impl HostKind {
    /// Reads a Host header without its port; `None` when it is not one of COS.
    pub(super) fn parse(host: &str, suffix: &str) -> Option<Self> {
        let name = match host.rsplit_once(':') {
            Some((name, port)) if port.bytes().all(|b| b.is_ascii_digit()) => name,
            Some(_) => return None,
            None => host,
        };
        let name = name.to_ascii_lowercase();
        let stem = name.strip_suffix(suffix)?.strip_suffix('.')?;
        if stem == "service.cos" {
            return Some(Self::Service);
        }
        if let Some(region) = stem.strip_prefix("cos.") {
            return is_label(region).then(|| Self::Region(region.into()));
        }
        let (bucket, region) = stem.split_once(".cos.")?;
        (is_label(bucket) && is_label(region)).then(|| Self::Bucket {
            name: bucket.into(),
            region: region.into(),
        })
    }
}

fn is_label(text: &str) -> bool {
    let inner = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
    !text.is_empty() && !text.starts_with('-') && !text.ends_with('-') && text.bytes().all(inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_only_three_forms_of_host() {
        let parse = |host| HostKind::parse(host, "myqcloud.com");
        let bucket = HostKind::Bucket {
            name: "b-1250000000".into(),
            region: "ap-guangzhou".into(),
        };
        assert_eq!(
            parse("b-1250000000.cos.ap-guangzhou.myqcloud.com"),
            Some(bucket.clone())
        );
        assert_eq!(
            parse("B-1250000000.cos.ap-guangzhou.myqcloud.com:9100"),
            Some(bucket)
        );
        assert_eq!(
            parse("cos.ap-guangzhou.myqcloud.com"),
            Some(HostKind::Region("ap-guangzhou".into()))
        );
        assert_eq!(parse("service.cos.myqcloud.com"), Some(HostKind::Service));
        for odd in [
            "",
            "127.0.0.1:9000",
            "b.cos.r.example.com",
            "a.b.cos.r.myqcloud.com",
            "xmyqcloud.com",
            "-b.cos.r.myqcloud.com",
            "[::1]:80",
        ] {
            assert_eq!(parse(odd), None, "{odd}");
        }
    }
}
