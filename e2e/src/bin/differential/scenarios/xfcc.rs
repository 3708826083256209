//! `x-forwarded-client-cert`, in every mode.

use std::sync::LazyLock;

use anyhow::Result;
use e2e::tls::Client;
use e2e::upstream::Reply;

use super::{Pki, tls_client, tls_socket};
use crate::ask::get;
use crate::config::{Bootstrap, Hcm};
use crate::run::Run;
use crate::suite::{Group, group};

const MODES: [&str; 5] = [
    "SANITIZE",
    "FORWARD_ONLY",
    "APPEND_FORWARD",
    "SANITIZE_SET",
    "ALWAYS_FORWARD_ONLY",
];

const ALL: &str = "{subject: true, cert: true, chain: true, dns: true, uri: true}";

static PKI: LazyLock<Pki> = LazyLock::new(Pki::new);

/// Who asks; one of them has names that need quotes.
static CLIENTS: LazyLock<(Client, Client)> = LazyLock::new(|| {
    let plain = PKI.issue("shop", |leaf| leaf.dns("shop.example"));
    let odd = PKI.issue("shop", |leaf| {
        leaf.dns("a.example").dns("b.example").uri("urn:a,b;c=d")
    });
    (tls_client(&plain), tls_client(&odd))
});

pub(super) fn groups() -> Vec<Group> {
    let bootstrap = {
        let pki = &*PKI;
        let server = pki.issue("cart", |leaf| leaf);
        let validation = format!("validation_context: {{{}}}", pki.trusted_ca());
        let socket = tls_socket("DownstreamTlsContext", "", Some(&server), &validation);
        let listeners = MODES.iter().flat_map(|mode| [(mode, ""), (mode, "plain")]);
        let bootstrap = listeners.fold(Bootstrap::default(), |bootstrap, (mode, kind)| {
            let fields = format!("forward_client_cert_details: {mode}\nset_current_client_cert_details: {{uri: true}}");
            bootstrap.listener(&Hcm {
                name: &format!("{kind}{mode}"),
                fields: &fields,
                chain: if kind.is_empty() { &socket } else { "" },
                ..Hcm::default()
            })
        });
        let details = [
            ("none", "{}"),
            ("all", ALL),
            ("subject", "{subject: true}"),
            ("dns", "{dns: true}"),
        ];
        let bootstrap = details.into_iter().fold(bootstrap, |bootstrap, (name, details)| {
            bootstrap.listener(&Hcm {
                name,
                fields: &format!("forward_client_cert_details: SANITIZE_SET\nset_current_client_cert_details: {details}"),
                chain: &socket,
                ..Hcm::default()
            })
        });
        bootstrap.cluster("a", &["a"], "")
    };
    vec![group(
        bootstrap,
        [("xfcc/modes", modes), ("xfcc/details", details)],
    )]
}

const SENT: &str = "By=spiffe://a/b;Hash=00;URI=spiffe://c/d";

fn modes(run: &mut Run<'_>) -> Result<()> {
    let client = &CLIENTS.0;
    for mode in MODES {
        for header in [None, Some(SENT)] {
            for tls in [true, false] {
                run.up["a"].on("/", [Reply::ok("ok")]);
                let mut ask = get("/").expect(200);
                if let Some(header) = header {
                    ask = ask.header("x-forwarded-client-cert", header);
                }
                let connection = if tls {
                    client.connect(run.address(mode)?)?
                } else {
                    run.open(&format!("plain{mode}"))?
                };
                run.send_on(connection, ask)?;
            }
        }
        // Without a certificate of its own.
        run.up["a"].on("/", [Reply::ok("ok")]);
        let nobody = Client::default().connect(run.address(mode)?)?;
        run.send_on(
            nobody,
            get("/").header("x-forwarded-client-cert", SENT).expect(200),
        )?;
    }
    Ok(())
}

fn details(run: &mut Run<'_>) -> Result<()> {
    let (plain, odd) = &*CLIENTS;
    for listener in ["none", "all", "subject", "dns"] {
        for client in [plain, odd] {
            run.up["a"].on("/", [Reply::ok("ok")]);
            let connection = client.connect(run.address(listener)?)?;
            run.send_on(connection, get("/").expect(200))?;
        }
    }
    Ok(())
}
