//! Log writer: a thread that writes lines from a bounded queue, so that nobody who logs waits for the
//! reader of the log. Both logs have one.

use std::io::{self, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::thread;
use std::time::Duration;

/// How often a log that has lines of its own to come must give them.
const OWN_LINES: Duration = Duration::from_secs(1);

/// Lines that are written together.
#[derive(Debug, Default)]
pub(super) struct Batch {
    pub(super) text: String,
    pub(super) lines: u64,
}

impl Batch {
    /// What was gathered. The next batch begins with as much room, since it is often as long.
    pub(super) fn take(&mut self) -> Self {
        let next = Self {
            text: String::with_capacity(self.text.len()),
            lines: 0,
        };
        std::mem::replace(self, next)
    }
}

/// How much may wait to be written: this bounds the memory of a log whose reader has stopped.
#[derive(Clone, Copy, Debug)]
pub(super) struct QueueLimits {
    pub(super) batches: usize,
    pub(super) bytes: usize,
}

/// Where lines go in.
#[derive(Clone, Debug)]
pub(super) struct LogQueue {
    batches: SyncSender<Batch>,
    /// Bytes that wait, or are being written.
    bytes: Arc<AtomicUsize>,
    max_bytes: usize,
}

/// The thread that writes a log.
#[derive(Debug)]
pub struct LogWriter {
    queue: LogQueue,
    stopping: Arc<AtomicBool>,
    stopped: Receiver<()>,
}

/// When a log must give lines of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Moment {
    /// Nothing is written after this.
    End,
    Running,
}

/// Starts the thread `name`, which writes to `out`. `lost` hears of lines that `out` does not take.
/// `own` appends lines of the log's own, and says whether it is to be called again within a second;
/// it is called after each batch too.
pub(super) fn start(
    name: &str,
    limits: QueueLimits,
    out: impl Write + Send + 'static,
    lost: impl Fn(u64) + Send + 'static,
    own: impl FnMut(&mut String, Moment) -> bool + Send + 'static,
) -> io::Result<(LogQueue, LogWriter)> {
    let (batches, receiver) = sync_channel(limits.batches);
    let (stopped_sender, stopped) = sync_channel(1);
    let stopping = Arc::new(AtomicBool::new(false));
    let queue = LogQueue {
        batches,
        bytes: Arc::default(),
        max_bytes: limits.bytes,
    };
    let output = Output {
        out,
        lost,
        bytes: Arc::clone(&queue.bytes),
    };
    let stop = Arc::clone(&stopping);
    thread::Builder::new()
        .name(name.to_owned())
        .spawn(move || {
            write_batches(receiver, output, own, &stop);
            // Nobody may be waiting any more.
            let _ = stopped_sender.try_send(());
        })?;
    let writer = LogWriter {
        queue: queue.clone(),
        stopping,
        stopped,
    };
    Ok((queue, writer))
}

impl LogQueue {
    /// Hands over a batch, and never waits. `false`: the queue is full or the log has ended, and the
    /// lines are lost.
    #[must_use]
    pub(super) fn offer(&self, batch: Batch) -> bool {
        let length = batch.text.len();
        let waiting = self.bytes.fetch_add(length, Ordering::Relaxed);
        let taken = waiting + length <= self.max_bytes && self.batches.try_send(batch).is_ok();
        if !taken {
            self.bytes.fetch_sub(length, Ordering::Relaxed);
        }
        taken
    }
}

impl LogWriter {
    /// Waits until all lines so far are written, at most for `limit`. Whether they were.
    pub fn finish(self, limit: Duration) -> bool {
        self.stopping.store(true, Ordering::Release);
        // Wakes a writer that waits for a batch. When the queue is full it is not waiting, and
        // looks at `stopping` once it has emptied the queue.
        let _ = self.queue.offer(Batch::default());
        self.stopped.recv_timeout(limit).is_ok()
    }
}

/// What is written to, and what is counted of it.
struct Output<W, L> {
    out: W,
    lost: L,
    bytes: Arc<AtomicUsize>,
}

impl<W: Write, L: Fn(u64)> Output<W, L> {
    fn write(&mut self, text: &str, lines: u64) {
        let written = self.out.write_all(text.as_bytes());
        if written.and_then(|()| self.out.flush()).is_err() {
            (self.lost)(lines);
        }
    }

