use std::fmt::Write as _;

/// One line of an event log: a JSON object whose fields are written in order.
///
/// ```
/// let mut line = mesh_core::EventLine::default();
/// line.text("cluster_name", "a \"b\"").object("event", |event| {
///     event.flag("first_check", true).number("code", 503);
/// });
/// assert_eq!(
///     line.finish(),
///     r#"{"cluster_name":"a \"b\"","event":{"first_check":true,"code":503}}"#
/// );
/// ```
#[derive(Debug, Default)]
pub struct EventLine(String);

impl EventLine {
    /// A text, escaped.
    pub fn text(&mut self, key: &str, value: &str) -> &mut Self {
        self.key(key);
        self.0.push('"');
        for c in value.chars() {
            match c {
                '"' => self.0.push_str("\\\""),
                '\\' => self.0.push_str("\\\\"),
                c if c < ' ' => self.print(format_args!("\\u{:04x}", u32::from(c))),
                c => self.0.push(c),
            }
        }
        self.0.push('"');
        self
    }

    /// A number.
    pub fn number(&mut self, key: &str, value: u64) -> &mut Self {
        self.key(key);
        self.print(format_args!("{value}"));
        self
    }

    /// A truth.
    pub fn flag(&mut self, key: &str, value: bool) -> &mut Self {
        self.key(key);
        self.print(format_args!("{value}"));
        self
    }

    /// An object, with the fields that `fields` writes.
    pub fn object(&mut self, key: &str, fields: impl FnOnce(&mut Self)) -> &mut Self {
        self.key(key);
        self.0.push('{');
        fields(self);
        self.0.push('}');
        self
    }

    /// The line, without a line feed.
    #[must_use]
    pub fn finish(mut self) -> String {
        if self.0.is_empty() {
            self.0.push('{');
        }
        self.0.push('}');
        self.0
    }

    /// Our own names: they need no escape.
    fn key(&mut self, key: &str) {
        match self.0.as_bytes().last() {
            None => self.0.push('{'),
            Some(b'{') => {}
            Some(_) => self.0.push(','),
        }
        self.print(format_args!("\"{key}\":"));
    }

    fn print(&mut self, text: std::fmt::Arguments<'_>) {
        // Writing to a string cannot fail.
        let _ = self.0.write_fmt(text);
    }
}
