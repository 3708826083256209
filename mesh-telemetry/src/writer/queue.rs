//! What waits to be written to one file.

use std::collections::VecDeque;

use super::buffer::Buffer;

/// How many emptied buffers are kept for reuse; further ones are freed.
const SPARE_MAX: usize = 8;

/// Whole lines, of which the first `written` bytes are in the file already.
#[derive(Debug, Default)]
pub(super) struct Chunk {
    pub(super) buffer: Buffer,
    pub(super) written: usize,
}

impl Chunk {
    pub(super) fn rest(&self) -> &[u8] {
        &self.buffer.text.as_bytes()[self.written..]
    }
}

/// Chunks in order, bounded by their bytes.
#[derive(Debug)]
pub(super) struct Queue {
    chunks: VecDeque<Chunk>,
    /// Of all chunks that were pushed and neither written nor given up, the one being written included.
    bytes: usize,
    bytes_max: usize,
    spare: Vec<String>,
}

impl Queue {
    pub(super) fn new(bytes_max: usize) -> Self {
        Self {
            chunks: VecDeque::new(),
            bytes: 0,
            bytes_max,
            spare: Vec::new(),
        }
    }

    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Takes everything out of `buffer` and leaves an empty one in its place. When that would be more
    /// than the bound, nothing changes; an empty queue takes one buffer of any size, or a line longer
    /// than the bound would block its thread's log for ever.
    pub(super) fn push(&mut self, buffer: &mut Buffer) -> bool {
        let bytes = buffer.text.len();
        if self.bytes > 0 && self.bytes + bytes > self.bytes_max {
            return false;
        }
        self.bytes += bytes;
        let empty = Buffer {
            text: self.spare.pop().unwrap_or_default(),
            lines: 0,
        };
        self.chunks.push_back(Chunk {
            buffer: std::mem::replace(buffer, empty),
            written: 0,
        });
        true
    }

    /// The next chunk to write; its bytes still count.
    pub(super) fn pop(&mut self) -> Option<Chunk> {
        self.chunks.pop_front()
    }

    /// Puts back a chunk that could not be written, or not all of it.
    pub(super) fn unpop(&mut self, chunk: Chunk) {
        self.chunks.push_front(chunk);
    }

    /// Skips the rest of a line of which only the beginning was written; says how many lines that was.
    pub(super) fn skip_torn_line(&mut self) -> u64 {
        let Some(chunk) = self.chunks.front_mut() else {
            return 0;
        };
        let (before, rest) = chunk.buffer.text.as_bytes().split_at(chunk.written);
        if before.last().is_none_or(|&byte| byte == b'\n') {
            return 0;
        }
        let end = rest.iter().position(|&byte| byte == b'\n');
        chunk.written += end.map_or(rest.len(), |end| end + 1);
        1
    }

    /// A chunk is written, or given up: its bytes no longer count and its memory is used again.
    pub(super) fn done(&mut self, mut chunk: Chunk) {
        self.bytes -= chunk.buffer.text.len();
        if self.spare.len() < SPARE_MAX && chunk.buffer.text.capacity() <= 4 * super::CHUNK_BYTES {
            chunk.buffer.text.clear();
            self.spare.push(chunk.buffer.text);
        }
    }
}
