//! `vestibule cert`: a local authority and certificate for development.

use std::fmt;
use std::fs;
use std::io;
use std::io::Write;
use std::net::IpAddr;
use std::os::unix::fs::DirBuilderExt;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::path::PathBuf;

use rcgen::BasicConstraints;
use rcgen::CertificateParams;
use rcgen::DnType;
use rcgen::ExtendedKeyUsagePurpose;
use rcgen::IsCa;
use rcgen::Issuer;
use rcgen::KeyPair;
use rcgen::KeyUsagePurpose;
use time::Duration;
use time::OffsetDateTime;

/// Browsers refuse leaves that live longer.
const LEAF_DAYS: i64 = 397;
/// The authority has to be trusted by hand: not every year.
const AUTHORITY_DAYS: i64 = 3650;

/// What was made, and how to use it.
#[derive(Debug)]
pub struct Made {
    /// The authority, to be trusted by browsers and curl.
    pub ca: PathBuf,
    /// The certificate and its issuer.
    pub certificate: PathBuf,
    /// The certificate's key.
    pub key: PathBuf,
    names: Vec<String>,
}

impl fmt::Display for Made {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "A certificate for {}:", self.names.join(", "))?;
        writeln!(f, "  certificate  {}", self.certificate.display())?;
        writeln!(f, "  key          {}", self.key.display())?;
        writeln!(f, "  authority    {}  (trust this one in the browser)", self.ca.display())?;
        write!(f, "Try it with: curl --cacert {} https://{}:PORT/", self.ca.display(), first(&self.names))
    }
}

fn first(names: &[String]) -> &str {
    names.first().map_or("localhost", String::as_str)
}

/// Why no certificate was made.
#[derive(Debug, thiserror::Error)]
pub enum CertError {
    /// A file.
    #[error("cannot read or write {path}")]
    File {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A file that would be overwritten, and is not ours to overwrite.
    #[error("{path} {what}")]
    Foreign {
        /// Which.
        path: PathBuf,
        /// What is the matter, and what to do.
        what: &'static str,
    },
    /// What is neither a host name nor an address.
    #[error("{name:?} is no host name or IP address: write for example app.test, *.app.test or 127.0.0.1")]
    Name {
        /// The name.
        name: String,
    },
    /// The authority that is there already.
    #[error("cannot make a certificate for {names}")]
    Certificate {
        /// For which names.
        names: String,
        /// Why.
        #[source]
        source: rcgen::Error,
    },
}

/// Makes a certificate for these names (`localhost` and the loopback addresses when there are none)
/// in `directory`. An authority that is there already is used again, so that it needs to be trusted
/// only once.
///
/// # Errors
/// When a name is none, a file cannot be written, or one is there that was not made here.
pub fn make(directory: &Path, names: &[String]) -> Result<Made, CertError> {
    let names = match names {
        [] => ["localhost", "127.0.0.1", "::1"].map(str::to_owned).to_vec(),
        names => names.to_vec(),
    };
    if let Some(name) = names.iter().find(|name| !is_host(name)) {
        return Err(CertError::Name { name: name.clone() });
    }
    let failed = |source| CertError::Certificate { names: names.join(", "), source };
    fs::DirBuilder::new().recursive(true).mode(0o755).create(directory).map_err(in_file(directory))?;
    let (ca, certificate, key_path) =
        (directory.join("ca.pem"), directory.join("server.pem"), directory.join("server.key"));
    let (ca_pem, ca_key) = known_authority(directory)?;
    // A certificate from elsewhere may be the only copy of what someone paid for.
    if fs::read_to_string(&certificate).is_ok_and(|chain| ca_pem.as_ref().is_none_or(|ca| !chain.contains(ca.trim()))) {
        let what = "was not made by this authority: name another directory with --out, or remove it";
        return Err(CertError::Foreign { path: certificate, what });
    }
    let ca_key = match ca_key {
        Some(pem) => KeyPair::from_pem(&pem).map_err(failed)?,
        None => KeyPair::generate().map_err(failed)?,
    };
    let ca_pem = match ca_pem {
        Some(pem) => pem,
        None => {
            let pem = authority().self_signed(&ca_key).map_err(failed)?.pem();
            let path = directory.join("ca.key");
            write(&path, ca_key.serialize_pem().as_bytes(), 0o600).map_err(in_file(&path))?;
            write(&ca, pem.as_bytes(), 0o644).map_err(in_file(&ca))?;
            pem
        }
    };
    let params = authority();
    let issuer = Issuer::from_params(&params, ca_key);
    let key = KeyPair::generate().map_err(failed)?;
    let leaf = leaf(&names).map_err(failed)?.signed_by(&key, &issuer).map_err(failed)?;
    write(&key_path, key.serialize_pem().as_bytes(), 0o600).map_err(in_file(&key_path))?;
    let chain = format!("{}{ca_pem}", leaf.pem());
    write(&certificate, chain.as_bytes(), 0o644).map_err(in_file(&certificate))?;
    Ok(Made { ca, certificate, key: key_path, names })
}

fn in_file(path: &Path) -> impl Fn(io::Error) -> CertError + use<> {
    let path = path.to_owned();
    move |source| CertError::File { path: path.clone(), source }
}

/// The authority that is there, certificate and key, or none of both.
fn known_authority(directory: &Path) -> Result<(Option<String>, Option<String>), CertError> {
    let read = |name: &str| match fs::read_to_string(directory.join(name)) {
        Ok(text) => Ok(Some(text)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(CertError::File { path: directory.join(name), source }),
    };
    let known = (read("ca.pem")?, read("ca.key")?);
    let (there, what) = match known {
        (Some(_), None) => ("ca.pem", "is there without its ca.key: put that back, or remove ca.pem to begin anew"),
        (None, Some(_)) => ("ca.key", "is there without its ca.pem: put that back, or remove ca.key to begin anew"),
        (Some(_), Some(_)) | (None, None) => return Ok(known),
    };
    Err(CertError::Foreign { path: directory.join(there), what })
}

/// A host name, with `*.` in front if wanted, or an address.
fn is_host(name: &str) -> bool {
    let bare = name.strip_prefix("*.").unwrap_or(name);
    let is_label = |label: &str| {
        let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
        !label.is_empty() && label.len() <= 63 && label.bytes().all(is_plain)
    };
    name.parse::<IpAddr>().is_ok() || (bare.len() <= 253 && bare.split('.').all(is_label))
}

fn authority() -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, "Vestibule local development CA");
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    lasting(&mut params, AUTHORITY_DAYS);
    params
}

