//! Client certificates: which are taken, and whose one is.

use std::path::PathBuf;
use std::sync::Arc;

use rustls::RootCertStore;
use rustls::ServerConnection;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem;
use rustls::pki_types::pem::PemObject;
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::ClientCertVerifier;

use crate::policy::certificate::Certificate;
use crate::server::certificates::CertificateError;
use crate::server::certificates::read;
use crate::server::tls::TlsError;

/// Takes the certificates of these authorities, and no client without one; `None` when none are named.
///
/// # Errors
/// When a file cannot be used.
pub(super) fn verifier(
    files: &[PathBuf],
    provider: &Arc<CryptoProvider>,
) -> Result<Option<Arc<dyn ClientCertVerifier>>, TlsError> {
    if files.is_empty() {
        return Ok(None);
    }
    let mut roots = RootCertStore::empty();
    for path in files {
        let bad = |source| CertificateError::NoAuthority { path: path.clone(), source };
        let before = roots.len();
        for certificate in CertificateDer::pem_slice_iter(&read(path)?) {
            let certificate = certificate.map_err(|error| bad(error.into()))?;
            let anchor = webpki::anchor_from_trusted_cert(&certificate).map_err(|error| bad(error.into()))?;
            roots.roots.push(anchor.to_owned());
        }
        if roots.len() == before {
            return Err(bad(pem::Error::NoItemsFound.into()).into());
        }
    }
    let builder = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(provider));
    let verifier = builder.build().map_err(|error| rustls::Error::General(error.to_string()))?;
    Ok(Some(verifier))
}

/// The certificate that the handshake has verified.
pub(super) fn certificate(connection: &ServerConnection) -> Option<Arc<Certificate>> {
    let der = connection.peer_certificates()?.first()?;
    let leaf = webpki::EndEntityCert::try_from(der).ok()?;
    let others: Vec<&str> = leaf.valid_dns_names().chain(leaf.valid_uri_names()).collect();
    Some(Arc::new(Certificate::new(der, leaf.subject(), &others)))
}

/// Whether a handshake has failed for want of a certificate that is taken.
pub(super) fn is_refusal(error: &std::io::Error) -> bool {
    let cause = error.get_ref().and_then(|cause| cause.downcast_ref::<rustls::Error>());
    matches!(cause, Some(rustls::Error::NoCertificatesPresented | rustls::Error::InvalidCertificate(_)))
}
