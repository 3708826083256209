//! `cargo xtask fds`: the descriptor set that `mesh-config` reads configs against.
//!
//! It is compiled from the .proto files inside the very `envoy-types` crate that Cargo resolved,
//! so that descriptors and Rust types cannot drift apart, then pruned to what a bootstrap can
//! reach: no services, no comments, no options but the few that decide whether a config is valid.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};
use prost::Message;
use prost_reflect::{
    DescriptorPool, DynamicMessage, Kind, MessageDescriptor, ReflectMessage, Value,
};
use protox::file::{File, FileResolver, GoogleFileResolver};

/// Where the packed set is checked in, from the root of the workspace.
const OUTPUT: &str = "mesh-config/data/envoy.fds.zst";

/// Protos that `envoy-types` lacks, from the root of the workspace.
const OWN_PROTOS: &str = "mesh-config/proto";

/// Include folders inside the `proto` folder of `envoy-types`.
const INCLUDES: [&str; 7] = [
    "data-plane-api",
    "xds",
    "googleapis",
    "protoc-gen-validate",
    "opentelemetry-proto",
    "cel-spec/proto",
    "client_model",
];

/// Folders and files whose every message is kept: they can be named by a config, mostly by `@type`.
const ROOTS: [&str; 50] = [
    "envoy/config/accesslog/",
    "envoy/config/bootstrap/",
    "envoy/config/cluster/",
    "envoy/config/core/",
    "envoy/config/endpoint/",
    "envoy/config/listener/",
    "envoy/config/metrics/",
    "envoy/config/rbac/",
    "envoy/config/route/",
    "envoy/config/trace/",
    "envoy/extensions/access_loggers/",
    "envoy/extensions/bootstrap/",
    "envoy/extensions/clusters/",
    "envoy/extensions/common/matching/",
    "envoy/extensions/compression/",
    "envoy/extensions/early_data/",
    "envoy/extensions/filters/",
    "envoy/extensions/formatter/",
    "envoy/extensions/health_check/",
    "envoy/extensions/health_checkers/",
    "envoy/extensions/http/",
    "envoy/extensions/internal_redirect/",
    "envoy/extensions/key_value/",
    "envoy/extensions/load_balancing_policies/",
    "envoy/extensions/matching/",
    "envoy/extensions/network/",
    "envoy/extensions/path/",
    "envoy/extensions/rate_limit_descriptors/",
    "envoy/extensions/rbac/",
    "envoy/extensions/regex_engines/",
    "envoy/extensions/request_id/",
    "envoy/extensions/resource_monitors/",
    "envoy/extensions/retry/",
    "envoy/extensions/stat_sinks/",
    "envoy/extensions/string_matcher/",
    "envoy/extensions/tracers/",
    "envoy/extensions/transport_sockets/",
    "envoy/extensions/upstreams/",
    "envoy/service/discovery/v3/discovery.proto",
    "envoy/service/runtime/v3/rtds.proto",
    "envoy/type/",
    "udpa/type/",
    "xds/core/",
    "xds/type/",
    "google/protobuf/any.proto",
    "google/protobuf/duration.proto",
    "google/protobuf/empty.proto",
    "google/protobuf/struct.proto",
    "google/protobuf/timestamp.proto",
    "google/protobuf/wrappers.proto",
];

/// Packages below `envoy.extensions.common` that protos name as `common.…` only. The compiler also
/// looks at packages that are imported indirectly, and would find `filters.common` first.
const AMBIGUOUS: [&str; 6] = [
    "async_files",
    "aws",
    "dynamic_forward_proxy",
    "matching",
    "ratelimit",
    "tap",
];

/// Files that declare the options we read.
const OPTION_FILES: [&str; 3] = [
    "validate/validate.proto",
    "udpa/annotations/sensitive.proto",
    "envoy/annotations/deprecation.proto",
];

/// The options that survive: validity rules, secrecy, and what Envoy refuses by default.
const OPTIONS: [&str; 7] = [
    "validate.rules",
    "validate.required",
    "validate.disabled",
    "validate.ignored",
    "udpa.annotations.sensitive",
    "envoy.annotations.disallowed_by_default",
    "envoy.annotations.disallowed_by_default_enum",
];

/// Builds the descriptor set; writes it, or with `check` compares it to the one checked in.
pub(crate) fn run(check: bool) -> Result<()> {
    let workspace = Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .context("xtask is not inside a workspace")?;
    let built = build(workspace)?;
    let output = workspace.join(OUTPUT);
    if check {
        let packed = std::fs::read(&output).with_context(|| format!("reading {OUTPUT}"))?;
        let checked_in = zstd::decode_all(packed.as_slice()).context("unpacking it")?;
        ensure!(
            checked_in == built,
            "{OUTPUT} does not match the protos of the resolved envoy-types: run `cargo xtask fds`"
        );
        return Ok(());
    }
    let packed = zstd::encode_all(built.as_slice(), 19)?;
    println!("{OUTPUT}: {} bytes, {} packed", built.len(), packed.len());
    if let Some(folder) = output.parent() {
        std::fs::create_dir_all(folder)?;
    }
    std::fs::write(&output, packed).with_context(|| format!("writing {OUTPUT}"))
}

