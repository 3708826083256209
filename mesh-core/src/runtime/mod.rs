//! Values that people may change while a process runs, as Envoy's runtime.
//!
//! A [`Runtime`] is a stack of named layers, each a map from keys to values; the last layer that has a key
//! wins. Config that names a key takes a [`RuntimeKey`] once, when it is converted; reading it is one atomic
//! load, since every change writes the new value into the keys that somebody holds. No look-up by text
//! happens while a request runs.
//!
//! ```
//! use mesh_core::{FractionalPercent, RuntimeFraction, runtime::{Layer, Runtime}};
//!
//! let runtime = Runtime::new([Layer::admin("admin")]);
//! let share = RuntimeFraction::keyed(FractionalPercent::HUNDRED, runtime.key("retry.share"));
//! assert!(share.includes(7));
//! runtime.modify(&[("retry.share".to_owned(), "5".to_owned())])?;
//! assert!(!share.includes(7));
//! # Ok::<(), mesh_core::runtime::NotModified>(())
//! ```

mod value;

use std::{
    collections::{BTreeMap, HashMap},
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
};

pub use value::RuntimeValue;
use value::Slot;

/// How many keys an admin layer may have; a change that would add more is refused.
pub const ADMIN_KEYS_MAX: usize = 10_000;

/// The layers of a process. Cloning shares them. The default has none.
///
/// # Envoy
/// `Bootstrap.layered_runtime`.
#[derive(Clone, Default)]
pub struct Runtime(Arc<Mutex<State>>);

#[derive(Default)]
struct State {
    layers: Vec<Layer>,
    /// The keys that somebody holds; bounded by the config.
    slots: HashMap<Arc<str>, Weak<Slot>>,
}

/// One layer.
#[derive(Debug, Clone, PartialEq)]
pub struct Layer {
    /// Its name.
    pub name: Arc<str>,
    /// Whether [`Runtime::modify`] writes into it. Envoy: `admin_layer`.
    pub admin: bool,
    /// Its values.
    pub values: BTreeMap<Arc<str>, RuntimeValue>,
}

impl Layer {
    /// A layer with values that do not change. Envoy: `static_layer`.
    #[must_use]
    pub fn fixed(name: &str, values: BTreeMap<Arc<str>, RuntimeValue>) -> Self {
        Self {
            name: name.into(),
            admin: false,
            values,
        }
    }

    /// An empty layer for [`Runtime::modify`].
    #[must_use]
    pub fn admin(name: &str) -> Self {
        Self {
            name: name.into(),
            admin: true,
            values: BTreeMap::new(),
        }
    }
}

/// Everything at one moment, for people.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Snapshot {
    /// The names of the layers, lowest first.
    pub layers: Vec<Arc<str>>,
    /// For each key its value in every layer, as text; nothing where a layer does not have it.
    pub entries: BTreeMap<Arc<str>, Vec<Option<String>>>,
    /// How many values the admin layer has.
    pub overrides: usize,
}

impl Snapshot {
    /// What counts for a key, given its value in every layer.
    #[must_use]
    pub fn final_value(values: &[Option<String>]) -> Option<&str> {
        values.iter().rev().find_map(Option::as_deref)
    }
}

