//! Compressors and decompressors: the filters' configs.

use mesh_compress::{Coding, Compression, Scope};
use mesh_config::model::{CompressorFilter, HttpFilterKind, RouteFilterKind};

use super::{ROUTER, assert_refused, bare_manager_text, config, report};

const FILTERS: &str = "type.googleapis.com/envoy.extensions.filters.http";
const LIBRARIES: &str = "type.googleapis.com/envoy.extensions.compression";
const AT: &str = "static_resources.listeners[0].filter_chains[0].filters[0].typed_config.http_filters[0].typed_config";

fn text(filter: &str, library: &str, fields: &str, route: &str) -> String {
    let kind = format!("{}{}", filter[..1].to_uppercase(), &filter[1..]);
    bare_manager_text(&format!(
        "stat_prefix: i\nroute_config: {{virtual_hosts: [{{name: v, domains: '*', routes: [{{match: {{prefix: /}}, \
         route: {{cluster: b}}, {route}}}]}}]}}\nhttp_filters:\n- name: it\n  typed_config: {{'@type': \
         {FILTERS}.{filter}.v3.{kind}, {filter}_library: {{name: lib, typed_config: {{'@type': \
         {LIBRARIES}.{library}}}}}, {fields}}}\n- {ROUTER}"
    ))
}

fn gzip(fields: &str) -> CompressorFilter {
    compressor("gzip.compressor.v3.Gzip", fields)
}

fn compressor(library: &str, fields: &str) -> CompressorFilter {
    let config = config(&text("compressor", library, fields, ""));
    match &config.listeners[0].manager().unwrap().http_filters[0].kind {
        HttpFilterKind::Compressor(filter) => filter.as_ref().clone(),
        other => panic!("{other:?}"),
    }
}

#[test]
fn the_defaults_are_envoys() {
    let filter = gzip("");
    assert_eq!(filter.config.compression, Compression::gzip(6));
    assert_eq!(filter.config.response, Some(Scope::default()));
    assert_eq!(filter.config.request, None);
    assert_eq!(
        (&*filter.stat_prefix, filter.response_stat_prefix),
        ("lib.gzip.", "")
    );
    let brotli = compressor("brotli.compressor.v3.Brotli, quality: 9", "");
    assert_eq!(brotli.config.compression, Compression::brotli(9));
    assert_eq!(&*brotli.stat_prefix, "lib.brotli.");
    let zstd = compressor("zstd.compressor.v3.Zstd", "choose_first: true");
    assert_eq!(zstd.config.compression, Compression::zstd(3));
    assert!(zstd.config.choose_first);
}

#[test]
fn directions_say_what_they_want() {
    let filter = gzip(
        "request_direction_config: {common_config: {min_content_length: 7}}, \
         response_direction_config: {common_config: {content_type: [a/b]}, disable_on_etag_header: true, \
         weaken_etag_on_compress: true, remove_accept_encoding_header: true, uncompressible_response_codes: [404]}",
    );
    let config = filter.config;
    assert_eq!(config.request.as_ref().unwrap().min_content_length, 7);
    let response = config.response.as_ref().unwrap();
    assert_eq!(response.min_content_length, 30);
    assert!(response.allows(Some("A/B; x")) && !response.allows(Some("text/html")));
    assert!(config.disable_on_etag_header && config.weaken_etag_on_compress);
    assert!(config.remove_accept_encoding_header);
    assert_eq!(config.uncompressible_response_codes.len(), 1);
    assert_eq!(filter.response_stat_prefix, "response.");
    let off = gzip(
        "response_direction_config: {common_config: {enabled: {default_value: false, runtime_key: k}}}",
    );
    assert_eq!(off.config.response, None);
}

#[test]
fn a_route_may_change_or_stop_it() {
    let says = |says: &str| {
        let route = format!(
            "typed_per_filter_config: {{it: {{'@type': {FILTERS}.compressor.v3.CompressorPerRoute, {says}}}}}"
        );
        let config = config(&text("compressor", "gzip.compressor.v3.Gzip", "", &route));
        let manager = config.listeners[0].manager().unwrap();
        let found = manager.routes.routes().next().unwrap().policy().filters["it"].clone();
        (found.disabled, found.config)
    };
    let (disabled, config) = says("disabled: true");
    assert!(disabled && config.is_none());
    let (disabled, config) =
        says("overrides: {response_direction_config: {remove_accept_encoding_header: true}}");
    let Some((_, RouteFilterKind::Compressor(changes))) = config else {
        panic!("another filter")
    };
    assert!(!disabled && changes.enables_response);
    assert_eq!(
        (changes.remove_accept_encoding_header, changes.compression),
        (Some(true), None)
    );
}

#[test]
fn a_decompressor_bounds_what_comes_out() {
    let decompressor = |library: &str, fields: &str| {
        let config = config(&text("decompressor", library, fields, ""));
        match &config.listeners[0].manager().unwrap().http_filters[0].kind {
            HttpFilterKind::Decompressor(filter) => *filter.config,
            other => panic!("{other:?}"),
        }
    };
    let gzip = decompressor("gzip.decompressor.v3.Gzip, max_inflate_ratio: 7", "");
    assert_eq!(
        (gzip.coding, gzip.expansion.max_inflate_ratio),
        (Coding::Gzip, 7)
    );
    assert!(gzip.request.is_some() && gzip.response.is_some() && gzip.advertise_accept_encoding);
    let brotli = decompressor(
        "brotli.decompressor.v3.Brotli",
        "request_direction_config: {advertise_accept_encoding: false, common_config: {enabled: {default_value: false, runtime_key: k}}}, \
         response_direction_config: {common_config: {ignore_no_transform_header: true}}",
    );
    assert_eq!((brotli.coding, brotli.request), (Coding::Brotli, None));
    assert!(!brotli.advertise_accept_encoding);
    assert!(brotli.response.unwrap().ignore_no_transform_header);
}

#[test]
fn what_is_not_honoured_is_reported_and_what_makes_no_sense_refused() {
    let tuned = text(
        "compressor",
        "gzip.compressor.v3.Gzip, memory_level: 9, chunk_size: 8192",
        "",
        "",
    );
    assert_eq!(report(&tuned), []);
    let window = text(
        "compressor",
        "gzip.compressor.v3.Gzip, window_bits: 9",
        "",
        "",
    );
    let at = format!("{AT}.compressor_library.typed_config.window_bits");
    assert_eq!(report(&window)[0].0, at);
    let wrong = text("compressor", "gzip.decompressor.v3.Gzip", "", "");
    assert_refused(
        &wrong,
        "compressor_library",
        &format!("{AT}.compressor_library.typed_config"),
        "envoy.extensions.compression.gzip.decompressor.v3.Gzip is not a compressor",
    );
}
