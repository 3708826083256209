//! The last config that was good, on disk.

use std::path::{Path, PathBuf};

use e2e::{
    control::Control,
    process::Proxy,
    wait::{Deadline, until},
};
use mesh_xds::server::{NodeId, SnapshotCache};

use crate::{
    support::binary,
    xds::{LOOPBACK, Plane, ask, becomes, open},
};

/// A directory that goes with the test.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Self {
        let name = format!("mesh-config-cache-{}-{name}", std::process::id());
        let path = std::env::temp_dir().join(name);
        // A leftover of a process of the same number.
        let _ = std::fs::remove_dir_all(&path);
        Self(path)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn start(yaml: &str, cache: &Path, more: &[&str]) -> Proxy {
    let cache = cache.to_str().unwrap();
    let arguments = ["--concurrency", "1", "--config-cache", cache];
    Proxy::start_with(&binary(), yaml, arguments.iter().chain(more)).unwrap()
}

/// Everything that was accepted is on disk.
fn saved(proxy: &Proxy) {
    let admin = proxy.admin();
    let saved = until(Deadline::default(), || {
        (admin.stat("config_cache.save_success").ok()? >= 4).then_some(())
    });
    saved.expect("nothing is saved");
}

#[test]
fn a_proxy_starts_without_its_control_plane_and_goes_on_when_that_is_back() {
    let folder = Folder::new("start");
    let mut plane = Plane::start();
    plane.publish("a");
    let proxy = start(&plane.bootstrap(), &folder.0, &[]);
    saved(&proxy);
    // Both are killed.
    drop(proxy);
    let (yaml, address) = (plane.bootstrap(), plane.control.address);
    let other = SnapshotCache::new(NodeId, "test");
    plane.control = Control::start(other, LOOPBACK).unwrap();

    let proxy = start(&yaml, &folder.0, &[]);
    let mut connection = open(&proxy, "web");
    assert_eq!(ask(&mut connection), "a");
    let admin = proxy.admin();
    assert_eq!(admin.stat("control_plane.config_source").unwrap(), 1);
    assert_eq!(admin.stat("control_plane.connected_state").unwrap(), 0);
    assert!(admin.stat("control_plane.config_age_s").is_ok());

    plane.control = Control::start(plane.cache.clone(), address).unwrap();
    let live = || (admin.stat("control_plane.config_source").ok()? == 2).then_some(());
    until(Deadline::default(), live).expect("it is not taken over");
    // The same config again: nothing has changed, and nobody has noticed.
    assert_eq!(ask(&mut connection), "a");
    assert_eq!(admin.stat("listener_manager.listener_modified").unwrap(), 0);
    plane.publish("b");
    becomes(|| ask(&mut connection), "b");
    assert_eq!(admin.stat("http.interop.downstream_cx_total").unwrap(), 1);
}

/// What it is called, how it is done, with which arguments the proxy then starts, and what it says.
type Damage<'a> = (&'a str, &'a dyn Fn(), &'a [&'a str], &'a str);

#[test]
fn a_cache_that_is_broken_or_not_its_own_is_refused_and_said_so() {
    let folder = Folder::new("refused");
    let plane = Plane::start();
    plane.publish("a");
    let yaml = plane.bootstrap();
    let file = folder.0.join("cds.mesh-xds");
    let damage: [Damage<'_>; 4] = [
        (
            "corrupted",
            &|| {
                let mut content = std::fs::read(&file).unwrap();
                let middle = content.len() / 2;
                content[middle] ^= 1;
                std::fs::write(&file, content).unwrap();
            },
            &[],
            "its checksum does not match its content",
        ),
        (
            "truncated",
            &|| {
                let content = std::fs::read(&file).unwrap();
                std::fs::write(&file, &content[..content.len() - 7]).unwrap();
            },
            &[],
            "bytes, and should have",
        ),
        (
            "foreign",
            &|| {},
            &["--service-cluster", "others"],
            "it belongs to node",
        ),
        (
            "stale",
            &|| {},
            &["--config-cache-max-age-s", "0"],
            "s old, and at most 0 s",
        ),
    ];
    for (what, harm, more, reason) in damage {
        let proxy = start(&yaml, &folder.0, &[]);
        saved(&proxy);
        drop(proxy);
        harm();
        // It starts all the same, from the control plane, and has said why.
        let proxy = start(&yaml, &folder.0, more);
        assert_eq!(ask(&mut open(&proxy, "web")), "a", "{what}");
        let refused = proxy.admin().stat("config_cache.load_refused").unwrap();
        assert_eq!(refused, 1, "{what}");
        let said = proxy.stderr().take_through(|line| line.contains(reason));
        assert!(said.is_some(), "{what}: {:?}", proxy.stderr().all());
        drop(proxy);
        std::fs::remove_dir_all(&folder.0).unwrap();
    }
}
