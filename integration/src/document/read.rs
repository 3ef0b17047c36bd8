//! Reads documents from outside: what PostgreSQL or a later reader could not hold is refused here, each with its code.

use backstitch_saga::{Payload, Violation};

use super::{Number, Object, Value};

/// The most characters of one number.
pub const LONGEST_NUMBER: usize = 1_000;
/// The deepest nesting that is built, also of texts that were not checked.
const DEEPEST: usize = 128;

/// Reads a document of at most `limit` bytes, and returns it as the bytes that came and as a value.
///
/// # Errors
/// The first thing that is wrong: `payload_too_large`, `invalid_json` (also for bytes that are not UTF-8 and for a byte
/// order mark), `nesting_too_deep` (more than 64 deep), `nul_character`, `lone_surrogate`, `number_out_of_range` (of a
/// double-precision float, to either side, or longer than 1,000 characters) or `duplicate_key`.
pub fn read(bytes: &[u8], limit: usize) -> Result<(Payload, Value), Violation> {
    // Before the bytes are read, so that the refusal of a large document costs nothing.
    if bytes.len() > limit {
        let message = format!("the document has {} bytes; {limit} are allowed", bytes.len());
        return Err(Violation::new("", "payload_too_large", message));
    }
    if bytes.starts_with(b"\xef\xbb\xbf") {
        let message = "the document begins with a byte order mark; send it without";
        return Err(Violation::new("", "invalid_json", message));
    }
    let text = std::str::from_utf8(bytes).map_err(|error| {
        let message =
            format!("not UTF-8 from byte {} on; send the document as UTF-8", error.valid_up_to());
        Violation::new("", "invalid_json", message)
    })?;
    let payload = Payload::parse(text, limit)?;
    let value = value_of(&payload)?;
    Ok((payload, value))
}

/// Builds the value of a document that was read before.
///
/// # Errors
/// `number_out_of_range`, and the other codes of [`read`] for a text that was not checked.
pub fn value_of(payload: &Payload) -> Result<Value, Violation> {
    let mut builder = Builder { text: payload.text(), at: 0, path: Vec::new() };
    builder.value(0)
}

/// Builds values from text that is known to be well-formed.
struct Builder<'a> {
    text: &'a str,
    at: usize,
    /// The way to the value that is being built, for messages.
    path: Vec<String>,
}

