use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use e2e::process::{Binary, Proxy};
use e2e::upstream::{Reply, Upstream};

/// A stand-in for a proxy: a shell script whose admin listener is a scripted upstream.
struct Fake {
    path: PathBuf,
    _admin: Upstream,
}

impl Fake {
    fn new(name: &str, last_line: &str) -> Self {
        let admin = Upstream::start("admin").unwrap();
        admin.on("/ready", [Reply::status(503), Reply::ok("LIVE\n")]);
        admin.on(
            "/listeners",
            [Reply::ok("main::127.0.0.1:1234\nsix::[::1]:80\n")],
        );
        admin.on(
            "/stats",
            [Reply::ok("a.b: 3\nversion: \"x\"\nh: P0(1,2) P25(3,4)\n")],
        );
        let path = std::env::temp_dir().join(format!("mesh-fake-{name}-{}", std::process::id()));
        let address = admin.address();
        let script = format!(
            "#!/bin/sh\n[ \"$1\" = --help ] && exit 0\nwhile [ \"$1\" != --admin-address-path ]; do shift; done\necho {address} > \"$2\"\necho complaint >&2\necho started\n{last_line}\n"
        );
        fs::write(&path, script).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        Self {
            path,
            _admin: admin,
        }
    }

    fn start(&self) -> anyhow::Result<Proxy> {
        Proxy::start(&Binary::new(&self.path)?, "admin: {}\n")
    }
}

impl Drop for Fake {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.path);
    }
}

#[test]
fn a_proxy_is_waited_for_read_and_killed() {
    let fake = Fake::new("waits", "exec tail -f /dev/null");
    let proxy = fake.start().unwrap();
    assert_eq!(proxy.listener("main").unwrap().port(), 1234);
    assert!(proxy.listener("six").unwrap().is_ipv6());
    assert!(proxy.listener("none").is_err());
    assert_eq!(proxy.admin().stat("a.b").unwrap(), 3);
    assert_eq!(proxy.admin().stats().unwrap().len(), 1);
    let lines = proxy
        .stdout()
        .take_through(|line| line == "started")
        .unwrap();
    assert_eq!(lines, ["started"]);
    let (process, folder) = (format!("/proc/{}", proxy.id()), proxy.folder().to_owned());
    assert!(Path::new(&process).exists() && folder.exists());
    drop(proxy);
    assert!(!Path::new(&process).exists() && !folder.exists());
}

#[test]
fn a_proxy_that_ends_at_once_is_an_error_with_its_last_words() {
    let fake = Fake::new("ends", "echo no such cluster >&2; exit 1");
    let error = format!("{:#}", fake.start().unwrap_err());
    // Either the end was noticed, or the admin listener had answered before it.
    assert!(
        error.contains("no such cluster") || error.contains("ended"),
        "{error}"
    );
}
