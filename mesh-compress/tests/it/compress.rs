use http::{Method, StatusCode};
use http_body_util::BodyExt as _;
use mesh_compress::{CompressConfig, CompressLayer, Compression, Scope};
use mesh_core::{Body, Fixed, stats::Registry};
use mesh_testkit::{Gate, Polled, Reply, ScriptedBody, Upstream, call, request, request_with};
use tower_layer::Layer;

use crate::support::{ALL, TEXT, accepting, header, plain, read};

fn gzip() -> CompressConfig {
    CompressConfig::new(Compression::gzip(6))
}

/// What comes of one answer: its headers.
async fn headers(config: CompressConfig, reply: Reply) -> http::HeaderMap {
    let upstream = Upstream::new();
    upstream.reply(reply);
    let mut service = CompressLayer::fixed(config).layer(upstream.service());
    let response = call(&mut service, accepting("gzip")).await.unwrap();
    response.headers().clone()
}

async fn is_compressed(config: CompressConfig, reply: Reply) -> bool {
    header(&headers(config, reply).await, "content-encoding") == Some("gzip")
}

#[tokio::test]
async fn every_coding_can_be_read_by_its_library() {
    for compression in ALL {
        let coding = compression.coding();
        let upstream = Upstream::new();
        upstream.reply(
            Reply::status(200)
                .header("content-length", "62")
                .header("etag", "\"strong\"")
                .body(ScriptedBody::new().data(TEXT).trailers([("x-end", "1")])),
        );
        let layer = CompressLayer::fixed(CompressConfig::new(compression));
        let mut service = layer.layer(upstream.service());
        let response = call(&mut service, accepting(coding.token())).await.unwrap();
        let headers = response.headers().clone();
        assert_eq!(header(&headers, "content-encoding"), Some(coding.token()));
        assert_eq!(header(&headers, "vary"), Some("Accept-Encoding"));
        assert_eq!(header(&headers, "content-length"), None);
        assert_eq!(header(&headers, "etag"), None);
        let (data, trailers) = read(response.into_body()).await.unwrap();
        assert_eq!(plain(coding, &data), TEXT.as_bytes());
        assert_eq!(header(&trailers.unwrap(), "x-end"), Some("1"));
        let stats = layer.stats();
        assert_eq!(stats.compressed().value(), 1);
        assert_eq!(stats.total_uncompressed_bytes().value(), 62);
        assert_eq!(stats.total_compressed_bytes().value(), data.len() as u64);
    }
}

#[tokio::test]
async fn what_should_not_be_compressed_is_left_alone() {
    let ok = || Reply::ok(TEXT);
    assert!(is_compressed(gzip(), ok()).await);
    assert!(
        is_compressed(
            gzip(),
            ok().header("content-type", "Text/HTML; charset=utf-8")
        )
        .await
    );
    assert!(!is_compressed(gzip(), ok().header("content-type", "image/png")).await);
    assert!(!is_compressed(gzip(), ok().header("content-encoding", "br")).await);
    assert!(!is_compressed(gzip(), ok().header("cache-control", "public, No-Transform")).await);
    assert!(!is_compressed(gzip(), ok().header("content-length", "29")).await);
    assert!(is_compressed(gzip(), ok().header("content-length", "30")).await);
    assert!(!is_compressed(gzip(), Reply::status(204)).await);
    let mut codes = gzip();
    codes.uncompressible_response_codes = [StatusCode::OK].into();
    assert!(!is_compressed(codes, ok()).await);
    let mut off = gzip();
    off.response = None;
    assert!(!is_compressed(off, ok()).await);
}

