//! Where the lines go in the end. Whatever happens to them there stops nothing, but is told as soon as
//! lines can be written again (S164).

use std::io;
use std::io::Write;
use std::sync::Arc;
use std::sync::OnceLock;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering;

use serde_json::Map;
use tracing::Level;
use tracing_appender::non_blocking::ErrorCounter;

use crate::telemetry::format;

/// A writer that never fails. Each write is one whole line.
pub(super) struct Sink<W> {
    to: W,
    json: Arc<AtomicBool>,
    /// Lines that could not be written since it was told last.
    failed: usize,
    /// Lines for which there was no room before the writer; set once that is known.
    overflow: Arc<OnceLock<ErrorCounter>>,
    told: usize,
}

impl<W: Write> Sink<W> {
    pub(super) fn new(to: W, json: Arc<AtomicBool>, overflow: Arc<OnceLock<ErrorCounter>>) -> Self {
        Self { to, json, failed: 0, overflow, told: 0 }
    }

    fn tell_of_lost_lines(&mut self) -> io::Result<()> {
        let overflown = self.overflow.get().map_or(0, ErrorCounter::dropped_lines);
        let lost = self.failed + overflown.saturating_sub(self.told);
        if lost == 0 {
            return Ok(());
        }
        let fields = Map::from_iter([("event".to_owned(), "log.lost".into()), ("lines".to_owned(), lost.into())]);
        let line = format::compose(&Level::WARN, "vestibule", fields, self.json.load(Ordering::Relaxed));
        self.to.write_all(line.as_bytes())?;
        (self.failed, self.told) = (0, overflown);
        Ok(())
    }
}

impl<W: Write> Write for Sink<W> {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        if self.tell_of_lost_lines().and_then(|()| self.to.write_all(line)).is_err() {
            self.failed += 1;
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        // What cannot be flushed could not be written either.
        let _counted_already = self.to.flush();
        Ok(())
    }
}

#[cfg(test)]
mod tests {
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
        let disk = Disk { full_for: 3, written: String::new() };
        let mut sink = Sink::new(disk, Arc::new(AtomicBool::new(true)), Arc::default());

        for line in ["one\n", "two\n", "three\n", "four\n", "five\n"] {
            sink.write_all(line.as_bytes()).unwrap();
        }

        let lines: Vec<_> = sink.to.written.lines().collect();
        assert_eq!(lines.len(), 3, "{lines:?}");
        assert!(lines[0].contains(r#""event":"log.lost","lines":3"#), "{lines:?}");
        assert_eq!(&lines[1..], ["four", "five"]);
    }
}
