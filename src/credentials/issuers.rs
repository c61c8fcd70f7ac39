//! The issuers of a configuration that call STS, each with its own key.

use std::sync::Arc;

use super::base::Base;
use super::fetched_key::{FetchedKey, key_of_document, no_key};
use super::issuer::{IssueMethod, IssuerSettings, StsIssuer};
use super::key_command;
use super::key_document::CallerKey;
use super::key_files::WatchedKey;
use super::metadata::Metadata;
use super::sharing_identity::sharing_identity;
use crate::clock::Clock;
use crate::config::{BaseKey, Config, Issuer, IssuerKind, KeyCommand};
use crate::observe::CacheCounters;
use crate::upstream::dial::{Dialer, Roots};
use crate::upstream::one_shot::OneShotClient;

/// Whom connections to STS trust, if there are any and they are TLS.
pub(super) fn roots(config: &Config) -> Result<Option<Roots>, String> {
    if !any_calls(config) {
        return Ok(None);
    }
    Roots::for_endpoint(config.sts.endpoint.tls, config.sts.ca_file.as_deref())
        .map_err(|error| format!("sts.ca_file: {error}"))
}

fn any_calls(config: &Config) -> bool {
    let calls = |issuer: &Issuer| issuer.kind.duration().is_some();
    config.issuers.iter().any(calls)
}

/// The issuers of `config` that call STS, at their index there; empty where none does.
pub(super) fn all(
    config: &Config,
    roots: Option<&Roots>,
    clock: &Arc<Clock>,
    counters: &Arc<CacheCounters>,
) -> Result<Vec<Option<Arc<StsIssuer>>>, String> {
    if !any_calls(config) {
        return Ok(Vec::new());
    }
    let maker = IssuerMaker {
        config,
        roots,
        clock,
        counters,
    };
    let mut made = vec![None; config.issuers.len()];
    for index in 0..config.issuers.len() {
        maker.make(index, &mut made)?;
    }
    Ok(made)
}

/// Makes each issuer once, its base before it.
struct IssuerMaker<'a> {
    config: &'a Config,
    roots: Option<&'a Roots>,
    clock: &'a Arc<Clock>,
    counters: &'a Arc<CacheCounters>,
}

impl IssuerMaker<'_> {
    /// The configuration has no circle of bases, so this ends.
    fn make(
        &self,
        index: usize,
        made: &mut [Option<Arc<StsIssuer>>],
    ) -> Result<Option<Arc<StsIssuer>>, String> {
        let Some(issuer) = self.config.issuers.get(index) else {
            return Ok(None);
        };
        if let Some(Some(issuer)) = made.get(index) {
            return Ok(Some(Arc::clone(issuer)));
        }
        let in_issuer = |error: String| format!("issuers.{}: {error}", issuer.name);
        let method = match &issuer.kind {
            IssuerKind::AssumeRole { base, role } => IssueMethod::AssumeRole {
                base: self.base(&issuer.name, base, made).map_err(in_issuer)?,
                role: role.clone(),
            },
            IssuerKind::Federation { base, duration } => IssueMethod::Federation {
                base: self.base(&issuer.name, base, made).map_err(in_issuer)?,
                duration: *duration,
            },
            IssuerKind::Static(_) => return Ok(None),
            IssuerKind::WebIdentity(web) => IssueMethod::WebIdentity(web.clone()),
        };
        let settings = IssuerSettings {
            name: issuer.name.clone(),
            sharing_identity: sharing_identity(issuer, self.config).map_err(in_issuer)?,
            region: self.config.sts.region.clone(),
            method,
            client: self.client(),
        };
        let (clock, counters) = (Arc::clone(self.clock), Arc::clone(self.counters));
        let issuer = Arc::new(StsIssuer::new(settings, clock, counters));
        if let Some(place) = made.get_mut(index) {
            *place = Some(Arc::clone(&issuer));
        }
        Ok(Some(issuer))
    }

    /// The client that calls STS. Each issuer has its own.
    fn client(&self) -> OneShotClient {
        let (sts, limits) = (&self.config.sts, &self.config.upstream.limits);
        let dialer = Dialer::new(
            self.roots,
            sts.connect_to.clone(),
            limits.connect_timeout,
            limits.tls_handshake_timeout,
        );
        OneShotClient::new(
            &sts.endpoint.authority,
            dialer,
            sts.timeout,
            sts.answer_bytes,
        )
    }

    /// The own key of the issuer `name`.
    fn base(
        &self,
        name: &str,
        base: &BaseKey,
        made: &mut [Option<Arc<StsIssuer>>],
    ) -> Result<Base, String> {
        let fetched = match base {
            BaseKey::Given(key) => {
                return Ok(Base::Watched(Box::new(WatchedKey::given(name, key))));
            }
            BaseKey::Profile {
                name: profile,
                file,
            } => {
                return WatchedKey::profile(name, profile, file)
                    .map(|key| Base::Watched(Box::new(key)));
            }
            BaseKey::Command(command) => printed_key(name, command, self.clock),
            BaseKey::CvmRole {
                name: role,
                endpoint,
            } => {
                let metadata = Metadata::new(&endpoint.authority, &endpoint.path, role);
                metadata_key(name, metadata, self.clock)
            }
            BaseKey::Issuer(index) => {
                let issuer = self.make(*index, made)?;
                issued_key(name, issuer.ok_or("base makes no keys")?)
            }
        };
        Ok(Base::Fetched(Arc::new(fetched)))
    }
}

/// A key that `command` prints.
fn printed_key(issuer: &str, command: &KeyCommand, clock: &Arc<Clock>) -> FetchedKey {
    let shared = Arc::new((command.clone(), issuer.to_owned(), Arc::clone(clock)));
    FetchedKey::new(issuer, move || {
        let shared = Arc::clone(&shared);
        async move {
            let (command, issuer, clock) = &*shared;
            let output = key_command::output(command, issuer).await;
            let output = output.map_err(|error| no_key(format!("command: {error}")))?;
            key_of_document("command", &output, clock)
        }
    })
}

/// The key of the machine's role.
fn metadata_key(issuer: &str, metadata: Metadata, clock: &Arc<Clock>) -> FetchedKey {
    let shared = Arc::new((metadata, Arc::clone(clock)));
    FetchedKey::new(issuer, move || {
        let shared = Arc::clone(&shared);
        async move {
            let (metadata, clock) = &*shared;
            let document = metadata.get().await;
            let document = document.map_err(|error| no_key(format!("cvm_role: {error}")))?;
            key_of_document("cvm_role", &document, clock)
        }
    })
}

/// A key of the role of `base`, which no policy narrows.
fn issued_key(issuer: &str, base: Arc<StsIssuer>) -> FetchedKey {
    FetchedKey::new(issuer, move || {
        let base = Arc::clone(&base);
        async move {
            let made = base.issue_base().await?;
            let key = CallerKey {
                secret_id: made.secret_id,
                secret_key: made.secret_key,
                token: Some(made.token),
            };
            Ok((key, Some(made.life)))
        }
    })
}
