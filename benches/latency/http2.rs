//! A connection that speaks HTTP/2, with a runtime of its own.

use std::net::TcpStream;
use std::sync::Arc;

use bytes::Bytes;
use h2::client::SendRequest;
use http::Request;
use tokio::runtime::Builder;
use tokio::runtime::Runtime;
use tokio_rustls::TlsConnector;

use crate::visitors::Ask;
use crate::visitors::Failure;
use crate::visitors::Visit;

pub struct Http2 {
    runtime: Runtime,
    connection: SendRequest<Bytes>,
    request: Request<()>,
}

impl Http2 {
    pub fn open(visit: &Visit) -> Result<Self, Failure> {
        let request = Request::get(format!("https://{}/page", visit.authority))
            .header("user-agent", "bench")
            .header("sec-fetch-site", "same-origin")
            .header("cookie", &visit.cookie)
            .body(())?;
        let runtime = Builder::new_current_thread().enable_io().build()?;
        let stream = TcpStream::connect(("127.0.0.1", visit.port))?;
        stream.set_nodelay(true)?;
        stream.set_nonblocking(true)?;
        let connection = runtime.block_on(async {
            let stream = tokio::net::TcpStream::from_std(stream)?;
            let stream = TlsConnector::from(Arc::clone(&visit.tls)).connect("bench.test".try_into()?, stream).await?;
            let (sender, connection) = h2::client::handshake(stream).await?;
            // What ends it is told to whoever asks next.
            tokio::spawn(async { connection.await.ok() });
            Ok::<_, Failure>(sender)
        })?;
        Ok(Self { runtime, connection, request })
    }
}

impl Ask for Http2 {
    fn ask(&mut self) -> Result<u16, Failure> {
        let (connection, request) = (self.connection.clone(), self.request.clone());
        self.runtime.block_on(async {
            let (answer, _sent_whole) = connection.ready().await?.send_request(request, true)?;
            let answer = answer.await?;
            let (status, mut body) = (answer.status().as_u16(), answer.into_body());
            while let Some(piece) = body.data().await {
                body.flow_control().release_capacity(piece?.len())?;
            }
            Ok(status)
        })
    }
}