/// The pruned set, as bytes of a `google.protobuf.FileDescriptorSet`.
fn build(workspace: &Path) -> Result<Vec<u8>> {
    let protos = envoy_types_protos(workspace)?;
    let mut includes = vec![workspace.join(OWN_PROTOS)];
    includes.extend(INCLUDES.iter().map(|folder| protos.join(folder)));
    let mut compiler = protox::Compiler::with_file_resolver(Protos(includes.clone()));
    compiler.include_imports(true).include_source_info(false);
    compiler.open_files(source_files(&includes)?)?;

    let pool = compiler.descriptor_pool();
    let set = pool
        .get_message_by_name("google.protobuf.FileDescriptorSet")
        .context("descriptor.proto is missing")?;
    let full = DynamicMessage::decode(set, compiler.encode_file_descriptor_set().as_slice())?;
    let pruned = prune(&pool, full)?.encode_to_vec();
    DescriptorPool::decode(pruned.as_slice()).context("the pruned set does not stand alone")?;
    Ok(pruned)
}

/// Finds imports below the include folders, then among the files that every compiler knows.
struct Protos(Vec<PathBuf>);

impl FileResolver for Protos {
    fn open_file(&self, name: &str) -> Result<File, protox::Error> {
        for include in &self.0 {
            if let Ok(mut source) = std::fs::read_to_string(include.join(name)) {
                for package in AMBIGUOUS {
                    let full = format!(" .envoy.extensions.common.{package}.v3.");
                    source = source.replace(&format!(" common.{package}.v3."), &full);
                }
                return File::from_source(name, &source);
            }
        }
        GoogleFileResolver::new().open_file(name)
    }
}

/// The `proto` folder of the `envoy-types` that this workspace resolves to.
fn envoy_types_protos(workspace: &Path) -> Result<PathBuf> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let out = Command::new(cargo)
        .args(["metadata", "--format-version", "1"])
        .current_dir(workspace)
        .output()
        .context("running cargo metadata")?;
    if !out.status.success() {
        bail!("cargo metadata: {}", String::from_utf8_lossy(&out.stderr));
    }
    let metadata: serde_json::Value = serde_json::from_slice(&out.stdout)?;
    let manifest = metadata["packages"]
        .as_array()
        .into_iter()
        .flatten()
        .find(|package| package["name"] == "envoy-types")
        .and_then(|package| package["manifest_path"].as_str())
        .context("the workspace does not depend on envoy-types")?;
    Ok(Path::new(manifest).with_file_name("proto"))
}

/// Every .proto below the include folders that is a root or declares an option, by import name.
fn source_files(includes: &[PathBuf]) -> Result<BTreeSet<String>> {
    let mut found = BTreeSet::new();
    for include in includes {
        let mut folders = vec![include.clone()];
        while let Some(folder) = folders.pop() {
            for entry in std::fs::read_dir(&folder)
                .with_context(|| format!("listing {}", folder.display()))?
            {
                let path = entry?.path();
                if path.is_dir() {
                    folders.push(path);
                    continue;
                }
                let name = path.strip_prefix(include)?.to_string_lossy().into_owned();
                if is_root(&name) || OPTION_FILES.contains(&name.as_str()) {
                    found.insert(name);
                }
            }
        }
    }
    found.extend(
        ROOTS
            .iter()
            .filter(|r| r.ends_with(".proto"))
            .map(|r| (*r).to_owned()),
    );
    Ok(found)
}

fn is_root(file: &str) -> bool {
    file.ends_with(".proto") && ROOTS.iter().any(|root| file.starts_with(root))
}

/// Drops every top-level message and enum that no root reaches, and all that is not structure.
fn prune(pool: &DescriptorPool, full: DynamicMessage) -> Result<DynamicMessage> {
    let reach = Reach::from_roots(pool);
    let mut set = full.clone();
    let mut kept = Vec::new();
    for file in list(&full, "file") {
        let mut file = file.as_message().context("file is a message")?.clone();
        let name = text(&file, "name");
        let package = package_of(pool, &name);
        let full_name = |item: &DynamicMessage| qualified(&package, &text(item, "name"));
        for field in ["message_type", "enum_type"] {
            retain(&mut file, field, |item| {
                reach.types.contains(&full_name(item))
            });
        }
        retain(&mut file, "extension", |item| {
            OPTIONS.contains(&full_name(item).as_str())
        });
        let empty = ["message_type", "enum_type", "extension"]
            .iter()
            .all(|field| list(&file, field).is_empty());
        if empty {
            continue;
        }
        for field in [
            "service",
            "options",
            "source_code_info",
            "public_dependency",
            "weak_dependency",
        ] {
            file.clear_field_by_name(field);
        }
        let imports = reach.imports.get(&name).into_iter().flatten();
        let imports = imports.cloned().map(Value::String).collect();
        file.set_field_by_name("dependency", Value::List(imports));
        strip(&mut file);
        kept.push(Value::Message(file));
    }
    set.set_field_by_name("file", Value::List(kept));
    Ok(set)
}

