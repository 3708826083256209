mesh_core::stats! {
    /// What a direction counts, as `…<coding>.request.<name>` or `…<coding>.response.<name>`.
    pub struct CodingStats {
        /// Messages that were compressed.
        counter compressed,
        /// Messages that were left alone.
        counter not_compressed,
        /// Bytes before.
        counter total_uncompressed_bytes,
        /// Bytes behind.
        counter total_compressed_bytes,
        /// Messages that were too short.
        counter content_length_too_small,
    }
}

mesh_core::stats! {
    /// What became of `accept-encoding`, as `…<coding>.response.<name>`.
    pub struct AcceptStats {
        /// Requests without the header.
        counter no_accept_header,
        /// Clients that prefer the body as it is.
        counter header_identity,
        /// This coding was chosen.
        counter header_compressor_used,
        /// Another one was chosen.
        counter header_compressor_overshadowed,
        /// Clients that take anything got this coding.
        counter header_wildcard,
        /// Clients that take nothing that there is.
        counter header_not_valid,
        /// Answers that were left alone for their `etag`.
        counter not_compressed_etag,
    }
}

mesh_core::stats! {
    /// What a decompressor counts in one direction, as `…<coding>.decompressor.request.<name>` or
    /// `….response.<name>`.
    pub struct DecompressStats {
        /// Messages that were decompressed.
        counter decompressed,
        /// Messages that were not.
        counter not_decompressed,
        /// Bytes behind.
        counter total_uncompressed_bytes,
        /// Bytes before.
        counter total_compressed_bytes,
        /// Messages that grew too far.
        counter expanded_too_far,
        /// Messages that were not what they said.
        counter malformed,
    }
}
