//! Lines for machines, to standard output or a file, which never hold up whoever writes them.
//!
//! They wait in memory, bounded, and a thread of their own writes many at once. A file that was moved
//! away or removed is opened anew under its name, so that it can be rotated.

use std::{
    fs::{File, OpenOptions},
    io::{self, Write},
    mem,
    os::unix::fs::{MetadataExt, OpenOptionsExt},
    path::{Path, PathBuf},
    sync::{
        Arc, Condvar, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use tracing::{error, info};

/// Lines that wait, in bytes; with more waiting a further one is dropped, and counted.
const MAX_WAITING_BYTES: usize = 8 << 20;
/// How long a line waits at most for others, and how many bytes are worth a write at once.
const GATHER: Duration = Duration::from_millis(100);
const GATHERED_BYTES: usize = 1 << 20;

/// Writes a line, with its end, behind those that stand there.
pub type PutLine<'a> = &'a mut dyn FnMut(&mut Vec<u8>);

/// Where lines go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// Standard output.
    Stdout,
    /// To the end of this file, which is made where there is none, for our user only.
    File(PathBuf),
}

/// Lines since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LineStats {
    /// Given to the system.
    pub written: u64,
    /// Not taken: too many waited.
    pub dropped: u64,
    /// Taken and lost: the system did not take them.
    pub failed: u64,
}

/// Takes lines and writes them, until it is closed.
#[derive(Debug)]
pub struct Lines {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Debug, Default)]
struct Shared {
    waiting: Mutex<Waiting>,
    /// Told when there is something to write, and at the end.
    changed: Condvar,
    written: AtomicU64,
    dropped: AtomicU64,
    failed: AtomicU64,
}

#[derive(Debug, Default)]
struct Waiting {
    bytes: Vec<u8>,
    lines: u64,
    /// The thread sleeps until there is something at all.
    idle: bool,
    ended: bool,
}

impl Lines {
    /// Opens `target`, and begins.
    pub fn open(target: Target) -> io::Result<Self> {
        let mut place = Place::open(target)?;
        let shared = Arc::new(Shared::default());
        let thread = {
            let shared = Arc::clone(&shared);
            let run = move || shared.run(&mut place);
            thread::Builder::new().name("lines".to_owned()).spawn(run)?
        };
        Ok(Self {
            shared,
            thread: Some(thread),
        })
    }

    /// What has a line written behind those that wait; it never waits for the disk.
    pub fn writer(&self) -> impl Fn(PutLine<'_>) + Send + Sync + use<> {
        let shared = Arc::clone(&self.shared);
        move |put| shared.take(put)
    }

    /// Tells its counts, also after it was closed.
    pub fn stats(&self) -> impl Fn() -> LineStats + Send + Sync + use<> {
        let shared = Arc::clone(&self.shared);
        move || LineStats {
            written: shared.written.load(Relaxed),
            dropped: shared.dropped.load(Relaxed),
            failed: shared.failed.load(Relaxed),
        }
    }
}

/// Writes what waits, and ends.
impl Drop for Lines {
    fn drop(&mut self) {
        self.shared.waiting().ended = true;
        self.shared.changed.notify_one();
        if let Some(thread) = self.thread.take() {
            // A thread that panicked has ended too.
            let _ = thread.join();
        }
    }
}

impl Shared {
    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn take(&self, put: PutLine<'_>) {
        let mut waiting = self.waiting();
        let before = waiting.bytes.len();
        let has_room = !waiting.ended && before < MAX_WAITING_BYTES;
        if has_room {
            put(&mut waiting.bytes);
        }
        if !has_room || waiting.bytes.len() > MAX_WAITING_BYTES {
            waiting.bytes.truncate(before);
            drop(waiting);
            self.dropped.fetch_add(1, Relaxed);
            return;
        }
        waiting.lines += 1;
        let is_news =
            waiting.idle || before < GATHERED_BYTES && waiting.bytes.len() >= GATHERED_BYTES;
        waiting.idle = false;
        drop(waiting);
        if is_news {
            self.changed.notify_one();
        }
    }

    fn run(&self, place: &mut Place) {
        let mut bytes = Vec::new();
        loop {
            bytes.clear();
            let (lines, ended) = self.gather(&mut bytes);
            if lines > 0 {
                let count = match place.write(&bytes) {
                    Ok(()) => &self.written,
                    Err(()) => &self.failed,
                };
                count.fetch_add(lines, Relaxed);
            }
            if ended {
                return;
            }
        }
    }

    /// Waits for lines, and a little for more; how many there are, and whether these were the last. While
    /// many come it is woken once for each write.
    fn gather(&self, bytes: &mut Vec<u8>) -> (u64, bool) {
        let mut waiting = self.gathered(self.waiting());
        if waiting.bytes.is_empty() && !waiting.ended {
            waiting.idle = true;
            let idle = |waiting: &mut Waiting| waiting.idle && !waiting.ended;
            let woken = self.changed.wait_while(waiting, idle);
            waiting = self.gathered(woken.unwrap_or_else(PoisonError::into_inner));
        }
        mem::swap(bytes, &mut waiting.bytes);
        (mem::take(&mut waiting.lines), waiting.ended)
    }

