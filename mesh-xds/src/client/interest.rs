use std::collections::BTreeSet;

/// What is wanted of one type.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Interest {
    pub(super) wildcard: bool,
    pub(super) names: BTreeSet<String>,
}

impl Interest {
    pub(super) fn is_empty(&self) -> bool {
        !self.wildcard && self.names.is_empty()
    }

    pub(super) fn wants(&self, name: &str) -> bool {
        self.wildcard || self.names.contains(name)
    }
}
