use mesh_compress::{
    Coding, CompressConfig, CompressLayer, Compression, DecompressConfig, DecompressLayer,
};
use mesh_core::BoxHttpService;
use mesh_testkit::{Laws, Upstream};
use tower_layer::Layer;

#[tokio::test(start_paused = true)]
async fn a_compressor_is_a_good_service_for_those_who_want_none() {
    let layer = CompressLayer::fixed(CompressConfig::new(Compression::gzip(6)));
    Laws::new(move |upstream| layer.layer(upstream))
        .check()
        .await;
}

#[tokio::test(start_paused = true)]
async fn a_decompressor_is_a_good_service_for_those_who_need_none() {
    let layer = DecompressLayer::fixed(DecompressConfig::new(Coding::Gzip));
    Laws::new(move |upstream| layer.layer(upstream))
        .check()
        .await;
}

#[test]
fn layers_and_services_go_where_tower_users_put_them() {
    fn sendable<T: Send + Sync + Clone + 'static>(_: &T) {}
    let compress = CompressLayer::fixed(CompressConfig::new(Compression::zstd(3)));
    let decompress = DecompressLayer::fixed(DecompressConfig::new(Coding::Zstd));
    sendable(&compress);
    sendable(&decompress);
    let service = compress.layer(decompress.layer(Upstream::new().service()));
    sendable(&service);
    let _boxed = BoxHttpService::new(service);
}