impl Runtime {
    /// Of these layers, the lowest first.
    #[must_use]
    pub fn new(layers: impl IntoIterator<Item = Layer>) -> Self {
        let this = Self::default();
        this.load(layers);
        this
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Replaces all layers; keys that are held follow. What was modified in an admin layer that stays is
    /// kept.
    pub fn load(&self, layers: impl IntoIterator<Item = Layer>) {
        let mut state = self.lock();
        let mut next: Vec<Layer> = layers.into_iter().collect();
        for layer in next.iter_mut().filter(|layer| layer.admin) {
            let old = state.layers.iter_mut();
            if let Some(old) = old.filter(|old| old.admin).find(|o| o.name == layer.name) {
                layer.values = std::mem::take(&mut old.values);
            }
        }
        state.layers = next;
        state.publish();
    }

    /// Replaces the values of one layer, as a control plane does; false when there is none of that name.
    pub fn set_layer(&self, name: &str, values: BTreeMap<Arc<str>, RuntimeValue>) -> bool {
        let mut state = self.lock();
        let Some(layer) = state.layers.iter_mut().find(|layer| &*layer.name == name) else {
            return false;
        };
        layer.values = values;
        state.publish();
        true
    }

    /// Sets values in the admin layer; an empty one removes what was set there.
    ///
    /// # Errors
    /// When there is no admin layer, or it would get more than [`ADMIN_KEYS_MAX`] keys; then nothing changes.
    pub fn modify(&self, changes: &[(String, String)]) -> Result<(), NotModified> {
        let mut state = self.lock();
        let layer = state.layers.iter_mut().rev().find(|layer| layer.admin);
        let layer = layer.ok_or(NotModified::NoAdminLayer)?;
        let mut values = layer.values.clone();
        for (key, value) in changes {
            if value.is_empty() {
                values.remove(key.as_str());
            } else {
                values.insert(key.as_str().into(), RuntimeValue::text(value));
            }
        }
        if values.len() > ADMIN_KEYS_MAX {
            return Err(NotModified::TooManyKeys);
        }
        layer.values = values;
        state.publish();
        Ok(())
    }

    /// A key, to be read again and again.
    #[must_use]
    pub fn key(&self, key: &str) -> RuntimeKey {
        let mut state = self.lock();
        if let Some(slot) = state.slots.get(key).and_then(Weak::upgrade) {
            return RuntimeKey(slot);
        }
        let slot = Arc::new(Slot::new(key.into()));
        slot.set(state.value(key));
        state
            .slots
            .insert(Arc::clone(&slot.key), Arc::downgrade(&slot));
        RuntimeKey(slot)
    }

    /// Whether any layer has a value for `key`.
    #[must_use]
    pub fn has(&self, key: &str) -> bool {
        let state = self.lock();
        state.layers.iter().any(|l| l.values.contains_key(key))
    }

    /// All layers and keys.
    #[must_use]
    pub fn snapshot(&self) -> Snapshot {
        let state = self.lock();
        let layers = &state.layers;
        let mut snapshot = Snapshot {
            layers: layers.iter().map(|layer| Arc::clone(&layer.name)).collect(),
            overrides: layers
                .iter()
                .filter(|layer| layer.admin)
                .map(|layer| layer.values.len())
                .sum(),
            ..Snapshot::default()
        };
        for (index, layer) in layers.iter().enumerate() {
            for (key, value) in &layer.values {
                let entry = snapshot.entries.entry(Arc::clone(key));
                let row = entry.or_insert_with(|| vec![None; layers.len()]);
                row[index] = Some(value.to_string());
            }
        }
        snapshot
    }
}

impl State {
    fn value(&self, key: &str) -> Option<&RuntimeValue> {
        let mut layers = self.layers.iter().rev();
        layers.find_map(|layer| layer.values.get(key))
    }

    /// Writes what counts now into the keys that are held.
    fn publish(&mut self) {
        let mut slots = std::mem::take(&mut self.slots);
        slots.retain(|key, slot| {
            let Some(slot) = slot.upgrade() else {
                return false;
            };
            slot.set(self.value(key));
            true
        });
        self.slots = slots;
    }
}

impl fmt::Debug for Runtime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list()
            .entries(self.lock().layers.iter().map(|layer| layer.name.clone()))
            .finish()
    }
}

/// A key of a [`Runtime`] that somebody reads. Two are equal when they are the same key of the same one.
#[derive(Clone)]
pub struct RuntimeKey(Arc<Slot>);

impl RuntimeKey {
    /// The key.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.0.key
    }

    /// Its value as a share, if it has one: a whole percentage, or a fractional percent.
    #[must_use]
    pub fn fraction(&self) -> Option<crate::FractionalPercent> {
        self.0.fraction()
    }

    /// Its value as a whole number, if it is one.
    #[must_use]
    pub fn integer(&self) -> Option<u64> {
        self.0.integer()
    }
}

impl PartialEq for RuntimeKey {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl Eq for RuntimeKey {}

impl fmt::Debug for RuntimeKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RuntimeKey({:?})", self.name())
    }
}

/// Why a runtime was not modified.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NotModified {
    /// No layer takes it.
    NoAdminLayer,
    /// There would be more than [`ADMIN_KEYS_MAX`].
    TooManyKeys,
}

impl fmt::Display for NotModified {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoAdminLayer => f.write_str("No admin layer specified"),
            Self::TooManyKeys => write!(f, "more than {ADMIN_KEYS_MAX} keys"),
        }
    }
}

