//! `vestibule cert`: a local authority and certificate for development.

use std::fmt;
use std::fs;
use std::io;
use std::io::Write;
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
    #[error("cannot write {path}")]
    File {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A name, or the authority that is there already.
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
/// When a name is none, or a file cannot be written.
pub fn make(directory: &Path, names: &[String]) -> Result<Made, CertError> {
    let names = match names {
        [] => ["localhost", "127.0.0.1", "::1"].map(str::to_owned).to_vec(),
        names => names.to_vec(),
    };
    let failed = |source| CertError::Certificate { names: names.join(", "), source };
    let file = |path: &Path| {
        let path = path.to_owned();
        move |source| CertError::File { path, source }
    };
    fs::DirBuilder::new().recursive(true).mode(0o755).create(directory).map_err(file(directory))?;
    let (ca_path, ca_key_path) = (directory.join("ca.pem"), directory.join("ca.key"));
    let known = fs::read_to_string(&ca_path).ok().zip(fs::read_to_string(&ca_key_path).ok());
    let (ca_pem, ca_key) = match known {
        Some((pem, key)) => (pem, KeyPair::from_pem(&key).map_err(failed)?),
        None => {
            let key = KeyPair::generate().map_err(failed)?;
            let pem = authority().self_signed(&key).map_err(failed)?.pem();
            write(&ca_key_path, key.serialize_pem().as_bytes(), 0o600).map_err(file(&ca_key_path))?;
            write(&ca_path, pem.as_bytes(), 0o644).map_err(file(&ca_path))?;
            (pem, key)
        }
    };
    let params = authority();
    let issuer = Issuer::from_params(&params, ca_key);
    let key = KeyPair::generate().map_err(failed)?;
    let leaf = leaf(&names).map_err(failed)?.signed_by(&key, &issuer).map_err(failed)?;
    let (certificate_path, key_path) = (directory.join("server.pem"), directory.join("server.key"));
    write(&key_path, key.serialize_pem().as_bytes(), 0o600).map_err(file(&key_path))?;
    let chain = format!("{}{ca_pem}", leaf.pem());
    write(&certificate_path, chain.as_bytes(), 0o644).map_err(file(&certificate_path))?;
    Ok(Made { ca: ca_path, certificate: certificate_path, key: key_path, names })
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
        assert!(make(directory.path(), &["b\u{e4}d".to_owned()]).is_err());
    }
}
