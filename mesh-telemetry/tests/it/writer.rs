use std::{
    collections::HashMap,
    fs::{self, OpenOptions},
    io::Read as _,
    os::unix::fs::OpenOptionsExt as _,
    panic::{AssertUnwindSafe, catch_unwind},
    path::Path,
    process::Command,
    time::Duration,
};

use mesh_core::{
    clock,
    stats::{self, Registry, Value},
};
use mesh_telemetry::{LogSink, LogWriter, LogWriterConfig, Target};

use crate::temp::{SOON, TempDir, read, wait_until};

const HOUR: Duration = Duration::from_secs(3600);

/// A writer whose timer never comes.
fn writer(registry: &Registry) -> LogWriter {
    writer_with(registry, |_| {})
}

fn writer_with(registry: &Registry, change: impl FnOnce(&mut LogWriterConfig)) -> LogWriter {
    let mut config = LogWriterConfig {
        flush_interval: HOUR,
        close_timeout: SOON,
        ..LogWriterConfig::default()
    };
    change(&mut config);
    LogWriter::new(config, &registry.scope(""))
}

fn log(sink: &LogSink, line: &str) {
    sink.write(|out| {
        out.push_str(line);
        out.push('\n');
    });
}

fn stat(registry: &Registry, name: &str) -> u64 {
    let found = registry.snapshot().into_iter().find(|s| s.name == name);
    match found.map(|stat| stat.value) {
        Some(Value::Counter(n) | Value::Gauge(n)) => n,
        other => panic!("{name}: {other:?}"),
    }
}

fn open_files(path: &Path) -> usize {
    fs::read_dir("/proc/self/fd")
        .unwrap()
        .filter_map(|entry| fs::read_link(entry.ok()?.path()).ok())
        .filter(|target| target == path)
        .count()
}

#[test]
fn lines_of_many_threads_arrive_whole_and_in_order() {
    const THREADS: usize = 4;
    const LINES: usize = 20_000;
    let (dir, registry) = (TempDir::new(), Registry::new());
    let path = dir.path("access.log");
    stats::set_stripes(3);
    let writer = writer(&registry);
    let sink = writer.open(&Target::path(&path)).unwrap();
    std::thread::scope(|scope| {
        for thread in 0..THREADS {
            let sink = &sink;
            scope.spawn(move || {
                stats::set_thread_stripe(thread);
                for n in 0..LINES {
                    log(sink, &format!("{thread} {n} {}", "x".repeat(n % 200)));
                }
            });
        }
    });
    assert!(writer.flush(SOON));
    let mut next: HashMap<usize, usize> = HashMap::new();
    for line in read(&path).lines() {
        let mut words = line.split(' ');
        let thread = words.next().unwrap().parse().unwrap();
        let n: usize = words.next().unwrap().parse().unwrap();
        assert_eq!(words.next().unwrap().len(), n % 200);
        let expected = next.entry(thread).or_default();
        assert_eq!(n, *expected);
        *expected += 1;
    }
    assert_eq!(next.len(), THREADS);
    assert!(next.values().all(|&n| n == LINES));
    let lines = (THREADS * LINES) as u64;
    assert_eq!(stat(&registry, "filesystem.write_buffered"), lines);
    assert_eq!(stat(&registry, "filesystem.write_total_buffered"), 0);
    assert_eq!(stat(&registry, "access_log.dropped"), 0);
    // Chunks, not lines, go to the file.
    assert!(stat(&registry, "filesystem.write_completed") < lines / 50);
}

#[test]
fn a_full_disk_is_counted_and_costs_lines_but_never_blocks() {
    const LINES: u64 = 50_000;
    let registry = Registry::new();
    let writer = writer_with(&registry, |config| config.queue_bytes_max = 128 << 10);
    let sink = writer.open(&Target::path("/dev/full")).unwrap();
    for n in 0..LINES {
        log(&sink, &format!("line {n} that nobody will ever read"));
    }
    assert!(!writer.flush(SOON));
    assert!(stat(&registry, "filesystem.write_failed") > 0);
    assert_eq!(stat(&registry, "filesystem.write_completed"), 0);
    let dropped = stat(&registry, "access_log.dropped");
    assert!(dropped > LINES / 2 && dropped < LINES, "{dropped}");
    let waiting = stat(&registry, "filesystem.write_total_buffered");
    assert!(waiting > 0 && waiting <= 128 << 10, "{waiting}");
    drop((sink, writer));
}

