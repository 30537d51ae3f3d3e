//! Certificates: reading a pair of files, choosing a pair by name, and noticing that files changed
//! (S129, S132, VR-04).

use std::collections::HashSet;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use rustls::crypto::CryptoProvider;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::PrivateKeyDer;
use rustls::pki_types::ServerName;
use rustls::pki_types::UnixTime;
use rustls::pki_types::pem;
use rustls::pki_types::pem::PemObject;
use rustls::sign::CertifiedKey;
use time::OffsetDateTime;

use crate::clock::Timestamp;
use crate::config::CertificatePair;

/// Why a certificate cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum CertificateError {
    /// A file cannot be read.
    #[error("cannot read {path}: give the user that runs Vestibule the right to")]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// No certificate in the file, or one that is broken.
    #[error("{path} has no usable certificate: it must be PEM, with the server's own certificate first")]
    NoCertificate {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: BadCertificate,
    },
    /// No authority in the file, or one that is broken.
    #[error("{path} has no usable certificate authorities: it must be PEM")]
    NoAuthority {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: BadCertificate,
    },
    /// No private key in the file, or one that is broken.
    #[error("{path} has no usable private key: it must be PEM, without a passphrase")]
    NoKey {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: pem::Error,
    },
    /// Key and certificate do not belong together, or the key is of no use.
    #[error("the key {key} does not fit the certificate {certificate}: use the two that were made together")]
    Mismatch {
        /// The certificate.
        certificate: PathBuf,
        /// The key.
        key: PathBuf,
        /// Why.
        #[source]
        source: rustls::Error,
    },
}

