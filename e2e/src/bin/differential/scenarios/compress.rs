//! Content codings.

use anyhow::Result;
use e2e::{coding, upstream::Reply};

use crate::ask::{get, request};
use crate::config::{Bootstrap, Hcm};
use crate::run::Run;
use crate::suite::{Group, group};

const FILTERS: &str = "type.googleapis.com/envoy.extensions.filters.http";
const LIBRARIES: &str = "type.googleapis.com/envoy.extensions.compression";
const TEXT: &str = "one two three four five six seven eight nine ten eleven twelve";

/// A compressor filter: name of the coding and of its message, and fields.
fn compressor(coding: &str, message: &str, fields: &str) -> String {
    format!(
        "- {{name: {coding}, typed_config: {{'@type': {FILTERS}.compressor.v3.Compressor, compressor_library: {{name: lib, typed_config: {{'@type': {LIBRARIES}.{coding}.compressor.v3.{message}}}}}, {fields}}}}}\n"
    )
}

fn decompressor(fields: &str) -> String {
    format!(
        "- {{name: decompressor, typed_config: {{'@type': {FILTERS}.decompressor.v3.Decompressor, decompressor_library: {{name: lib, typed_config: {{'@type': {LIBRARIES}.gzip.decompressor.v3.Gzip}}}}, {fields}}}}}\n"
    )
}

pub(super) fn groups() -> Vec<Group> {
    let per_route = |fields: &str| {
        format!(
            "typed_per_filter_config: {{gzip: {{'@type': {FILTERS}.compressor.v3.CompressorPerRoute, {fields}}}}}"
        )
    };
    let routes = format!(
        "
        virtual_hosts:
        - name: all
          domains: ['*']
          routes:
          - {{match: {{prefix: /off}}, route: {{cluster: a}}, {}}}
          - {{match: {{prefix: /keep}}, route: {{cluster: a}}, {}}}
          - {{match: {{prefix: /direct}}, direct_response: {{status: 200, body: {{inline_string: {TEXT}}}}}}}
          - {{match: {{prefix: /}}, route: {{cluster: a}}}}
        ",
        per_route("disabled: true"),
        per_route(
            "overrides: {response_direction_config: {remove_accept_encoding_header: false}}"
        ),
    );
    let gzip = compressor("gzip", "Gzip", "");
    let three = [
        gzip.as_str(),
        &compressor("brotli", "Brotli", ""),
        &compressor("zstd", "Zstd", "choose_first: true"),
    ]
    .concat();
    let picky = compressor(
        "gzip",
        "Gzip",
        "response_direction_config: {common_config: {min_content_length: 40, content_type: [text/html]}, disable_on_etag_header: true, remove_accept_encoding_header: true, uncompressible_response_codes: [404]}",
    );
    let weaken = compressor(
        "gzip",
        "Gzip",
        "response_direction_config: {weaken_etag_on_compress: true}",
    );
    let requests = compressor(
        "gzip",
        "Gzip",
        "request_direction_config: {common_config: {min_content_length: 10}}, response_direction_config: {common_config: {enabled: {default_value: false, runtime_key: none}}}",
    );
    let quiet = decompressor("request_direction_config: {advertise_accept_encoding: false}");
    let mut bootstrap = Bootstrap::default().cluster("a", &["a"], "");
    for (name, filters) in [
        ("gzip", gzip),
        ("three", three),
        ("picky", picky),
        ("weaken", weaken),
        ("requests", requests),
        ("open", decompressor("")),
        ("quiet", quiet),
    ] {
        bootstrap = bootstrap.listener(&Hcm {
            name,
            filters: &filters,
            routes: &routes,
            ..Hcm::default()
        });
    }
    vec![group(
        bootstrap,
        [
            ("compress/gzip", gzip_answers),
            ("compress/negotiation", negotiation),
            ("compress/left_alone", left_alone),
            ("compress/picky", picky_answers),
            ("compress/etag", etag),
            ("compress/vary", vary),
            ("compress/requests", compressed_requests),
            ("compress/per_route", per_route_answers),
            ("compress/decompress_answers", decompress_answers),
            ("compress/decompress_requests", decompress_requests),
        ],
    )]
}

