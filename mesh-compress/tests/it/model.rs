//! What goes in comes out, however it is cut into frames.

use mesh_compress::{
    CompressConfig, CompressLayer, DecompressConfig, DecompressLayer, Expansion, Scope,
};
use mesh_core::Body;
use mesh_testkit::{Reply, ScriptedBody, Upstream, call};
use proptest::prelude::*;
use tower_layer::Layer;

use crate::support::{ALL, accepting, coded, plain, read};

fn frames() -> impl Strategy<Value = Vec<Vec<u8>>> {
    let byte = prop_oneof![Just(b'a'), any::<u8>()];
    prop::collection::vec(prop::collection::vec(byte, 0..6_000), 0..8)
}

fn body(frames: &[Vec<u8>], cut: usize) -> ScriptedBody {
    let mut body = ScriptedBody::new();
    for piece in frames.iter().flat_map(|frame| frame.chunks(cut)) {
        body = body.data(piece.to_vec());
    }
    body.silent()
}

fn run<T>(future: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .build()
        .unwrap();
    runtime.block_on(future)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn model_what_is_compressed_can_be_read(which in 0usize..3, frames in frames(), cut in 1usize..9_000) {
        let compression = ALL[which];
        let mut config = CompressConfig::new(compression);
        config.response = Some(Scope { min_content_length: 0, ..Scope::default() });
        let upstream = Upstream::new();
        upstream.reply(Reply::status(200).body(body(&frames, cut)));
        let mut service = CompressLayer::fixed(config).layer(upstream.service());
        let (data, _) = run(async {
            let response = call(&mut service, accepting(compression.coding().token())).await.unwrap();
            read(response.into_body()).await.unwrap()
        });
        prop_assert_eq!(plain(compression.coding(), &data), frames.concat());
    }

    #[test]
    fn model_what_was_compressed_is_read(which in 0usize..3, frames in frames(), cut in 1usize..9_000) {
        let coding = ALL[which].coding();
        let whole = frames.concat();
        let data = coded(coding, &whole);
        let mut config = DecompressConfig::new(coding);
        config.expansion = Expansion { max_inflate_ratio: 2_000, ..Expansion::default() };
        let upstream = Upstream::new();
        let reply = Reply::status(200).header("content-encoding", coding.token());
        upstream.reply(reply.body(body(&[data], cut)));
        let mut service = DecompressLayer::fixed(config).layer(upstream.service());
        let (data, _) = run(async {
            let request = http::Request::get("http://a/").body(Body::empty()).unwrap();
            let response = call(&mut service, request).await.unwrap();
            read(response.into_body()).await.unwrap()
        });
        prop_assert_eq!(data, whole);
    }

    #[test]
    fn model_garbage_never_panics(which in 0usize..3, data in prop::collection::vec(any::<u8>(), 0..2_000), cut in 1usize..500) {
        let coding = ALL[which].coding();
        let upstream = Upstream::new();
        let reply = Reply::status(200).header("content-encoding", coding.token());
        upstream.reply(reply.body(body(&[data], cut)));
        let config = DecompressConfig::new(coding);
        let mut service = DecompressLayer::fixed(config).layer(upstream.service());
        run(async {
            let request = http::Request::get("http://a/").body(Body::empty()).unwrap();
            let response = call(&mut service, request).await.unwrap();
            let _ = read(response.into_body()).await;
        });
    }
}
