//! The PROXY protocol, versions 1 and 2: a balancer in front says for whom it opens a connection,
//! before anything else is sent on it.

use std::io;
use std::net::SocketAddr;

use proxy_header::ParseConfig;
use proxy_header::ProxyHeader;
use tokio::io::AsyncRead;
use tokio::io::AsyncReadExt;

/// What a header of version 2 begins with.
const SIGNATURE: &[u8; 12] = b"\r\n\r\n\0\r\nQUIT\n";
/// Signature, command, family and length.
const PREAMBLE: usize = 16;
/// The longest header of version 1.
const LINE_LIMIT: usize = 107;
/// Bytes of addresses and extensions in a header of version 2; the specification promises receivers
/// of up to 536 that they are enough.
const EXTENSION_LIMIT: usize = 2048;

/// Why a connection does not begin as it must.
#[derive(Debug, thiserror::Error)]
pub(super) enum BadHeader {
    /// It broke off.
    #[error("the connection broke off in its PROXY header")]
    Broken(#[from] io::Error),
    /// It is no header.
    #[error("the connection does not begin with a PROXY header")]
    Invalid(#[source] proxy_header::Error),
    /// It is longer than any that makes sense.
    #[error("the PROXY header is too long")]
    TooLong,
}

/// Reads the header and not a byte more. `None`: the balancer speaks for itself, as in its health
/// checks (`LOCAL`, `UNKNOWN`).
///
/// # Errors
/// When there is no valid header.
pub(super) async fn read_header(stream: &mut (impl AsyncRead + Unpin)) -> Result<Option<SocketAddr>, BadHeader> {
    let mut header = vec![0; SIGNATURE.len()];
    stream.read_exact(&mut header).await?;
    if header == SIGNATURE {
        header.resize(PREAMBLE, 0);
        stream.read_exact(&mut header[SIGNATURE.len()..]).await?;
        let length = usize::from(u16::from_be_bytes([header[PREAMBLE - 2], header[PREAMBLE - 1]]));
        if length > EXTENSION_LIMIT {
            return Err(BadHeader::TooLong);
        }
        header.resize(PREAMBLE + length, 0);
        stream.read_exact(&mut header[PREAMBLE..]).await?;
    } else if header.starts_with(b"PROXY ") {
        // Its length is not known before its end is seen, and what follows belongs to TLS.
        while !header.ends_with(b"\r\n") {
            if header.len() == LINE_LIMIT {
                return Err(BadHeader::TooLong);
            }
            header.push(stream.read_u8().await?);
        }
    }
    let config = ParseConfig { include_tlvs: false, allow_v1: true, allow_v2: true };
    let (header, _) = ProxyHeader::parse(&header, config).map_err(BadHeader::Invalid)?;
    Ok(header.proxied_address().map(|proxied| proxied.source))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use proxy_header::ProxiedAddress;

    use super::*;

    async fn read(bytes: &[u8]) -> (Result<Option<SocketAddr>, BadHeader>, usize) {
        let mut rest = bytes;
        let header = read_header(&mut rest).await;
        (header, rest.len())
    }

    fn version_2(source: &str, destination: &str) -> Vec<u8> {
        let address = ProxiedAddress::stream(source.parse().unwrap(), destination.parse().unwrap());
        let mut bytes = Vec::new();
        ProxyHeader::with_address(address).encode_v2(&mut bytes).unwrap();
        bytes
    }

    #[tokio::test]
    async fn both_versions_name_the_client_and_leave_the_rest() {
        // S53
        let v1 = b"PROXY TCP4 192.0.2.7 192.0.2.1 40000 443\r\nTLS".to_vec();
        let v1_local = b"PROXY UNKNOWN\r\nTLS".to_vec();
        let v2 = [version_2("192.0.2.7:40000", "192.0.2.1:443"), b"TLS".to_vec()].concat();
        let v2_v6 = [version_2("[2001:db8::7]:40000", "[2001:db8::1]:443"), b"TLS".to_vec()].concat();
        let v2_local = [SIGNATURE.to_vec(), vec![0x20, 0, 0, 0], b"TLS".to_vec()].concat();
        for (bytes, source) in [
            (v1, Some("192.0.2.7:40000")),
            (v1_local, None),
            (v2, Some("192.0.2.7:40000")),
            (v2_v6, Some("[2001:db8::7]:40000")),
            (v2_local, None),
        ] {
            let (header, left) = read(&bytes).await;
            assert_eq!(header.unwrap(), source.map(|source| source.parse().unwrap()));
            assert_eq!(left, 3, "TLS reads on where the header ends");
        }
    }

    #[tokio::test]
    async fn anything_else_is_refused() {
        let endless = [b"PROXY TCP4 ".to_vec(), vec![b'1'; 200]].concat();
        let huge = [SIGNATURE.to_vec(), vec![0x21, 0x11, 0xff, 0xff]].concat();
        let hello = b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03abc".to_vec();
        let cut = version_2("192.0.2.7:40000", "192.0.2.1:443")[..20].to_vec();
        for bytes in [endless, huge, hello, cut, b"PROXY TCP4 999.0.2.7 x 1 2\r\n".to_vec(), Vec::new()] {
            assert!(read(&bytes).await.0.is_err(), "{bytes:?}");
        }
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic_or_read_on(tail in proptest::collection::vec(any::<u8>(), 0..300), kind in 0..3) {
            let front: &[u8] = [b"".as_slice(), b"PROXY TCP4 ", SIGNATURE][kind as usize];
            let bytes = [front, &tail].concat();
            let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
            let _ = runtime.block_on(read(&bytes));
        }
    }
}
