//! The disk breaks files in every way; the store says so.

use std::{
    fs,
    os::unix::fs::PermissionsExt as _,
    path::Path,
    time::{Duration, SystemTime},
};

use mesh_xds::{
    Resource,
    ResourceType::{Cluster, Endpoints, Secret},
    store::{Identity, Refusal, Store},
};
use proptest::prelude::*;
use tempfile::TempDir;

use crate::support::body;

const DAY: Duration = Duration::from_secs(86_400);

fn identity(id: &str) -> Identity {
    Identity {
        node_id: id.to_owned(),
        node_cluster: "tests".to_owned(),
    }
}

fn open(directory: &Path) -> Store {
    Store::open(directory, identity("me"), DAY).unwrap()
}

fn resources() -> Vec<Resource> {
    let resource = |name: &str| Resource {
        name: name.to_owned(),
        version: "7".to_owned(),
        body: body(name, "content"),
        ttl: Some(Duration::from_millis(1_500)),
    };
    vec![resource("a"), resource("b")]
}

/// A day in 2026.
fn today() -> SystemTime {
    SystemTime::UNIX_EPOCH + DAY * 20_600
}

fn saved() -> (TempDir, Store) {
    let directory = TempDir::new().unwrap();
    let store = open(&directory.path().join("cache"));
    store.save(Cluster, "v1", &resources(), today()).unwrap();
    (directory, store)
}

#[test]
fn what_was_saved_comes_back() {
    let (_directory, store) = saved();
    let cached = store.load(Cluster, today() + DAY).unwrap();
    assert_eq!(cached.resources, resources());
    assert_eq!((cached.version.as_str(), cached.saved_at), ("v1", today()));
    // Anew, in place of the old.
    store
        .save(Cluster, "v2", &resources()[..1], today())
        .unwrap();
    assert_eq!(store.load(Cluster, today()).unwrap().resources.len(), 1);
    assert!(matches!(
        store.load(Endpoints, today()),
        Err(Refusal::Absent)
    ));
    let mode = fs::metadata(store.path(Cluster))
        .unwrap()
        .permissions()
        .mode();
    assert_eq!(mode & 0o777, 0o600);
    let files = fs::read_dir(store.path(Cluster).parent().unwrap())
        .unwrap()
        .count();
    assert_eq!(files, 1, "no temporary file is left");
}

#[test]
fn a_file_cut_anywhere_is_refused() {
    let (_directory, store) = saved();
    let whole = fs::read(store.path(Cluster)).unwrap();
    for len in 0..whole.len() {
        fs::write(store.path(Cluster), &whole[..len]).unwrap();
        let refusal = store.load(Cluster, today()).unwrap_err();
        assert!(
            matches!(refusal, Refusal::Length { .. }),
            "at {len}: {refusal}"
        );
    }
    fs::write(store.path(Cluster), [&whole[..], b"x"].concat()).unwrap();
    assert!(matches!(
        store.load(Cluster, today()),
        Err(Refusal::Length { .. })
    ));
}

#[test]
fn a_flipped_bit_anywhere_is_refused() {
    let (_directory, store) = saved();
    let whole = fs::read(store.path(Cluster)).unwrap();
    for at in 0..whole.len() {
        let mut bad = whole.clone();
        bad[at] ^= 1 << (at % 8);
        fs::write(store.path(Cluster), &bad).unwrap();
        let refusal = store.load(Cluster, today()).unwrap_err();
        match at {
            0..8 => assert!(matches!(refusal, Refusal::Alien), "at {at}: {refusal}"),
            8..12 => assert!(
                matches!(refusal, Refusal::Format { .. }),
                "at {at}: {refusal}"
            ),
            12..20 => assert!(
                matches!(refusal, Refusal::Length { .. }),
                "at {at}: {refusal}"
            ),
            _ => assert!(matches!(refusal, Refusal::Corrupted), "at {at}: {refusal}"),
        }
    }
}

#[test]
fn old_and_foreign_files_are_refused_by_name() {
    let (directory, store) = saved();
    let late = today() + DAY + Duration::from_secs(1);
    let refusal = store.load(Cluster, late).unwrap_err();
    assert_eq!(
        refusal.to_string(),
        "it is 86401 s old, and at most 86400 s are allowed"
    );
    // A clock that was put back is no reason.
    assert!(store.load(Cluster, today() - DAY).is_ok());

    let other = Store::open(&directory.path().join("cache"), identity("other"), DAY).unwrap();
    let refusal = other.load(Cluster, today()).unwrap_err();
    assert_eq!(
        refusal.to_string(),
        "it belongs to node \"me\" of cluster \"tests\""
    );

    fs::rename(store.path(Cluster), store.path(Endpoints)).unwrap();
    assert!(matches!(
        store.load(Endpoints, today()),
        Err(Refusal::WrongType { .. })
    ));
}

#[test]
fn secrets_are_kept_only_where_asked_for_and_only_in_private() {
    let (_directory, store) = saved();
    store.save(Secret, "", &resources(), today()).unwrap();
    assert!(!store.path(Secret).exists());
    let store = store.with_secrets();
    store.save(Secret, "", &resources(), today()).unwrap();
    assert!(store.load(Secret, today()).is_ok());
    fs::set_permissions(store.path(Secret), fs::Permissions::from_mode(0o640)).unwrap();
    let refusal = store.load(Secret, today()).unwrap_err();
    assert!(
        matches!(refusal, Refusal::Exposed { mode: 0o640 }),
        "{refusal}"
    );
    // Saved again, it is private again.
    store.save(Secret, "", &resources(), today()).unwrap();
    assert!(store.load(Secret, today()).is_ok());
}

#[test]
fn a_save_that_fails_leaves_what_was_there() {
    let (_directory, store) = saved();
    // Something that cannot be removed stands where the temporary file goes.
    let blocked = store.path(Cluster).with_extension("new");
    fs::create_dir(&blocked).unwrap();
    assert!(store.save(Cluster, "v2", &[], today()).is_err());
    assert_eq!(store.load(Cluster, today()).unwrap().version, "v1");
}

proptest! {
    #[test]
    fn model_arbitrary_bytes_never_crash(content in prop::collection::vec(any::<u8>(), 0..200), head in any::<bool>()) {
        let (_directory, store) = saved();
        let whole = fs::read(store.path(Cluster)).unwrap();
        let bytes = if head { [&whole[..20], &content].concat() } else { content };
        fs::write(store.path(Cluster), &bytes).unwrap();
        prop_assert!(store.load(Cluster, today()).is_err());
    }
}
