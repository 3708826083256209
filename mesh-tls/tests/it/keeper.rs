//! Secrets as a stream, with real certificates.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use mesh_tls::{
    DownstreamTlsConfig, KeeperStats, SecretError, SecretKeeper, SecretUpdate, TlsAcceptor,
    TlsParams, TlsStats, Trust, ValidationConfig, inline, rotation::ChainPolicy,
};

use crate::support::{Pair, ca, hours, identity, now, shake, svid, talk, trust};

#[tokio::test]
async fn a_connection_keeps_what_it_began_with_and_the_next_gets_the_new() {
    let ours = ca("example.org");
    let mut keeper = SecretKeeper::new("a", ChainPolicy::MustReachTrust, KeeperStats::detached())
        .with_clock(Arc::new(now));
    let acceptor = TlsAcceptor::new(
        DownstreamTlsConfig::default()
            .params(TlsParams::modern())
            .require_client_certificate(true),
        vec![keeper.identity()],
        Some(keeper.validation()),
        TlsStats::detached(),
    )
    .unwrap()
    .with_clock(Arc::new(now));
    let connector = Pair::of(&ours).connector();
    let first = identity(&ours, "spiffe://example.org/first");
    keeper.on_update(SecretUpdate::Identity(Ok(first.clone())));
    assert!(!acceptor.is_ready(), "the bundle is missing");
    keeper.on_update(SecretUpdate::Validation(Ok(trust(&ours))));
    let (mut old_server, mut old_client) = shake(&acceptor, &connector).await.both();
    let second = identity(&ours, "spiffe://example.org/second");
    keeper.on_update(SecretUpdate::Identity(Ok(second.clone())));
    let (new_server, new_client) = shake(&acceptor, &connector).await.both();
    talk(&mut old_server, &mut old_client).await;
    assert_eq!(old_server.session().local.as_ref(), Some(first.leaf()));
    let shown = |client: &crate::support::Half| {
        Arc::clone(client.session().peer.as_ref().unwrap().certificate())
    };
    assert_eq!(&shown(&old_client), first.leaf());
    assert_eq!(new_server.session().local.as_ref(), Some(second.leaf()));
    if !new_client.session().resumed {
        assert_eq!(&shown(&new_client), second.leaf());
    }
}

#[test]
fn a_broken_secret_is_counted_and_changes_nothing() {
    let (ours, theirs) = (ca("example.org"), ca("other.org"));
    let stats = KeeperStats::detached();
    let time = Arc::new(AtomicU64::new(0));
    let clock = Arc::clone(&time);
    let mut keeper = SecretKeeper::new("a", ChainPolicy::MustReachTrust, stats.clone()).with_clock(
        Arc::new(move || now() + hours(clock.load(Ordering::Relaxed))),
    );
    let (served, validation) = (keeper.identity(), keeper.validation());
    keeper.on_update(SecretUpdate::Validation(Ok(trust(&ours))));
    let good = identity(&ours, "spiffe://example.org/a");
    keeper.on_update(SecretUpdate::Identity(Ok(good.clone())));
    assert_eq!(stats.update_success().value(), 2);
    assert_eq!(stats.leaf_seconds_to_expiry().value(), 24 * 3600);
    assert_eq!(stats.issuer_seconds_to_expiry().value(), 3650 * 24 * 3600);
    assert_eq!(stats.bundle_seconds_to_expiry().value(), 3650 * 24 * 3600);
    let expired = svid("spiffe://example.org/a").valid(now() - hours(9), now() - hours(1));
    let stranger = identity(&theirs, "spiffe://other.org/a");
    for (count, update) in [
        (1, SecretUpdate::Identity(Err(SecretError::NoKey))),
        (2, SecretUpdate::Validation(Err(SecretError::NoCertificate))),
        (
            3,
            SecretUpdate::Identity(ours.issue(expired).unwrap().identity()),
        ),
        (4, SecretUpdate::Identity(Ok(stranger))),
    ] {
        keeper.on_update(update);
        assert_eq!(stats.key_rotation_failed().value(), count);
        assert_eq!(*served.current().unwrap(), good);
        assert_eq!(*validation.current().unwrap(), trust(&ours));
    }
    assert_eq!(stats.update_rejected().value(), 2);
    assert_eq!(stats.degraded().value(), 0);
    // Both domains are trusted from now on: the stranger, who came last, gets its turn.
    let both = [ours.bundle_pem(), theirs.bundle_pem()].concat();
    let both = mesh_tls::TrustBundle::from_pem(both.as_bytes()).unwrap();
    keeper.on_update(SecretUpdate::Validation(Ok(ValidationConfig::new(
        Trust::Bundle(both),
    ))));
    assert_eq!(
        served.current().unwrap().spiffe_id().unwrap().as_str(),
        "spiffe://other.org/a"
    );
    time.store(12, Ordering::Relaxed);
    keeper.on_update(SecretUpdate::Identity(Err(SecretError::NoKey)));
    assert_eq!(stats.degraded().value(), 0);
}

#[tokio::test(start_paused = true)]
async fn time_alone_brings_the_next_one_in() {
    let ours = ca("example.org");
    let start = mesh_core::clock::now();
    let clock = move || now() + (mesh_core::clock::now() - start);
    let stats = KeeperStats::detached();
    let keeper =
        SecretKeeper::new("a", ChainPolicy::Free, stats.clone()).with_clock(Arc::new(clock));
    let mut served = keeper.identity();
    let make = |from: u64, to: u64| {
        let leaf = svid("spiffe://example.org/a").valid(now() + hours(from), now() + hours(to));
        SecretUpdate::Identity(ours.issue(leaf).unwrap().identity())
    };
    let task = tokio::spawn(keeper.run(inline([make(0, 3), make(2, 9)])));
    let first = served.ready().await.unwrap();
    assert_eq!(first.validity().not_after, now() + hours(3));
    while served.current().unwrap() == first {
        assert!(served.changed().await);
    }
    assert_eq!(
        served.current().unwrap().validity().not_after,
        now() + hours(9)
    );
    let minutes = (mesh_core::clock::now() - start).as_secs() / 60;
    assert_eq!(minutes, 120, "as soon as it is valid");
    tokio::time::sleep(hours(8)).await;
    assert_eq!(
        stats.degraded().value(),
        1,
        "it ended, and nothing better came"
    );
    assert_eq!(stats.leaf_seconds_to_expiry().value(), 0);
    task.abort();
}
