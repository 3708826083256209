use http::Method;
use http_body_util::BodyExt as _;
use mesh_compress::{Coding, DecompressConfig, DecompressLayer, Expansion, Transparency};
use mesh_core::ErrorKind;
use mesh_testkit::{Reply, ScriptedBody, Upstream, call, request, request_with};
use tower_layer::Layer;

use crate::support::{ALL, TEXT, accepting, coded, header, read};

fn reply(coding: Coding, data: Vec<u8>) -> Reply {
    Reply::status(200)
        .header("content-encoding", coding.token())
        .header("content-length", &data.len().to_string())
        .body(ScriptedBody::new().data(data).trailers([("x-end", "1")]))
}

#[tokio::test]
async fn answers_come_out_plain_with_their_trailers() {
    for coding in ALL.map(|compression| compression.coding()) {
        let upstream = Upstream::new();
        upstream.reply(reply(coding, coded(coding, TEXT.as_bytes())));
        let layer = DecompressLayer::fixed(DecompressConfig::new(coding));
        let mut service = layer.layer(upstream.service());
        let response = call(&mut service, request("http://a/")).await.unwrap();
        assert_eq!(header(response.headers(), "content-encoding"), None);
        assert_eq!(header(response.headers(), "content-length"), None);
        let (data, trailers) = read(response.into_body()).await.unwrap();
        assert_eq!(data, TEXT.as_bytes());
        assert!(trailers.is_some());
        let seen = &upstream.requests()[0].headers;
        assert_eq!(header(seen, "accept-encoding"), Some(coding.token()));
        assert_eq!(layer.stats().total_uncompressed_bytes().value(), 62);
    }
}

#[tokio::test]
async fn what_comes_out_is_bounded_by_what_comes_in() {
    for coding in ALL.map(|compression| compression.coding()) {
        let bomb = coded(coding, &vec![0; 4 << 20]);
        let upstream = Upstream::new();
        upstream.reply(reply(coding, bomb.clone()));
        let layer = DecompressLayer::fixed(DecompressConfig::new(coding));
        let mut service = layer.layer(upstream.service());
        let response = call(&mut service, request("http://a/")).await.unwrap();
        let mut body = response.into_body();
        let mut sum = 0;
        let error = loop {
            match body.frame().await.expect("it must not end well") {
                Ok(frame) => sum += frame.into_data().unwrap().len(),
                Err(error) => break error,
            }
        };
        assert_eq!(error.kind(), ErrorKind::TooLarge, "{coding}");
        assert!(error.to_string().contains("expands too far"), "{error}");
        assert!(sum <= 64 * 1024 + bomb.len() * 100, "{coding}: {sum}");
        assert!(body.frame().await.is_none());
        assert_eq!(layer.stats().expanded_too_far().value(), 1);
    }
}

#[tokio::test]
async fn a_zstd_frame_cannot_make_us_keep_more_than_its_coding_allows() {
    for (window_log, fits) in [(23, true), (24, false)] {
        let mut encoder = zstd::stream::write::Encoder::new(Vec::new(), 3).unwrap();
        encoder.window_log(window_log).unwrap();
        std::io::Write::write_all(&mut encoder, TEXT.as_bytes()).unwrap();
        std::io::Write::flush(&mut encoder).unwrap();
        let data = encoder.finish().unwrap();
        let upstream = Upstream::new();
        upstream.reply(reply(Coding::Zstd, data));
        let config = DecompressConfig::new(Coding::Zstd);
        let mut service = DecompressLayer::fixed(config).layer(upstream.service());
        let response = call(&mut service, request("http://a/")).await.unwrap();
        let read = read(response.into_body()).await;
        assert_eq!(read.is_ok(), fits, "2^{window_log} bytes");
    }
}

#[tokio::test]
async fn a_total_may_be_set() {
    let data = coded(Coding::Gzip, TEXT.as_bytes());
    for (max_bytes, fits) in [(62, true), (61, false)] {
        let upstream = Upstream::new();
        upstream.reply(reply(Coding::Gzip, data.clone()));
        let mut config = DecompressConfig::new(Coding::Gzip);
        config.expansion = Expansion {
            max_bytes: Some(max_bytes),
            ..Expansion::default()
        };
        let mut service = DecompressLayer::fixed(config).layer(upstream.service());
        let response = call(&mut service, request("http://a/")).await.unwrap();
        assert_eq!(read(response.into_body()).await.is_ok(), fits);
    }
}

#[tokio::test]
async fn a_body_that_is_cut_off_or_garbage_is_an_error() {
    for coding in ALL.map(|compression| compression.coding()) {
        let whole = coded(coding, TEXT.as_bytes());
        let cut = whole[..whole.len() - 6].to_vec();
        for data in [cut, b"this is no compressed body at all".to_vec()] {
            let upstream = Upstream::new();
            upstream.reply(reply(coding, data));
            let layer = DecompressLayer::fixed(DecompressConfig::new(coding));
            let mut service = layer.layer(upstream.service());
            let response = call(&mut service, request("http://a/")).await.unwrap();
            let error = read(response.into_body()).await.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::UpstreamProtocol, "{coding}");
            assert_eq!(layer.stats().malformed().value(), 1);
        }
    }
}

#[tokio::test]
async fn requests_are_decompressed_too() {
    let upstream = Upstream::new();
    let layer = DecompressLayer::fixed(DecompressConfig::new(Coding::Gzip));
    let mut service = layer.layer(upstream.service());
    let data = coded(Coding::Gzip, TEXT.as_bytes());
    let mut post = request_with(Method::POST, "http://a/", data);
    let headers = post.headers_mut();
    headers.insert("content-encoding", "gzip".parse().unwrap());
    headers.insert("accept-encoding", "br".parse().unwrap());
    call(&mut service, post).await.unwrap();
    let seen = &upstream.requests()[0];
    assert_eq!(seen.body, TEXT);
    assert_eq!(header(&seen.headers, "content-encoding"), None);
    assert_eq!(header(&seen.headers, "accept-encoding"), Some("br,gzip"));
}

#[tokio::test]
async fn only_what_is_meant_is_touched() {
    let gzip = || coded(Coding::Gzip, TEXT.as_bytes());
    let no_transform = || reply(Coding::Gzip, gzip()).header("cache-control", "no-transform");
    let config = DecompressConfig::new(Coding::Gzip);
    let mut ignores = config;
    ignores.response = Some(Transparency {
        ignore_no_transform_header: true,
    });
    let mut off = config;
    off.response = None;
    let twice = || Reply::ok(gzip()).header("content-encoding", "br, gzip");
    let other = || Reply::ok(gzip()).header("content-encoding", "gzip, br");
    for (config, reply, left) in [
        (config, no_transform(), Some("gzip")),
        (ignores, no_transform(), None),
        (off, reply(Coding::Gzip, gzip()), Some("gzip")),
        (config, twice(), Some("br")),
        (config, other(), Some("gzip, br")),
        (config, reply(Coding::Brotli, gzip()), Some("br")),
    ] {
        let upstream = Upstream::new();
        upstream.reply(reply);
        let mut service = DecompressLayer::fixed(config).layer(upstream.service());
        let response = call(&mut service, accepting("br")).await.unwrap();
        assert_eq!(header(response.headers(), "content-encoding"), left);
        let advertised = header(&upstream.requests()[0].headers, "accept-encoding")
            .unwrap()
            .to_owned();
        assert_eq!(advertised.contains("gzip"), config.response.is_some());
    }
}
