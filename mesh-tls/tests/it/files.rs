//! Secrets in files.

use std::{
    fs,
    os::unix::fs::{PermissionsExt as _, symlink},
    path::Path,
    sync::Arc,
    time::Duration,
};

use mesh_tls::{
    FileSecret, FilesSource, KeeperStats, Secret, SecretKeeper, Trust, TrustBundle,
    ValidationConfig, dev_ca::DevCa, readable_by_others, rotation::ChainPolicy,
};

use crate::{
    certificate::tempdir,
    support::{ca, hours, now, svid},
};

/// Writes one generation as Kubernetes does: a folder of its own, and a link that is moved over the old one.
fn project(folder: &Path, generation: u32, ca: &DevCa, id: &str) {
    let issued = ca.issue(svid(id)).unwrap();
    let own = folder.join(format!("..{generation}"));
    fs::create_dir(&own).unwrap();
    fs::write(own.join("tls.crt"), issued.chain_pem()).unwrap();
    fs::write(own.join("tls.key"), issued.key_pem()).unwrap();
    fs::write(own.join("ca.crt"), ca.bundle_pem()).unwrap();
    let link = folder.join("..data_tmp");
    symlink(&own, &link).unwrap();
    fs::rename(link, folder.join("..data")).unwrap();
}

fn source(folder: &Path) -> FilesSource {
    for name in ["tls.crt", "tls.key", "ca.crt"] {
        symlink(Path::new("..data").join(name), folder.join(name)).unwrap();
    }
    let anyone = TrustBundle::from_file(folder.join("ca.crt")).unwrap();
    FilesSource::new(vec![
        FileSecret::Identity {
            chain: folder.join("tls.crt"),
            key: folder.join("tls.key"),
        },
        FileSecret::Validation {
            trusted_ca: folder.join("ca.crt"),
            crl: None,
            base: Box::new(ValidationConfig::new(Trust::Bundle(anyone))),
        },
    ])
    .watched_directory(folder)
}

async fn until<T>(secret: &mut Secret<T>, good: impl Fn(&T) -> bool) -> Arc<T> {
    let wait = async {
        loop {
            if let Some(value) = secret.current().filter(|value| good(value)) {
                return value;
            }
            assert!(secret.changed().await, "the keeper is gone");
        }
    };
    tokio::time::timeout(Duration::from_secs(30), wait)
        .await
        .expect("it changes")
}

#[tokio::test]
async fn a_moved_link_brings_the_next_generation() {
    let folder = tempdir();
    let (first, second) = (ca("example.org"), ca("example.org"));
    project(&folder, 1, &first, "spiffe://example.org/1");
    let stats = KeeperStats::detached();
    let keeper = SecretKeeper::new("files", ChainPolicy::MustReachTrust, stats.clone())
        .with_clock(Arc::new(now));
    let (mut identity, mut validation) = (keeper.identity(), keeper.validation());
    let task = tokio::spawn(keeper.run(source(&folder).into_source()));
    let id = |wanted: &'static str| {
        move |one: &mesh_tls::Identity| one.spiffe_id().unwrap().as_str() == wanted
    };
    until(&mut identity, id("spiffe://example.org/1")).await;
    project(&folder, 2, &first, "spiffe://example.org/2");
    until(&mut identity, id("spiffe://example.org/2")).await;
    // A broken generation changes nothing, and the one after it does.
    fs::create_dir(folder.join("..3")).unwrap();
    fs::write(folder.join("..3/tls.crt"), "nonsense").unwrap();
    fs::write(folder.join("..3/tls.key"), "nonsense").unwrap();
    fs::write(folder.join("..3/ca.crt"), "nonsense").unwrap();
    symlink(folder.join("..3"), folder.join("link")).unwrap();
    fs::rename(folder.join("link"), folder.join("..data")).unwrap();
    let failed = async {
        while stats.key_rotation_failed().value() < 2 {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(30), failed)
        .await
        .expect("it is counted");
    assert_eq!(
        identity.current().unwrap().spiffe_id().unwrap().path(),
        "/2"
    );
    // Another CA altogether: its leaf comes with its bundle, in whatever order they are read.
    project(&folder, 4, &second, "spiffe://example.org/4");
    until(&mut identity, id("spiffe://example.org/4")).await;
    let bundle = second.bundle().unwrap();
    until(&mut validation, |one| {
        *one.trust() == Trust::Bundle(bundle.clone())
    })
    .await;
    task.abort();
    let _ = task.await;
    fs::remove_dir_all(folder).unwrap();
}

#[test]
fn a_dev_ca_on_disk_is_ready_for_use() {
    let folder = tempdir();
    let ours = ca("example.org");
    let ids = [
        "spiffe://example.org/ns/a/sa/cart",
        "spiffe://example.org/shop",
    ];
    let ids = ids.map(|id| id.parse().unwrap());
    for _ in 0..2 {
        ours.write(&folder, &ids, now(), hours(1)).unwrap();
    }
    for name in ["cart", "shop"] {
        let (chain, key) = (
            folder.join(name).join("svid.pem"),
            folder.join(name).join("key.pem"),
        );
        let identity = mesh_tls::Identity::from_files(&chain, &key).unwrap();
        assert!(identity.spiffe_id().unwrap().path().ends_with(name));
        let mode = fs::metadata(&key).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode, 0o600);
        assert_eq!(readable_by_others(&key), None);
        fs::set_permissions(&key, fs::Permissions::from_mode(0o640)).unwrap();
        assert_eq!(readable_by_others(&key), Some(0o640));
        // The two, the folder that they are in, and the link to it; nothing of the generation before.
        assert_eq!(fs::read_dir(folder.join(name)).unwrap().count(), 4);
    }
    TrustBundle::from_file(folder.join("bundle.pem")).unwrap();
    let missing = TrustBundle::from_file(folder.join("nothing.pem")).unwrap_err();
    assert!(missing.to_string().contains("nothing.pem"), "{missing}");
    fs::remove_dir_all(folder).unwrap();
}
