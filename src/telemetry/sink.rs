//! Where lines wait for the thread that writes them. A request only copies its line; many are written
//! at once. When the writer cannot keep up, or what it writes to takes nothing, lines are lost and
//! counted, and no request waits; how many is told as soon as lines can be written again (S164).

use std::io;
use std::io::Write;
use std::sync::Arc;
use std::sync::Condvar;
use std::sync::Mutex;
use std::sync::MutexGuard;
use std::sync::PoisonError;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering;
use std::thread::JoinHandle;
use std::time::Duration;

/// Bytes that may wait.
const LIMIT: usize = 4 * 1024 * 1024;
/// So many are written without waiting for more.
const ENOUGH: usize = 64 * 1024;
/// How long the first line waits for others.
const GATHER: Duration = Duration::from_millis(20);

/// Lines that were lost: one process has one log.
static LOST: AtomicUsize = AtomicUsize::new(0);

/// How many lines could not be written so far.
pub fn lines_lost() -> usize {
    LOST.load(Ordering::Relaxed)
}

/// Lines that wait.
#[derive(Default)]
pub(super) struct Sink {
    waiting: Mutex<Waiting>,
    wake: Condvar,
}

#[derive(Default)]
struct Waiting {
    lines: Vec<u8>,
    lost: usize,
    closed: bool,
}

/// Keeps the writer going; what is waiting is written when it is dropped.
pub(super) struct Writer {
    sink: Arc<Sink>,
    thread: Option<JoinHandle<()>>,
}

impl Drop for Writer {
    fn drop(&mut self) {
        self.sink.waiting().closed = true;
        self.sink.wake.notify_one();
        if let Some(thread) = self.thread.take() {
            // A writer that failed has nothing more to write.
            let _ended = thread.join();
        }
    }
}

impl Sink {
    /// A sink, and the thread that writes what it holds. `lost` makes the line that says how many were
    /// lost.
    ///
    /// # Errors
    /// When the system has no thread left.
    pub(super) fn start(
        output: impl Write + Send + 'static,
        lost: impl Fn(usize) -> Vec<u8> + Send + 'static,
    ) -> io::Result<(Arc<Self>, Writer)> {
        let sink = Arc::new(Self::default());
        let own = Arc::clone(&sink);
        let thread = std::thread::Builder::new().name("log".to_owned()).spawn(move || own.write(output, &lost))?;
        Ok((Arc::clone(&sink), Writer { sink, thread: Some(thread) }))
    }

    /// Takes a line.
    pub(super) fn put(&self, line: &[u8]) {
        let mut waiting = self.waiting();
        let before = waiting.lines.len();
        if before + line.len() > LIMIT {
            waiting.lost += 1;
            return;
        }
        waiting.lines.extend_from_slice(line);
        let is_enough = before < ENOUGH && waiting.lines.len() >= ENOUGH;
        drop(waiting);
        if before == 0 || is_enough {
            self.wake.notify_one();
        }
    }

    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self, mut output: impl Write, tell: &dyn Fn(usize) -> Vec<u8>) {
        let (mut lines, mut lost) = (Vec::new(), 0);
        loop {
            let (overflown, closed) = self.next(&mut lines);
            let failed = write_lines(&mut output, &lines);
            lost += overflown + failed;
            LOST.fetch_add(overflown + failed, Ordering::Relaxed);
            if failed == 0 && lost > 0 && write_lines(&mut output, &tell(lost)) == 0 {
                lost = 0;
            }
            if closed {
                return;
            }
            lines.clear();
            lines.shrink_to(ENOUGH * 2);
        }
    }

    /// Waits for lines and takes them; how many there was no room for, and whether these were the last.
    fn next(&self, lines: &mut Vec<u8>) -> (usize, bool) {
        let none = |waiting: &mut Waiting| waiting.lines.is_empty() && !waiting.closed;
        let few = |waiting: &mut Waiting| waiting.lines.len() < ENOUGH && !waiting.closed;
        let waiting = self.wake.wait_while(self.waiting(), none).unwrap_or_else(PoisonError::into_inner);
        let gathered = self.wake.wait_timeout_while(waiting, GATHER, few).unwrap_or_else(PoisonError::into_inner);
        let mut waiting = gathered.0;
        std::mem::swap(&mut waiting.lines, lines);
        (std::mem::take(&mut waiting.lost), waiting.closed)
    }
}