    fn write_batch(&mut self, batch: &Batch) {
        self.write(&batch.text, batch.lines);
        self.bytes.fetch_sub(batch.text.len(), Ordering::Relaxed);
    }
}

/// Takes the queue, so that what comes after the end is refused, and counted by who brings it.
#[expect(
    clippy::needless_pass_by_value,
    reason = "it must be dropped at the end"
)]
fn write_batches<W: Write, L: Fn(u64)>(
    queue: Receiver<Batch>,
    mut output: Output<W, L>,
    mut own: impl FnMut(&mut String, Moment) -> bool,
    stopping: &AtomicBool,
) {
    let mut has_more = false;
    loop {
        let received = if has_more {
            queue.recv_timeout(OWN_LINES)
        } else {
            queue.recv().map_err(RecvTimeoutError::from)
        };
        match received {
            Ok(batch) => output.write_batch(&batch),
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => return,
        }
        let moment = if stopping.load(Ordering::Acquire) {
            // What came while the batch was written.
            for batch in queue.try_iter() {
                output.write_batch(&batch);
            }
            Moment::End
        } else {
            Moment::Running
        };
        let mut text = String::new();
        has_more = own(&mut text, moment);
        if !text.is_empty() {
            let lines = text.bytes().filter(|byte| *byte == b'\n').count();
            output.write(&text, lines as u64);
        }
        if moment == Moment::End {
            return;
        }
    }
}

/// Writers for tests of logs.
#[cfg(test)]
pub(super) mod test_writers {
    use std::io::{self, Write};
    use std::sync::mpsc::Receiver;
    use std::sync::{Arc, Mutex};

    /// Keeps what is written.
    #[derive(Clone, Default)]
    pub(in crate::observe) struct KeptText(Arc<Mutex<Vec<u8>>>);

    impl KeptText {
        /// What was written so far.
        pub(in crate::observe) fn text(&self) -> String {
            String::from_utf8(self.0.lock().unwrap().clone()).unwrap()
        }
    }

    impl Write for KeptText {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    /// Takes nothing until its sender is dropped or sends.
    pub(in crate::observe) struct StalledWriter(pub(in crate::observe) Receiver<()>);

    impl Write for StalledWriter {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let _ = self.0.recv();
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fmt::Write as _;
    use std::sync::atomic::AtomicU64;

    use super::test_writers::{KeptText, StalledWriter};
    use super::*;

    const LIMITS: QueueLimits = QueueLimits {
        batches: 8,
        bytes: 100,
    };

    fn line(length: usize) -> Batch {
        Batch {
            text: "x".repeat(length - 1) + "\n",
            lines: 1,
        }
    }

    #[test]
    fn a_stalled_queue_is_bounded_in_lines_and_in_bytes() {
        for (length, max) in [(2, 8 + 1), (40, 2)] {
            let (resume, stalled) = sync_channel(0);
            let own = |_: &mut String, _| false;
            let (queue, writer) =
                start("log", LIMITS, StalledWriter(stalled), |_| {}, own).unwrap();
            let taken = (0..100).filter(|_| queue.offer(line(length))).count();
            assert!((1..=max).contains(&taken), "{taken} of {length} bytes");
            drop(resume);
            assert!(writer.finish(Duration::from_secs(10)));
            assert_eq!(queue.bytes.load(Ordering::Relaxed), 0);
            assert!(!queue.offer(line(2)), "after the end");
        }
    }

    #[test]
    fn lines_of_the_logs_own_come_without_another_line() {
        let out = KeptText::default();
        let written = out.clone();
        let calls = AtomicU64::new(0);
        let own = move |text: &mut String, moment| {
            let call = calls.fetch_add(1, Ordering::Relaxed);
            if call > 0 || moment == Moment::End {
                let _ = writeln!(text, "own {moment:?}");
            }
            call == 0
        };
        let (queue, writer) = start("log", LIMITS, out, |_| {}, own).unwrap();
        assert!(queue.offer(line(2)));
        let text = || written.text();
        for _ in 0..1000 {
            if text().contains("Running") {
                break;
            }
            thread::sleep(Duration::from_millis(10));
        }
        assert_eq!(text(), "x\nown Running\n");
        assert!(writer.finish(Duration::from_secs(10)));
        assert_eq!(text(), "x\nown Running\nown End\n");
    }
}
