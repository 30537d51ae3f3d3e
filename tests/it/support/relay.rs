//! Ways to a server that are not straight: a relay in front of an application that remembers what it received,
//! a line that can be cut.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::Mutex;

use tokio::io::AsyncReadExt;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpListener;
use tokio::net::TcpStream;
use tokio::sync::watch;

type Log = Arc<Mutex<Vec<Vec<u8>>>>;

/// Passes bytes to a port, and keeps a copy of what goes there.
pub struct Relay {
    address: SocketAddr,
    log: Log,
}

impl Relay {
    pub async fn to(port: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let log = Log::default();
        let written = Arc::clone(&log);
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(pass(stream, port, Arc::clone(&written)));
            }
        });
        Self { address, log }
    }

    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Whether the application ever received this, ignoring case.
    pub fn saw(&self, text: &str) -> bool {
        let text = text.to_ascii_lowercase();
        let log = self.log.lock().unwrap();
        log.iter().any(|bytes| String::from_utf8_lossy(bytes).to_ascii_lowercase().contains(&text))
    }

    /// Forgets what the application received so far.
    pub fn forget(&self) {
        self.log.lock().unwrap().iter_mut().for_each(Vec::clear);
    }
}

async fn pass(client: TcpStream, port: u16, log: Log) -> std::io::Result<()> {
    let server = TcpStream::connect(("127.0.0.1", port)).await?;
    let (mut from_client, mut to_client) = client.into_split();
    let (mut from_server, mut to_server) = server.into_split();
    let number = {
        let mut log = log.lock().unwrap();
        log.push(Vec::new());
        log.len() - 1
    };
    let there = async move {
        let mut buffer = vec![0; 16 * 1024];
        loop {
            let read = from_client.read(&mut buffer).await?;
            if read == 0 {
                return to_server.shutdown().await;
            }
            log.lock().unwrap()[number].extend_from_slice(&buffer[..read]);
            to_server.write_all(&buffer[..read]).await?;
        }
    };
    let back = async move {
        tokio::io::copy(&mut from_server, &mut to_client).await?;
        to_client.shutdown().await
    };
    tokio::try_join!(there, back).map(|_| ())
}

/// A line to a port. While it is cut, nobody is let through, and nothing that was said on it is answered.
pub struct Line {
    pub port: u16,
    is_cut: watch::Sender<bool>,
}

impl Line {
    pub async fn to(port: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (here, is_cut) = (listener.local_addr().unwrap().port(), watch::Sender::new(false));
        let cuts = is_cut.subscribe();
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let mut cuts = cuts.clone();
                tokio::spawn(async move {
                    let mut server = TcpStream::connect(("127.0.0.1", port)).await?;
                    tokio::select! {
                        ended = tokio::io::copy_bidirectional(&mut stream, &mut server) => ended.map(drop),
                        // The sender is gone with the test.
                        _ = cuts.wait_for(|is_cut| *is_cut) => Ok(()),
                    }
                });
            }
        });
        Self { port: here, is_cut }
    }

    pub fn cut(&self) {
        self.is_cut.send_replace(true);
    }

    pub fn mend(&self) {
        self.is_cut.send_replace(false);
    }
}