/// Writes lines; how many could not be written.
fn write_lines(output: &mut impl Write, mut lines: &[u8]) -> usize {
    while !lines.is_empty() {
        match output.write(lines) {
            Ok(written) if written > 0 => lines = &lines[written..],
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Ok(_) | Err(_) => break,
        }
    }
    // What cannot be flushed could not be written either.
    let _counted_already = output.flush();
    lines.iter().filter(|byte| **byte == b'\n').count()
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    /// Writes into a channel, and waits for leave to do so.
    struct Slow {
        leave: mpsc::Receiver<()>,
        written: mpsc::Sender<Vec<u8>>,
    }

    impl Write for Slow {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            // Leave is given for good when the test lets go of its end.
            let _leave = self.leave.recv();
            self.written.send(bytes.to_vec()).unwrap();
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn slow() -> (Arc<Sink>, Writer, mpsc::Sender<()>, mpsc::Receiver<Vec<u8>>) {
        let (allow, leave) = mpsc::channel();
        let (written, read) = mpsc::channel();
        let report = |count| format!("lost {count}\n").into_bytes();
        let (sink, writer) = Sink::start(Slow { leave, written }, report).unwrap();
        (sink, writer, allow, read)
    }

    #[test]
    fn lines_are_written_in_order_and_the_last_ones_at_the_end() {
        let (sink, writer, allow, read) = slow();
        sink.put(b"one\n");
        sink.put(b"two\n");
        allow.send(()).unwrap();
        let mut all = read.recv().unwrap();
        sink.put(b"three\n");
        drop(allow);
        drop(writer);

        all.extend(read.iter().flatten());

        assert_eq!(String::from_utf8(all).unwrap(), "one\ntwo\nthree\n");
    }

    #[test]
    fn what_there_is_no_room_for_is_counted_and_nobody_waits() {
        // S164
        let (sink, writer, allow, read) = slow();
        let line = vec![b'x'; LIMIT / 4];
        for _ in 0..12 {
            sink.put(&line);
        }
        drop(allow);
        drop(writer);

        let all: Vec<u8> = read.iter().flatten().collect();

        let lines = all.iter().filter(|byte| **byte == b'x').count() / line.len();
        assert!((4..=8).contains(&lines), "{lines}");
        assert!(all.ends_with(format!("lost {}\n", 12 - lines).as_bytes()));
    }

    /// A disk that is full for the first writes.
    struct Disk {
        full_for: usize,
        written: mpsc::Sender<Vec<u8>>,
    }

    impl Write for Disk {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            if self.full_for > 0 {
                self.full_for -= 1;
                self.written.send(Vec::new()).unwrap();
                return Err(io::ErrorKind::StorageFull.into());
            }
            self.written.send(bytes.to_vec()).unwrap();
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn lost_lines_are_counted_and_told_when_there_is_room_again() {
        // S164
        let (written, read) = mpsc::channel();
        let report = |count| format!("lost {count}\n").into_bytes();
        let (sink, writer) = Sink::start(Disk { full_for: 1, written }, report).unwrap();
        sink.put(b"one\ntwo\n");
        assert_eq!(read.recv().unwrap(), b"");
        sink.put(b"three\n");
        drop(writer);

        let all: Vec<u8> = read.iter().flatten().collect();

        assert_eq!(String::from_utf8(all).unwrap(), "three\nlost 2\n");
    }
}