#[tokio::test]
async fn tags_are_dropped_weakened_or_respected() {
    let reply = |etag| Reply::ok(TEXT).header("etag", etag);
    let mut weaken = gzip();
    weaken.weaken_etag_on_compress = true;
    let strong = headers(weaken.clone(), reply("\"a\"")).await;
    assert_eq!(header(&strong, "etag"), Some("W/\"a\""));
    for config in [weaken, gzip()] {
        let weak = headers(config, reply("W/\"a\"")).await;
        assert_eq!(header(&weak, "etag"), Some("W/\"a\""));
    }
    let mut respect = gzip();
    respect.disable_on_etag_header = true;
    let respected = headers(respect, reply("\"a\"")).await;
    assert_eq!(header(&respected, "etag"), Some("\"a\""));
    assert_eq!(header(&respected, "content-encoding"), None);
}

#[tokio::test]
async fn caches_are_told_also_when_this_client_wants_none() {
    for (vary, expected) in [
        (None, "Accept-Encoding"),
        (Some("Origin"), "Origin, Accept-Encoding"),
        (Some("accept-encoding"), "accept-encoding"),
        (Some("*"), "*"),
    ] {
        let upstream = Upstream::new();
        let mut reply = Reply::ok(TEXT);
        if let Some(vary) = vary {
            reply = reply.header("vary", vary);
        }
        upstream.reply(reply);
        let mut service = CompressLayer::fixed(gzip()).layer(upstream.service());
        let response = call(&mut service, request("http://a/")).await.unwrap();
        assert_eq!(header(response.headers(), "content-encoding"), None);
        assert_eq!(header(response.headers(), "vary"), Some(expected));
    }
}

#[tokio::test]
async fn layers_of_one_stack_agree_on_who_compresses() {
    let upstream = Upstream::new();
    let mut brotli = CompressConfig::new(Compression::brotli(5));
    brotli.response = Some(Scope {
        content_type: ["text/html".into()].into(),
        ..Scope::default()
    });
    let inner = CompressLayer::fixed(gzip()).layer(upstream.service());
    let mut service = CompressLayer::fixed(brotli).layer(inner);
    for (accepted, kind, coding) in [
        ("gzip, br", "text/html", Some("gzip")),
        ("br, gzip", "text/html", Some("br")),
        ("gzip;q=0.1, br", "text/html", Some("br")),
        // Brotli is not for these.
        ("br, gzip", "text/css", Some("gzip")),
        ("br", "text/css", None),
        ("*", "text/html", Some("br")),
        ("identity", "text/html", None),
    ] {
        upstream.reply(Reply::ok(TEXT).header("content-type", kind));
        let response = call(&mut service, accepting(accepted)).await.unwrap();
        let found = header(response.headers(), "content-encoding");
        assert_eq!(found, coding, "{accepted}: {kind}");
    }
}

#[tokio::test]
async fn a_stream_of_events_stays_one() {
    for compression in ALL {
        let (upstream, gate) = (Upstream::new(), Gate::new());
        let body = ScriptedBody::new()
            .data("data: 1\n\n")
            .wait(&gate)
            .data("data: 2\n\n");
        upstream.reply(Reply::status(200).body(body));
        let layer = CompressLayer::fixed(CompressConfig::new(compression));
        let mut service = layer.layer(upstream.service());
        let asking = accepting(compression.coding().token());
        let mut body = call(&mut service, asking).await.unwrap().into_body();
        let first = body.frame().await.unwrap().unwrap().into_data().unwrap();
        // What is there can be read, although the body has not ended.
        let seen = String::from_utf8(prefix(compression, &first)).unwrap();
        assert_eq!(seen, "data: 1\n\n");
        let mut second = Polled::new(body.frame());
        assert!(second.poll().is_pending() && !second.is_woken());
        gate.open();
        assert!(second.is_woken());
        drop(second);
        let (rest, _) = read(body).await.unwrap();
        let all = plain(compression.coding(), &[&first[..], &rest].concat());
        assert_eq!(all, b"data: 1\n\ndata: 2\n\n");
    }
}

