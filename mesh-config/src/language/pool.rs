//! The messages that a config may be made of.

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use prost::Message;
use prost::bytes::Bytes;
use prost_reflect::{DescriptorPool, DynamicMessage, MessageDescriptor};

use super::facts::Facts;

/// `google.protobuf.FileDescriptorSet`, compressed; made by `cargo xtask fds`.
static PACKED: &[u8] = include_bytes!("../../data/envoy.fds.zst");

/// Unpacked size of [`PACKED`] at most. It is ours, so exceeding this is a mistake of the build.
const UNPACKED_BYTES_MAX: usize = 8 << 20;

/// Files that declare the options which the validator reads.
const OPTION_FILES: [&str; 4] = [
    "google/protobuf/descriptor.proto",
    "validate/validate.proto",
    "udpa/annotations/sensitive.proto",
    "envoy/annotations/deprecation.proto",
];

/// Messages that are always there, whatever a document names.
const ALWAYS: [&str; 3] = [
    "envoy.config.bootstrap.v3.Bootstrap",
    "google.protobuf.Any",
    "google.protobuf.Struct",
];

/// Envoy's v3 messages, with their fields, enums and rules.
///
/// All of them take some 14 MiB of memory, so a document gets a language of its own that holds only
/// what it can reach. Cloning is cheap; the memory is freed with the last clone and with the last
/// message that was read in it.
#[derive(Clone)]
pub struct Language {
    pool: DescriptorPool,
    index: Arc<Index>,
    facts: Arc<Mutex<HashMap<String, Arc<Facts>>>>,
}

impl fmt::Debug for Language {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Language")
            .field("messages", &self.pool.all_messages().len())
            .finish_non_exhaustive()
    }
}

impl Language {
    /// Every message that is known here.
    pub fn full() -> Self {
        let set = unpack();
        let index = Index::of(&set);
        let wanted = (0..set.file.len()).collect();
        Self::build(set, index, &wanted)
    }

    /// A bootstrap, all that it contains, and the messages of these full names as far as known.
    pub fn reaching<'a>(names: impl IntoIterator<Item = &'a str>) -> Self {
        let set = unpack();
        let index = Index::of(&set);
        let wanted = index.closure(ALWAYS.into_iter().chain(names));
        Self::build(set, index, &wanted)
    }

    fn build(set: FileSet, index: Index, wanted: &HashSet<usize>) -> Self {
        let file = set
            .file
            .into_iter()
            .enumerate()
            .filter_map(|(number, file)| wanted.contains(&number).then_some(file))
            .collect();
        let pool = DescriptorPool::decode(FileSet { file }.encode_to_vec().as_slice())
            .expect("the descriptor set is checked in and tested");
        Self {
            pool,
            index: Arc::new(index),
            facts: Arc::default(),
        }
    }

    /// The message of that full name, if this language holds it.
    pub fn message(&self, full_name: &str) -> Option<MessageDescriptor> {
        self.pool.get_message_by_name(full_name)
    }

    /// A message of that full name from its bytes.
    pub(crate) fn decode(&self, full_name: &str, body: &[u8]) -> Result<DynamicMessage, String> {
        let unknown = || format!("there is no message {full_name}");
        let desc = self.message(full_name).ok_or_else(unknown)?;
        DynamicMessage::decode(desc, body).map_err(|error| format!("it cannot be decoded: {error}"))
    }

    /// A message of that full name as JSON, without secrets; `None` when it cannot be decoded.
    pub fn dump(&self, full_name: &str, body: &[u8]) -> Option<serde_json::Value> {
        let message = self.decode(full_name, body).ok()?;
        Some(super::to_json(self, &message))
    }

    /// The same message in protobuf, without secrets: fields that the protos mark as sensitive are left out, and
    /// so is what is in an `Any` of a type that is not known. `None` when it cannot be decoded.
    pub fn without_secrets(&self, full_name: &str, body: &[u8]) -> Option<Vec<u8>> {
        let mut message = self.decode(full_name, body).ok()?;
        super::dump::leave_out_secrets(self, &mut message, 0);
        Some(message.encode_to_vec())
    }

    /// All messages of this language.
    pub fn messages(&self) -> impl Iterator<Item = MessageDescriptor> + '_ {
        self.pool.all_messages()
    }

    /// Full names of all top-level messages, of those too that this language leaves out.
    pub fn known_names(&self) -> impl Iterator<Item = &str> {
        self.index.messages.keys().map(String::as_str)
    }

    /// Rules and annotations of a message, worked out once.
    pub(crate) fn facts(&self, message: &MessageDescriptor) -> Arc<Facts> {
        let mut cache = self.facts.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(facts) = cache.get(message.full_name()) {
            return Arc::clone(facts);
        }
        let facts = Arc::new(Facts::of(message));
        cache.insert(message.full_name().to_owned(), Arc::clone(&facts));
        facts
    }
}

