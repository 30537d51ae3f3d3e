//! Where the lines go in the end. Whatever happens to them there stops nothing, but is told as soon as
//! lines can be written again (S164).

use std::io;
use std::io::Write;
use std::sync::Arc;
use std::sync::OnceLock;

use tracing_appender::non_blocking::ErrorCounter;

/// A writer that never fails. Each write is one whole line.
pub(super) struct Sink<W> {
    to: W,
    /// Lines that could not be written since it was told last.
    failed: usize,
    /// Lines for which there was no room before the writer; set once that is known.
    overflow: Arc<OnceLock<ErrorCounter>>,
    told: usize,
    tell: fn(usize),
}

impl<W> Sink<W> {
    pub(super) fn new(to: W, overflow: Arc<OnceLock<ErrorCounter>>, tell: fn(usize)) -> Self {
        Self { to, failed: 0, overflow, told: 0, tell }
    }

    fn tell_of_lost_lines(&mut self) {
        let overflown = self.overflow.get().map_or(0, ErrorCounter::dropped_lines);
        let lost = self.failed + overflown.saturating_sub(self.told);
        (self.failed, self.told) = (0, overflown);
        if lost > 0 {
            (self.tell)(lost);
        }
    }
}

impl<W: Write> Write for Sink<W> {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        match self.to.write_all(line) {
            Ok(()) => self.tell_of_lost_lines(),
            Err(_) => self.failed += 1,
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        // What cannot be flushed could not be written either.
        let _counted_already = self.to.flush();
        Ok(())
    }
}

/// Is itself a line, and waits its turn like any other.
pub(super) fn tell_of(lost: usize) {
    tracing::warn!(event = "log.lost", lines = lost);
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicUsize;
    use std::sync::atomic::Ordering;

    use super::*;

    /// A disk that is full for the first lines.
    struct Disk {
        full_for: usize,
        written: String,
    }

    impl Write for Disk {
        fn write(&mut self, line: &[u8]) -> io::Result<usize> {
            if self.full_for > 0 {
                self.full_for -= 1;
                return Err(io::ErrorKind::StorageFull.into());
            }
            self.written.push_str(std::str::from_utf8(line).unwrap());
            Ok(line.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn lost_lines_are_counted_and_told_when_there_is_room_again() {
        // S164
        static TOLD: AtomicUsize = AtomicUsize::new(0);
        let disk = Disk { full_for: 3, written: String::new() };
        let mut sink = Sink::new(disk, Arc::default(), |lost| {
            TOLD.fetch_add(lost, Ordering::Relaxed);
        });

        for line in ["one\n", "two\n", "three\n"] {
            sink.write_all(line.as_bytes()).unwrap();
            assert_eq!(TOLD.load(Ordering::Relaxed), 0);
        }
        for line in ["four\n", "five\n"] {
            sink.write_all(line.as_bytes()).unwrap();
            assert_eq!(TOLD.load(Ordering::Relaxed), 3);
        }

        assert_eq!(sink.to.written, "four\nfive\n");
    }
}