impl std::error::Error for NotModified {}

#[cfg(test)]
mod tests {
    use super::{Layer, NotModified, Runtime, RuntimeValue, Snapshot};
    use crate::{FractionalPercent, RuntimeFraction};

    fn fixed(name: &str, values: &[(&str, RuntimeValue)]) -> Layer {
        let values = values.iter().map(|(key, v)| ((*key).into(), v.clone()));
        Layer::fixed(name, values.collect())
    }

    fn change(key: &str, value: &str) -> [(String, String); 1] {
        [(key.to_owned(), value.to_owned())]
    }

    #[test]
    fn the_last_layer_that_has_a_key_wins() {
        let runtime = Runtime::new([
            fixed(
                "base",
                &[
                    ("a", RuntimeValue::Number(1.0)),
                    ("b", RuntimeValue::Bool(true)),
                ],
            ),
            fixed("second", &[("a", RuntimeValue::Number(2.0))]),
            Layer::admin("admin"),
        ]);
        let (a, b, none) = (runtime.key("a"), runtime.key("b"), runtime.key("none"));
        assert_eq!(
            (a.integer(), b.integer(), none.integer()),
            (Some(2), None, None)
        );
        runtime.modify(&change("a", "30")).unwrap();
        assert_eq!(a.integer(), Some(30));
        let snapshot = runtime.snapshot();
        let text = |text: &str| Some(text.to_owned());
        assert_eq!(snapshot.entries["a"], [text("1"), text("2"), text("30")]);
        assert_eq!(Snapshot::final_value(&snapshot.entries["b"]), Some("true"));
        assert_eq!(snapshot.overrides, 1);
        runtime.modify(&change("a", "")).unwrap();
        assert_eq!(a.integer(), Some(2));
    }

    #[test]
    fn layers_that_are_loaded_again_keep_what_was_modified() {
        let runtime = Runtime::new([Layer::admin("admin")]);
        runtime.modify(&change("a", "5")).unwrap();
        runtime.load([fixed("base", &[]), Layer::admin("admin")]);
        assert_eq!(runtime.key("a").integer(), Some(5));
        assert!(runtime.set_layer("base", [("b".into(), RuntimeValue::Number(1.0))].into()));
        assert_eq!(runtime.key("b").integer(), Some(1));
        assert!(!runtime.set_layer("rtds", [].into()));
    }

    #[test]
    fn without_an_admin_layer_nothing_is_modified() {
        let runtime = Runtime::new([fixed("base", &[])]);
        assert_eq!(
            runtime.modify(&change("a", "1")),
            Err(NotModified::NoAdminLayer)
        );
        let runtime = Runtime::new([Layer::admin("admin")]);
        let many: Vec<_> = (0..=super::ADMIN_KEYS_MAX)
            .map(|n| (n.to_string(), "1".to_owned()))
            .collect();
        assert_eq!(runtime.modify(&many), Err(NotModified::TooManyKeys));
        assert!(runtime.snapshot().entries.is_empty());
    }

    #[test]
    fn a_share_follows_its_key_and_falls_back_to_its_default() {
        let runtime = Runtime::new([Layer::admin("admin")]);
        let share = RuntimeFraction::keyed(FractionalPercent::percent(50), runtime.key("share"));
        let set = |value| runtime.modify(&change("share", value)).unwrap();
        assert_eq!(share.now(), FractionalPercent::percent(50));
        set("7");
        assert_eq!(share.now(), FractionalPercent::percent(7));
        set("{\"numerator\": 3, \"denominator\": \"TEN_THOUSAND\"}");
        assert_eq!(share.now(), FractionalPercent::ten_thousandth(3));
        set("5000000000");
        assert_eq!(share.now(), FractionalPercent::HUNDRED);
        set("words");
        assert_eq!(share.now(), FractionalPercent::percent(50));
        set("");
        assert_eq!(share.now(), FractionalPercent::percent(50));
    }

    #[test]
    fn keys_that_nobody_holds_are_forgotten() {
        let runtime = Runtime::new([Layer::admin("admin")]);
        let kept = runtime.key("kept");
        drop(runtime.key("gone"));
        assert_eq!(kept, runtime.key("kept"));
        runtime.modify(&change("x", "1")).unwrap();
        assert_eq!(runtime.lock().slots.len(), 1);
    }
}
