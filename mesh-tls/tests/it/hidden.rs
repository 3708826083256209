//! Private keys are in no output.

use mesh_tls::{
    DownstreamTlsConfig, FilesSource, Identity, KeeperStats, Secret, SecretKeeper, SecretUpdate,
    TICKET_KEY_LEN, TicketKey, rotation::ChainPolicy,
};

use crate::support::{Pair, ca, svid};

/// The key's bytes, in every form in which they could slip out: PEM lines, hexadecimal digits, lists of numbers.
fn traces(pem: &str) -> Vec<String> {
    let lines = pem.lines().filter(|line| !line.starts_with("---"));
    let lines: Vec<_> = lines.map(str::to_owned).collect();
    let der = data_encoding::BASE64
        .decode(lines.concat().as_bytes())
        .unwrap();
    let mut all: Vec<String> = lines
        .iter()
        .map(|line| line[..line.len().min(24)].to_owned())
        .collect();
    // PKCS#8 begins alike for all keys; what is secret lies behind.
    let secret = &der[36..52];
    all.push(data_encoding::HEXLOWER.encode(secret));
    all.push(data_encoding::HEXUPPER.encode(secret));
    all.push(
        secret
            .iter()
            .map(u8::to_string)
            .collect::<Vec<_>>()
            .join(", "),
    );
    all
}

#[tokio::test]
async fn keys_are_in_no_debug_output_and_no_error() {
    let ours = ca("example.org");
    let issued = ours.issue(svid("spiffe://example.org/a")).unwrap();
    let other = ours.issue(svid("spiffe://example.org/b")).unwrap();
    let identity = issued.identity().unwrap();
    let mut pair = Pair::of(&ours);
    pair.server_identities = vec![identity.clone()];
    pair.client_identity = Some(identity.clone());
    let (acceptor, connector) = (pair.acceptor(), pair.connector());
    let (server, client) = crate::support::shake(&acceptor, &connector).await.both();
    let keeper = SecretKeeper::new("a", ChainPolicy::Free, KeeperStats::detached());
    let mut said = vec![
        format!("{ours:?} {issued:?} {identity:?} {identity:#?}"),
        format!("{acceptor:?} {connector:#?}"),
        format!(
            "{:?} {:?}",
            Secret::fixed(identity.clone()),
            keeper.identity()
        ),
        format!("{:?}", SecretUpdate::Identity(Ok(identity.clone()))),
        format!("{:?} {:?}", server.session(), client.session()),
        format!("{:?}", FilesSource::new(Vec::new())),
    ];
    // Errors about keys: the wrong one, a cut one, one in the place of another thing.
    let key = issued.key_pem();
    let chain = issued.chain_pem();
    for (chain, key) in [
        (other.chain_pem(), key),
        (key, key),
        (chain, &key[..key.len() - 30]),
        (chain, &key[30..]),
        (chain, &key.replace('\n', " ")),
        (chain, &key.replace("PRIVATE KEY", "CERTIFICATE")),
        (&key.replace("PRIVATE KEY", "CERTIFICATE"), key),
        (chain, &key.replace('M', "!")),
    ] {
        let error = Identity::from_pem(chain.as_bytes(), key.as_bytes()).unwrap_err();
        said.push(format!("{error} {error:?}"));
    }
    let traces = traces(key);
    assert!(traces.len() > 4);
    for text in said {
        for trace in &traces {
            assert!(!text.contains(trace.as_str()), "{trace} in {text}");
        }
    }
    let ticket = TicketKey::new(&[0x5a; TICKET_KEY_LEN]).unwrap();
    let config = DownstreamTlsConfig::default()
        .session_ticket_keys(vec![ticket])
        .unwrap();
    let text = format!("{config:?}");
    assert!(!text.contains("90, 90") && !text.contains("5a5a"), "{text}");
}