fn text(kind: &str) -> Reply {
    Reply::ok(TEXT).header("content-type", kind)
}

fn stats(run: &mut Run<'_>, listener: &str, kind: &str, prefix: &str) -> Result<()> {
    let answers = [
        "compressed",
        "not_compressed",
        "total_uncompressed_bytes",
        "content_length_too_small",
    ];
    let accept = [
        "no_accept_header",
        "header_identity",
        "header_compressor_used",
        "header_compressor_overshadowed",
        "header_wildcard",
        "header_not_valid",
        "not_compressed_etag",
        "request.compressed",
        "request.not_compressed",
    ];
    let answers = answers.iter().map(|stat| format!("{prefix}{stat}"));
    let names = answers.chain(accept.map(str::to_owned));
    let names: Vec<String> = names
        .map(|stat| format!("http.{listener}.compressor.lib.{kind}.{stat}"))
        .collect();
    run.counters(&names.iter().map(String::as_str).collect::<Vec<_>>())
}

fn gzip_answers(run: &mut Run<'_>) -> Result<()> {
    let ask = |path: &str| {
        get(path)
            .header("accept-encoding", "gzip")
            .on("gzip")
            .expect(200)
    };
    run.up["a"].on("/text", [text("text/plain"), text("text/plain").chunked()]);
    run.send(ask("/text"))?;
    run.send(ask("/text"))?;
    run.up["a"].on("/trailers", [text("text/plain").trailer("x-end", "1")]);
    run.send(ask("/trailers"))?;
    run.send(ask("/direct"))?;
    run.send(
        request("HEAD", "/direct")
            .header("accept-encoding", "gzip")
            .on("gzip"),
    )?;
    stats(run, "gzip", "gzip", "")
}

fn negotiation(run: &mut Run<'_>) -> Result<()> {
    for accepted in [
        "gzip",
        "br",
        "zstd",
        "gzip, br",
        "br, gzip",
        "gzip, br, zstd",
        "gzip;q=0.5, br;q=0.8",
        "gzip, zstd;q=0.9",
        "*",
        "br;q=0.1, *;q=0.5",
        "identity",
        "identity, gzip;q=0.5",
        "gzip;q=0",
        "deflate",
        "",
    ] {
        run.send(
            get("/direct")
                .header("accept-encoding", accepted)
                .on("three")
                .expect(200),
        )?;
    }
    run.send(get("/direct").on("three").expect(200))?;
    for kind in ["gzip", "brotli", "zstd"] {
        stats(run, "three", kind, "")?;
    }
    Ok(())
}

fn left_alone(run: &mut Run<'_>) -> Result<()> {
    run.up["a"].on(
        "/x",
        [
            text("image/png"),
            text("text/html; charset=utf-8"),
            text("TEXT/HTML"),
            Reply::ok(TEXT),
            text("text/plain").header("content-encoding", "br"),
            text("text/plain").header("cache-control", "public, no-transform"),
            Reply::ok("only twenty-nine bytes of it!").header("content-type", "text/plain"),
            Reply::ok("thirty bytes are enough for it").header("content-type", "text/plain"),
            Reply::status(204),
            Reply::status(200),
        ],
    );
    for status in [200, 200, 200, 200, 200, 200, 200, 200, 204, 200] {
        run.send(
            get("/x")
                .header("accept-encoding", "gzip")
                .on("gzip")
                .expect(status),
        )?;
    }
    stats(run, "gzip", "gzip", "")
}

fn picky_answers(run: &mut Run<'_>) -> Result<()> {
    run.up["a"].on(
        "/x",
        [
            text("text/html"),
            text("text/plain"),
            text("text/html").header("etag", "\"a\""),
            Reply::status(404)
                .body(TEXT)
                .header("content-type", "text/html"),
            Reply::ok("thirty bytes are enough for it").header("content-type", "text/html"),
        ],
    );
    for status in [200, 200, 200, 404, 200] {
        run.send(
            get("/x")
                .header("accept-encoding", "gzip")
                .on("picky")
                .expect(status),
        )?;
    }
    stats(run, "picky", "gzip", "response.")
}

