//! Whose cryptography TLS uses.

use std::sync::Arc;

use rustls::SupportedCipherSuite;
use rustls::crypto::CryptoProvider;
use rustls::crypto::aws_lc_rs;

/// What TLS is spoken with, towards clients and upstreams: aws-lc for all but the suites with AES-GCM where
/// another implementation of them is clearly faster on this processor. What is offered, and in which order, is the same everywhere.
pub fn provider() -> Arc<CryptoProvider> {
    Arc::new(provider_with(faster_suites()))
}

/// With these suites in place of the same of aws-lc.
fn provider_with(suites: &[SupportedCipherSuite]) -> CryptoProvider {
    let mut provider = aws_lc_rs::default_provider();
    for suite in &mut provider.cipher_suites {
        if let Some(faster) = suites.iter().find(|faster| faster.suite() == suite.suite()) {
            *suite = *faster;
        }
    }
    provider
}

/// aws-lc uses the wide AES instructions (VAES) only together with AVX-512, which many processors and virtual machines
/// do not have; ring uses them with AVX2, and encrypts a full record in half the time there.
#[cfg(target_arch = "x86_64")]
fn faster_suites() -> &'static [SupportedCipherSuite] {
    let has_wide_aes = is_x86_feature_detected!("vaes") && is_x86_feature_detected!("vpclmulqdq");
    if has_wide_aes && is_x86_feature_detected!("avx2") && !is_x86_feature_detected!("avx512f") {
        AES_GCM_OF_RING
    } else {
        &[]
    }
}

#[cfg(not(target_arch = "x86_64"))]
fn faster_suites() -> &'static [SupportedCipherSuite] {
    &[]
}

#[cfg(target_arch = "x86_64")]
use rustls::crypto::ring::cipher_suite as ring;

#[cfg(target_arch = "x86_64")]
const AES_GCM_OF_RING: &[SupportedCipherSuite] = &[
    ring::TLS13_AES_256_GCM_SHA384,
    ring::TLS13_AES_128_GCM_SHA256,
    ring::TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384,
    ring::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256,
    ring::TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384,
    ring::TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256,
];

#[cfg(all(test, target_arch = "x86_64"))]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::io::Read;
    use std::io::Write;

    use rcgen::CertificateParams;
    use rcgen::KeyPair;
    use rcgen::SignatureAlgorithm;
    use rustls::ClientConfig;
    use rustls::ClientConnection;
    use rustls::Connection;
    use rustls::RootCertStore;
    use rustls::ServerConfig;
    use rustls::ServerConnection;

    use super::*;

    #[test]
    fn what_is_offered_is_the_same_on_every_processor() {
        let names = |provider: &CryptoProvider| {
            provider.cipher_suites.iter().map(SupportedCipherSuite::suite).collect::<Vec<_>>()
        };
        assert_eq!(names(&provider_with(AES_GCM_OF_RING)), names(&aws_lc_rs::default_provider()));
    }

    #[test]
    fn both_implementations_understand_each_other() {
        for suite in AES_GCM_OF_RING {
            let algorithm = if format!("{suite:?}").contains("RSA") {
                &rcgen::PKCS_RSA_SHA256
            } else {
                &rcgen::PKCS_ECDSA_P256_SHA256
            };
            let mut other = aws_lc_rs::default_provider();
            other.cipher_suites.retain(|candidate| candidate.suite() == suite.suite());
            let (mut client, mut server) = pair(other, algorithm);

            let body: Vec<u8> = (0..100_000_u32).map(|place| place.to_le_bytes()[0]).collect();
            for end in [&mut client, &mut server] {
                end.set_buffer_limit(None);
                end.writer().write_all(&body).unwrap();
            }
            let (mut at_client, mut at_server) = (Vec::new(), Vec::new());
            while client.wants_write() || server.wants_write() {
                carry(&mut client, &mut server, &mut at_server);
                carry(&mut server, &mut client, &mut at_client);
            }

            assert_eq!(server.negotiated_cipher_suite().map(|used| used.suite()), Some(suite.suite()));
            assert!(at_client == body && at_server == body, "{suite:?}");
        }
    }

    /// What one end has to send, and what the other one reads.
    fn carry(from: &mut Connection, to: &mut Connection, read: &mut Vec<u8>) {
        let mut wire = Vec::new();
        while from.wants_write() {
            from.write_tls(&mut wire).unwrap();
        }
        let mut wire = wire.as_slice();
        while !wire.is_empty() {
            to.read_tls(&mut wire).unwrap();
            to.process_new_packets().unwrap();
            let _until_it_would_block = to.reader().read_to_end(read);
        }
    }

    /// A client with this provider, and a server with ring's suites and a key of this kind.
    fn pair(provider: CryptoProvider, algorithm: &'static SignatureAlgorithm) -> (Connection, Connection) {
        let key = KeyPair::generate_for(algorithm).unwrap();
        let certificate = CertificateParams::new(["app.test".to_owned()]).unwrap().self_signed(&key).unwrap();
        let mut roots = RootCertStore::empty();
        roots.add(certificate.der().clone()).unwrap();
        let client = ClientConfig::builder_with_provider(Arc::new(provider))
            .with_protocol_versions(rustls::ALL_VERSIONS)
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        let server = ServerConfig::builder_with_provider(Arc::new(provider_with(AES_GCM_OF_RING)))
            .with_protocol_versions(rustls::ALL_VERSIONS)
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![certificate.der().clone()], key.into())
            .unwrap();
        let client = ClientConnection::new(Arc::new(client), "app.test".try_into().unwrap()).unwrap();
        (client.into(), ServerConnection::new(Arc::new(server)).unwrap().into())
    }
}