#[test]
fn lines_that_never_reach_a_disk_are_dropped_and_counted_at_the_end() {
    let registry = Registry::new();
    let writer = writer(&registry);
    let counts = registry.scope("");
    let sink = writer.open(&Target::path("/dev/full")).unwrap();
    (0..1000).for_each(|_| log(&sink, "gone"));
    // The stats live as long as somebody holds them.
    let held = hold_stats(&counts);
    let start = clock::now();
    drop((sink, writer));
    assert!(clock::now() - start < SOON / 2, "the end was not told");
    assert_eq!(stat(&registry, "access_log.dropped"), 1000);
    assert_eq!(stat(&registry, "filesystem.write_total_buffered"), 0);
    drop(held);
}

/// A second writer in the same scope has the same cells.
fn hold_stats(scope: &stats::Scope) -> LogWriter {
    LogWriter::new(LogWriterConfig::default(), scope)
}

#[test]
fn the_last_owner_writes_what_is_left() {
    let (dir, registry) = (TempDir::new(), Registry::new());
    let path = dir.path("access.log");
    let writer = writer(&registry);
    let sink = writer.open(&Target::path(&path)).unwrap();
    drop(writer);
    log(&sink, "last words");
    assert_eq!(read(&path), "");
    drop(sink);
    assert_eq!(read(&path), "last words\n");
}

#[test]
fn a_line_is_written_when_the_interval_has_passed() {
    let (dir, registry) = (TempDir::new(), Registry::new());
    let path = dir.path("access.log");
    let writer = writer_with(&registry, |config| {
        config.flush_interval = Duration::from_millis(5);
    });
    let sink = writer.open(&Target::path(&path)).unwrap();
    log(&sink, "one");
    wait_until(|| read(&path) == "one\n");
    wait_until(|| stat(&registry, "filesystem.flushed_by_timer") == 1);
}

#[test]
fn much_is_written_without_waiting_for_the_interval() {
    let (dir, registry) = (TempDir::new(), Registry::new());
    let path = dir.path("access.log");
    let writer = writer(&registry);
    let sink = writer.open(&Target::path(&path)).unwrap();
    (0..100).for_each(|_| log(&sink, &"x".repeat(999)));
    wait_until(|| fs::metadata(&path).unwrap().len() >= 64 << 10);
    assert_eq!(stat(&registry, "filesystem.flushed_by_timer"), 0);
}

#[test]
fn after_a_rename_and_reopen_lines_go_to_the_new_file() {
    let (dir, registry) = (TempDir::new(), Registry::new());
    let (path, moved) = (dir.path("access.log"), dir.path("access.log.1"));
    let writer = writer(&registry);
    let sink = writer.open(&Target::path(&path)).unwrap();
    log(&sink, "old");
    fs::rename(&path, &moved).unwrap();
    writer.reopen();
    assert!(writer.flush(SOON));
    log(&sink, "new");
    assert!(writer.flush(SOON));
    assert_eq!(
        (read(&moved), read(&path)),
        ("old\n".into(), "new\n".into())
    );
    assert_eq!(open_files(&moved), 0);
}

#[test]
fn a_file_that_cannot_be_reopened_is_counted_and_the_old_one_goes_on() {
    let (dir, registry) = (TempDir::new(), Registry::new());
    let (logs, moved) = (dir.path("logs"), dir.path("moved"));
    fs::create_dir(&logs).unwrap();
    let writer = writer(&registry);
    let sink = writer.open(&Target::path(logs.join("a"))).unwrap();
    fs::rename(&logs, &moved).unwrap();
    writer.reopen();
    log(&sink, "still here");
    assert!(writer.flush(SOON));
    assert_eq!(stat(&registry, "filesystem.reopen_failed"), 1);
    assert_eq!(read(&moved.join("a")), "still here\n");
}

#[test]
fn one_path_is_opened_once_and_closed_when_nobody_logs_to_it() {
    let (dir, registry) = (TempDir::new(), Registry::new());
    let path = dir.path("access.log");
    fs::write(&path, "kept\n").unwrap();
    let writer = writer(&registry);
    let first = writer.open(&Target::path(&path)).unwrap();
    let second = writer.open(&Target::path(&path)).unwrap();
    assert_eq!(open_files(&path), 1);
    log(&first, "a");
    drop(first);
    log(&second, "b");
    assert!(writer.flush(SOON));
    assert_eq!(open_files(&path), 1);
    log(&second, "c");
    drop(second);
    assert!(writer.flush(SOON));
    wait_until(|| open_files(&path) == 0);
    assert_eq!(read(&path), "kept\na\nb\nc\n");
}

#[test]
fn a_line_whose_formatter_panics_leaves_no_trace() {
    let (dir, registry) = (TempDir::new(), Registry::new());
    let path = dir.path("access.log");
    let writer = writer(&registry);
    let sink = writer.open(&Target::path(&path)).unwrap();
    log(&sink, "before");
    let panicked = catch_unwind(AssertUnwindSafe(|| {
        sink.write(|out| {
            out.push_str("half a li");
            panic!("a bug in a formatter");
        });
    }));
    assert!(panicked.is_err());
    log(&sink, "after");
    assert!(writer.flush(SOON));
    assert_eq!(read(&path), "before\nafter\n");
}