/// What is wrong with a certificate.
#[derive(Debug, thiserror::Error)]
pub enum BadCertificate {
    /// The file is no PEM.
    #[error(transparent)]
    Pem(#[from] pem::Error),
    /// What is in the PEM is no certificate.
    #[error(transparent)]
    Content(#[from] webpki::Error),
}

/// How long before its end a certificate is warned of: those that are renewed by a program are renewed
/// a month before.
const WARN_BEFORE: Duration = Duration::from_secs(14 * 24 * 60 * 60);

/// A certificate with its key.
pub(super) struct Certified {
    path: PathBuf,
    /// The names in it, lower case; `*.` may be in front.
    names: Vec<String>,
    key: Arc<CertifiedKey>,
}

impl Certified {
    /// Reads a pair of files.
    ///
    /// # Errors
    /// When one of them cannot be used, or they do not belong together.
    pub(super) fn load(pair: &CertificatePair, provider: &CryptoProvider) -> Result<Self, CertificateError> {
        let bad = |source| CertificateError::NoCertificate { path: pair.certificate.clone(), source };
        let chain = CertificateDer::pem_slice_iter(&read(&pair.certificate)?)
            .collect::<Result<Vec<_>, _>>()
            .map_err(|error| bad(error.into()))?;
        let leaf = chain.first().ok_or_else(|| bad(pem::Error::NoItemsFound.into()))?;
        let leaf = webpki::EndEntityCert::try_from(leaf).map_err(|error| bad(error.into()))?;
        let names = leaf.valid_dns_names().map(str::to_ascii_lowercase).collect();
        let key = PrivateKeyDer::from_pem_slice(&read(&pair.key)?)
            .map_err(|source| CertificateError::NoKey { path: pair.key.clone(), source })?;
        let key = CertifiedKey::from_der(chain, key, provider).map_err(|source| CertificateError::Mismatch {
            certificate: pair.certificate.clone(),
            key: pair.key.clone(),
            source,
        })?;
        Ok(Self { path: pair.certificate.clone(), names, key: Arc::new(key) })
    }

    /// What its dates will be refused for, or soon (S132).
    fn warning(&self, now: Timestamp) -> Option<String> {
        let path = self.path.display();
        match (self.dates_at(now), self.dates_at(now.plus(WARN_BEFORE))) {
            (Some(webpki::Error::CertNotValidYet { not_before, .. }), _) => Some(format!(
                "tls.certificate: {path} is not valid before {}: browsers refuse it; is the clock right?",
                date(not_before)
            )),
            (Some(webpki::Error::CertExpired { not_after, .. }), _) => {
                Some(format!("tls.certificate: {path} expired on {}: browsers refuse it; renew it", date(not_after)))
            }
            (_, Some(webpki::Error::CertExpired { not_after, .. })) => {
                Some(format!("tls.certificate: {path} expires on {}: renew it", date(not_after)))
            }
            _ => None,
        }
    }

    /// What is wrong with it at a time: with its dates, if anything is, since they are looked at before
    /// its issuer, who is nobody here.
    fn dates_at(&self, time: Timestamp) -> Option<webpki::Error> {
        let leaf = webpki::EndEntityCert::try_from(self.key.cert.first()?).ok()?;
        let time = UnixTime::since_unix_epoch(Duration::from_millis(time.as_millis()));
        let server = webpki::KeyUsage::server_auth();
        leaf.verify_for_usage(webpki::ALL_VERIFICATION_ALGS, &[], &[], time, server, None, None).err()
    }

    /// Whether clients that ask for this host accept the certificate, its dates and issuer aside.
    fn is_valid_for(&self, host: &str) -> bool {
        let host = host.trim_start_matches('[').trim_end_matches(']');
        let leaf = self.key.cert.first().and_then(|leaf| webpki::EndEntityCert::try_from(leaf).ok());
        let name = ServerName::try_from(host).ok();
        leaf.zip(name).is_some_and(|(leaf, name)| leaf.verify_is_valid_for_subject_name(&name).is_ok())
    }
}

/// A day as it is written in logs.
fn date(time: UnixTime) -> String {
    let seconds = i64::try_from(time.as_secs()).unwrap_or(i64::MAX);
    OffsetDateTime::from_unix_timestamp(seconds).map_or_else(|_| "?".to_owned(), |time| time.date().to_string())
}

pub(super) fn read(path: &Path) -> Result<Vec<u8>, CertificateError> {
    std::fs::read(path).map_err(|source| CertificateError::Unreadable { path: path.to_owned(), source })
}

/// The certificates that are served, by name. The first is the default.
pub(super) struct Certificates {
    pairs: Vec<Arc<Certified>>,
    /// Hosts of the configured sites: served even if no certificate names them.
    hosts: HashSet<String>,
    /// For each certificate the hosts that it is served for.
    shared_by: Vec<Arc<HashSet<String>>>,
}

impl Certificates {
    pub(super) fn new(pairs: Vec<Arc<Certified>>, hosts: HashSet<String>) -> Self {
        let mut certificates = Self { pairs, hosts, shared_by: Vec::new() };
        let mut shared_by = vec![HashSet::new(); certificates.pairs.len()];
        for host in &certificates.hosts {
            if let Some(hosts) = certificates.place(Some(host)).and_then(|place| shared_by.get_mut(place)) {
                hosts.insert(host.clone());
            }
        }
        certificates.shared_by = shared_by.into_iter().map(Arc::new).collect();
        certificates
    }

    /// The same with another certificate in one place.
    pub(super) fn with(&self, place: usize, certified: Certified) -> Self {
        let mut pairs = self.pairs.clone();
        if let Some(pair) = pairs.get_mut(place) {
            *pair = Arc::new(certified);
        }
        Self::new(pairs, self.hosts.clone())
    }

    /// The certificate for a name; a name that is nobody's here has none (S129).
    pub(super) fn choose(&self, name: Option<&str>) -> Option<Arc<CertifiedKey>> {
        let place = self.place(name)?;
        self.pairs.get(place).map(|pair| Arc::clone(&pair.key))
    }

    /// The configured hosts that share the certificate for a name (S111).
    pub(super) fn sharing(&self, name: Option<&str>) -> Arc<HashSet<String>> {
        self.place(name).and_then(|place| self.shared_by.get(place)).map(Arc::clone).unwrap_or_default()
    }

    /// A certificate that has the very name goes before one that covers it.
    fn place(&self, name: Option<&str>) -> Option<usize> {
        let Some(name) = name else { return Some(0) };
        let name = name.to_ascii_lowercase();
        let find = |fits: &dyn Fn(&str) -> bool| self.pairs.iter().position(|pair| pair.names.iter().any(|n| fits(n)));
        find(&|pattern| pattern == name)
            .or_else(|| find(&|pattern| covers(pattern, &name)))
            .or_else(|| self.hosts.contains(&name).then_some(0))
    }

    /// What is wrong with the dates of certificates, or soon will be.
    pub(super) fn dates(&self, now: Timestamp) -> impl Iterator<Item = String> {
        self.pairs.iter().filter_map(move |pair| pair.warning(now))
    }

    /// Configured hosts for which clients will not accept what they are shown.
    pub(super) fn unnamed_hosts(&self) -> Vec<&str> {
        let accepted = |host: &str| self.place(Some(host)).is_some_and(|place| self.pairs[place].is_valid_for(host));
        let mut hosts: Vec<_> = self.hosts.iter().map(String::as_str).filter(|host| !accepted(host)).collect();
        hosts.sort_unstable();
        hosts
    }
}

/// Whether a wildcard covers a host: one label stands for `*` (RFC 9525 6.3).
fn covers(pattern: &str, host: &str) -> bool {
    let parent = pattern.strip_prefix("*.");
    let rest = host.split_once('.').filter(|(label, _)| !label.is_empty()).map(|(_, rest)| rest);
    parent.is_some() && parent == rest
}

/// Files that belong together.
pub(super) trait Files {
    fn paths(&self) -> Vec<&Path>;
}

impl Files for CertificatePair {
    fn paths(&self) -> Vec<&Path> {
        vec![&self.certificate, &self.key]
    }
}

impl Files for Vec<PathBuf> {
    fn paths(&self) -> Vec<&Path> {
        self.iter().map(PathBuf::as_path).collect()
    }
}

/// Files that are followed.
pub(super) struct Followed<F> {
    pub(super) files: F,
    /// What the files looked like when they were last taken or refused.
    known: Look,
    /// What they looked like at the last look, if that was something new.
    changing: Option<Look>,
}

/// Inode, length and change time of each file: enough to see that one was written, replaced, or
/// given another owner or mode.
type Look = Vec<Option<(u64, u64, i64, i64)>>;

impl<F: Files + Clone> Followed<F> {
    /// Begins to follow; to be called before the files are read, so that no change is missed.
    pub(super) fn begin(files: &F) -> Self {
        Self { files: files.clone(), known: look(files), changing: None }
    }

    /// Whether the files have changed and come to rest: the same at two looks. Key and certificate
    /// are seldom written in one instant.
    pub(super) fn has_settled(&mut self) -> bool {
        let now = look(&self.files);
        if now == self.known {
            self.changing = None;
            return false;
        }
        if self.changing.as_ref() != Some(&now) {
            self.changing = Some(now);
            return false;
        }
        self.known = now;
        self.changing = None;
        true
    }
}

fn look(files: &impl Files) -> Look {
    let one = |path: &Path| {
        let file = std::fs::metadata(path).ok()?;
        Some((file.ino(), file.len(), file.ctime(), file.ctime_nsec()))
    };
    files.paths().into_iter().map(one).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wildcard_covers_one_label() {
        for (pattern, host, expected) in [
            ("*.a.test", "x.a.test", true),
            ("*.a.test", "a.test", false),
            ("*.a.test", "x.y.a.test", false),
            ("*.a.test", ".a.test", false),
            ("a.test", "x.a.test", false),
            ("a.test", "test", false),
        ] {
            assert_eq!(covers(pattern, host), expected, "{pattern} {host}");
        }
    }
}