impl Builder<'_> {
    fn peek(&mut self) -> Option<u8> {
        let bytes = self.text.as_bytes();
        while let Some(b' ' | b'\n' | b'\r' | b'\t') = bytes.get(self.at) {
            self.at += 1;
        }
        bytes.get(self.at).copied()
    }

    fn value(&mut self, depth: usize) -> Result<Value, Violation> {
        if depth > DEEPEST {
            let message = format!("objects and lists may be nested {DEEPEST} deep");
            return Err(self.wrong("nesting_too_deep", &message));
        }
        match self.peek() {
            Some(b'{') => self.object(depth),
            Some(b'[') => self.array(depth),
            Some(b'"') => self.string().map(Value::String),
            Some(b't') => self.word("true", Value::Bool(true)),
            Some(b'f') => self.word("false", Value::Bool(false)),
            Some(b'n') => self.word("null", Value::Null),
            Some(_) => self.number(),
            None => Err(self.wrong("invalid_json", "the document ends too early")),
        }
    }

    fn word(&mut self, word: &str, value: Value) -> Result<Value, Violation> {
        self.at += word.len();
        Ok(value)
    }

    fn object(&mut self, depth: usize) -> Result<Value, Violation> {
        let mut members = Object::new();
        self.at += 1;
        while self.peek() == Some(b'"') {
            let key = self.string()?;
            if self.peek() == Some(b':') {
                self.at += 1;
            }
            self.path.push(key);
            let value = self.value(depth + 1)?;
            members.insert(self.path.pop().unwrap_or_default(), value);
            if self.peek() == Some(b',') {
                self.at += 1;
            }
        }
        self.at += 1;
        Ok(Value::Object(members))
    }

    fn array(&mut self, depth: usize) -> Result<Value, Violation> {
        let mut elements = Vec::new();
        self.at += 1;
        while !matches!(self.peek(), Some(b']') | None) {
            self.path.push(elements.len().to_string());
            elements.push(self.value(depth + 1)?);
            self.path.pop();
            if self.peek() == Some(b',') {
                self.at += 1;
            }
        }
        self.at += 1;
        Ok(Value::Array(elements))
    }

    fn string(&mut self) -> Result<String, Violation> {
        let bytes = self.text.as_bytes();
        let start = self.at;
        let mut end = start + 1;
        let mut escaped = false;
        while let Some(byte) = bytes.get(end) {
            match byte {
                b'"' => break,
                b'\\' => {
                    escaped = true;
                    end += 2;
                }
                _ => end += 1,
            }
        }
        self.at = end + 1;
        if !escaped {
            return Ok(self.text.get(start + 1..end).unwrap_or_default().to_owned());
        }
        let literal = self.text.get(start..=end).unwrap_or_default();
        serde_json::from_str(literal)
            .map_err(|_| self.wrong("lone_surrogate", "half of a surrogate pair is no character"))
    }

    fn number(&mut self) -> Result<Value, Violation> {
        let bytes = self.text.as_bytes();
        let start = self.at;
        while let Some(b'0'..=b'9' | b'-' | b'+' | b'.' | b'e' | b'E') = bytes.get(self.at) {
            self.at += 1;
        }
        let text = self.text.get(start..self.at).unwrap_or_default();
        if text.len() > LONGEST_NUMBER {
            let message =
                format!("a number has at most {LONGEST_NUMBER} characters; send a string");
            return Err(self.wrong("number_out_of_range", &message));
        }
        let Some(number) = Number::parse(text) else {
            return Err(self.wrong("invalid_json", "not a number by the grammar of JSON"));
        };
        // A number that is not zero, but reads as zero, would be silently changed by the next
        // reader.
        if text.len() > 20 || text.contains(['e', 'E']) {
            let float = text.parse::<f64>().unwrap_or(f64::INFINITY);
            if !float.is_finite() || (float == 0.0 && number != Number::from(0)) {
                let message =
                    "the number leaves the range of a double-precision float; send it as a string";
                return Err(self.wrong("number_out_of_range", message));
            }
        }
        Ok(Value::Number(number))
    }

    fn wrong(&self, code: &str, message: &str) -> Violation {
        let pointer: String = self
            .path
            .iter()
            .map(|token| format!("/{}", token.replace('~', "~0").replace('/', "~1")))
            .collect();
        Violation::new(pointer, code, message)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn code(bytes: &[u8]) -> String {
        read(bytes, 1_000_000).expect_err("this is refused").code
    }

    #[test]
    fn a_document_that_a_reader_could_not_hold_is_refused_with_its_code() {
        let deep = |levels: usize| format!("{}{}", "[".repeat(levels), "]".repeat(levels));
        let objects = format!("{}1{}", r#"{"a":"#.repeat(20_000), "}".repeat(20_000));
        for (text, expected) in [
            (r#"{"a":"\u0000"}"#.to_owned(), "nul_character"),
            (r#"{"\u0000":1}"#.to_owned(), "nul_character"),
            (r#"{"a":"\ud800"}"#.to_owned(), "lone_surrogate"),
            (r#"{"a":"\udc00\ud800"}"#.to_owned(), "lone_surrogate"),
            ("1e1000000".to_owned(), "number_out_of_range"),
            ("[1e-1000000]".to_owned(), "number_out_of_range"),
            (format!("0.{}1", "0".repeat(400)), "number_out_of_range"),
            (format!("0.{}", "1".repeat(20_000)), "number_out_of_range"),
            (deep(20_000), "nesting_too_deep"),
            (deep(65), "nesting_too_deep"),
            (objects, "nesting_too_deep"),
            ("[".repeat(900_000), "invalid_json"),
            (r#"{"a":1,"\u0061":2}"#.to_owned(), "duplicate_key"),
            (r#"{"a":{"b":1,"b":1}}"#.to_owned(), "duplicate_key"),
            ("\u{feff}{}".to_owned(), "invalid_json"),
            ("{}{}".to_owned(), "invalid_json"),
            ("{'a':1}".to_owned(), "invalid_json"),
            ("[1,]".to_owned(), "invalid_json"),
            ("01".to_owned(), "invalid_json"),
            ("NaN".to_owned(), "invalid_json"),
            ("\"\n\"".to_owned(), "invalid_json"),
            (String::new(), "invalid_json"),
        ] {
            let shown: String = text.chars().take(40).collect();
            assert_eq!(code(text.as_bytes()), expected, "{shown}");
        }
        assert_eq!(code(b"\"\xff\""), "invalid_json");
        assert_eq!(code(b"\"\xed\xa0\x80\""), "invalid_json");
        assert_eq!(read(b"[1,2,3]", 6).unwrap_err().code, "payload_too_large");
    }

    #[test]
    fn what_is_wrong_is_pointed_at() {
        let wrong = read(br#"{"a/b":[0,{"c":1e-999}]}"#, 100).unwrap_err();
        assert_eq!(wrong.pointer, "/a~1b/1/c");
    }

    #[test]
    fn numbers_and_strings_stay_as_they_came() {
        let text =
            r#" {"n":12345678901234567890.10,"s":"é\u00e9\"","l":[0e0,-0,null,true,false,{}]} "#;
        let (payload, value) = read(text.as_bytes(), 1_000).unwrap();
        assert_eq!(payload.text(), text.trim());
        assert_eq!(
            value.to_json(),
            r#"{"l":[0e0,-0,null,true,false,{}],"n":12345678901234567890.10,"s":"éé\""}"#
        );
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn no_bytes_make_the_reader_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = read(&bytes, 150);
        }

        #[test]
        fn no_text_of_json_pieces_makes_the_reader_panic(
            pieces in proptest::collection::vec(
                prop::sample::select(vec!["{", "}", "[", "]", "\"", "\\", "u0000", "\\ud800", ":", ",", "1", "e", "-", ".", "true", "nul", " ", "é", "\"a\""]),
                0..60,
            ),
        ) {
            let text = pieces.concat();
            if let Ok((_, value)) = read(text.as_bytes(), 10_000) {
                let again = read(value.to_json().as_bytes(), 10_000).expect("what is written is read");
                prop_assert_eq!(again.1, value);
            }
        }
    }
}
