use std::{fs, path::Path};

use mesh_control::registry::{Directory, EVERYBODY, Fault, Knowledge, MeshFile, Registry};
use mesh_xds::ResourceType;

use crate::support::{MESH, publisher};

const CLUSTER: &str = "
'@type': type.googleapis.com/envoy.config.cluster.v3.Cluster
name: users
type: EDS
eds_cluster_config: {eds_config: {ads: {}}}
";
const ENDPOINTS: &str = "
resources:
- '@type': type.googleapis.com/envoy.config.endpoint.v3.ClusterLoadAssignment
  cluster_name: users
  endpoints:
  - lb_endpoints:
    - endpoint: {address: {socket_address: {address: 127.0.0.1, port_value: 80}}}
";

/// Puts a file in place as editors do: beside it, then moved.
fn put(path: &Path, text: &str) {
    let beside = path.with_extension("new");
    fs::write(&beside, text).expect("written");
    fs::rename(&beside, path).expect("moved");
}

fn refusal(result: Result<Knowledge, Fault>) -> String {
    match result {
        Err(fault) => fault.to_string(),
        Ok(knowledge) => panic!("{knowledge:?}"),
    }
}

#[tokio::test]
async fn a_mesh_file_is_read_again_when_it_changes() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("mesh.yaml");
    let mut registry = MeshFile::new(&path).expect("a watch");
    let absent = refusal(registry.next().await);
    assert!(absent.contains("mesh.yaml"), "{absent}");

    put(&path, MESH);
    assert!(matches!(registry.next().await, Ok(Knowledge::Mesh(_))));
    put(&path, "services: {a: 1}");
    let bad = refusal(registry.next().await);
    assert!(bad.contains("mesh.yaml:1:12: services.a: "), "{bad}");
    // In place, as people do with `cat >`.
    fs::write(&path, MESH).expect("written");
    // A reader may come between emptying and writing; what it says then is not the last word.
    while registry.next().await.is_err() {}
}

#[tokio::test]
async fn a_directory_holds_resources_for_all_and_for_groups() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut registry = Directory::new(folder.path()).expect("a watch");
    let (mut publisher, cache) = publisher(false);
    let Ok(Knowledge::Resources(groups)) = registry.next().await else {
        panic!("nothing");
    };
    assert!(groups.is_empty());

    let own = folder.path().join("shop");
    put(&folder.path().join("cluster.yaml"), CLUSTER);
    let waits = registry.next().await.expect("readable");
    let error = publisher
        .update(0, waits)
        .expect_err("nobody has its endpoints");
    let text = error[0].to_string();
    assert!(
        text.ends_with("cds \"users\" refers to eds \"users\", which is not there"),
        "{text}"
    );

    fs::create_dir(&own).expect("created");
    put(&own.join("endpoints.yaml"), ENDPOINTS);
    put(
        &folder.path().join("all.yaml"),
        &ENDPOINTS.replace("80}", "81}"),
    );
    // The files may be seen together or one by one.
    let both = loop {
        if let Ok(Knowledge::Resources(groups)) = registry.next().await
            && groups.get(EVERYBODY).is_some_and(|all| all.len() == 2)
        {
            break groups;
        }
    };
    let error = publisher
        .update(0, Knowledge::Resources(both))
        .expect_err("twice");
    assert!(
        error[0]
            .to_string()
            .contains("there are two of eds \"users\""),
        "{error:?}"
    );

    fs::remove_file(own.join("endpoints.yaml")).expect("removed");
    let good = registry.next().await.expect("good");
    publisher.update(0, good).expect("good");
    assert!(!publisher.on_group("stranger"));
    let snapshot = cache.snapshot("stranger").expect("what everybody gets");
    assert!(snapshot.set(ResourceType::Endpoints).get("users").is_some());
}

#[tokio::test]
async fn a_resource_that_is_wrong_is_named_with_file_and_line() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut registry = Directory::new(folder.path()).expect("a watch");
    put(
        &folder.path().join("c.yaml"),
        &format!("{CLUSTER}lb_polcy: RANDOM\n"),
    );
    let bad = refusal(registry.next().await);
    assert!(bad.contains("c.yaml:6:1: lb_polcy: "), "{bad}");

    put(&folder.path().join("e.yaml"), ENDPOINTS);
    put(
        &folder.path().join("c.yaml"),
        &format!("{CLUSTER}lb_policy: CLUSTER_PROVIDED\n"),
    );
    let read = loop {
        if let Ok(Knowledge::Resources(groups)) = registry.next().await
            && groups.get(EVERYBODY).is_some_and(|all| all.len() == 2)
        {
            break groups;
        }
    };
    let (mut publisher, _) = publisher(false);
    let error = publisher
        .update(0, Knowledge::Resources(read))
        .expect_err("no proxy would take it");
    let text = error[0].to_string();
    assert!(text.contains("c.yaml:6:1: lb_policy: "), "{text}");
}

#[tokio::test]
async fn a_folder_that_is_a_link_is_followed_when_the_link_moves() {
    let folder = tempfile::tempdir().expect("a folder");
    let at = |name: &str| folder.path().join(name);
    for version in ["v1", "v2"] {
        fs::create_dir(at(version)).expect("created");
    }
    let link = |to: &str| {
        std::os::unix::fs::symlink(to, at("next")).expect("linked");
        fs::rename(at("next"), at("current")).expect("moved");
    };
    link("v1");
    put(&at("v2").join("e.yaml"), ENDPOINTS);
    let mut directory = Directory::new(at("current")).expect("a watch");
    let all = |knowledge| match knowledge {
        Ok(Knowledge::Resources(groups)) => groups.get(EVERYBODY).map_or(0, Vec::len),
        other => panic!("{other:?}"),
    };
    assert_eq!(all(directory.next().await), 0);
    link("v2");
    assert_eq!(all(directory.next().await), 1);
    // What changes in its place is seen too.
    put(
        &at("v2").join("f.yaml"),
        &ENDPOINTS.replace("users", "shop"),
    );
    assert_eq!(all(directory.next().await), 2);
}

#[tokio::test]
async fn a_folder_that_is_replaced_is_watched_in_its_place() {
    let folder = tempfile::tempdir().expect("a folder");
    let own = folder.path().join("mesh");
    fs::create_dir(&own).expect("created");
    let path = own.join("mesh.yaml");
    put(&path, MESH);
    let mut registry = MeshFile::new(&path).expect("a watch");
    assert!(matches!(registry.next().await, Ok(Knowledge::Mesh(_))));
    fs::remove_dir_all(&own).expect("removed");
    let gone = refusal(registry.next().await);
    assert!(gone.contains("mesh.yaml"), "{gone}");
    fs::create_dir(&own).expect("created");
    put(&path, MESH);
    while registry.next().await.is_err() {}
}
