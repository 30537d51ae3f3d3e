//! Bodies are streamed, never kept: what passes does not show in the memory of the program (S175). What one has left
//! is used for the next.

use std::process::Command;
use std::process::Stdio;
use std::time::Duration;

use tokio::io::AsyncReadExt;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpListener;
use tokio::net::TcpStream;
use tokio_rustls::client::TlsStream;

use crate::support::Browser;
use crate::support::Wire;
use crate::support::file;
use crate::support::program::BINARY;
use crate::support::program::Program;
use crate::support::read_head;

const FOUR_GIGABYTES: u64 = 4 << 30;
const BLOCK: usize = 256 * 1024;
/// What the program may grow by while they pass, in kilobytes.
const GROWTH: u64 = 16 * 1024;
const PUBLIC: &str = "[site.access]\ndefault = \"public\"\n[site.limits]\nbody = \"off\"\n";

/// Answers a GET with four gigabytes, and takes in whatever else is sent before it answers.
async fn serve(mut stream: TcpStream) -> std::io::Result<()> {
    let mut buffer = vec![0; BLOCK];
    let read = stream.read(&mut buffer).await?;
    let head = String::from_utf8_lossy(&buffer[..read]).into_owned();
    if head.starts_with("GET") {
        stream.write_all(format!("HTTP/1.1 200 OK\r\ncontent-length: {FOUR_GIGABYTES}\r\n\r\n").as_bytes()).await?;
        return send(&mut stream).await;
    }
    let body = read as u64 - head.find("\r\n\r\n").map_or(0, |at| at as u64 + 4);
    let left = FOUR_GIGABYTES - body;
    assert_eq!(tokio::io::copy(&mut (&mut stream).take(left), &mut tokio::io::sink()).await?, left);
    stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").await
}

async fn send(stream: &mut (impl tokio::io::AsyncWrite + Unpin)) -> std::io::Result<()> {
    let block = vec![0; BLOCK];
    for _ in 0..FOUR_GIGABYTES / BLOCK as u64 {
        stream.write_all(&block).await?;
    }
    stream.flush().await
}

/// The most memory that the program ever had, kilobytes.
fn high_water(program: &Program) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", program.id())).unwrap();
    let line = status.lines().find(|line| line.starts_with("VmHWM")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn four_gigabytes_up_and_down_leave_memory_flat() {
    // S175
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            tokio::spawn(serve(stream));
        }
    });
    let program = Program::start(&file(&url, PUBLIC)).await;
    let browser = Browser::new(program.https);
    assert_eq!(browser.clone().fetch("/.vestibule/session").await.status, 401, "everything has been used once");
    let before = high_water(&program);

    let down = async {
        let mut stream = browser.connect(b"http/1.1").await;
        stream.write_all(b"GET / HTTP/1.1\r\nhost: app.test\r\nconnection: close\r\n\r\n").await.unwrap();
        let mut taken = 0;
        let mut buffer = vec![0; BLOCK];
        while let Ok(read @ 1..) = stream.read(&mut buffer).await {
            taken += read as u64;
        }
        taken
    };
    let up = async {
        let mut stream = browser.connect(b"http/1.1").await;
        let head = format!("POST / HTTP/1.1\r\nhost: app.test\r\ncontent-length: {FOUR_GIGABYTES}\r\n\r\n");
        stream.write_all(head.as_bytes()).await.unwrap();
        send(&mut stream).await.unwrap();
        let mut answer = vec![0; 12];
        stream.read_exact(&mut answer).await.unwrap();
        answer
    };
    let (taken, answer) =
        tokio::time::timeout(Duration::from_secs(600), async { tokio::join!(down, up) }).await.unwrap();

    assert!(taken > FOUR_GIGABYTES, "head and body: {taken}");
    assert_eq!(answer, b"HTTP/1.1 200");
    let after = high_water(&program);
    assert!(after < before + GROWTH, "{before} kB before, {after} kB after");
}

/// Answers each request with 64 KiB.
async fn answer(_number: usize, mut stream: TcpStream) {
    let page = [b"HTTP/1.1 200 OK\r\ncontent-length: 65536\r\n\r\n".as_slice(), &[b'x'; 64 * 1024]].concat();
    while !read_head(&mut stream).await.is_empty() {
        stream.write_all(&page).await.unwrap();
    }
}

/// How often the program took a page that it had not had, or not any more.
fn page_faults(program: &Program) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/stat", program.id())).unwrap();
    // Behind the name, which may have spaces: proc_pid_stat(5).
    let (_, fields) = status.rsplit_once(')').unwrap();
    fields.split_whitespace().nth(7).unwrap().parse().unwrap()
}

/// Where the allocator is glibc's, and learns.
#[cfg(all(target_env = "gnu", target_pointer_width = "64"))]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn memory_that_was_freed_is_used_again() {
    let application = Wire::start(answer).await;
    let mut command = Command::new(BINARY);
    command.stdin(Stdio::null());
    for setting in ["GLIBC_TUNABLES", "MALLOC_TRIM_THRESHOLD_", "MALLOC_MMAP_THRESHOLD_", "MALLOC_TOP_PAD_"] {
        command.env_remove(setting);
    }
    let program = Program::start_by(command, &file(&application.url(), PUBLIC)).await;
    let browser = Browser::new(program.https);
    let mut streams = Vec::new();
    for _ in 0..32 {
        streams.push(browser.connect(b"http/1.1").await);
    }
    let (mut answers, mut faults) = (0, 0);
    // What is free at the end of the heap depends on what happens to lie there.
    for count in [8, 12, 16, 24, 32] {
        pages(&mut streams[..count], 10).await;
        let before = page_faults(&program);
        pages(&mut streams[..count], 30).await;
        faults += page_faults(&program) - before;
        answers += 30 * count as u64;
    }
    assert!(faults < answers / 4, "{faults} pages were taken for {answers} answers");
}

/// Has each client ask for so many pages, all of them at the same time.
async fn pages(streams: &mut [TlsStream<TcpStream>], count: usize) {
    for _ in 0..count {
        for stream in &mut *streams {
            stream.write_all(b"GET / HTTP/1.1\r\nhost: app.test\r\n\r\n").await.unwrap();
            stream.flush().await.unwrap();
        }
        for stream in &mut *streams {
            let head = read_head(stream).await;
            assert!(head.starts_with("HTTP/1.1 200"), "{head}");
            stream.read_exact(&mut [0; 64 * 1024]).await.unwrap();
        }
    }
}
