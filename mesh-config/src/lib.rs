//! Envoy v3 YAML and JSON to validated config.
//!
//! # What
//!
//! [`language`] reads a bootstrap as Envoy does and answers with generated types, or with everything
//! that is wrong: file, line, path and reason. It knows every message of Envoy's API that a config
//! can name, and the rules that come with them, also those that nothing here enforces; a table of
//! what *is* enforced then gives the list of what a config asks for in vain.
//!
//! # Why
//!
//! A proxy that ignores what it does not know fails open. So nothing is ignored: a misspelt field is
//! an error, a known field that is not enforced is in a report, and one that security depends on is
//! marked, so that the proxy can refuse to run.
//!
//! # When not
//!
//! To configure a single policy in code, use the builder in the crate of that policy: it needs
//! neither protobuf nor this crate.
//!
//! # A config
//!
//! [`load`] reads a file and converts it into [`model`]: each policy's own validated config.
//!
//! ```
//! use mesh_config::{LoadOptions, language::Source, load};
//!
//! let source = Source::text("mesh.yaml", "
//! static_resources:
//!   clusters:
//!   - name: backend
//!     connect_timeout: 0.25s
//!     lb_policy: least_request
//!     health_checks:
//!     - {timeout: 1s, interval: 5s, unhealthy_threshold: 2, healthy_threshold: 2, custom_health_check: {name: mine}}
//! ");
//! let config = load(&source, &LoadOptions::default())?;
//! assert_eq!(config.clusters[0].pool.connect_timeout.as_millis(), 250);
//!
//! // What it asks for in vain. Whoever runs it refuses when security depends on something of this.
//! assert_eq!(config.report.security().count(), 0);
//! assert_eq!(
//!     config.report.entries[0].to_string(),
//!     "line 8: static_resources.clusters[0].health_checks[0].custom_health_check: \
//!      envoy.config.core.v3.HealthCheck.custom_health_check is not enforced"
//! );
//! # Ok::<(), mesh_config::language::ConfigError>(())
//! ```
//!
//! # A bootstrap as it is
//!
//! ```
//! use mesh_config::language::{Source, load_bootstrap};
//!
//! let source = Source::text("mesh.yaml", "
//! static_resources:
//!   clusters:
//!   - name: backend
//!     connect_timeout: 0.25s
//!     lb_policy: least_request
//! ");
//! let loaded = load_bootstrap(&source)?;
//! let clusters = &loaded.bootstrap.static_resources.as_ref().unwrap().clusters;
//! assert_eq!(clusters[0].name, "backend");
//! # Ok::<(), mesh_config::language::ConfigError>(())
//! ```
//!
//! # What is wrong, and where
//!
//! ```
//! use mesh_config::language::{Source, load_bootstrap};
//!
//! let source = Source::text("mesh.yaml", "
//! static_resources:
//!   clusters:
//!   - name: backend
//!     conect_timeout: 0.25s
//! ");
//! let error = load_bootstrap(&source).unwrap_err();
//! assert_eq!(
//!     error.to_string(),
//!     "mesh.yaml:5:5: static_resources.clusters[0].conect_timeout: \
//!      envoy.config.cluster.v3.Cluster has no such field, did you mean \"connect_timeout\"?"
//! );
//! ```
//!
//! # What is asked for and not done
//!
//! ```
//! use mesh_config::language::{MessageSupport, Source, Support, SupportTable, load_bootstrap};
//!
//! let table = SupportTable::new([
//!     MessageSupport {
//!         message: "envoy.config.bootstrap.v3.Bootstrap",
//!         fields: &[("static_resources", Support::Enforced)],
//!     },
//!     MessageSupport {
//!         message: "envoy.config.bootstrap.v3.Bootstrap.StaticResources",
//!         fields: &[("clusters", Support::Enforced)],
//!     },
//!     MessageSupport {
//!         message: "envoy.config.cluster.v3.Cluster",
//!         fields: &[("name", Support::Enforced), ("connect_timeout", Support::Enforced)],
//!     },
//! ]);
//! let text = "static_resources: {clusters: [{name: a, respect_dns_ttl: true}]}";
//! let report = load_bootstrap(&Source::text("mesh.yaml", text))?.unsupported(&table);
//! assert_eq!(report.entries[0].path, "static_resources.clusters[0].respect_dns_ttl");
//! assert!(!report.entries[0].security);
//! # Ok::<(), mesh_config::language::ConfigError>(())
//! ```

#[expect(
    deprecated,
    reason = "Envoy honours deprecated fields, and configs use them"
)]
mod convert;
pub mod dynamic;
pub mod language;
pub mod model;

pub use convert::{
    DATA_SOURCE_BYTES_MAX, DATA_SOURCES_BYTES_MAX, INHERITED_MAX, LoadOptions, convert, load,
    support_table,
};