    /// When it is time to write, and be it nothing.
    fn gathered<'a>(&self, waiting: MutexGuard<'a, Waiting>) -> MutexGuard<'a, Waiting> {
        let few = |waiting: &mut Waiting| waiting.bytes.len() < GATHERED_BYTES && !waiting.ended;
        let waited = self.changed.wait_timeout_while(waiting, GATHER, few);
        waited.unwrap_or_else(PoisonError::into_inner).0
    }
}

/// Where lines go, and how that went last.
#[derive(Debug)]
struct Place {
    sink: Sink,
    /// Of a write that failed half-way a part of a line may stand there.
    failed: bool,
}

#[derive(Debug)]
enum Sink {
    Stdout,
    File { path: PathBuf, file: File },
}

impl Place {
    fn open(target: Target) -> io::Result<Self> {
        let sink = match target {
            Target::Stdout => Sink::Stdout,
            Target::File(path) => Sink::File {
                file: open(&path)?,
                path,
            },
        };
        Ok(Self {
            sink,
            failed: false,
        })
    }

    /// What went wrong is said once, until it goes well again.
    fn write(&mut self, bytes: &[u8]) -> Result<(), ()> {
        match self.try_write(bytes) {
            Ok(()) => {
                if mem::take(&mut self.failed) {
                    info!("the decision log can be written again");
                }
                Ok(())
            }
            Err(cause) => {
                if !mem::replace(&mut self.failed, true) {
                    error!(%cause, "the decision log cannot be written; decisions go unrecorded");
                }
                Err(())
            }
        }
    }

    fn try_write(&mut self, bytes: &[u8]) -> io::Result<()> {
        let end_half_a_line: &[u8] = if self.failed { b"\n" } else { b"" };
        let mut sink: Box<dyn Write> = match &mut self.sink {
            Sink::Stdout => Box::new(io::stdout().lock()),
            Sink::File { path, file } => {
                if !is_still_at(file, path) {
                    *file = open(path)?;
                }
                Box::new(file)
            }
        };
        sink.write_all(end_half_a_line)?;
        sink.write_all(bytes)?;
        sink.flush()
    }
}

fn open(path: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.append(true).create(true).mode(0o600).open(path)
}

/// Whether the file has the name under which it was opened.
fn is_still_at(file: &File, path: &Path) -> bool {
    let identity = |metadata: &std::fs::Metadata| (metadata.dev(), metadata.ino());
    match (file.metadata(), path.metadata()) {
        (Ok(open), Ok(there)) => identity(&open) == identity(&there),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    fn file() -> (tempfile::TempDir, PathBuf) {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("decisions.jsonl");
        (folder, path)
    }

    #[test]
    fn what_waits_at_the_end_is_written() {
        let (_folder, path) = file();
        let lines = Lines::open(Target::File(path.clone())).expect("it opens");
        let (write, stats) = (lines.writer(), lines.stats());
        for number in 0..1_000 {
            write(&mut |lines| lines.extend_from_slice(format!("{number}\n").as_bytes()));
        }
        drop(lines);
        write(&mut |lines| lines.extend_from_slice(b"too late\n"));

        let text = fs::read_to_string(&path).expect("text");
        let expected: Vec<String> = (0..1_000).map(|number| number.to_string()).collect();
        assert!(text.lines().eq(&expected));
        let LineStats {
            written,
            dropped,
            failed,
        } = stats();
        assert_eq!((written, dropped, failed), (1_000, 1, 0));
        let mode = fs::metadata(&path).expect("a file").mode();
        assert_eq!(mode & 0o777, 0o600);
    }

    #[test]
    fn a_file_that_was_moved_away_is_made_anew() {
        let (folder, path) = file();
        let mut place = Place::open(Target::File(path.clone())).expect("it opens");
        let moved = folder.path().join("decisions.jsonl.1");

        place.write(b"before\n").expect("written");
        fs::rename(&path, &moved).expect("moved");
        place.write(b"behind\n").expect("written");

        assert_eq!(fs::read_to_string(&moved).expect("text"), "before\n");
        assert_eq!(fs::read_to_string(&path).expect("text"), "behind\n");
    }

    #[test]
    fn with_too_much_waiting_a_line_is_dropped_and_counted() {
        let shared = Shared::default();
        let line = vec![b'x'; MAX_WAITING_BYTES / 2];
        for _ in 0..3 {
            shared.take(&mut |lines| lines.extend_from_slice(&line));
        }
        assert_eq!(shared.waiting().lines, 2);
        assert_eq!(shared.dropped.load(Relaxed), 1);
    }

    #[test]
    fn a_disk_that_takes_nothing_is_counted_and_said_and_the_next_line_is_whole() {
        let full = Target::File("/dev/full".into());
        let mut place = Place::open(full).expect("it opens");
        place.write(b"lost\n").expect_err("the disk is full");

        let (_folder, path) = file();
        place.sink = Place::open(Target::File(path.clone()))
            .expect("it opens")
            .sink;
        place.write(b"whole\n").expect("written");
        assert_eq!(fs::read_to_string(&path).expect("text"), "\nwhole\n");
    }
}
