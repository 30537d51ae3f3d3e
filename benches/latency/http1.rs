//! A connection that speaks HTTP/1.1.

use std::io::Read;
use std::io::Write;
use std::net::TcpStream;
use std::sync::Arc;

use rustls::ClientConnection;
use rustls::StreamOwned;

use crate::visitors::Ask;
use crate::visitors::Failure;
use crate::visitors::Visit;

pub struct Http1 {
    stream: StreamOwned<ClientConnection, TcpStream>,
    request: String,
    /// As much as the head of an answer and a page.
    answer: Box<[u8; 16 * 1024]>,
}

impl Http1 {
    pub fn open(visit: &Visit) -> Result<Self, Failure> {
        let stream = TcpStream::connect(("127.0.0.1", visit.port))?;
        stream.set_nodelay(true)?;
        let connection = ClientConnection::new(Arc::clone(&visit.tls), "bench.test".try_into()?)?;
        let Visit { authority, cookie, .. } = visit;
        let request = format!(
            "GET /page HTTP/1.1\r\nhost: {authority}\r\nuser-agent: bench\r\nsec-fetch-site: same-origin\r\n\
             cookie: {cookie}\r\n\r\n"
        );
        Ok(Self { stream: StreamOwned::new(connection, stream), request, answer: Box::new([0; 16 * 1024]) })
    }
}

impl Ask for Http1 {
    fn ask(&mut self) -> Result<u16, Failure> {
        self.stream.write_all(self.request.as_bytes())?;
        let mut read = 0;
        loop {
            match self.stream.read(&mut self.answer[read..])? {
                0 => return Err("the connection ended".into()),
                more => read += more,
            }
            if let Some((status, length)) = head(&self.answer[..read])?
                && read >= length
            {
                return Ok(status);
            }
        }
    }
}

/// The status of an answer and its length with the body, once its head is there.
fn head(answer: &[u8]) -> Result<Option<(u16, usize)>, Failure> {
    let mut fields = [httparse::EMPTY_HEADER; 64];
    let mut parsed = httparse::Response::new(&mut fields);
    let httparse::Status::Complete(head) = parsed.parse(answer)? else { return Ok(None) };
    let length = parsed.headers.iter().find(|field| field.name.eq_ignore_ascii_case("content-length"));
    let length: usize = std::str::from_utf8(length.ok_or("an answer without a length")?.value)?.parse()?;
    Ok(Some((parsed.code.unwrap_or(0), head + length)))
}