/// The descriptor set with each file still encoded: most files are never looked into.
#[derive(Clone, PartialEq, Message)]
struct FileSet {
    #[prost(bytes = "bytes", repeated, tag = "1")]
    file: Vec<Bytes>,
}

/// The little of a `FileDescriptorProto` that tells which files are needed.
#[derive(Clone, PartialEq, Message)]
struct FileHead {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(string, tag = "2")]
    package: String,
    #[prost(string, repeated, tag = "3")]
    imports: Vec<String>,
    #[prost(message, repeated, tag = "4")]
    messages: Vec<Named>,
}

#[derive(Clone, PartialEq, Message)]
struct Named {
    #[prost(string, tag = "1")]
    name: String,
}

/// Which file holds which message, and which files it imports, by place in the set.
struct Index {
    messages: HashMap<String, usize>,
    files: HashMap<String, usize>,
    imports: Vec<Vec<String>>,
}

impl Index {
    fn of(set: &FileSet) -> Self {
        let mut index = Self {
            messages: HashMap::new(),
            files: HashMap::new(),
            imports: Vec::new(),
        };
        for (number, bytes) in set.file.iter().enumerate() {
            let file = FileHead::decode(bytes.clone())
                .expect("the descriptor set is checked in and tested");
            for message in &file.messages {
                let name = format!("{}.{}", file.package, message.name);
                index.messages.insert(name, number);
            }
            index.files.insert(file.name, number);
            index.imports.push(file.imports);
        }
        index
    }

    /// The files of these messages, and all that those import.
    fn closure<'a>(&self, names: impl Iterator<Item = &'a str>) -> HashSet<usize> {
        let mut todo: Vec<usize> = names.filter_map(|name| self.file_of(name)).collect();
        todo.extend(OPTION_FILES.iter().filter_map(|file| self.files.get(*file)));
        let mut wanted = HashSet::new();
        while let Some(number) = todo.pop() {
            if wanted.insert(number) {
                let imports = self.imports.get(number).into_iter().flatten();
                todo.extend(imports.filter_map(|file| self.files.get(file)));
            }
        }
        wanted
    }

    /// The file of a message, which may be nested in another.
    fn file_of(&self, name: &str) -> Option<usize> {
        let mut name = name;
        loop {
            if let Some(number) = self.messages.get(name) {
                return Some(*number);
            }
            name = name.rsplit_once('.')?.0;
        }
    }
}

fn unpack() -> FileSet {
    let bytes = zstd::bulk::decompress(PACKED, UNPACKED_BYTES_MAX)
        .expect("the descriptor set is checked in and tested");
    FileSet::decode(Bytes::from(bytes)).expect("the descriptor set is checked in and tested")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_document_gets_only_the_messages_it_can_reach() {
        let router = "envoy.extensions.filters.http.router.v3.Router";
        let small = Language::reaching([]);
        assert!(small.message(ALWAYS[0]).is_some());
        assert!(small.message(router).is_none());
        assert!(small.known_names().any(|name| name == router));

        let with_router = Language::reaching([router]);
        assert!(with_router.message(router).is_some());
        assert!(with_router.messages().count() < Language::full().messages().count());
    }

    #[test]
    fn the_full_language_knows_what_configs_name() {
        let full = Language::full();
        for name in [
            "envoy.config.rbac.v3.RBAC",
            "envoy.extensions.filters.http.jwt_authn.v3.JwtAuthentication",
            "envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy",
            "envoy.extensions.filters.listener.tls_inspector.v3.TlsInspector",
            "envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext",
            "envoy.extensions.upstreams.http.v3.HttpProtocolOptions",
            "envoy.extensions.retry.host.previous_hosts.v3.PreviousHostsPredicate",
            "envoy.extensions.load_balancing_policies.maglev.v3.Maglev",
            "envoy.extensions.request_id.uuid.v3.UuidRequestIdConfig",
            "xds.type.v3.TypedStruct",
            "udpa.type.v1.TypedStruct",
            "xds.type.matcher.v3.Matcher",
        ] {
            assert!(full.message(name).is_some(), "{name}");
        }
    }
}