/// What can be read of a body that goes on.
fn prefix(compression: Compression, data: &[u8]) -> Vec<u8> {
    use std::io::Write as _;
    match compression.coding() {
        mesh_compress::Coding::Gzip => {
            let mut decoder = flate2::write::GzDecoder::new(Vec::new());
            decoder.write_all(data).unwrap();
            decoder.flush().unwrap();
            decoder.get_ref().clone()
        }
        mesh_compress::Coding::Brotli => {
            let mut decoder = brotli::DecompressorWriter::new(Vec::new(), 4096);
            decoder.write_all(data).unwrap();
            decoder.flush().unwrap();
            decoder.get_ref().clone()
        }
        mesh_compress::Coding::Zstd => {
            let mut decoder = zstd::stream::write::Decoder::new(Vec::new()).unwrap();
            decoder.write_all(data).unwrap();
            decoder.flush().unwrap();
            decoder.get_ref().clone()
        }
    }
}

#[tokio::test]
async fn requests_are_compressed_for_those_who_ask_for_it() {
    let upstream = Upstream::new();
    let mut config = gzip();
    config.request = Some(Scope::default());
    config.remove_accept_encoding_header = true;
    let mut service = CompressLayer::fixed(config).layer(upstream.service());
    let mut post = request_with(Method::POST, "http://a/", TEXT);
    post.headers_mut()
        .insert("content-length", "62".parse().unwrap());
    post.headers_mut()
        .insert("accept-encoding", "gzip".parse().unwrap());
    call(&mut service, post).await.unwrap();
    call(&mut service, request("http://a/")).await.unwrap();
    let seen = upstream.requests();
    assert_eq!(header(&seen[0].headers, "content-encoding"), Some("gzip"));
    assert_eq!(header(&seen[0].headers, "content-length"), None);
    assert_eq!(header(&seen[0].headers, "accept-encoding"), None);
    assert_eq!(
        plain(mesh_compress::Coding::Gzip, &seen[0].body),
        TEXT.as_bytes()
    );
    assert_eq!(header(&seen[1].headers, "content-encoding"), None);
}

#[tokio::test]
async fn the_answer_to_a_head_keeps_its_length() {
    let upstream = Upstream::new();
    upstream.reply(Reply::ok(TEXT).header("content-length", "62"));
    let mut service = CompressLayer::fixed(gzip()).layer(upstream.service());
    let mut head = accepting("gzip");
    *head.method_mut() = Method::HEAD;
    let response = call(&mut service, head).await.unwrap();
    assert_eq!(header(response.headers(), "content-encoding"), None);
    assert_eq!(header(response.headers(), "content-length"), Some("62"));
    assert_eq!(header(response.headers(), "vary"), Some("Accept-Encoding"));
}

#[tokio::test]
async fn a_tunnel_is_left_alone() {
    let upstream = Upstream::new();
    upstream.script([
        Reply::status(101).body(ScriptedBody::new().data(TEXT)),
        Reply::ok(TEXT),
    ]);
    let mut service = CompressLayer::fixed(gzip()).layer(upstream.service());
    let mut connect = request_with(Method::CONNECT, "a:80", Body::empty());
    connect
        .headers_mut()
        .insert("accept-encoding", "gzip".parse().unwrap());
    for request in [accepting("gzip"), connect] {
        let response = call(&mut service, request).await.unwrap();
        assert_eq!(header(response.headers(), "content-encoding"), None);
        assert_eq!(read(response.into_body()).await.unwrap().0, TEXT.as_bytes());
    }
}

#[tokio::test]
async fn stats_have_envoys_names() {
    let registry = Registry::new();
    let scope = registry.scope("http.main.compressor.lib.gzip.");
    let layer = CompressLayer::new(Fixed::new(gzip())).with_stats(&scope, "");
    let mut service = layer.layer(Upstream::new().service());
    call(&mut service, request("http://a/")).await.unwrap();
    let names: Vec<String> = registry
        .snapshot()
        .into_iter()
        .map(|stat| stat.name)
        .collect();
    for name in [
        "not_compressed",
        "no_accept_header",
        "request.not_compressed",
    ] {
        let name = format!("http.main.compressor.lib.gzip.{name}");
        assert!(names.contains(&name), "{name}: {names:?}");
    }
}