fn leaf(names: &[String]) -> Result<CertificateParams, rcgen::Error> {
    let mut params = CertificateParams::new(names.to_vec())?;
    params.distinguished_name.push(DnType::CommonName, first(names));
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    params.use_authority_key_identifier_extension = true;
    lasting(&mut params, LEAF_DAYS);
    Ok(params)
}

fn lasting(params: &mut CertificateParams, days: i64) {
    let now = OffsetDateTime::now_utc();
    // Clocks differ a little between machines.
    params.not_before = now - Duration::hours(1);
    params.not_after = now + Duration::days(days) - Duration::hours(2);
}

/// Writes to a new file beside it and renames: nobody ever reads half of it, or a key with a wider mode.
fn write(path: &Path, content: &[u8], mode: u32) -> io::Result<()> {
    let beside = path.with_extension(format!("new-{}", std::process::id()));
    let written = fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(mode)
        .open(&beside)
        .and_then(|mut file| file.write_all(content).and_then(|()| file.sync_all()))
        .and_then(|()| fs::rename(&beside, path));
    if written.is_err() {
        let _already_gone = fs::remove_file(&beside);
    }
    written
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn keys_are_for_their_owner_and_the_authority_stays() {
        // S132
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("certs");
        let made = make(&path, &[]).unwrap();
        let authority = fs::read(&made.ca).unwrap();
        let certificate = fs::read(&made.certificate).unwrap();
        for key in ["ca.key", "server.key"] {
            assert_eq!(fs::metadata(path.join(key)).unwrap().permissions().mode() & 0o777, 0o600, "{key}");
        }
        let again = make(&path, &["app.test".to_owned()]).unwrap();
        assert_eq!(fs::read(&again.ca).unwrap(), authority);
        assert_ne!(fs::read(&again.certificate).unwrap(), certificate);
        assert_eq!(fs::read_dir(&path).unwrap().count(), 4, "nothing is left beside them");
        assert!(again.to_string().contains("app.test"));
    }

    #[test]
    fn what_is_no_name_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        for name in ["b\u{e4}d", "https://localhost", "a b", "", "localhost:8443", "*", "a..b"] {
            let error = make(directory.path(), &[name.to_owned()]).unwrap_err();
            assert!(matches!(error, CertError::Name { .. }), "{name}: {error}");
        }
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 0, "nothing is written for a wrong name");
        for name in ["localhost", "*.app.test", "xn--bcher-kva.example", "my_host", "::1"] {
            assert!(make(directory.path(), &[name.to_owned()]).is_ok(), "{name}");
        }
    }

    #[test]
    fn nothing_is_overwritten_that_was_not_made_here() {
        let directory = tempfile::tempdir().unwrap();
        let path = |name: &str| directory.path().join(name);
        fs::write(path("server.pem"), "bought").unwrap();
        let error = make(directory.path(), &[]).unwrap_err().to_string();
        assert!(error.contains("server.pem was not made by this authority"), "{error}");
        fs::remove_file(path("server.pem")).unwrap();
        make(directory.path(), &[]).unwrap();
        fs::remove_file(path("ca.key")).unwrap();
        let error = make(directory.path(), &[]).unwrap_err().to_string();
        assert!(error.contains("ca.pem is there without its ca.key"), "{error}");
    }
}