#[test]
fn a_line_longer_than_the_queue_is_written() {
    let (dir, registry) = (TempDir::new(), Registry::new());
    let path = dir.path("access.log");
    let writer = writer_with(&registry, |config| config.queue_bytes_max = 1);
    let sink = writer.open(&Target::path(&path)).unwrap();
    log(&sink, &"x".repeat(100_000));
    assert!(writer.flush(SOON));
    log(&sink, "short");
    assert!(writer.flush(SOON));
    assert_eq!(read(&path).len(), 100_001 + 6);
}

#[test]
fn a_flush_takes_the_lines_of_all_threads_however_small_the_queue() {
    let (dir, registry) = (TempDir::new(), Registry::new());
    let path = dir.path("access.log");
    stats::set_stripes(3);
    let writer = writer_with(&registry, |config| config.queue_bytes_max = 1);
    let sink = writer.open(&Target::path(&path)).unwrap();
    for thread in 0..3 {
        let sink = sink.clone();
        std::thread::spawn(move || {
            stats::set_thread_stripe(thread);
            log(&sink, "line");
        })
        .join()
        .unwrap();
    }
    assert!(writer.flush(SOON));
    assert_eq!(read(&path), "line\nline\nline\n");
}

#[test]
fn what_cannot_be_opened_is_an_error_and_never_hangs() {
    let (dir, registry) = (TempDir::new(), Registry::new());
    let writer = writer(&registry);
    let missing = Target::path(dir.path("no").join("such"));
    assert!(writer.open(&missing).is_err());
    let pipe = dir.path("pipe");
    assert!(
        Command::new("mkfifo")
            .arg(&pipe)
            .status()
            .unwrap()
            .success()
    );
    assert!(writer.open(&Target::path(&pipe)).is_err());
}

#[test]
fn a_pipe_that_nobody_reads_holds_no_other_log_up() {
    const LINES: usize = 4000;
    let (dir, registry) = (TempDir::new(), Registry::new());
    let (pipe, path) = (dir.path("pipe"), dir.path("access.log"));
    assert!(
        Command::new("mkfifo")
            .arg(&pipe)
            .status()
            .unwrap()
            .success()
    );
    let mut reader = OpenOptions::new()
        .read(true)
        .custom_flags(libc::O_NONBLOCK)
        .open(&pipe)
        .unwrap();
    let writer = writer(&registry);
    let stuck = writer.open(&Target::path(&pipe)).unwrap();
    let fine = writer.open(&Target::path(&path)).unwrap();
    let line = "x".repeat(99);
    (0..LINES).for_each(|_| log(&stuck, &line));
    log(&fine, "written");
    assert!(!writer.flush(Duration::from_millis(1)));
    wait_until(|| read(&path) == "written\n");
    assert_eq!(stat(&registry, "filesystem.write_failed"), 0);

    // Once somebody reads, the rest follows, and no line is cut.
    let (mut text, start) = (Vec::new(), clock::now());
    while text.len() < LINES * 100 {
        assert!(clock::now() - start < SOON, "it never came");
        // An empty pipe refuses, and what was read stays.
        let _ = reader.read_to_end(&mut text);
        std::thread::yield_now();
    }
    let text = String::from_utf8(text).unwrap();
    assert!(text.lines().all(|read| read == line));
    assert_eq!(text.lines().count(), LINES);

    // And at the end, as long as somebody does.
    (0..LINES).for_each(|_| log(&stuck, &line));
    let reading = std::thread::spawn(move || {
        let (mut text, start) = (Vec::new(), clock::now());
        while text.len() < LINES * 100 && clock::now() - start < SOON {
            let _ = reader.read_to_end(&mut text);
            std::thread::yield_now();
        }
        text.len()
    });
    assert!(writer.flush(SOON));
    drop((writer, stuck, fine));
    assert_eq!(reading.join().unwrap(), LINES * 100);
}

#[test]
fn threads_that_open_one_file_at_once_share_it() {
    let folder = TempDir::new();
    let path = folder.path("log");
    let writer = writer(&Registry::new());
    let sinks: Vec<_> = std::thread::scope(|scope| {
        let open = || writer.open(&Target::File(path.clone())).unwrap();
        let threads: Vec<_> = (0..8).map(|_| scope.spawn(open)).collect();
        threads
            .into_iter()
            .map(|thread| thread.join().unwrap())
            .collect()
    });
    assert_eq!(open_files(&path), 1);
    sinks.iter().for_each(|sink| log(sink, "line"));
    assert!(writer.flush(SOON));
    assert_eq!(read(&path), "line\n".repeat(8));
}
