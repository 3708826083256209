//! `Bootstrap.layered_runtime`: values that people may change while it runs.

use std::{collections::BTreeMap, sync::Arc};

use envoy_types::pb::{
    envoy::{
        config::bootstrap::v3::{
            self as pb, LayeredRuntime, runtime_layer::LayerSpecifier as Specifier,
        },
        service::runtime::v3::Runtime,
    },
    google::protobuf::{Struct, value::Kind},
};
use mesh_core::{
    FractionalPercent,
    runtime::{Layer, RuntimeValue},
};

use super::{context::Context, source};
use crate::{
    language::{At, MessageSupport, Support::Enforced},
    model::RuntimeSource,
};

pub(super) const SUPPORT: &[MessageSupport] = &[
    MessageSupport {
        message: "envoy.config.bootstrap.v3.LayeredRuntime",
        fields: &[("layers", Enforced)],
    },
    MessageSupport {
        message: "envoy.config.bootstrap.v3.RuntimeLayer",
        fields: &[
            ("name", Enforced),
            ("static_layer", Enforced),
            ("admin_layer", Enforced),
            ("rtds_layer", Enforced),
        ],
    },
    MessageSupport {
        message: "envoy.config.bootstrap.v3.RuntimeLayer.RtdsLayer",
        fields: &[("name", Enforced), ("rtds_config", Enforced)],
    },
    MessageSupport {
        message: "envoy.service.runtime.v3.Runtime",
        fields: &[("name", Enforced), ("layer", Enforced)],
    },
    MessageSupport {
        message: "envoy.config.bootstrap.v3.RuntimeLayer.AdminLayer",
        fields: &[],
    },
];

/// A layer that a control plane sends.
pub(crate) fn came(
    cx: &Context<'_>,
    at: &At<'_>,
    from: &Runtime,
) -> BTreeMap<Arc<str>, RuntimeValue> {
    let mut all = BTreeMap::new();
    if let Some(values) = &from.layer {
        collect(cx, &at.field("layer"), "", values, &mut all);
    }
    all
}

/// The layers that a control plane sends.
pub(super) fn sources(cx: &Context<'_>, at: &At<'_>, from: &LayeredRuntime) -> Vec<RuntimeSource> {
    let list = at.field("layers");
    let layers = from.layers.iter().enumerate();
    let sources = layers.filter_map(|(index, layer)| {
        let Some(Specifier::RtdsLayer(rtds)) = &layer.layer_specifier else {
            return None;
        };
        let at = list.index(index);
        let at = at.field("rtds_layer");
        let at = at.field("rtds_config");
        Some(RuntimeSource {
            layer: Arc::from(layer.name.as_str()),
            name: rtds.name.clone(),
            origin: source::convert(cx, &at, rtds.rtds_config.as_ref())?,
        })
    });
    sources.collect()
}

/// The layers, lowest first.
pub(super) fn convert(cx: &Context<'_>, at: &At<'_>, from: &LayeredRuntime) -> Vec<Layer> {
    let list = at.field("layers");
    let mut layers: Vec<Layer> = Vec::with_capacity(from.layers.len());
    for (index, from) in from.layers.iter().enumerate() {
        let at = list.index(index);
        let layer = layer(cx, &at, from);
        if layers.iter().any(|other| other.name == layer.name) {
            let reason = format!("there is another layer named {:?}", from.name);
            cx.invalid(&at.field("name"), reason);
        }
        if layer.admin && layers.iter().any(|other| other.admin) {
            cx.invalid(&at.field("admin_layer"), "there is another admin layer");
        }
        layers.push(layer);
    }
    layers
}

fn layer(cx: &Context<'_>, at: &At<'_>, from: &pb::RuntimeLayer) -> Layer {
    match &from.layer_specifier {
        Some(Specifier::AdminLayer(_)) => Layer::admin(&from.name),
        Some(Specifier::StaticLayer(values)) => {
            let mut all = BTreeMap::new();
            collect(cx, &at.field("static_layer"), "", values, &mut all);
            Layer::fixed(&from.name, all)
        }
        // It has nothing before something comes; a layer on disk is reported by the table.
        Some(Specifier::DiskLayer(_) | Specifier::RtdsLayer(_)) | None => {
            Layer::fixed(&from.name, BTreeMap::new())
        }
    }
}

/// `{a: {b: 1}}` is the key `a.b`; `{a: {numerator: 1}}` is the key `a`, a share.
fn collect(
    cx: &Context<'_>,
    at: &At<'_>,
    prefix: &str,
    from: &Struct,
    all: &mut BTreeMap<Arc<str>, RuntimeValue>,
) {
    for (name, value) in &from.fields {
        let at = at.key(name);
        let key = format!("{prefix}{name}");
        let value = match &value.kind {
            Some(Kind::NumberValue(number)) => RuntimeValue::Number(*number),
            Some(Kind::BoolValue(value)) => RuntimeValue::Bool(*value),
            Some(Kind::StringValue(text)) => RuntimeValue::text(text),
            Some(Kind::StructValue(inner)) if is_fraction(inner) => match fraction(inner) {
                Some(share) => RuntimeValue::Fraction(share),
                None => {
                    cx.invalid(&at, "this is no fractional percent");
                    continue;
                }
            },
            Some(Kind::StructValue(inner)) => {
                collect(cx, &at, &format!("{key}."), inner, all);
                continue;
            }
            Some(Kind::NullValue(_) | Kind::ListValue(_)) | None => {
                cx.invalid(
                    &at,
                    "a runtime value is a number, a text, true, false or a map",
                );
                continue;
            }
        };
        all.insert(key.into(), value);
    }
}

fn is_fraction(from: &Struct) -> bool {
    from.fields.contains_key("numerator") || from.fields.contains_key("denominator")
}

fn fraction(from: &Struct) -> Option<FractionalPercent> {
    let known = |name: &str| matches!(name, "numerator" | "denominator");
    if !from.fields.keys().all(|name| known(name)) {
        return None;
    }
    let numerator = match from
        .fields
        .get("numerator")
        .and_then(|value| value.kind.as_ref())
    {
        None => 0,
        Some(Kind::NumberValue(n)) if n.fract() == 0.0 && (0.0..=4_294_967_295.0).contains(n) => {
            *n as u32
        }
        Some(Kind::StringValue(text)) => text.parse().ok()?,
        Some(_) => return None,
    };
    match from
        .fields
        .get("denominator")
        .and_then(|value| value.kind.as_ref())
    {
        None => Some(FractionalPercent::percent(numerator)),
        Some(Kind::StringValue(name)) => match name.as_str() {
            "HUNDRED" => Some(FractionalPercent::percent(numerator)),
            "TEN_THOUSAND" => Some(FractionalPercent::ten_thousandth(numerator)),
            "MILLION" => Some(FractionalPercent::millionth(numerator)),
            _ => None,
        },
        Some(_) => None,
    }
}
