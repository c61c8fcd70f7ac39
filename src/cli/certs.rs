//! `cosgate certs`: certificates for development.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use clap::Args;
use cosgate::clock::wall_clock;
use cosgate::timestamp::Timestamp;
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DistinguishedName, DnType,
    ExtendedKeyUsagePurpose, IsCa, KeyPair, KeyUsagePurpose, date_time_ymd,
};
use rustls::pki_types::ServerName;

use super::USAGE;

/// Make a development authority, a server and a client certificate.
///
/// Writes ca.pem, server.pem, client.pem and their .key files, good for a year. Files that exist stay as they are:
/// then nothing is made, exit status 2.
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  cosgate certs certs
  cosgate certs /tmp/tls --name s3.test --name '*.s3.test' --name 192.0.2.7

Keep ca.key secret: anybody who has it can impersonate any site to clients that trust ca.pem.
For production, use certificates from an authority of your own.")]
pub(super) struct Arguments {
    /// The folder for the files; cosgate makes it if it does not exist
    #[arg(value_name = "DIR")]
    folder: PathBuf,
    /// One more name or address of the server; may be repeated
    #[arg(long, value_name = "NAME", value_parser = parse_name)]
    name: Vec<String>,
}

/// What every server certificate is for: the default listener in both styles.
const NAMES: [&str; 6] = [
    "localhost",
    "*.localhost",
    "s3.localhost",
    "*.s3.localhost",
    "127.0.0.1",
    "::1",
];
/// Some platforms take no server certificate that is good for more than 398 days.
const DAYS: u64 = 365;
const DAY: u64 = 24 * 60 * 60;

pub(super) fn run(arguments: &Arguments) -> ExitCode {
    let mut names: Vec<String> = NAMES.map(str::to_owned).to_vec();
    names.extend(arguments.name.iter().cloned());
    let files = match make(&names, wall_clock()) {
        Ok(files) => files,
        Err(error) => {
            super::complain(&format_args!(
                "cosgate: error: cannot make the certificates: {error}"
            ));
            return ExitCode::FAILURE;
        }
    };
    match write(&arguments.folder, &files) {
        Ok(folder) => super::printed(&summary(&folder, &names)),
        Err(problem) => {
            super::complain(&format_args!("cosgate: error: {problem}"));
            ExitCode::from(USAGE)
        }
    }
}

/// A file to be: its name, its text, and whether it is a key.
struct Made {
    name: &'static str,
    text: String,
    key: bool,
}

/// A server certificate and the authority that signed it.
#[cfg(feature = "emulator")]
pub(super) struct ServerFiles {
    pub(super) ca: PathBuf,
    pub(super) ca_pem: String,
    pub(super) cert: PathBuf,
    pub(super) key: PathBuf,
}

/// Writes a server certificate for this machine and for `names` into a folder, without the authority's key: nobody
/// can make another.
#[cfg(feature = "emulator")]
pub(super) fn make_server(folder: &Path, names: Vec<String>) -> io::Result<ServerFiles> {
    let names: Vec<String> = NAMES.map(str::to_owned).into_iter().chain(names).collect();
    let made = make(&names, wall_clock()).map_err(io::Error::other)?;
    let [ca, _, cert, key, _, _] = made;
    let ca_pem = ca.text.clone();
    let folder = write(folder, &[ca, cert, key]).map_err(io::Error::other)?;
    Ok(ServerFiles {
        ca: folder.join("ca.pem"),
        ca_pem,
        cert: folder.join("server.pem"),
        key: folder.join("server.key"),
    })
}

/// Authority, server and client, each with a key of its own (P-256).
fn make(names: &[String], now: Timestamp) -> Result<[Made; 6], rcgen::Error> {
    let mut ca = parameters("cosgate development CA", &[], now)?;
    ca.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    ca.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    let ca = CertifiedIssuer::self_signed(ca, KeyPair::generate()?)?;

    let leaf = |common_name, names, usage| -> Result<(String, String), rcgen::Error> {
        let mut leaf = parameters(common_name, names, now)?;
        leaf.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        leaf.extended_key_usages = vec![usage];
        leaf.use_authority_key_identifier_extension = true;
        let key = KeyPair::generate()?;
        Ok((leaf.signed_by(&key, &ca)?.pem(), key.serialize_pem()))
    };
    let server = leaf(
        "cosgate development server",
        names,
        ExtendedKeyUsagePurpose::ServerAuth,
    )?;
    let client = leaf(
        "cosgate development client",
        &[],
        ExtendedKeyUsagePurpose::ClientAuth,
    )?;
    let certificate = |name, text| Made {
        name,
        text,
        key: false,
    };
    let key = |name, text| Made {
        name,
        text,
        key: true,
    };
    Ok([
        certificate("ca.pem", ca.pem()),
        key("ca.key", ca.key().serialize_pem()),
        certificate("server.pem", server.0),
        key("server.key", server.1),
        certificate("client.pem", client.0),
        key("client.key", client.1),
    ])
}

