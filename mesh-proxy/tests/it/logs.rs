//! Log files: rotated under load, and nobody can forge a line.

use std::{
    collections::BTreeSet,
    fs,
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::atomic::{AtomicBool, AtomicUsize, Ordering},
};

use e2e::{
    client::Connection,
    upstream::Upstream,
    wait::{Deadline, until},
};

use crate::support::{bootstrap, signal, start};

/// An empty folder of that name.
fn folder(name: &str) -> PathBuf {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    let _ = fs::remove_dir_all(&folder);
    fs::create_dir_all(&folder).unwrap();
    folder
}

fn file_log(path: &Path, format: &str) -> String {
    format!(
        "{{name: f, typed_config: {{\"@type\": type.googleapis.com/envoy.extensions.access_loggers.file.v3.FileAccessLog, path: {}, log_format: {format}}}}}",
        path.display()
    )
}

/// Sends requests one after the other until told to stop; says how many were answered.
fn send_until(stop: &AtomicBool, address: SocketAddr, ids: &AtomicUsize) -> usize {
    let mut connection = Connection::open(address).unwrap();
    let mut sent = 0;
    while !stop.load(Ordering::Relaxed) {
        let id = ids.fetch_add(1, Ordering::Relaxed);
        connection.send(format!("GET /{id} HTTP/1.1\r\nHost: a\r\n\r\n").as_bytes());
        assert_eq!(connection.response(false).status, 200);
        sent += 1;
    }
    sent
}

#[test]
fn rotating_under_load_loses_no_line_and_tears_none() {
    const ROTATIONS: usize = 5;
    let folder = folder("rotated_logs");
    let log = folder.join("access.log");
    let upstream = Upstream::start("a").unwrap();
    let format = "{text_format_source: {inline_string: \"<%REQ(:PATH)%>\\n\"}}";
    let logs = format!("access_log: [{}]", file_log(&log, format));
    let mut proxy = start(&bootstrap(upstream.address(), &logs, ""));
    let address = proxy.listener("ingress").unwrap();
    let (stop, ids) = (AtomicBool::new(false), AtomicUsize::new(0));
    let sent: usize = std::thread::scope(|scope| {
        let senders: Vec<_> = (0..4)
            .map(|_| scope.spawn(|| send_until(&stop, address, &ids)))
            .collect();
        for rotation in 0..ROTATIONS {
            let before = ids.load(Ordering::Relaxed);
            let enough = || (ids.load(Ordering::Relaxed) > before + 50).then_some(());
            until(Deadline::default(), enough).expect("requests go on");
            fs::rename(&log, folder.join(format!("access.log.{rotation}"))).unwrap();
            signal(&proxy, rustix::process::Signal::USR1);
            let reopened = || log.exists().then_some(());
            until(Deadline::default(), reopened).expect("the file is there again");
        }
        stop.store(true, Ordering::Relaxed);
        senders.into_iter().map(|s| s.join().unwrap()).sum()
    });
    assert_eq!(proxy.admin().stat("access_log.dropped").unwrap(), 0);
    // What still waits is written when the process ends.
    signal(&proxy, rustix::process::Signal::INT);
    proxy.ended().unwrap();
    let mut files: Vec<PathBuf> = fs::read_dir(&folder)
        .unwrap()
        .map(|f| f.unwrap().path())
        .collect();
    files.sort();
    assert_eq!(files.len(), ROTATIONS + 1);
    let mut seen = BTreeSet::new();
    for file in files {
        for line in fs::read_to_string(&file).unwrap().lines() {
            let id = line
                .strip_prefix("</")
                .and_then(|line| line.strip_suffix('>'));
            let id: usize = id
                .and_then(|id| id.parse().ok())
                .unwrap_or_else(|| panic!("{line:?}"));
            assert!(seen.insert(id), "{id} was logged twice");
        }
    }
    assert_eq!(seen.len(), sent, "a line per request");
}

#[test]
fn no_request_can_forge_a_line() {
    let folder = folder("forged_logs");
    let (text, json) = (folder.join("text.log"), folder.join("json.log"));
    let upstream = Upstream::start("a").unwrap();
    let logs = format!(
        "access_log: [{}, {}]",
        file_log(
            &text,
            "{text_format_source: {inline_string: \"%REQ(USER-AGENT)% %REQ(:PATH)%\\n\"}}"
        ),
        file_log(
            &json,
            "{json_format: {agent: '%REQ(USER-AGENT)%', path: '%REQ(:PATH)%'}}"
        )
    );
    let proxy = start(&bootstrap(upstream.address(), &logs, ""));
    // Tab, C1 controls, the line and paragraph separators, broken UTF-8, quotes, escapes.
    let agents: [&[u8]; 7] = [
        b"tab\there",
        b"next\xc2\x85line",
        b"separated\xe2\x80\xa8line",
        b"broken\xff\xfe",
        b"quote\"} {\"agent\":\"forged",
        b"back\\nslash",
        b"escape\xc2\x9b31m",
    ];
    let mut connection = Connection::open(proxy.listener("ingress").unwrap()).unwrap();
    for agent in agents {
        let request = [
            b"GET /%0aforged HTTP/1.1\r\nHost: a\r\nUser-Agent: ",
            agent,
            b"\r\n\r\n",
        ]
        .concat();
        connection.send(&request);
        assert_eq!(connection.response(false).status, 200);
    }
    let lines = |path: &Path| {
        let written = || {
            let text = fs::read_to_string(path).ok()?;
            (text.lines().count() >= agents.len()).then_some(text)
        };
        until(Deadline::default(), written).expect("a line per request")
    };
    let text = lines(&text);
    assert_eq!(text.matches('\n').count(), agents.len(), "{text:?}");
    for line in text.lines() {
        assert!(
            line.ends_with(" /%0aforged") && !line.contains(char::is_control),
            "{line:?}"
        );
    }
    let json = lines(&json);
    assert_eq!(json.matches('\n').count(), agents.len(), "{json:?}");
    for line in json.lines() {
        let value: serde_json::Value = serde_json::from_str(line).expect(line);
        assert_eq!(value.as_object().unwrap().len(), 2, "{line}");
    }
}
