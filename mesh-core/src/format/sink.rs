use std::fmt::Write as _;

/// Where values go: a `String` escapes what could forge a line, a `Vec<u8>` takes bytes as they are.
pub trait Sink {
    /// Appends text that this process made.
    fn trusted(&mut self, text: &str);

    /// Appends bytes that a peer sent.
    fn untrusted(&mut self, bytes: &[u8]);
}

impl Sink for Vec<u8> {
    fn trusted(&mut self, text: &str) {
        self.extend_from_slice(text.as_bytes());
    }

    fn untrusted(&mut self, bytes: &[u8]) {
        self.extend_from_slice(bytes);
    }
}

impl Sink for String {
    fn trusted(&mut self, text: &str) {
        self.push_str(text);
    }

    fn untrusted(&mut self, bytes: &[u8]) {
        match std::str::from_utf8(bytes) {
            Ok(text) if is_printable(bytes) => self.push_str(text),
            _ => escape(self, bytes),
        }
    }
}

/// Text that will be quoted: only what is not UTF-8 is escaped.
pub(super) struct Raw<'a>(pub(super) &'a mut String);

impl Sink for Raw<'_> {
    fn trusted(&mut self, text: &str) {
        self.0.push_str(text);
    }

    fn untrusted(&mut self, bytes: &[u8]) {
        for chunk in bytes.utf8_chunks() {
            self.0.push_str(chunk.valid());
            escape_bytes(self.0, chunk.invalid());
        }
    }
}

/// ASCII without control characters. Looks at all bytes, which is faster than looking for the first.
fn is_printable(bytes: &[u8]) -> bool {
    let odd = |byte: &u8| u8::from(!matches!(byte, b' '..=b'~'));
    bytes.iter().fold(0, |any, byte| any | odd(byte)) == 0
}

/// The slow way: control characters (C0, DEL, C1) and broken UTF-8 as `\x0a`, byte by byte.
fn escape(out: &mut String, bytes: &[u8]) {
    for chunk in bytes.utf8_chunks() {
        for c in chunk.valid().chars() {
            if c.is_control() {
                let mut utf8 = [0; 4];
                escape_bytes(out, c.encode_utf8(&mut utf8).as_bytes());
            } else {
                out.push(c);
            }
        }
        escape_bytes(out, chunk.invalid());
    }
}

fn escape_bytes(out: &mut String, bytes: &[u8]) {
    for byte in bytes {
        // Writing to a string cannot fail.
        let _ = write!(out, "\\x{byte:02x}");
    }
}

/// Lets `write!` append to any sink text that this process made.
pub(super) struct Trusted<'a, S>(pub(super) &'a mut S);

impl<S: Sink> std::fmt::Write for Trusted<'_, S> {
    fn write_str(&mut self, text: &str) -> std::fmt::Result {
        self.0.trusted(text);
        Ok(())
    }
}