fn parameters(
    common_name: &str,
    names: &[String],
    now: Timestamp,
) -> Result<CertificateParams, rcgen::Error> {
    let mut parameters = CertificateParams::new(names)?;
    parameters.distinguished_name = DistinguishedName::new();
    parameters
        .distinguished_name
        .push(DnType::CommonName, common_name);
    // From yesterday on, for machines whose clocks differ.
    let now = Duration::from_secs(now.unix().try_into().unwrap_or(0));
    let day = Duration::from_secs(DAY);
    parameters.not_before = date_time_ymd(1970, 1, 1) + now.saturating_sub(day);
    parameters.not_after = date_time_ymd(1970, 1, 1) + now + Duration::from_secs(DAYS * DAY);
    Ok(parameters)
}

/// Writes all files or none, over none that exists. The folder's full path, or what to tell the user.
fn write(folder: &Path, files: &[Made]) -> Result<PathBuf, String> {
    let cannot = |path: &Path, error: io::Error| {
        format!(
            "cannot write {}: {error}; give a folder that you may write to",
            path.display()
        )
    };
    fs::create_dir_all(folder).map_err(|error| cannot(folder, error))?;
    let folder = fs::canonicalize(folder).map_err(|error| cannot(folder, error))?;
    let mut written = Vec::new();
    for made in files {
        let path = folder.join(made.name);
        let created = create(&path, made.key);
        if created.is_ok() {
            written.push(path.clone());
        }
        let result = created.and_then(|mut file| file.write_all(made.text.as_bytes()));
        if let Err(error) = result {
            for path in written {
                // The first error is the one to tell.
                let _ = fs::remove_file(path);
            }
            if error.kind() == io::ErrorKind::AlreadyExists {
                return Err(format!(
                    "{} exists already, so nothing was made; give another folder, or move the files away first",
                    path.display()
                ));
            }
            return Err(cannot(&path, error));
        }
    }
    Ok(folder)
}

/// A new file; a key's is its owner's alone from the start.
fn create(path: &Path, key: bool) -> io::Result<File> {
    let mode = if key { 0o600 } else { 0o644 };
    OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(mode)
        .open(path)
}

fn summary(folder: &Path, names: &[String]) -> String {
    let path = |name: &str| folder.join(name).display().to_string();
    let word = |name: &str| super::quoted(&path(name)); // as a shell takes it
    format!(
        "Made in {folder}, good for {DAYS} days:
  ca.pem      ca.key      development authority; keep its key to yourself
  server.pem  server.key  for {names}
  client.pem  client.key  for clients, where client_ca is set

In cosgate's configuration:
[server.tls]
cert = {server:?}
key = {server_key:?}
# client_ca = {client_ca:?}   # when set, every client must show a certificate of this authority

To trust it:
export AWS_CA_BUNDLE={ca}   # aws-cli, boto3
export NODE_EXTRA_CA_CERTS={ca}   # AWS SDK for JavaScript
curl --cacert {ca} https://localhost:9000/
rclone --ca-cert {ca}
s3cmd --ca-certs {ca}
With client_ca: curl --cert {client} --key {client_key}
",
        folder = folder.display(),
        names = names.join(", "),
        server = path("server.pem"),
        server_key = path("server.key"),
        client_ca = path("ca.pem"),
        ca = word("ca.pem"),
        client = word("client.pem"),
        client_key = word("client.key"),
    )
}

pub(super) fn parse_name(text: &str) -> Result<String, String> {
    match ServerName::try_from(text.strip_prefix("*.").unwrap_or(text)) {
        Ok(_) => Ok(text.to_owned()),
        Err(_) => Err("write a host name, *.NAME for all names below one, or an IP address without port or brackets".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_hosts_wildcards_and_addresses() {
        for good in [
            "localhost",
            "*.localhost",
            "*.s3.localhost",
            "192.0.2.7",
            "::1",
            "a.b.example",
        ] {
            assert_eq!(parse_name(good).as_deref(), Ok(good));
        }
        for bad in ["", "*", "a b", "a.*.b", "https://a", "a:9000", "[::1]", "ä"] {
            assert!(parse_name(bad).is_err(), "{bad}");
        }
    }
}