/// What the roots reach: top-level types by full name, and which files then import which.
#[derive(Default)]
struct Reach {
    types: BTreeSet<String>,
    imports: BTreeMap<String, BTreeSet<String>>,
}

impl Reach {
    fn from_roots(pool: &DescriptorPool) -> Self {
        let mut reach = Self::default();
        let mut todo = Vec::new();
        for file in pool.files().filter(|file| is_root(file.name())) {
            todo.extend(file.messages());
            reach
                .types
                .extend(file.enums().map(|e| e.full_name().to_owned()));
        }
        for extension in pool.all_extensions() {
            if OPTIONS.contains(&extension.full_name()) {
                let from = extension.parent_file().name().to_owned();
                let extendee = extension.containing_message();
                reach.import(&from, extendee.parent_file().name());
                todo.push(top_level(extendee));
                reach.visit_kind(&from, &extension.kind(), &mut todo);
            }
        }
        while let Some(message) = todo.pop() {
            if reach.types.insert(message.full_name().to_owned()) {
                reach.visit(&message, &mut todo);
            }
        }
        reach
    }

    fn visit(&mut self, message: &MessageDescriptor, todo: &mut Vec<MessageDescriptor>) {
        let from = message.parent_file().name().to_owned();
        for field in message.fields() {
            self.visit_kind(&from, &field.kind(), todo);
        }
        for child in message.child_messages() {
            self.visit(&child, todo);
        }
    }

    fn visit_kind(&mut self, from: &str, kind: &Kind, todo: &mut Vec<MessageDescriptor>) {
        match kind {
            Kind::Message(message) => {
                self.import(from, message.parent_file().name());
                todo.push(top_level(message.clone()));
            }
            Kind::Enum(enumeration) => {
                self.import(from, enumeration.parent_file().name());
                match enumeration.parent_message() {
                    Some(parent) => todo.push(top_level(parent)),
                    None => drop(self.types.insert(enumeration.full_name().to_owned())),
                }
            }
            _ => {}
        }
    }

    fn import(&mut self, from: &str, to: &str) {
        if from != to {
            self.imports
                .entry(from.to_owned())
                .or_default()
                .insert(to.to_owned());
        }
    }
}

fn top_level(mut message: MessageDescriptor) -> MessageDescriptor {
    while let Some(parent) = message.parent_message() {
        message = parent;
    }
    message
}

/// Removes what decoding does not need from a descriptor and everything below it.
fn strip(descriptor: &mut DynamicMessage) {
    descriptor.clear_field_by_name("reserved_range");
    if descriptor.descriptor().name() == "FieldDescriptorProto" {
        descriptor.clear_field_by_name("json_name");
    }
    let options = descriptor.get_field_by_name_mut("options");
    if let Some(options) = options.and_then(Value::as_message_mut) {
        strip_options(options);
    }
    let bare = descriptor
        .get_field_by_name("options")
        .and_then(|options| options.as_message().map(|o| o.encoded_len() == 0))
        .unwrap_or(false);
    if bare {
        descriptor.clear_field_by_name("options");
    }
    for (field, value) in descriptor.fields_mut() {
        let items = value.as_list_mut().filter(|_| field.name() != "options");
        let messages = items.into_iter().flatten();
        messages.filter_map(Value::as_message_mut).for_each(strip);
    }
}

fn strip_options(options: &mut DynamicMessage) {
    let unwanted: Vec<_> = options
        .extensions()
        .map(|(extension, _)| extension)
        .filter(|extension| !OPTIONS.contains(&extension.full_name()))
        .collect();
    for extension in unwanted {
        options.clear_extension(&extension);
    }
    let unwanted: Vec<_> = options
        .fields()
        .map(|(field, _)| field)
        .filter(|field| {
            !["map_entry", "packed", "deprecated", "allow_alias"].contains(&field.name())
        })
        .collect();
    for field in unwanted {
        options.clear_field(&field);
    }
    options.take_unknown_fields().for_each(drop);
}

fn retain(file: &mut DynamicMessage, field: &str, keep: impl Fn(&DynamicMessage) -> bool) {
    if let Some(Value::List(items)) = file.get_field_by_name_mut(field) {
        items.retain(|item| item.as_message().is_some_and(&keep));
    }
}

fn list(message: &DynamicMessage, field: &str) -> Vec<Value> {
    let value = message.get_field_by_name(field);
    value
        .and_then(|v| v.as_list().map(<[Value]>::to_vec))
        .unwrap_or_default()
}

fn text(message: &DynamicMessage, field: &str) -> String {
    let value = message.get_field_by_name(field);
    value
        .and_then(|v| v.as_str().map(str::to_owned))
        .unwrap_or_default()
}

fn package_of(pool: &DescriptorPool, file: &str) -> String {
    pool.get_file_by_name(file)
        .map(|f| f.package_name().to_owned())
        .unwrap_or_default()
}

fn qualified(package: &str, name: &str) -> String {
    if package.is_empty() {
        name.to_owned()
    } else {
        format!("{package}.{name}")
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_checked_in_descriptor_set_matches_the_resolved_envoy_types() {
        super::run(true).expect("up to date");
    }
}
