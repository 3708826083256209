use mesh_control::mesh::Health;

use crate::support::{MESH, mesh, refusal};

#[test]
fn a_mesh_file_says_what_it_says() {
    let mesh = mesh(MESH);
    let users = &mesh.services["users"];
    assert_eq!(users.endpoints[1].weight, 3);
    assert_eq!(users.endpoints[1].locality.zone, "b");
    assert_eq!(users.endpoints[1].health, Health::Draining);
    assert_eq!(users.routes[0].to, [("users-v2".to_owned(), 1)]);
    assert_eq!(users.routes[0].action.prefix_rewrite, "/");
    assert_eq!(
        users.routes[1].to,
        [("users".to_owned(), 95), ("users-v2".to_owned(), 5)]
    );
    let seconds = |name: &str| {
        let timeout = &mesh.services[name].policies.timeout;
        timeout.as_ref().map(|placed| placed.value.seconds)
    };
    assert_eq!((seconds("users"), seconds("shop")), (Some(5), Some(5)));
}

#[test]
fn what_is_wrong_is_told_with_its_line() {
    for (text, expected) in [
        (
            "services: {a: {endpoint: [1.2.3.4:5]}}",
            "mesh.yaml:1:16: services.a.endpoint: there is no such field here, did you mean \"endpoints\"?",
        ),
        (
            "services:\n  a:\n    endpoints: [example.com:80]",
            "mesh.yaml:3:17: services.a.endpoints[0]: \"example.com:80\" is no address: write 10.0.0.1:8080 or \
          [2001:db8::1]:8080; names are not looked up",
        ),
        (
            "services:\n  a:\n    endpoints:\n    - 1.2.3.4:5\n    - 1.2.3.4:5",
            "mesh.yaml:5:7: services.a.endpoints[1]: 1.2.3.4:5 is there already",
        ),
        (
            "services:\n  a:\n    endpoints:\n    - {address: 1.2.3.4:5, health: ill}",
            "mesh.yaml:4:28: services.a.endpoints[0].health: \"ill\" is none of healthy, unhealthy, draining, degraded",
        ),
        (
            "services:\n  a:\n    routes:\n    - to: b",
            "mesh.yaml:4:7: services.a.routes[0].to: there is no service \"b\"",
        ),
        (
            "services:\n  a:\n    routes:\n    - {prefix: /, path: /, to: a}",
            "mesh.yaml:4:7: services.a.routes[0]: only one of match, prefix and path can be set",
        ),
        (
            "services:\n  a:\n    routes:\n    - to: {a: 0}",
            "mesh.yaml:4:7: services.a.routes[0].to: no service has a weight",
        ),
        (
            "services:\n  a:\n    routes:\n    - {to: a, tmeout: 1s}",
            "mesh.yaml:4:15: services.a.routes[0].tmeout: envoy.config.route.v3.RouteAction has no such field, did \
          you mean \"timeout\"?",
        ),
        (
            "services:\n  a:\n    sidecar: {inbound: 1.2.3.4:5}",
            "mesh.yaml:3:5: services.a.sidecar: inbound and app go together: what arrives at one is sent to the other",
        ),
        (
            "services:\n  a:\n    outlier_detection: {interval: 0s}",
            "mesh.yaml:3:25: services.a.outlier_detection.interval: ",
        ),
        (
            "services:\n  a:\n    cluster: {type: STATIC}",
            "mesh.yaml:3:15: services.a.cluster.type: follows from the service, and cannot be set here",
        ),
        (
            "services:\n  a: {hosts: [B]}\n  b: {}",
            "mesh.yaml:3:3: services.b.hosts: the host \"b\" is that of a too",
        ),
        (
            "services: {'a/b': {}}",
            "mesh.yaml:1:12: services.a/b: \"a/b\" cannot be a service's name",
        ),
        ("service: {}", "mesh.yaml:1:1: there are no services"),
        (
            "mtls: {trust_domain: 'a b', certificate_chain: c, private_key: k, trusted_ca: t}\nservices: {}",
            "mesh.yaml:1:1: mtls: trust_domain: ",
        ),
    ] {
        let refusal = refusal(text);
        assert!(
            refusal.lines().any(|line| line.starts_with(expected)),
            "{refusal}\nexpected: {expected}"
        );
    }
}

#[test]
fn everything_that_is_wrong_is_told_at_once() {
    let text = "services:\n  a: {endpoints: [x], routes: [{to: nobody}], protocol: smtp}\n";
    assert_eq!(refusal(text).lines().count(), 3);
}
