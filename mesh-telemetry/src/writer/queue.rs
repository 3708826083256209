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

#[cfg(test)]
mod tests {
    use super::{Buffer, Queue};

    fn queue(text: &str, written: usize) -> Queue {
        let mut queue = Queue::new(1000);
        let mut buffer = Buffer::default();
        buffer.append(|out| out.push_str(text));
        assert!(queue.push(&mut buffer));
        let mut chunk = queue.pop().unwrap();
        chunk.written = written;
        queue.unpop(chunk);
        queue
    }

    #[test]
    fn what_is_left_of_a_cut_line_is_skipped_and_whole_lines_are_not() {
        for (written, skipped, rest) in [
            (0, 0, "one\ntwo\n"),
            (2, 1, "two\n"),
            (4, 0, "two\n"),
            (5, 1, ""),
        ] {
            let mut queue = queue("one\ntwo\n", written);
            assert_eq!(queue.skip_torn_line(), skipped, "{written}");
            assert_eq!(queue.pop().unwrap().rest(), rest.as_bytes(), "{written}");
        }
        assert_eq!(Queue::new(0).skip_torn_line(), 0);
    }

    #[test]
    fn bytes_count_until_they_are_done_and_the_bound_refuses_without_loss() {
        let mut queue = queue(&"x".repeat(900), 0);
        let mut buffer = Buffer::default();
        buffer.append(|out| out.push_str(&"y".repeat(101)));
        assert!(!queue.push(&mut buffer));
        assert_eq!((buffer.text.len(), buffer.lines), (101, 1));
        let chunk = queue.pop().unwrap();
        assert!(!queue.push(&mut buffer));
        queue.done(chunk);
        assert_eq!(queue.bytes(), 0);
        assert!(queue.push(&mut buffer));
        assert_eq!((queue.bytes(), buffer.text.len()), (101, 0));
    }
}