fn etag(run: &mut Run<'_>) -> Result<()> {
    for listener in ["gzip", "weaken"] {
        let tags = ["\"strong\"", "W/\"weak\"", "w/\"weak\""];
        run.up["a"].on(
            "/tag",
            tags.map(|tag| text("text/plain").header("etag", tag)),
        );
        for _ in tags {
            run.send(
                get("/tag")
                    .header("accept-encoding", "gzip")
                    .on(listener)
                    .expect(200),
            )?;
        }
    }
    Ok(())
}

fn vary(run: &mut Run<'_>) -> Result<()> {
    for vary in ["Origin", "accept-encoding", "Origin, Accept-Encoding", "*"] {
        run.up["a"].on("/vary", [text("text/plain").header("vary", vary)]);
        run.send(get("/vary").on("gzip").expect(200))?;
    }
    Ok(())
}

fn compressed_requests(run: &mut Run<'_>) -> Result<()> {
    let post = || {
        request("POST", "/")
            .header("content-type", "text/plain")
            .on("requests")
    };
    run.send(post().body(TEXT).expect(200))?;
    run.send(post().chunked(TEXT).expect(200))?;
    run.send(post().body("short").expect(200))?;
    run.send(
        post()
            .header("content-encoding", "br")
            .body(TEXT)
            .expect(200),
    )?;
    run.send(
        get("/")
            .header("accept-encoding", "gzip")
            .on("requests")
            .expect(200),
    )?;
    stats(run, "requests", "gzip", "response.")
}

fn per_route_answers(run: &mut Run<'_>) -> Result<()> {
    for (path, listener) in [("/off", "gzip"), ("/keep", "picky"), ("/", "picky")] {
        run.up["a"].on(path, [text("text/html")]);
        run.send(
            get(path)
                .header("accept-encoding", "gzip")
                .on(listener)
                .expect(200),
        )?;
    }
    Ok(())
}

/// An answer that says it is compressed.
fn compressed(coding: &str, fields: &str) -> Reply {
    let body = coding::gzip(TEXT.as_bytes());
    let head = format!(
        "HTTP/1.1 200 OK\r\ncontent-encoding: {coding}\r\n{fields}content-length: {}\r\n\r\n",
        body.len()
    );
    Reply::raw([head.as_bytes(), &body].concat())
}

fn decompress_answers(run: &mut Run<'_>) -> Result<()> {
    run.up["a"].on(
        "/x",
        [
            compressed("gzip", ""),
            compressed("gzip", "cache-control: no-transform\r\n"),
            compressed("br", ""),
            Reply::ok(TEXT),
        ],
    );
    for _ in 0..4 {
        run.send(get("/x").on("open").expect(200))?;
    }
    run.send(
        get("/")
            .header("accept-encoding", "br")
            .on("open")
            .expect(200),
    )?;
    run.send(get("/").on("quiet").expect(200))?;
    let names = ["request", "response"].map(|direction| {
        [
            "decompressed",
            "not_decompressed",
            "total_uncompressed_bytes",
            "total_compressed_bytes",
        ]
        .map(|stat| format!("http.open.decompressor.lib.gzip.{direction}.{stat}"))
    });
    run.counters(
        &names
            .as_flattened()
            .iter()
            .map(String::as_str)
            .collect::<Vec<_>>(),
    )
}

fn decompress_requests(run: &mut Run<'_>) -> Result<()> {
    let body = coding::gzip(TEXT.as_bytes());
    for coding in ["gzip", "br"] {
        let head = format!(
            "POST / HTTP/1.1\r\nHost: test.example\r\ncontent-encoding: {coding}\r\ncontent-length: {}\r\n\r\n",
            body.len()
        );
        let bytes = [head.as_bytes(), &body].concat();
        run.send(crate::ask::raw(bytes).on("open").expect(200))?;
    }
    Ok(())
}
