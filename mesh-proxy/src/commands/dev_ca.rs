//! `mesh-proxy dev-ca`: throw-away certificates on disk.

use std::{collections::BTreeMap, path::PathBuf, time::Duration};

use anyhow::{Context as _, bail};
use clap::Args;
use mesh_core::clock;
use mesh_tls::{
    SpiffeId, TrustDomain,
    dev_ca::{CA_LIFETIME, DevCa},
};

/// The most hours that a certificate may last: a year.
const HOURS_MAX: u64 = 365 * 24;

/// Make a throw-away CA and SVIDs of workloads; run again, it renews them under the same CA.
///
/// DIR gets bundle.pem, which peers trust, and for each workload a folder with svid.pem and key.pem. Files are moved
/// into their place, so that a `watched_directory` notices. The CA's own keys lie in DIR/ca: it is none for anything
/// that matters.
#[derive(Debug, Clone, Args)]
pub(crate) struct DevCaFlags {
    /// Where the files go.
    #[arg(value_name = "DIR")]
    folder: PathBuf,

    /// Names, which become spiffe://TRUST_DOMAIN/NAME, or whole SPIFFE IDs.
    #[arg(value_name = "WORKLOAD", default_values = ["server", "client"])]
    workloads: Vec<String>,

    /// The trust domain of a new CA.
    #[arg(long, value_name = "NAME", default_value = "example.org")]
    trust_domain: String,

    /// How long certificates last.
    #[arg(long, value_name = "HOURS", default_value_t = 24, value_parser = clap::value_parser!(u64).range(1..=HOURS_MAX))]
    hours: u64,

    /// Replace the intermediate CA as well: the issuer rotates.
    #[arg(long)]
    rotate_issuer: bool,
}

pub(crate) fn run(flags: &DevCaFlags) -> anyhow::Result<()> {
    let now = clock::wall();
    let folder = &flags.folder;
    let known = DevCa::open(folder).context("the CA that is there already")?;
    let is_new = known.is_none();
    let ca = match known {
        None => DevCa::new(domain(&flags.trust_domain)?, now)?,
        Some(mut ca) => {
            if flags.rotate_issuer {
                ca.rotate_intermediate(now, now + CA_LIFETIME)?;
            }
            ca
        }
    };
    let ids = flags.workloads.iter().map(|name| id(&ca, name));
    let ids = ids.collect::<anyhow::Result<Vec<_>>>()?;
    have_own_folders(&ids)?;
    let lifetime = Duration::from_secs(3600 * flags.hours);
    ca.save(folder)?;
    ca.write(folder, &ids, now, lifetime)?;
    let made = if is_new {
        "new"
    } else {
        "renewed under the same"
    };
    println!("{made} CA of {}, in {}", ca.domain(), folder.display());
    println!("  {}", folder.join("bundle.pem").display());
    for id in &ids {
        let own = folder.join(DevCa::folder_of(id));
        println!(
            "  {}  {id}, for {} h",
            own.join("{svid,key}.pem").display(),
            flags.hours
        );
    }
    Ok(())
}

/// A workload's folder is named by the last part of its path: of two that share one, the second would be served as
/// the first.
fn have_own_folders(ids: &[SpiffeId]) -> anyhow::Result<()> {
    let mut folders = BTreeMap::new();
    for id in ids {
        let folder = DevCa::folder_of(id);
        if let Some(other) = folders.insert(folder, id) {
            bail!(
                "{other} and {id} would share the folder {folder:?}: make them in different DIRs"
            );
        }
    }
    Ok(())
}

fn domain(name: &str) -> anyhow::Result<TrustDomain> {
    TrustDomain::new(name).with_context(|| format!("the trust domain {name:?}"))
}

/// `cart` or `spiffe://example.org/cart`.
fn id(ca: &DevCa, name: &str) -> anyhow::Result<SpiffeId> {
    let text = if name.starts_with("spiffe://") {
        name.to_owned()
    } else {
        format!("spiffe://{}/{name}", ca.domain())
    };
    let id = SpiffeId::new(&text).with_context(|| format!("the workload {name:?}"))?;
    if id.trust_domain() != *ca.domain() {
        bail!(
            "the workload {name:?} is not of the CA's trust domain, {}",
            ca.domain()
        );
    }
    if id.path().is_empty() || DevCa::folder_of(&id) == DevCa::OWN_FOLDER {
        bail!("the workload {name:?} has no name of its own");
    }
    Ok(id)
}

#[cfg(test)]
mod tests {
    use super::{SpiffeId, have_own_folders};

    #[test]
    fn workloads_that_would_share_a_folder_are_refused() {
        let ids = |names: &[&str]| -> Vec<_> {
            let ids = names
                .iter()
                .map(|name| format!("spiffe://example.org/{name}"));
            ids.map(|id| SpiffeId::new(&id).expect("an id")).collect()
        };
        have_own_folders(&ids(&["ns/a/sa/shop", "ns/a/sa/cart"])).expect("two folders");
        let error =
            have_own_folders(&ids(&["ns/a/sa/shop", "ns/b/sa/shop"])).expect_err("one folder");
        assert_eq!(
            error.to_string(),
            "spiffe://example.org/ns/a/sa/shop and spiffe://example.org/ns/b/sa/shop would share the folder \
             \"shop\": make them in different DIRs"
        );
    }
}
